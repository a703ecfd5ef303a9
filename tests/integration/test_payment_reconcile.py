"""Are lost webhooks found by asking, by one process at a time, however the gateway behaves?"""

import asyncio
from uuid import UUID

from services.payment_service import handlers
from services.payment_service.domain.attempts import AttemptStatus
from shared.database import Database
from shared.events import PaymentStatus
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.integration.payment_harness import (
    FakeGateway,
    a_caller,
    a_judge,
    answer_404,
    answer_500,
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
from tests.payment_building import AMOUNT_MINOR, awaiting_payment, order_expired
from tests.waiting import eventually


def pay_all(gateway: FakeGateway, *, amount_minor: int = AMOUNT_MINOR) -> None:
    """Have all payments paid at the gateway, which tells nobody."""
    for payment in gateway.payments.values():
        payment |= {"status": "succeeded", "captured_minor": amount_minor, "captured_currency": "EUR"}


async def end_holds(database: Database) -> None:
    """Have the time of all attempts run out."""
    async with database.connection() as connection:
        await connection.execute("UPDATE attempts SET expires_at = now()")
    await hurry(database)


async def status_of(database: Database, order_id: UUID) -> PaymentStatus:
    """Return where a payment stands."""
    return (await payment_of(database, order_id)).status


async def test_a_lost_success_is_found_by_asking(payment_db: Database) -> None:
    """PaymentSucceeded with the timer as its cause; the webhook that comes after all adds nothing."""
    order_id = await open_payment(payment_db)
    attempt = await start_attempt(payment_db, order_id)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        await caller.ask_about_attempts()
        nothing_due = await caller.reconcile()
        pay_all(gateway)
        await hurry(payment_db)
        something_due = await caller.reconcile()
        again = await caller.reconcile()
    await keep(payment_db, ("e-1", webhook_body(attempt)))
    await a_judge(payment_db).tick()

    assert (nothing_due, something_due, again) == (False, True, False)
    (told,) = await outbox_events(payment_db, types=["PaymentSucceeded"])
    assert told.headers["ce_causationid"] == "timer:reconcile"
    assert await verdicts(payment_db) == ["duplicate"]


async def test_a_gateway_that_does_not_answer_is_asked_again(payment_db: Database) -> None:
    """Silence changes nothing but the time of the next question."""
    order_id = await open_payment(payment_db)
    await start_attempt(payment_db, order_id)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url, timeout_seconds=0.3) as caller:
        await caller.ask_about_attempts()
        pay_all(gateway)
        states = []
        gateway.misbehaviour = [answer_500, stay_silent]
        for _ in range(3):
            await hurry(payment_db)
            await caller.reconcile()
            states.append(await status_of(payment_db, order_id))

    assert states == [PaymentStatus.PENDING, PaymentStatus.PENDING, PaymentStatus.SUCCEEDED]


async def test_two_processes_ask_about_each_attempt_once(payment_db: Database) -> None:
    """An attempt is taken with a lease, and what another process has taken is skipped."""
    for _ in range(6):
        await start_attempt(payment_db, await open_payment(payment_db))

    async with (
        fake_gateway() as gateway,
        a_caller(payment_db, gateway.url) as one,
        a_caller(payment_db, gateway.url) as other,
    ):
        await one.ask_about_attempts()
        pay_all(gateway)
        await hurry(payment_db)
        before = len(gateway.calls)
        await asyncio.gather(*(caller.reconcile() for caller in (one, other) for _ in range(3)))
        asked = len(gateway.calls) - before

    assert asked == 6
    assert len(await outbox_events(payment_db, types=["PaymentSucceeded"])) == 6


async def test_what_the_gateway_forgot_expires_with_its_hold(payment_db: Database) -> None:
    """No webhook tells of it: the attempt is EXPIRED, and the payment failed."""
    order_id = await open_payment(payment_db)
    await start_attempt(payment_db, order_id)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        await caller.ask_about_attempts()
        gateway.misbehaviour = [answer_404]
        await end_holds(payment_db)
        await caller.reconcile()

    (attempt,) = (await payment_of(payment_db, order_id)).attempts.values()
    (told,) = await outbox_events(payment_db, types=["PaymentFailed"])
    assert (attempt.status, told.event.reason) == (AttemptStatus.EXPIRED, "expired")


async def test_what_can_still_be_paid_after_its_hold_is_called_back(payment_db: Database) -> None:
    """The gateway is told to cancel it, and the order's end adds nothing to that."""
    order_id = await open_payment(payment_db)
    await start_attempt(payment_db, order_id)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        await caller.ask_about_attempts()
        await end_holds(payment_db)
        await caller.reconcile()
        await caller.ask_about_attempts()
        await feed(payment_db, handlers, [message(order_expired(order_id))])

    (attempt,) = (await payment_of(payment_db, order_id)).attempts.values()
    assert (attempt.status, attempt.task, attempt.ask_at) == (AttemptStatus.CANCELLED, None, None)
    assert [payment["status"] for payment in gateway.payments.values()] == ["cancelled"]
    assert await status_of(payment_db, order_id) is PaymentStatus.CANCELLED


async def test_a_new_attempt_cancels_the_older_one_at_the_gateway(payment_db: Database) -> None:
    """Best effort, outside any transaction; the customer pays by the newer one."""
    order_id = new_id()
    async with payment_db.transaction() as tx:
        policy = handlers.Policy(attempts_max=2)
        await handlers.handle(tx, [message(awaiting_payment(order_id))], policy=policy)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        older = await start_attempt(payment_db, order_id, "a")
        await caller.ask_about_attempts()
        newer = await start_attempt(payment_db, order_id, "b")
        await hurry(payment_db)
        await caller.ask_about_attempts()
        await keep(payment_db, ("e-1", webhook_body(newer)))
        await a_judge(payment_db).tick()

    payment = await payment_of(payment_db, order_id)
    stored = payment.attempts[older.attempt_id]
    assert (stored.status, stored.superseded) == (AttemptStatus.CANCELLED, True)
    assert gateway.payments[f"gateway-{older.attempt_id}"]["status"] == "cancelled"
    assert payment.settled_attempt_id == newer.attempt_id
    assert [told.type for told in await outbox_events(payment_db)] == [
        *["PaymentInitiated"] * 2,
        "PaymentSucceeded",
    ]


async def test_the_service_finds_lost_webhooks_by_itself(payment_db: Database) -> None:
    """Wired as it runs, with a schedule of seconds; what was asked is counted."""
    order_id = await open_payment(payment_db)

    async with (
        fake_gateway() as gateway,
        service(
            payment_db, gateway.url, reconcile_schedule_seconds="0.2,0.4,60", reconcile_interval_seconds=0.05
        ) as client,
    ):
        path = f"/payments/{order_id}/attempts"
        await client.call("POST", path, {}, Idempotency_Key="k-1")
        pay_all(gateway)

        async def is_paid() -> bool:
            return await status_of(payment_db, order_id) is PaymentStatus.SUCCEEDED

        await eventually(is_paid)
        async with client.session.get(client.url + "/metrics") as response:
            metrics = await response.text()

    assert 'holdfast_reconciled_total{gateway="sandbox",outcome="repaired"}' in metrics
