"""Does what people do at Stripe itself reach the payment it is about? Disputes, and refunds made there by hand."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import pytest

from deploy.local.doubles.stripe import StripeDouble
from services.payment_service import handlers, store
from services.payment_service.domain.answers import Created
from services.payment_service.domain.attempts import Attempt
from services.payment_service.domain.payments import Payment
from services.payment_service.gateways import Gateways
from services.payment_service.gateways.stripe import Stripe
from services.payment_service.store import NewWebhook
from services.payment_service.worker import Judge
from shared.database import Database
from shared.events import PaymentStatus
from shared.ids import new_id
from tests.integration.payment_harness import hurry, open_payment, payment_of, verdicts
from tests.integration.stripe_harness import session_of, wrong
from tests.stripe_building import RETURN_URL, SECRET_KEY, WEBHOOK_SECRET, a_gateway


@dataclass
class Account:
    """An account at Stripe with its webhooks, and the payment service that hears of them."""

    database: Database
    double: StripeDouble
    gateway: Stripe
    judge: Judge
    heard: int = 0

    async def paid(self) -> Attempt:
        """Return an attempt of an order of ours that was paid at Stripe, and has settled its payment."""
        order_id = await open_payment(self.database)
        request = handlers.StartAttempt(order_id, new_id(), "stripe", None, RETURN_URL, "key", 0)
        async with self.database.transaction() as tx:
            (started,) = await handlers.start_attempts(tx, [request])
        assert isinstance(started, handlers.Started)
        answer = await self.gateway.create(started.attempt)
        assert isinstance(answer, Created), answer
        answered = handlers.AttemptAnswered(order_id, request.attempt_id, answer, 1.0, "test")
        async with self.database.transaction() as tx:
            (attempt,) = await handlers.save_attempt_answers(tx, [answered])
        self.double.pay(session_of(attempt))
        await self.hear()
        assert (await payment_of(self.database, order_id)).status is PaymentStatus.SUCCEEDED
        return attempt

    async def hear(self, events: Sequence[bytes] = ()) -> list[str | None]:
        """Take in what Stripe has told since, or these events; return their verdicts."""
        new = events or self.double.events[self.heard :]
        self.heard = len(self.double.events)
        webhooks = [NewWebhook("stripe", orjson.loads(body)["id"], "{}", body) for body in new]
        async with self.database.transaction() as tx:
            await handlers.keep_webhooks(tx, webhooks)
        await self.judge.tick()
        return (await verdicts(self.database))[-len(webhooks) :]

    async def give_back(self, attempt: Attempt, amount: int) -> None:
        """Give money back on Stripe's own pages: nothing of ours is in it."""
        intent = next(
            intent_id
            for intent_id, intent in self.double.intents.items()
            if intent["metadata"]["holdfast_attempt_id"] == str(attempt.attempt_id)
        )
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {SECRET_KEY}"}) as session,
            session.post(
                f"{self.double.url}/v1/refunds", data={"payment_intent": intent, "amount": str(amount)}
            ) as response,
        ):
            assert response.status == 200, await response.text()

    async def payment(self, attempt: Attempt) -> Payment:
        """Return the payment of an attempt as it is stored."""
        return await payment_of(self.database, attempt.order_id)

    async def quarantine(self) -> list[dict[str, Any]]:
        """Return what waits for an operator."""
        async with self.database.connection() as connection:
            return [dict(row) for row in await store.list_attempts_to_review(connection, None, 10)]


@pytest.fixture
async def account(payment_db: Database) -> AsyncIterator[Account]:
    """All of it, connected over real HTTP."""
    async with StripeDouble(SECRET_KEY, [WEBHOOK_SECRET]) as double:
        gateways = Gateways(a_gateway(double.url, timeout_seconds=5.0))
        async with gateways:
            gateway = gateways.get("stripe")
            assert isinstance(gateway, Stripe)
            judge = Judge(payment_db, gateways, size_max=100, pause_seconds=0, unmatched_seconds_max=60)
            yield Account(payment_db, double, gateway, judge)


async def test_a_dispute_reaches_its_payment(account: Account) -> None:
    """It names the intent alone; Stripe is asked whose it is, and a person must decide."""
    attempt = await account.paid()
    account.double.dispute(session_of(attempt))

    given = await account.hear()

    (waiting,) = await account.quarantine()
    assert given == ["applied", "duplicate"]  # opened, and the funds withdrawn: one dispute
    assert (waiting["attempt_id"], waiting["reason"]) == (
        attempt.attempt_id,
        "fraudulent: needs_response, 1250 EUR",
    )
    assert (await account.payment(attempt)).status is PaymentStatus.SUCCEEDED


async def test_a_refund_made_by_hand_reaches_its_payment(account: Account) -> None:
    """Told by several events it is one refund; in full it makes the payment REFUNDED, so that the goods come back."""
    attempt = await account.paid()

    await account.give_back(attempt, 250)
    part = await account.hear()
    status = (await account.payment(attempt)).status
    await account.give_back(attempt, 1_000)
    rest = await account.hear()

    payment = await account.payment(attempt)
    assert (part.count("applied"), rest.count("applied")) == (1, 1)
    assert (status, payment.status) == (PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDED)
    assert sorted((r.amount_minor, r.reason, r.status) for r in payment.refunds.values()) == [
        (250, "operator", "SUCCEEDED"),
        (1_000, "operator", "SUCCEEDED"),
    ]


async def test_nobody_is_asked_within_a_transaction(account: Account) -> None:
    """While Stripe keeps silent the delivery has a reason and no verdict, and no lock is held; then it is judged."""
    attempt = await account.paid()
    account.double.dispute(session_of(attempt))
    account.double.misbehave(wrong(500))

    before = await account.hear(account.double.events[-1:])
    async with account.database.connection() as connection:
        reason = await connection.fetchval("SELECT reason FROM webhooks ORDER BY id DESC LIMIT 1")
    await hurry(account.database)
    await account.judge.tick()

    assert before == [None]
    assert reason == "whose payment it is, is not known: answered with 500: api_error"
    assert (await verdicts(account.database))[-1] == "applied"


async def test_a_repeated_dispute_is_not_asked_about_again(account: Account) -> None:
    """Its event has its verdict."""
    attempt = await account.paid()
    account.double.dispute(session_of(attempt))
    opened = account.double.events[-2:-1]
    assert await account.hear(opened) == ["applied"]
    calls = len(account.double.calls)

    assert await account.hear(opened) == ["duplicate"]
    assert len(account.double.calls) == calls


@pytest.mark.parametrize("is_known", [True, False], ids=["of-others", "gone"])
async def test_what_is_not_ours_is_unmatched_for_good(account: Account, *, is_known: bool) -> None:
    """An account may have other payments: about theirs Stripe is asked once."""
    attempt = await account.paid()
    account.double.dispute(session_of(attempt))
    for intent in account.double.intents.values():
        intent["metadata"] = {}
    if not is_known:
        account.double.intents.clear()

    given = await account.hear()

    async with account.database.connection() as connection:
        judge_at = await connection.fetchval("SELECT judge_at FROM webhooks ORDER BY id DESC LIMIT 1")
    assert (given[-1], judge_at) == ("unmatched", None)
    assert await account.quarantine() == []
