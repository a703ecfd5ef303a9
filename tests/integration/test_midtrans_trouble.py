"""What does the gateway make of a Midtrans that is away, slow, confused or hostile, and does it keep its secrets?"""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest

from deploy.local.doubles.midtrans import MidtransDouble, Misbehaviour
from services.payment_service.domain.answers import Declined, Unanswered
from services.payment_service.domain.attempts import Attempt
from services.payment_service.gateways.midtrans import Midtrans, MidtransOptions
from shared.errors import Malformed
from tests.integration.midtrans_harness import midtrans, opened
from tests.midtrans_building import (
    SERVER_KEY,
    a_document,
    a_rupiah_attempt,
    a_rupiah_refund,
    signed,
)

CARD = "4811 1111 1111 1114"
TOKEN = base64.b64encode(f"{SERVER_KEY}:".encode()).decode()

Asking = Callable[[Midtrans, Attempt], Coroutine[Any, Any, Any]]
ASKING: dict[str, Asking] = {
    "create": lambda gateway, _: gateway.create(a_rupiah_attempt()),
    "ask": lambda gateway, attempt: gateway.ask(attempt),
    "cancel": lambda gateway, attempt: gateway.cancel(attempt),
    "refund": lambda gateway, attempt: gateway.refund(a_rupiah_refund(attempt), attempt),
}

TROUBLE = {
    "429": Misbehaviour(status=429, body=b'{"status_code": "429", "status_message": "rate limit"}'),
    "429 inside": Misbehaviour(status=200, body=b'{"status_code": "429", "status_message": "rate limit"}'),
    "500": Misbehaviour(status=500, body=b'{"error_messages": ["internal server error"]}'),
    "500 inside": Misbehaviour(status=200, body=b'{"status_code": "500"}'),
    "503": Misbehaviour(status=503, body=b"<html>"),
    "empty": Misbehaviour(status=200),
    "no JSON": Misbehaviour(status=200, body=b"<html>"),
    "a list": Misbehaviour(status=200, body=b"[]"),
    "nothing known": Misbehaviour(status=200, body=b"{}"),
    "no code": Misbehaviour(status=200, body=b'{"status_code": "two hundred"}'),
    "no text": Misbehaviour(status=200, body=b'{"status_code": 200}'),
    "half a page": Misbehaviour(status=201, body=b'{"token": "x"}'),
    "no address": Misbehaviour(status=201, body=b'{"token": "x", "redirect_url": "javascript:alert(1)"}'),
    "half a state": Misbehaviour(
        status=200, body=b'{"status_code": "200", "transaction_status": "settlement"}'
    ),
    "moved": Misbehaviour(status=302, body=b""),
    "access denied": Misbehaviour(status=401, body=b'{"status_code": "401", "status_message": "denied"}'),
    "proxy": Misbehaviour(status=400, body=b"Bad Request"),
    "too long": Misbehaviour(status=200, body=b'"' + b"x" * 3_000_000 + b'"'),
    "too late": Misbehaviour(wait_seconds=60),
    "lost": Misbehaviour(is_lost=True),
}


@asynccontextmanager
async def settled(**options: Any) -> AsyncIterator[tuple[MidtransDouble, Midtrans, Attempt]]:
    """Run the double with a payment that is settled."""
    async with midtrans(timeout_seconds=0.5, **options) as (double, gateway):
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        yield double, gateway, attempt


@asynccontextmanager
async def answering(raw: bytes) -> AsyncIterator[str]:
    """Answer every connection with the same bytes, HTTP or not."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(raw)
            await writer.drain()
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("asking", ASKING)
async def test_whatever_is_not_certain_is_unanswered(asking: str, trouble: str) -> None:
    """No silence and no nonsense is a success, a failure or an exception."""
    async with settled() as (double, gateway, attempt):
        # Twice: a question that is lost on a line used before is asked again by itself.
        double.misbehave(TROUBLE[trouble], times=2)
        answer = await ASKING[asking](gateway, attempt)

    assert isinstance(answer, Unanswered), answer


@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize(
    "raw",
    [b"", b"\0\xff" * 50, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", b"HTTP/1.1 abc\r\n\r\n"],
    ids=ascii,
)
async def test_what_is_not_http_is_unanswered(asking: str, raw: bytes) -> None:
    """Also half an answer."""
    async with answering(raw) as url, Midtrans(MidtransOptions([SERVER_KEY], url, url)) as gateway:
        answer = await ASKING[asking](gateway, a_rupiah_attempt())

    assert isinstance(answer, Unanswered), answer


@pytest.mark.parametrize("asking", ASKING)
async def test_nobody_listening_and_a_closed_gateway_are_unanswered(asking: str) -> None:
    """Both before it is opened and after it is closed."""
    gateway = Midtrans(MidtransOptions([SERVER_KEY], "http://127.0.0.1:1", "http://127.0.0.1:1"))
    answers = [await ASKING[asking](gateway, a_rupiah_attempt())]
    async with gateway:
        answers.append(await ASKING[asking](gateway, a_rupiah_attempt()))
    answers.append(await ASKING[asking](gateway, a_rupiah_attempt()))

    assert [isinstance(answer, Unanswered) for answer in answers] == [True] * 3


@pytest.mark.parametrize(
    ("asking", "body"),
    [
        ("create", {"error_messages": ["expiry duration is invalid"]}),
        ("refund", {"status_code": "412", "status_message": "cannot modify"}),
        ("refund", {"status_code": "414", "status_message": "insufficient funds"}),
    ],
)
async def test_a_certain_refusal_is_declined(asking: str, body: dict[str, Any]) -> None:
    """Midtrans's own word that it will not be done."""
    async with settled() as (double, gateway, attempt):
        if asking == "refund":
            double.misbehave(Misbehaviour())
        double.misbehave(Misbehaviour(status=400, body=orjson.dumps(body)))
        answer = await ASKING[asking](gateway, attempt)

    assert isinstance(answer, Declined), answer


# --- secrets --------------------------------------------------------------------------------------------------------


def leaks(said: object) -> list[str]:
    """Return which of the planted secrets can be read in something that came out."""
    text = f"{said!r} {said}"
    planted = (SERVER_KEY, TOKEN, CARD, CARD.replace(" ", ""), CARD.replace(" ", "-"))
    return [secret for secret in planted if secret in text]


@pytest.mark.parametrize("code", ["200", "202", "400", "401", "404", "406", "412", "500"])
@pytest.mark.parametrize("asking", ASKING)
async def test_no_planted_secret_comes_out_of_an_answer(
    asking: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever Midtrans repeats in its messages, names or fields, keys and cards are not told on or logged."""
    said = f"{SERVER_KEY} {TOKEN} {CARD} {CARD.replace(' ', '')} {CARD.replace(' ', '-')}\n\0"
    planted = {
        "status_code": code,
        "status_message": said,
        "error_messages": [said, said],
        "masked_card": CARD,
        "card_number": CARD.replace(" ", ""),
    }
    async with settled() as (double, gateway, attempt):
        ours = double.document(double.payments[str(attempt.attempt_id)])
        stated = {**ours, **planted, "status_code": ours["status_code"], "transaction_status": f"new {CARD}"}
        came = []
        for document in (planted, stated, {**ours, "order_id": CARD}, {**ours, "gross_amount": CARD}):
            double.misbehave(Misbehaviour(status=int(code), body=orjson.dumps(document)), times=2)
            came.append(await ASKING[asking](gateway, attempt))
            double.forget_misbehaviour()

    assert [leaks(answer) for answer in came] == [[]] * 4
    assert leaks(caplog.text) == []


async def test_no_planted_secret_comes_out_of_a_broken_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The errors of HTTP libraries repeat what was sent and what came."""
    raw = f"HTTP/1.1 abc {SERVER_KEY} {CARD}\r\n\r\n".encode()
    async with answering(raw) as url, Midtrans(MidtransOptions([SERVER_KEY], url, url)) as gateway:
        came = [await ask(gateway, a_rupiah_attempt()) for ask in ASKING.values()]

    assert [leaks(answer) for answer in came] == [[]] * 4
    assert leaks(caplog.text) == []


def test_no_planted_secret_comes_out_of_a_notification() -> None:
    """Neither out of what is read, nor out of what is refused, nor out of the options."""
    options = MidtransOptions([SERVER_KEY])
    gateway = Midtrans(options)
    planted = [
        signed(a_document(f"new {CARD}", masked_card=CARD)),
        signed(a_document(fraud_status=CARD)),
        signed(a_document(order_id=CARD)),
        signed(a_document(gross_amount=CARD)),
        signed(a_document(transaction_time=f"{CARD} {SERVER_KEY}")),
        signed(a_document(order_id=SERVER_KEY), "another key"),
        signed(a_document(status_code=CARD)),
    ]
    came: list[object] = [options, gateway]
    for body in planted:
        for act in (gateway.read, lambda raw: gateway.verify({}, raw)):
            try:
                came.append(act(body))
            except Malformed as error:
                came.append(error)

    # The order id of a stranger's notification is told as it is: Midtrans never has our key there.
    assert {secret for said in came for secret in leaks(said)} <= {SERVER_KEY}
    assert [said for said in came if SERVER_KEY in repr(said)] == [came[12]]
