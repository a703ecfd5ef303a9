"""Does the payment service keep what it hears, in real tables?"""

import pytest

from services.payment_service import handlers, store
from services.payment_service.domain.attempts import AttemptStatus
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunds import RefundStatus
from services.payment_service.handlers import Policy, Started
from shared.database import Database, is_transient
from shared.errors import Conflict, NotFound
from shared.events import OrderStatus, PaymentStatus
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.integration.payment_harness import (
    a_judge,
    keep,
    open_payment,
    payment_of,
    start_attempt,
    webhook_body,
)
from tests.payment_building import (
    AMOUNT_MINOR,
    awaiting_payment,
    order_cancelled,
    order_expired,
    refund_requested,
)


async def types_told(database: Database) -> list[str]:
    """Return the names of the events in the outbox, in order."""
    return [told.type for told in await outbox_events(database)]


async def test_an_order_that_awaits_payment_opens_one_whatever_is_delivered_again(
    payment_db: Database,
) -> None:
    """Repetition inside a batch, over batches and under another event id changes nothing."""
    order_id = new_id()
    opened = message(awaiting_payment(order_id))
    again = message(opened.event)

    for batch in ([opened, opened, again], [opened, again]):
        assert not await feed(payment_db, handlers, batch)

    payment = await payment_of(payment_db, order_id)
    assert (payment.status, payment.amount_minor, payment.currency) == (
        PaymentStatus.PENDING,
        AMOUNT_MINOR,
        "EUR",
    )
    assert (payment.attempts, await outbox_events(payment_db)) == ({}, [])


async def test_another_amount_for_a_known_order_is_refused(payment_db: Database) -> None:
    """A conflict goes to the dead letters and leaves the payment alone."""
    order_id = await open_payment(payment_db)

    (refusal,) = await feed(payment_db, handlers, [message(awaiting_payment(order_id, total_minor=1))])

    assert refusal.reason == "conflict"
    assert (await payment_of(payment_db, order_id)).amount_minor == AMOUNT_MINOR


async def test_a_closure_heard_first_is_remembered(payment_db: Database) -> None:
    """Event 2 before event 1: CANCELLED without an amount, told once, and not payable when the amount comes."""
    order_id = new_id()

    await feed(payment_db, handlers, [message(order_expired(order_id), sequence=3)])
    before = await payment_of(payment_db, order_id)
    await feed(payment_db, handlers, [message(awaiting_payment(order_id), sequence=2)])

    after = await payment_of(payment_db, order_id)
    assert (before.status, before.amount_minor) == (PaymentStatus.CANCELLED, None)
    assert (after.status, after.amount_minor, after.attempts) == (PaymentStatus.CANCELLED, AMOUNT_MINOR, {})
    assert await types_told(payment_db) == ["PaymentFailed"]


async def test_with_auto_initiate_the_attempt_is_stored_with_the_payment(payment_db: Database) -> None:
    """One transaction: the worker finds the attempt to be asked about at once; a total of 0 needs none."""
    policy = Policy(auto_gateway="sandbox")
    order_ids = [new_id(), new_id()]
    batch = [message(awaiting_payment(order_ids[0])), message(awaiting_payment(order_ids[1], total_minor=0))]

    async with payment_db.transaction() as tx:
        await handlers.handle(tx, batch, policy=policy)
    async with payment_db.transaction() as tx:
        taken = await store.take_attempts(tx, "sandbox", 10, 60)

    assert [attempt.order_id for attempt in taken] == [order_ids[0]]


async def test_a_taken_attempt_is_left_alone_until_its_lease_ends(payment_db: Database) -> None:
    """Two workers never ask about the same attempt at once."""
    await start_attempt(payment_db, await open_payment(payment_db))

    async with payment_db.transaction() as tx:
        first = await store.take_attempts(tx, "sandbox", 10, 60)
        async with payment_db.transaction() as other:
            locked_out = await store.take_attempts(other, "sandbox", 10, 60)
    async with payment_db.transaction() as tx:
        leased = await store.take_attempts(tx, "sandbox", 10, 60)

    assert (len(first), locked_out, leased) == (1, [], [])


async def test_a_total_of_zero_is_paid_and_refunded_without_a_gateway(payment_db: Database) -> None:
    """Gateway `none`, no transaction; the refund is a row of 0 that is done at once."""
    order_id = await open_payment(payment_db, total_minor=0)

    await feed(payment_db, handlers, [message(refund_requested(order_id, amount_minor=0))])

    payment = await payment_of(payment_db, order_id)
    (attempt,), (refund,) = payment.attempts.values(), payment.refunds.values()
    assert (attempt.gateway, attempt.gateway_transaction_id, attempt.status) == (
        "none",
        None,
        AttemptStatus.REFUNDED,
    )
    assert (refund.amount_minor, refund.status) == (0, RefundStatus.SUCCEEDED)
    assert payment.status is PaymentStatus.REFUNDED
    assert await types_told(payment_db) == ["PaymentSucceeded", "PaymentRefunded"]


async def test_a_refund_of_what_was_never_paid_is_refused(payment_db: Database) -> None:
    """Nothing is remembered of it; a redrive after the success would work."""
    order_id = await open_payment(payment_db)

    (refusal,) = await feed(payment_db, handlers, [message(refund_requested(order_id))])

    payment = await payment_of(payment_db, order_id)
    assert refusal.reason == "not_paid"
    assert (payment.status, payment.closed, payment.refunds) == (PaymentStatus.PENDING, False, {})


@pytest.mark.parametrize("overtaken", [True, False])
async def test_a_refund_is_due_once_whichever_event_says_so(payment_db: Database, *, overtaken: bool) -> None:
    """A cancellation that carries REFUND_DUE and OrderRefundRequested lead to one refund, in either order."""
    order_id = await open_payment(payment_db)
    attempt = await start_attempt(payment_db, order_id)
    await keep(payment_db, ("e-1", webhook_body(attempt)))
    await a_judge(payment_db).tick()
    batch = [
        message(order_cancelled(order_id, status=OrderStatus.REFUND_DUE)),
        message(refund_requested(order_id, reason="cancelled", cancelled=True)),
    ]

    for item in reversed(batch) if overtaken else batch:
        assert not await feed(payment_db, handlers, [item])

    (refund,) = (await payment_of(payment_db, order_id)).refunds.values()
    assert (refund.reason, refund.status, refund.amount_minor) == (
        "cancelled",
        RefundStatus.DUE,
        AMOUNT_MINOR,
    )


async def test_the_same_key_gives_the_same_attempt_and_the_limit_counts_all(payment_db: Database) -> None:
    """Also within one batch; an unknown order is not found, and a second attempt is one too many."""
    order_id = await open_payment(payment_db)
    requests = [
        handlers.StartAttempt(order, new_id(), "sandbox", None, None, key, 0)
        for order, key in [(order_id, "a"), (order_id, "a"), (order_id, "b"), (new_id(), "a")]
    ]

    async with payment_db.transaction() as tx:
        first, same, refused, unknown = await handlers.start_attempts(tx, requests)

    assert isinstance(first, Started)
    assert isinstance(same, Started)
    assert (same.attempt.attempt_id, same.replayed) == (first.attempt.attempt_id, True)
    assert isinstance(refused, Conflict)
    assert isinstance(unknown, NotFound)


async def test_events_tell_the_cause_and_are_numbered_in_order(payment_db: Database) -> None:
    """Each event names the message that caused it, the order as correlation, and the next number."""
    order_id = await open_payment(payment_db)
    cause = message(order_expired(order_id))

    await feed(payment_db, handlers, [cause])

    (told,) = await outbox_events(payment_db)
    assert (told.key, told.sequence) == (str(order_id), 1)
    assert told.headers["ce_causationid"] == str(cause.event_id)
    assert told.headers["ce_correlationid"] == str(order_id)
    assert told.headers["ce_source"] == "/holdfast/payment-service"


async def test_the_database_refuses_more_refunds_than_were_received(payment_db: Database) -> None:
    """Behind the code stands a constraint, also when two full refunds are tried."""
    order_id = await open_payment(payment_db)
    attempt = await start_attempt(payment_db, order_id)
    await keep(payment_db, ("e-1", webhook_body(attempt)))
    await a_judge(payment_db).tick()
    await feed(payment_db, handlers, [message(refund_requested(order_id))])
    payment = await payment_of(payment_db, order_id)
    (refund,) = payment.refunds.values()

    for constraint, is_full in (("refunds_one_full", True), ("refunding_at_most", False)):
        refund.refund_id, refund.is_full = new_id(), is_full
        with pytest.raises(Exception, match=constraint) as refused:
            async with payment_db.transaction() as tx:
                await store.insert_refunds(tx, [refund], payment.updated_at or refund.created_at)
        assert not is_transient(refused.value)


async def test_two_processes_that_open_one_payment_do_not_both_insert_it(payment_db: Database) -> None:
    """The second one finds the row of the first only when it commits, and does its batch again."""
    order_id = new_id()

    async with payment_db.transaction() as first:
        await handlers.handle(first, [message(awaiting_payment(order_id))])
    async with payment_db.transaction() as tx:
        payments = {order_id: Payment(order_id=order_id, attempts_max=1, is_new=True)}
        with pytest.raises(Exception, match="Another process") as lost:
            await store.save(tx, payments.values(), await store.get_now(tx))

    assert is_transient(lost.value)
