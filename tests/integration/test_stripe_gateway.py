"""Do the payment service and Stripe understand each other? Over real HTTP, with a double that answers as documented."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from deploy.local.doubles.stripe import Misbehaviour, StripeDouble
from services.payment_service.domain.answers import Created, Declined, Unanswered
from services.payment_service.domain.attempts import AttemptStatus, Notice
from services.payment_service.gateways.stripe import Stripe
from services.payment_service.gateways.stripe_calls import API_VERSION
from tests.integration.stripe_harness import created, paid, session_of, status_of, wrong
from tests.stripe_building import (
    AMOUNT_MINOR,
    RETURN_URL,
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


# --- creating -------------------------------------------------------------------------------------------------------


async def test_an_attempt_becomes_a_checkout_session(gateway: Stripe, double: StripeDouble) -> None:
    """One line item of the total, our ids wherever Stripe keeps them, and no conversion of the price."""
    attempt = an_attempt()

    answer = await gateway.create(attempt)

    (method, path, key, form) = double.calls[0]
    attempt_id, order_id = str(attempt.attempt_id), str(attempt.order_id)
    ends_at = int(form.pop("expires_at"))
    assert (method, path, key) == ("POST", "/v1/checkout/sessions", attempt_id)
    assert form == {
        "mode": "payment",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "eur",
        "line_items[0][price_data][unit_amount]": str(AMOUNT_MINOR),
        "line_items[0][price_data][product_data][name]": f"Order {order_id}",
        "adaptive_pricing[enabled]": "false",
        "client_reference_id": attempt_id,
        "metadata[holdfast_attempt_id]": attempt_id,
        "metadata[holdfast_order_id]": order_id,
        "payment_intent_data[metadata][holdfast_attempt_id]": attempt_id,
        "payment_intent_data[metadata][holdfast_order_id]": order_id,
        "success_url": RETURN_URL,
        "cancel_url": RETURN_URL,
    }
    assert double.headers["Stripe-Version"] == API_VERSION
    (session,) = double.sessions.values()
    ends = datetime.fromtimestamp(ends_at, UTC)
    assert answer == Created(session["id"], session["url"], "open", ends)


async def test_the_same_attempt_is_the_same_session(gateway: Stripe, double: StripeDouble) -> None:
    """Asked again, also some time later, Stripe sees the same key and the same content, and answers as before."""
    attempt = an_attempt()

    first = await gateway.create(attempt)
    attempt.gateway_transaction_id = "cs_learnt"
    second = await gateway.create(attempt)

    assert isinstance(first, Created)
    assert first == second
    assert len(double.sessions) == 1


async def test_an_answer_that_got_lost_is_asked_for_again(gateway: Stripe, double: StripeDouble) -> None:
    """The session exists, its creator does not know: the next call gets it, and there is only one."""
    double.misbehave(Misbehaviour(is_lost=True))
    attempt = an_attempt()

    answers = [await gateway.create(attempt), await gateway.create(attempt)]

    assert isinstance(answers[0], Unanswered)
    assert isinstance(answers[1], Created)
    assert list(double.sessions) == [answers[1].transaction_id]


async def test_the_attempts_own_return_url_comes_first(gateway: Stripe, double: StripeDouble) -> None:
    """The setting is for attempts that name none; with neither nothing is asked."""
    own = await created(gateway, return_url="https://shop.example/order?a=1&b=2")
    async with a_gateway(double.url, return_url=None) as homeless:
        answer = await homeless.create(an_attempt())

    assert double.sessions[session_of(own)]["success_url"] == "https://shop.example/order?a=1&b=2"
    assert isinstance(answer, Declined)
    assert len(double.calls) == 1


@pytest.mark.parametrize(
    ("hold", "expected"),
    [
        (timedelta(minutes=5), timedelta(minutes=40)),
        (timedelta(minutes=39), timedelta(minutes=40)),
        (timedelta(hours=3), timedelta(hours=3)),
        (timedelta(days=7), timedelta(hours=23, minutes=55)),
        (None, timedelta(hours=23, minutes=55)),
    ],
)
async def test_a_session_ends_with_its_attempt_as_far_as_permitted(
    gateway: Stripe, double: StripeDouble, hold: timedelta | None, expected: timedelta
) -> None:
    """Stripe permits 30 minutes to 24 hours; ours is some minutes within, so that clocks and repetitions may differ."""
    attempt = an_attempt()
    attempt.expires_at = None if hold is None else attempt.created_at + hold

    answer = await gateway.create(attempt)

    assert isinstance(answer, Created), answer
    assert answer.expires_at == (attempt.created_at + expected).replace(microsecond=0)


async def test_an_attempt_that_is_too_old_is_declined(gateway: Stripe, double: StripeDouble) -> None:
    """Stripe opens no page that would be gone within the half hour, and has opened none before: that is certain."""
    answer = await gateway.create(an_attempt(created_at=datetime.now(UTC) - timedelta(minutes=20)))

    assert answer == Declined("answered with 400: invalid_request_error, expires_at")
    assert not double.sessions


@pytest.mark.parametrize(
    ("currency", "minor", "asked"), [("ISK", 5, 500), ("JPY", 500, 500), ("KWD", 10, 10)]
)
async def test_the_amount_is_in_the_vendors_units(
    gateway: Stripe, double: StripeDouble, currency: str, minor: int, asked: int
) -> None:
    """What is asked for in its units comes back in ours."""
    attempt = await created(gateway, currency=currency, amount_minor=minor)
    double.pay(session_of(attempt))

    notice = await gateway.ask(attempt)

    assert double.sessions[session_of(attempt)]["amount_total"] == asked
    assert isinstance(notice, Notice)
    assert (notice.amount_minor, notice.currency) == (minor, currency)


@pytest.mark.parametrize(("currency", "minor"), [("UGX", 500), ("MGA", 500), ("KWD", 5_124), ("XXX", 1)])
async def test_money_that_stripe_may_misunderstand_is_declined(
    gateway: Stripe, double: StripeDouble, currency: str, minor: int
) -> None:
    """Neither a payment nor a refund is asked for, and the reason names the currency."""
    attempt = an_attempt(currency=currency, amount_minor=minor)

    answers = [await gateway.create(attempt), await gateway.refund(a_refund(attempt, minor), attempt)]

    assert all(isinstance(answer, Declined) and currency in answer.detail for answer in answers)
    assert not double.calls


# --- asking ---------------------------------------------------------------------------------------------------------


async def test_an_attempt_is_found_with_and_without_its_id(gateway: Stripe) -> None:
    """By its session, or among the sessions of its time; what Stripe does not have is nothing."""
    attempt = await created(gateway)
    for _ in range(3):
        await created(gateway)

    by_id = await gateway.ask(attempt)
    session_id, attempt.gateway_transaction_id = session_of(attempt), None
    by_attempt = await gateway.ask(attempt)

    assert by_id == by_attempt == Notice("open/unpaid", AttemptStatus.PENDING, attempt.attempt_id, session_id)
    assert await gateway.ask(an_attempt()) is None
    assert await gateway.ask(an_attempt(gateway_transaction_id="cs_gone/../x?y")) is None


async def test_the_search_for_an_attempt_goes_through_all_pages(
    gateway: Stripe, double: StripeDouble
) -> None:
    """The oldest session of several pages is found, and only those of its time are looked at."""
    attempt = await created(gateway)
    for _ in range(6):
        await created(gateway)
    old = await created(gateway)
    double.sessions[session_of(old)]["created"] -= 3_600
    double.page_items_max = 2
    double.calls.clear()
    attempt.gateway_transaction_id = old.gateway_transaction_id = None

    found, too_old = await gateway.ask(attempt), await gateway.ask(old)

    assert status_of(found) is AttemptStatus.PENDING
    assert too_old is None
    assert [path for _, path, _, _ in double.calls].count("/v1/checkout/sessions") == 8


async def test_a_search_that_would_never_end_says_nothing(gateway: Stripe, double: StripeDouble) -> None:
    """An attempt that was not found among very many is not known to be missing."""
    endless = {"object": "list", "has_more": True, "data": [{"id": "cs_other", "metadata": {}}]}
    double.misbehave(Misbehaviour(status=200, body=orjson.dumps(endless)), times=100)

    answer = await gateway.ask(an_attempt())

    assert isinstance(answer, Unanswered)
    assert len(double.calls) == 20


async def test_each_state_of_a_payment_is_told(gateway: Stripe, double: StripeDouble) -> None:
    """Paid, held, on its way, not come, and gone; a declined card leaves the page open."""
    attempts = {
        name: await created(gateway) for name in ("paid", "held", "later", "failed", "expired", "try")
    }
    ids = {name: session_of(attempt) for name, attempt in attempts.items()}
    double.pay(ids["paid"])
    double.authorize(ids["held"])
    double.pay_later(ids["later"])
    double.pay_later(ids["failed"])
    double.fail(ids["failed"])
    double.expire(ids["expired"])
    double.decline(ids["try"])

    told = {name: status_of(await gateway.ask(attempt)) for name, attempt in attempts.items()}

    assert told == {
        "paid": AttemptStatus.SUCCEEDED,
        "held": AttemptStatus.AUTHORIZED,
        "later": AttemptStatus.PENDING,
        "failed": AttemptStatus.FAILED,
        "expired": AttemptStatus.EXPIRED,
        "try": AttemptStatus.PENDING,
    }


# --- cancelling -----------------------------------------------------------------------------------------------------


async def test_a_cancelled_attempt_cannot_be_paid_any_more(gateway: Stripe, double: StripeDouble) -> None:
    """The session is expired, whether its id is known or not; again it is the same; an unknown one is as good."""
    known, unknown = await created(gateway), await created(gateway)
    ids = [session_of(known), session_of(unknown)]
    unknown.gateway_transaction_id = None

    answers = [
        await gateway.cancel(known),
        await gateway.cancel(known),
        await gateway.cancel(unknown),
        await gateway.cancel(an_attempt()),
    ]

    assert [status_of(answer) for answer in answers] == [AttemptStatus.CANCELLED] * 4
    assert [double.sessions[session_id]["status"] for session_id in ids] == ["expired", "expired"]


async def test_money_that_is_only_held_is_let_go(gateway: Stripe, double: StripeDouble) -> None:
    """A session that is complete has an intent that can be cancelled."""
    attempt = await created(gateway)
    double.authorize(session_of(attempt))

    answer = await gateway.cancel(attempt)

    assert status_of(answer) is AttemptStatus.CANCELLED
    assert [intent["status"] for intent in double.intents.values()] == ["canceled"]


async def test_what_is_paid_is_not_cancelled(gateway: Stripe, double: StripeDouble) -> None:
    """The answer is the success with its money; nothing is tried."""
    attempt = await created(gateway)
    double.pay(session_of(attempt))

    answer = await gateway.cancel(attempt)

    assert isinstance(answer, Notice)
    assert (answer.status, answer.amount_minor, answer.currency) == (
        AttemptStatus.SUCCEEDED,
        AMOUNT_MINOR,
        "EUR",
    )
    assert [method for method, *_ in double.calls] == ["POST", "GET"]


async def test_what_is_paid_between_two_questions_counts(gateway: Stripe, double: StripeDouble) -> None:
    """Stripe refuses to expire a complete session: how it stands then is the answer."""
    attempt = await created(gateway)
    double.misbehave(Misbehaviour())
    double.misbehave(Misbehaviour(wait_seconds=0.3))
    cancelling = asyncio.create_task(gateway.cancel(attempt))
    await eventually(lambda: any(path.endswith("/expire") for _, path, _, _ in double.calls))

    double.pay(session_of(attempt))

    assert status_of(await cancelling) is AttemptStatus.SUCCEEDED


async def test_money_on_its_way_cannot_be_called_back(gateway: Stripe, double: StripeDouble) -> None:
    """Stripe refuses; the attempt stays pending, and a webhook will tell."""
    attempt = await created(gateway)
    double.pay_later(session_of(attempt))

    answer = await gateway.cancel(attempt)

    assert status_of(answer) is AttemptStatus.PENDING
    assert [intent["status"] for intent in double.intents.values()] == ["processing"]


# --- whose payment it is --------------------------------------------------------------------------------------------


async def test_stripe_is_asked_whose_payment_an_intent_is(gateway: Stripe, double: StripeDouble) -> None:
    """A dispute names the intent alone; with its metadata the attempt is known, and the transaction is left open."""
    attempt = await paid(gateway, double)
    double.dispute(session_of(attempt))
    notice = gateway.read(double.events[-1])
    stranger = Notice("x", alias="pi_gone")

    known = await gateway.identify(notice)

    assert notice.attempt_id is None
    assert isinstance(known, Notice)
    assert (known.attempt_id, known.alias, known.dispute) == (
        attempt.attempt_id,
        None,
        notice.dispute,
    )
    assert await gateway.identify(known) is known
    assert await gateway.identify(stranger) is None
    double.misbehave(wrong(500))
    assert isinstance(await gateway.identify(notice), Unanswered)
