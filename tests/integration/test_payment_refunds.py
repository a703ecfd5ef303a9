"""Does money go back exactly once, however the gateway and our own processes misbehave?"""

import asyncio
from uuid import UUID

import pytest

from services.payment_service import handlers
from services.payment_service.domain.attempts import Attempt
from services.payment_service.domain.refunds import Refund, RefundStatus
from shared.database import Database
from shared.events import PaymentStatus
from tests.feeding import feed, message, outbox_events
from tests.integration.payment_harness import (
    OPERATOR_TOKEN,
    a_caller,
    a_judge,
    answer_409,
    answer_500,
    answer_nonsense,
    fake_gateway,
    hurry,
    keep,
    open_payment,
    payment_of,
    service,
    start_attempt,
    stay_silent,
    verdicts,
    webhook_body,
)
from tests.payment_building import AMOUNT_MINOR, refund_requested
from tests.waiting import eventually


async def a_paid_order(database: Database) -> Attempt:
    """Return the settled attempt of an order."""
    attempt = await start_attempt(database, await open_payment(database))
    await keep(database, (f"paid-{attempt.attempt_id}", webhook_body(attempt)))
    await a_judge(database).tick()
    return attempt


async def the_refund_of(database: Database, order_id: UUID) -> Refund:
    """Return the only refund of an order."""
    (refund,) = (await payment_of(database, order_id)).refunds.values()
    return refund


async def refunds_told(database: Database) -> list[str]:
    """Return the names of the events about refunds, in order."""
    told = await outbox_events(database, types=["PaymentRefunded", "PaymentRefundFailed"])
    return [item.type for item in told]


async def test_a_refund_outlives_restarts_and_failures_with_one_key(payment_db: Database) -> None:
    """500, nonsense and silence, each met by another process: the key stays, and the money goes back once."""
    attempt = await a_paid_order(payment_db)
    await feed(payment_db, handlers, [message(refund_requested(attempt.order_id))])
    statuses = []

    async with fake_gateway() as gateway:
        gateway.misbehaviour = [answer_500, answer_nonsense, stay_silent]
        for _ in range(4):
            await hurry(payment_db)
            async with a_caller(payment_db, gateway.url, timeout_seconds=0.3) as process:
                await process.ask_for_refunds()
            statuses.append((await the_refund_of(payment_db, attempt.order_id)).status.value)
            if len(statuses) < 4:
                assert await refunds_told(payment_db) == []

    refund = await the_refund_of(payment_db, attempt.order_id)
    assert statuses == ["UNKNOWN", "UNKNOWN", "UNKNOWN", "SUCCEEDED"]
    assert {key for _, _, key in gateway.calls_of("/refunds")} == {str(refund.refund_id)}
    assert (len(gateway.calls_of("/refunds")), refund.tries, len(gateway.refunds)) == (4, 4, 1)
    assert await refunds_told(payment_db) == ["PaymentRefunded"]
    assert (await payment_of(payment_db, attempt.order_id)).status is PaymentStatus.REFUNDED


async def test_a_process_that_dies_while_it_asks_leaves_the_refund_to_the_next(payment_db: Database) -> None:
    """The refund is taken with a lease: nobody else asks meanwhile, and after it somebody does, with the same key."""
    attempt = await a_paid_order(payment_db)
    await feed(payment_db, handlers, [message(refund_requested(attempt.order_id))])

    async with fake_gateway() as gateway:
        gateway.misbehaviour = [stay_silent]
        async with a_caller(payment_db, gateway.url) as doomed, a_caller(payment_db, gateway.url) as heir:
            asking = asyncio.create_task(doomed.ask_for_refunds())
            await eventually(lambda: gateway.calls_of("/refunds"))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            taken = await the_refund_of(payment_db, attempt.order_id)
            await heir.ask_for_refunds()
            meanwhile = len(gateway.calls_of("/refunds"))
            await hurry(payment_db)
            await heir.ask_for_refunds()

    assert (taken.status, taken.tries, meanwhile) == (RefundStatus.SENT, 1, 1)
    assert len({key for _, _, key in gateway.calls_of("/refunds")}) == 1
    assert await refunds_told(payment_db) == ["PaymentRefunded"]


async def test_a_refund_that_the_gateway_refuses_is_told_once_and_asked_again(payment_db: Database) -> None:
    """PaymentRefundFailed is for people; the refund stays due, and is told when it is done at last."""
    attempt = await a_paid_order(payment_db)
    await feed(payment_db, handlers, [message(refund_requested(attempt.order_id))])

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        gateway.misbehaviour = [answer_409, answer_409, answer_500, answer_409]
        for _ in range(5):
            await hurry(payment_db)
            await caller.ask_for_refunds()

    assert await refunds_told(payment_db) == ["PaymentRefundFailed", "PaymentRefunded"]


async def test_two_processes_never_ask_for_one_refund_at_once(payment_db: Database) -> None:
    """Each of many due refunds is asked for once."""
    for _ in range(6):
        attempt = await a_paid_order(payment_db)
        await feed(payment_db, handlers, [message(refund_requested(attempt.order_id))])

    async with (
        fake_gateway() as gateway,
        a_caller(payment_db, gateway.url) as one,
        a_caller(payment_db, gateway.url) as other,
    ):
        await asyncio.gather(*(caller.ask_for_refunds() for caller in (one, other) for _ in range(3)))

    assert len(gateway.calls_of("/refunds")) == 6
    assert await refunds_told(payment_db) == ["PaymentRefunded"] * 6


@pytest.mark.parametrize("webhook_first", [True, False])
async def test_the_webhook_of_a_refund_and_the_answer_count_once(
    payment_db: Database, *, webhook_first: bool
) -> None:
    """Either is the gateway's word; the other one adds nothing."""
    attempt = await a_paid_order(payment_db)
    await feed(payment_db, handlers, [message(refund_requested(attempt.order_id))])
    refund = await the_refund_of(payment_db, attempt.order_id)
    word = webhook_body(attempt, "refunded", refund_id=f"refund-{refund.refund_id}")

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        if not webhook_first:
            await caller.ask_for_refunds()
        await keep(payment_db, ("r-1", word), ("r-1", word))
        await a_judge(payment_db).tick()
        await hurry(payment_db)
        await caller.ask_for_refunds()

    assert await refunds_told(payment_db) == ["PaymentRefunded"]
    assert (await verdicts(payment_db))[1:] == ["applied" if webhook_first else "duplicate", "duplicate"]
    assert len(gateway.calls_of("/refunds")) == (0 if webhook_first else 1)


async def test_the_webhooks_of_two_equal_refunds_find_theirs_after_the_answers(payment_db: Database) -> None:
    """What may mean either stays open, and is judged again when the gateway's answers have told which is which."""
    attempt = await a_paid_order(payment_db)
    requests = [
        handlers.RequestRefund(attempt.order_id, UUID(int=place), 100, "broken", f"k-{place}", "test")
        for place in (1, 2)
    ]
    async with payment_db.transaction() as tx:
        await handlers.request_refunds(tx, requests)
    words = [
        (
            f"r-{place}",
            webhook_body(attempt, "refunded", amount_minor=100, refund_id=f"refund-{UUID(int=place)}"),
        )
        for place in (1, 2)
    ]
    await keep(payment_db, *words)
    judge = a_judge(payment_db)
    await judge.tick()
    assert (await verdicts(payment_db))[1:] == ["unmatched", "unmatched"]

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        await caller.ask_for_refunds()
    await judge.tick()

    assert (await verdicts(payment_db))[1:] == ["duplicate", "duplicate"]
    assert (await payment_of(payment_db, attempt.order_id)).refunded_minor == 200


async def test_an_operators_refunds_by_http_are_made_by_the_worker(payment_db: Database) -> None:
    """Part by part and then the rest: keys make repetition harmless, and no more goes back than came."""
    attempt = await a_paid_order(payment_db)
    path = f"/payments/{attempt.order_id}/refunds"
    part, rest = {"amount_minor": 250, "reason": "broken"}, {"reason": "goodwill"}

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        gateway.misbehaviour = [answer_500]

        async def ask(body: object, key: str) -> tuple[int, dict[str, object]]:
            status, answer, _ = await client.call(
                "POST", path, body, token=OPERATOR_TOKEN, Idempotency_Key=key
            )
            return status, answer

        first, again = await ask(part, "k-1"), await ask(part, "k-1")
        other_body = await ask({"reason": "broken"}, "k-1")
        too_much = await ask({"amount_minor": AMOUNT_MINOR, "reason": "x"}, "k-2")
        full = await ask(rest, "k-3")
        nothing_left = await ask(rest, "k-4")
        await eventually(lambda: len(gateway.refunds) == 2)
        await eventually(lambda: refunds_told(payment_db))

        async def is_refunded() -> bool:
            return (await payment_of(payment_db, attempt.order_id)).status is PaymentStatus.REFUNDED

        await eventually(is_refunded)
        storefront, _, _ = await client.call("POST", path, part, Idempotency_Key="k-5")

    assert (first[0], first[1]["refund_id"]) == (202, again[1]["refund_id"])
    assert [other_body[0], too_much[0], nothing_left[0], storefront] == [422, 409, 409, 403]
    assert (full[0], full[1]["amount_minor"], full[1]["note"]) == (202, 1_000, "goodwill")
    assert sorted(refund["amount_minor"] for refund in gateway.refunds.values()) == [250, 1_000]
    told = await outbox_events(payment_db, types=["PaymentRefunded"])
    assert [item.event.refunded_minor for item in told][-1] == AMOUNT_MINOR
    assert {item.event.reason for item in told} == {"operator"}
