"""Is a delivery whose signature does not cover what it says believed only after its gateway has said so itself?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice
from services.payment_service.gateways import Gateways
from services.payment_service.gateways.sandbox import Sandbox, SandboxOptions
from services.payment_service.worker import Judge
from shared.database import Database
from shared.events import PaymentStatus
from tests.integration.payment_harness import (
    SECRET,
    FakeGateway,
    a_caller,
    answer_500,
    fake_gateway,
    hurry,
    keep,
    open_payment,
    payment_of,
    start_attempt,
    verdicts,
    webhook_body,
)
from tests.payment_building import AMOUNT_MINOR


class Unconfirmed(Sandbox):
    """A sandbox whose webhooks say nothing for certain, and can dispute."""

    def read(self, body: bytes) -> Notice:
        """Return what a webhook says, as not confirmed."""
        notice = replace(super().read(body), is_confirmed=False)
        return replace(notice, dispute="fraud", status=None) if b"chargeback" in body else notice


@asynccontextmanager
async def an_unsure_judge(
    database: Database, gateway: FakeGateway, *, unmatched_seconds_max: float = 60.0
) -> AsyncIterator[Judge]:
    """The judge of a service whose gateway must be asked."""
    options = SandboxOptions(gateway.url, [SECRET], timeout_seconds=1)
    async with Gateways(Unconfirmed(options)) as gateways:
        yield Judge(
            database, gateways, size_max=100, pause_seconds=0, unmatched_seconds_max=unmatched_seconds_max
        )


async def an_attempt(database: Database, gateway: FakeGateway) -> Attempt:
    """Return an attempt that the gateway has."""
    order_id = await open_payment(database)
    attempt = await start_attempt(database, order_id)
    async with a_caller(database, gateway.url) as caller:
        await caller.ask_about_attempts()
    gateway.calls.clear()
    return (await payment_of(database, order_id)).attempts[attempt.attempt_id]


def pay(gateway: FakeGateway, attempt: Attempt, amount_minor: int = AMOUNT_MINOR) -> None:
    """Have an attempt paid at the gateway."""
    paid = {"status": "succeeded", "captured_minor": amount_minor, "captured_currency": "EUR"}
    gateway.payments[f"gateway-{attempt.attempt_id}"] |= paid


async def reasons(database: Database) -> list[str | None]:
    """Return why each delivery got its verdict, or has none."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT reason FROM webhooks ORDER BY id")
    return [row["reason"] for row in rows]


async def status_of(database: Database, attempt: Attempt) -> AttemptStatus:
    """Return where an attempt stands."""
    return (await payment_of(database, attempt.order_id)).attempts[attempt.attempt_id].status


async def test_a_confirmed_success_counts_and_is_asked_for_once(payment_db: Database) -> None:
    """However many deliveries of a batch speak of one attempt, one question is enough."""
    async with fake_gateway() as gateway:
        attempt = await an_attempt(payment_db, gateway)
        pay(gateway, attempt)
        await keep(payment_db, *((f"e-{place}", webhook_body(attempt)) for place in (1, 1, 2)))

        async with an_unsure_judge(payment_db, gateway) as judge:
            await judge.tick()

        assert len(gateway.calls) == 1
    assert await verdicts(payment_db) == ["applied", "duplicate", "duplicate"]
    assert await reasons(payment_db) == [
        "PENDING → SUCCEEDED",
        "this event was delivered before",
        "the attempt is SUCCEEDED already",
    ]


async def test_a_forged_success_is_judged_by_what_the_gateway_says(payment_db: Database) -> None:
    """The gateway says PENDING, or another amount: that counts, and never what was delivered."""
    async with fake_gateway() as gateway:
        open_attempt, other = await an_attempt(payment_db, gateway), await an_attempt(payment_db, gateway)
        pay(gateway, other, amount_minor=1)
        await keep(payment_db, ("e-1", webhook_body(open_attempt)), ("e-2", webhook_body(other)))

        async with an_unsure_judge(payment_db, gateway) as judge:
            await judge.tick()

    assert await verdicts(payment_db) == ["duplicate", "mismatch"]
    assert await status_of(payment_db, open_attempt) is AttemptStatus.PENDING
    assert await status_of(payment_db, other) is AttemptStatus.QUARANTINED


async def test_an_unanswered_question_postpones_the_delivery(payment_db: Database) -> None:
    """No verdict, but a reason; when the gateway answers at last, it is judged."""
    async with fake_gateway() as gateway:
        attempt = await an_attempt(payment_db, gateway)
        pay(gateway, attempt)
        await keep(payment_db, ("e-1", webhook_body(attempt)))
        gateway.misbehaviour = [answer_500]

        async with an_unsure_judge(payment_db, gateway) as judge:
            await judge.tick()
            before = (await verdicts(payment_db), await reasons(payment_db))
            await hurry(payment_db)
            await judge.tick()

    assert before == ([None], ["payment.succeeded is not confirmed: answered with 500"])
    assert await verdicts(payment_db) == ["applied"]
    assert (await payment_of(payment_db, attempt.order_id)).status is PaymentStatus.SUCCEEDED


async def test_what_is_never_confirmed_is_unmatched_in_the_end(payment_db: Database) -> None:
    """Every delivery ends with a verdict and a reason."""
    async with fake_gateway() as gateway:
        attempt = await an_attempt(payment_db, gateway)
        await keep(payment_db, ("e-1", webhook_body(attempt)))
        gateway.misbehaviour = [answer_500]

        async with an_unsure_judge(payment_db, gateway, unmatched_seconds_max=0.0) as judge:
            await judge.tick()

    assert await verdicts(payment_db) == ["unmatched"]
    assert await status_of(payment_db, attempt) is AttemptStatus.PENDING


@pytest.mark.parametrize("kind", ["failed", "expired"])
async def test_what_would_move_nothing_is_judged_unasked(payment_db: Database, kind: str) -> None:
    """A failure of an attempt that is paid is regressive whoever says so."""
    async with fake_gateway() as gateway:
        attempt = await an_attempt(payment_db, gateway)
        pay(gateway, attempt)
        await keep(payment_db, ("e-1", webhook_body(attempt)))
        async with an_unsure_judge(payment_db, gateway) as judge:
            await judge.tick()
            gateway.calls.clear()
            await keep(payment_db, ("e-2", webhook_body(attempt, kind)))
            await judge.tick()

        assert gateway.calls == []
    assert (await verdicts(payment_db))[1:] == ["regressive"]


async def test_a_dispute_that_the_gateway_does_not_confirm_marks_nothing(payment_db: Database) -> None:
    """Asked, the gateway says that it is paid and nothing else: so nobody contests it."""
    async with fake_gateway() as gateway:
        attempt = await an_attempt(payment_db, gateway)
        pay(gateway, attempt)
        await keep(
            payment_db, ("e-1", webhook_body(attempt)), ("e-2", webhook_body(attempt, note="chargeback"))
        )

        async with an_unsure_judge(payment_db, gateway) as judge:
            await judge.tick()

    stored = (await payment_of(payment_db, attempt.order_id)).attempts[attempt.attempt_id]
    assert (stored.status, stored.review_at) == (AttemptStatus.SUCCEEDED, None)


async def test_a_forged_delivery_does_not_make_the_true_one_a_duplicate(payment_db: Database) -> None:
    """The gateway said something else, which counted; when it confirms the same content later, that counts too."""
    async with fake_gateway() as gateway:
        attempt = await an_attempt(payment_db, gateway)
        stored = gateway.payments[f"gateway-{attempt.attempt_id}"]
        stored["status"] = "failed"
        await keep(payment_db, ("e-1", webhook_body(attempt)))
        async with an_unsure_judge(payment_db, gateway) as judge:
            await judge.tick()
            forged = await status_of(payment_db, attempt)
            pay(gateway, attempt)
            await keep(payment_db, *[("e-1", webhook_body(attempt))] * 2)
            await judge.tick()

    assert forged is AttemptStatus.FAILED
    assert await verdicts(payment_db) == ["applied", "applied", "duplicate"]
    assert (await payment_of(payment_db, attempt.order_id)).status is PaymentStatus.SUCCEEDED


async def test_a_forged_delivery_that_moves_nothing_leaves_the_event_open(payment_db: Database) -> None:
    """It is regressive unasked, and so is its repetition: neither says what the gateway thinks of it."""
    async with fake_gateway() as gateway:
        attempt = await an_attempt(payment_db, gateway)
        pay(gateway, attempt)
        await keep(payment_db, ("e-1", webhook_body(attempt)))
        async with an_unsure_judge(payment_db, gateway) as judge:
            await judge.tick()
            await keep(payment_db, *[("e-2", webhook_body(attempt, "failed"))] * 2)
            await judge.tick()

    assert await verdicts(payment_db) == ["applied", "regressive", "regressive"]
