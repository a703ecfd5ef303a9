"""Is what Stripe does not say for certain taken for what it is: no answer?"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from deploy.local.doubles.stripe import Misbehaviour, StripeDouble
from services.payment_service.domain.answers import Created, Declined, Unanswered
from services.payment_service.gateways.stripe import Stripe
from tests.integration.stripe_harness import wrong
from tests.stripe_building import (
    SECRET_KEY,
    WEBHOOK_SECRET,
    a_gateway,
    a_refund,
    an_attempt,
)
from tests.waiting import eventually


@pytest.fixture
async def double() -> AsyncIterator[StripeDouble]:
    """Stripe, as documented."""
    async with StripeDouble(SECRET_KEY, [WEBHOOK_SECRET]) as double:
        yield double


@pytest.fixture
async def gateway(double: StripeDouble) -> AsyncIterator[Stripe]:
    """The gateway, with its connections."""
    async with a_gateway(double.url, timeout_seconds=5.0) as gateway:
        yield gateway


UNCERTAIN = [
    wrong(400, "idempotency_error"),
    wrong(401, "invalid_request_error"),
    wrong(403, "invalid_request_error"),
    wrong(404, "invalid_request_error"),
    wrong(409, "idempotency_error", code="idempotency_key_in_use"),
    wrong(424),
    wrong(429, "invalid_request_error", code="rate_limit"),
    wrong(500),
    wrong(502),
    wrong(503),
    Misbehaviour(status=400, body=b"<html>a proxy's</html>"),
    Misbehaviour(status=400, body=b"{}"),
    Misbehaviour(status=402, body=b'{"error": []}'),
    Misbehaviour(status=302, body=b"{}"),
    Misbehaviour(status=200, body=b""),
    Misbehaviour(status=200, body=b"[]"),
    Misbehaviour(status=200, body=b"{}"),
    Misbehaviour(status=200, body=b'{"object": "list", "data": [7]}'),
    Misbehaviour(status=200, body=b" " * 3_000_000),
    Misbehaviour(is_lost=True),
    Misbehaviour(wait_seconds=60),
]


@pytest.mark.parametrize("misbehaviour", UNCERTAIN, ids=lambda m: f"{m.status}-{m.body[:40]!r}")
async def test_what_is_not_certain_is_unanswered(double: StripeDouble, misbehaviour: Misbehaviour) -> None:
    """No answer in time, one that another try may change, or one that is not Stripe's: never a failure."""
    attempt = an_attempt()
    async with a_gateway(double.url, timeout_seconds=0.5) as gateway:
        double.misbehave(misbehaviour, times=100)
        answers = [
            await gateway.create(attempt),
            await gateway.ask(attempt),
            await gateway.cancel(attempt),
            await gateway.refund(a_refund(attempt), attempt),
        ]

    assert all(isinstance(answer, Unanswered) for answer in answers), answers


@pytest.mark.parametrize(
    ("misbehaviour", "detail"),
    [
        (
            wrong(400, "invalid_request_error", code="amount_too_small", param="line_items[0][price_data]"),
            "answered with 400: invalid_request_error, amount_too_small, line_items[0][price_data]",
        ),
        (
            wrong(402, "card_error", code="card_declined", decline_code="do_not_honor"),
            "answered with 402: card_error, card_declined, do_not_honor",
        ),
    ],
)
async def test_a_refusal_that_is_certain_is_declined(
    gateway: Stripe, double: StripeDouble, misbehaviour: Misbehaviour, detail: str
) -> None:
    """The request was understood; the detail is Stripe's words for what is wrong."""
    double.misbehave(misbehaviour)

    assert await gateway.create(an_attempt()) == Declined(detail)


async def test_a_gateway_that_nobody_listens_to_or_that_is_closed_is_unanswered(double: StripeDouble) -> None:
    """Neither is an exception."""
    gateway = a_gateway(double.url)
    async with a_gateway("http://127.0.0.1:1") as away:
        answers = [await away.create(an_attempt()), await gateway.create(an_attempt())]

    assert answers == [Unanswered("no answer: ClientConnectorError"), Unanswered("the gateway is closed")]


async def test_one_slow_answer_holds_up_nobody_else(gateway: Stripe, double: StripeDouble) -> None:
    """Calls are under way together."""
    double.misbehave(Misbehaviour(wait_seconds=30))
    slow = asyncio.create_task(gateway.create(an_attempt()))
    await eventually(lambda: double.calls)

    others = await asyncio.gather(*(gateway.create(an_attempt()) for _ in range(20)))

    assert all(isinstance(answer, Created) for answer in others)
    assert not slow.done()
    slow.cancel()
