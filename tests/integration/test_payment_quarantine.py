"""Do operators see all money that is not as it should be, and does each decision count once?"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.payment_service.domain.attempts import Attempt, AttemptStatus
from shared.database import Database
from shared.events import PaymentStatus
from tests.feeding import outbox_events
from tests.integration.payment_harness import (
    OPERATOR_TOKEN,
    Client,
    FakeGateway,
    a_judge,
    fake_gateway,
    keep,
    open_payment,
    payment_of,
    service,
    start_attempt,
    webhook_body,
)
from tests.payment_building import AMOUNT_MINOR
from tests.waiting import eventually

ACCEPT, REFUND = {"action": "accept", "reason": "agreed by phone"}, {"action": "refund", "reason": "not ours"}


async def a_quarantined(database: Database, **changes: Any) -> Attempt:
    """Return an attempt whose success was another than asked for, by default of 1 minor unit."""
    attempt = await start_attempt(database, await open_payment(database))
    body = webhook_body(attempt, **(changes or {"amount_minor": 1}))
    await keep(database, (f"e-{attempt.attempt_id}", body))
    await a_judge(database).tick()
    return attempt


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """A gateway that gives money back."""
    async with fake_gateway() as running:
        yield running


@pytest.fixture
async def client(payment_db: Database, gateway: FakeGateway) -> AsyncIterator[Client]:
    """The running service."""
    async with service(payment_db, gateway.url, measure_interval_seconds=0.05) as running:
        yield running


async def decide(client: Client, attempt: Attempt, body: Any, **headers: str) -> tuple[int, Any, Any]:
    """Decide by HTTP as an operator."""
    path = f"/payments/{attempt.order_id}/attempts/{attempt.attempt_id}/resolve"
    return await client.call("POST", path, body, token=OPERATOR_TOKEN, **headers)


async def quarantine(client: Client, query: str = "") -> dict[str, Any]:
    """Return the quarantine as an operator sees it."""
    status, shown, _ = await client.call("GET", f"/quarantine{query}", token=OPERATOR_TOKEN)
    assert status == 200
    assert isinstance(shown, dict)
    return shown


async def test_the_quarantine_lists_what_was_expected_and_what_came(
    client: Client, payment_db: Database
) -> None:
    """Part by part, oldest first, with the reason; what is as it should be is not in it."""
    attempts = [await a_quarantined(payment_db), await a_quarantined(payment_db, currency="USD")]
    await a_quarantined(payment_db, amount_minor=AMOUNT_MINOR)

    first = await quarantine(client, "?limit=1")
    second = await quarantine(client, f"?after={first['next']}")
    forbidden, _, _ = await client.call("GET", "/quarantine")
    bad, _, _ = await client.call("GET", "/quarantine?after=x", token=OPERATOR_TOKEN)

    (item,), (other,) = first["items"], second["items"]
    assert (item["attempt_id"], other["attempt_id"]) == tuple(str(a.attempt_id) for a in attempts)
    assert (item["status"], item["reason"], other["reason"]) == ("QUARANTINED", "amount", "currency")
    assert (item["expected_amount_minor"], item["received_amount_minor"]) == (AMOUNT_MINOR, 1)
    assert (other["expected_currency"], other["received_currency"], second["next"]) == ("EUR", "USD", None)
    assert (forbidden, bad) == (403, 422)


async def test_an_accepted_amount_settles_the_payment_and_is_recorded(
    client: Client, payment_db: Database
) -> None:
    """Who, when and why are kept; PaymentSucceeded names the request as its cause."""
    attempt = await a_quarantined(payment_db)

    status, answer, headers = await decide(client, attempt, ACCEPT, X_Operator="ann")

    payment = await payment_of(payment_db, attempt.order_id)
    stored = payment.attempts[attempt.attempt_id]
    assert (status, answer["action"], answer["decided_by"], answer["review_reason"]) == (
        200,
        "accept",
        "ann",
        "amount",
    )
    assert (payment.status, payment.settled_amount_minor) == (PaymentStatus.SUCCEEDED, 1)
    assert (stored.status, stored.accepted_amount_minor) == (AttemptStatus.SUCCEEDED, 1)
    (told,) = await outbox_events(payment_db, types=["PaymentSucceeded"])
    assert told.headers["ce_causationid"] == f"http:{headers['X-Request-Id']}"
    assert (await quarantine(client))["items"] == []
    async with payment_db.connection() as connection:
        rows = await connection.fetch("SELECT decided_by, reason FROM resolutions")
    assert [tuple(row) for row in rows] == [("ann", "agreed by phone")]


async def test_refused_money_goes_back_as_it_came(
    client: Client, payment_db: Database, gateway: FakeGateway
) -> None:
    """In the currency in which it was received, by the same worker as any refund, under its transaction."""
    attempt = await a_quarantined(payment_db, amount_minor=1, currency="USD", payment_id="theirs")

    status, answer, _ = await decide(client, attempt, REFUND)
    await eventually(lambda: gateway.refunds)

    async def is_back() -> bool:
        stored = (await payment_of(payment_db, attempt.order_id)).attempts[attempt.attempt_id]
        return stored.status is AttemptStatus.REFUNDED

    await eventually(is_back)
    ((key, refund),) = gateway.refunds.items()
    assert (status, answer["refund_id"], answer["decided_by"]) == (200, key, "operator")
    assert (refund["amount_minor"], refund["currency"]) == (1, "USD")
    assert gateway.calls_of("/refunds")[0][1] == "/payments/theirs/refunds"
    (told,) = await outbox_events(payment_db, types=["PaymentRefunded"])
    assert told.event.reason == "operator"


async def test_a_decision_is_made_once(client: Client, payment_db: Database) -> None:
    """The same again, by key or by content, is the same answer; another one is a conflict, under the same key 422."""
    attempt = await a_quarantined(payment_db)

    answers = await asyncio.gather(
        *(decide(client, attempt, ACCEPT, Idempotency_Key="k-1") for _ in range(5))
    )
    _, without_key, headers = await decide(client, attempt, ACCEPT)
    other, _, _ = await decide(client, attempt, REFUND)
    other_body, _, _ = await decide(client, attempt, REFUND, Idempotency_Key="k-1")

    assert {status for status, _, _ in answers} == {200}
    assert len({answer["resolution_id"] for _, answer, _ in answers} | {without_key["resolution_id"]}) == 1
    assert headers["Idempotency-Replayed"] == "true"
    assert (other, other_body) == (409, 422)
    assert len(await outbox_events(payment_db, types=["PaymentSucceeded"])) == 1


async def test_what_cannot_be_decided_is_refused(client: Client, payment_db: Database) -> None:
    """404 for what is not there, 409 where nothing is to be decided, 422 and 400 for what does not fit, 403."""
    attempt = await a_quarantined(payment_db)
    fine = await a_quarantined(payment_db, amount_minor=AMOUNT_MINOR)
    path = f"/payments/{attempt.order_id}/attempts"

    statuses = {
        "other order": (await client.call("POST", f"{path}/{fine.attempt_id}/resolve", ACCEPT, token=OPERATOR_TOKEN))[0],
        "fine": (await decide(client, fine, ACCEPT))[0],
        "no reason": (await decide(client, attempt, {"action": "accept"}))[0],
        "other action": (await decide(client, attempt, {"action": "keep", "reason": "x"}))[0],
        "long name": (await decide(client, attempt, ACCEPT, X_Operator="x" * 101))[0],
        "bad key": (await decide(client, attempt, ACCEPT, Idempotency_Key="k" * 256))[0],
        "storefront": (await client.call("POST", f"{path}/{attempt.attempt_id}/resolve", ACCEPT))[0],
    }  # fmt: skip

    assert statuses == {
        "other order": 404,
        "fine": 409,
        "no reason": 422,
        "other action": 422,
        "long name": 400,
        "bad key": 400,
        "storefront": 403,
    }
    assert (await payment_of(payment_db, attempt.order_id)).status is PaymentStatus.QUARANTINED


async def test_what_waits_for_a_person_is_measured(client: Client, payment_db: Database) -> None:
    """The quarantine and refunds that a gateway refuses are gauges; deliveries are counted by verdict."""
    await a_quarantined(payment_db)
    refused = await a_quarantined(payment_db)
    await decide(client, refused, REFUND)
    async with payment_db.connection() as connection:
        await connection.execute(
            "UPDATE refunds SET status = 'FAILED', next_try_at = now() + interval '1 day'"
        )

    async def metrics() -> str:
        async with client.session.get(client.url + "/metrics") as response:
            return await response.text()

    async def is_measured() -> bool:
        shown = await metrics()
        return (
            'holdfast_quarantine{gateway="sandbox",status="QUARANTINED"} 1.0' in shown
            and 'holdfast_refunds_open{gateway="sandbox",status="FAILED"} 1.0' in shown
        )

    await eventually(is_measured)
    assert 'holdfast_webhooks_total{gateway="sandbox",verdict="mismatch"}' in await metrics()
