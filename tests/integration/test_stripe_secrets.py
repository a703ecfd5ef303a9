"""Can a secret or a card number come out of the Stripe gateway anywhere but in the header Authorization?"""

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from deploy.local.doubles.stripe import Misbehaviour, StripeDouble
from services.payment_service.domain.answers import Declined, Unanswered
from services.payment_service.domain.attempts import Attempt, Notice
from services.payment_service.gateways.stripe import Stripe, StripeOptions
from shared.errors import Malformed
from tests.stripe_building import a_gateway, a_refund, an_attempt, dispute, event, intent, session, signed

KEY = "sk_live_PLANTEDKEYabcdefghijklmnop"
HOOK = "whsec_PLANTEDHOOKabcdefghijklmnop"
CARDS = ("4242424242424242", "4242 4242 4242 4242", "4242-4242-4242-4242")
PLANTED = (KEY, "PLANTED", HOOK, *CARDS)


def a_poisoned(value: str) -> dict[str, Any]:
    """Return an error of Stripe's that repeats what must not be repeated, in every field that it has."""
    fields = ("message", "code", "decline_code", "param", "doc_url", "request_log_url", "charge")
    return {"error": {"type": "invalid_request_error", **dict.fromkeys(fields, value)}}


def assert_clean(*said: object) -> None:
    """Fail if anything planted stands in what was said."""
    whole = "\n".join(f"{item!r} {item}" for item in said)
    assert not [planted for planted in PLANTED if planted in whole], whole


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """What is logged by whatever library, down to its debugging lines."""
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        structlog.get_logger().debug("started")
        yield logs
    assert_clean(logs, caplog.text)


async def ask_everything(gateway: Stripe, attempt: Attempt) -> list[object]:
    """Return all that the gateway answers about an attempt."""
    named = Notice("x", alias="pi_1")
    return [
        await gateway.create(attempt),
        await gateway.ask(attempt),
        await gateway.cancel(attempt),
        await gateway.refund(a_refund(attempt), attempt),
        await gateway.identify(named),
    ]


@pytest.mark.parametrize("status", [200, 400, 401, 402, 404, 409, 429, 500])
@pytest.mark.parametrize("planted", PLANTED)
async def test_no_answer_repeats_what_stripe_repeats(
    everything_logged: list[Any], status: int, planted: str
) -> None:
    """Whatever an error says, only Stripe's own words for it are kept."""
    body = orjson.dumps(a_poisoned(planted))
    async with StripeDouble(KEY, [HOOK]) as double, a_gateway(double.url, secret_key=KEY) as gateway:
        double.misbehave(Misbehaviour(status=status, body=body), times=100)
        answers = await ask_everything(gateway, an_attempt(gateway_transaction_id="cs_1"))
        answers += await ask_everything(gateway, an_attempt())

    assert any(isinstance(answer, Declined | Unanswered) for answer in answers)
    assert_clean(*answers)


@pytest.mark.parametrize(
    "misbehaviour",
    [Misbehaviour(is_lost=True), Misbehaviour(wait_seconds=60), Misbehaviour(status=302, body=KEY.encode())],
    ids=["lost", "slow", "elsewhere"],
)
async def test_no_silence_repeats_the_key(everything_logged: list[Any], misbehaviour: Misbehaviour) -> None:
    """The errors of the network are told by their kind alone."""
    async with (
        StripeDouble(KEY, [HOOK]) as double,
        a_gateway(double.url, secret_key=KEY, timeout_seconds=0.2) as gateway,
    ):
        double.misbehave(misbehaviour, times=100)
        answers = await ask_everything(gateway, an_attempt())

    assert all(isinstance(answer, Unanswered) for answer in answers)
    assert_clean(*answers)


@pytest.mark.parametrize("secret_key", [f"{KEY}\r\nX-Evil: 1", f"{KEY}\0", f"{KEY}é\udcff"], ids=ascii)
async def test_a_key_that_no_header_can_carry_is_not_repeated(
    everything_logged: list[Any], secret_key: str
) -> None:
    """It is a mistake of whoever set it, and shows as silence."""
    async with StripeDouble(KEY, [HOOK]) as double, a_gateway(double.url, secret_key=secret_key) as gateway:
        answers = await ask_everything(gateway, an_attempt())

    assert all(isinstance(answer, Unanswered) for answer in answers), answers
    assert_clean(*answers)


async def test_the_key_is_in_one_header_and_nowhere_else(everything_logged: list[Any]) -> None:
    """Not in addresses, forms or other headers, and not where Stripe points elsewhere."""
    async with StripeDouble(KEY, [HOOK]) as double, a_gateway(double.url, secret_key=KEY) as gateway:
        attempt = an_attempt()
        await gateway.create(attempt)
        double.pay(next(iter(double.sessions)))
        answers = await ask_everything(gateway, attempt)

    headers = dict(double.headers)
    assert headers.pop("Authorization") == f"Bearer {KEY}"
    assert_clean(headers, double.calls, *answers)


def test_neither_options_nor_gateway_show_their_secrets() -> None:
    """They may stand in a traceback with its local variables."""
    options = StripeOptions(KEY, [HOOK])

    assert_clean(options, Stripe(options), vars(Stripe(StripeOptions(KEY, [])))["_calls"])


@pytest.mark.parametrize("planted", CARDS)
def test_no_webhook_makes_a_notice_of_a_card_number(planted: str) -> None:
    """What is stored in words of its own, beside the raw delivery, holds none."""
    attempt = an_attempt()
    gateway = a_gateway()
    error = dict.fromkeys(("code", "decline_code", "message"), planted)

    notices = [
        gateway.read(event("payment_intent.payment_failed", intent(attempt, last_payment_error=error))),
        gateway.read(event("payment_intent.canceled", intent(attempt, cancellation_reason=planted))),
        gateway.read(event("checkout.session.completed", session(attempt, payment_status=planted))),
        gateway.read(event("charge.dispute.created", dispute(attempt, reason=planted, status=planted))),
    ]

    assert_clean(*notices)


@pytest.mark.parametrize("planted", CARDS)
def test_no_refusal_of_a_webhook_repeats_anything(planted: str) -> None:
    """Neither the error nor what it was raised from says what was sent, or what the secret is."""
    gateway = a_gateway(webhook_secrets=[HOOK])
    attempt = an_attempt()
    bodies = [
        event("checkout.session.completed", session(attempt, id=planted * 100)),
        event("checkout.session.completed", session(attempt, currency=planted)),
        event("checkout.session.completed", session(attempt, amount_total=planted)),
        event("refund.failed", {"amount": planted, "currency": planted}),
    ]

    said = []
    for body in bodies:
        for headers in ({"stripe-signature": planted}, signed(body, secret=planted)):
            with pytest.raises(Malformed) as refused:
                gateway.verify(headers, body)
            said.append("".join(traceback.format_exception(refused.value)))
        with pytest.raises(Malformed) as unread:
            gateway.read(body)
        said.append("".join(traceback.format_exception(unread.value)))

    assert_clean(*said)


async def test_the_test_can_fail() -> None:
    """What is planted is really there: an error of Stripe's, as it comes, is not clean."""
    async with StripeDouble(KEY, [HOOK]) as double, aiohttp.ClientSession() as client:
        double.misbehave(Misbehaviour(status=400, body=orjson.dumps(a_poisoned(KEY))))
        async with client.get(f"{double.url}/v1/refunds") as response:
            said = await response.text()

    with pytest.raises(AssertionError):
        assert_clean(said)
