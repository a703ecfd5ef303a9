"""Does `holdfast webhooks` tell what the gateways delivered, show it safely, and have it judged again when asked to?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from ops.actions import list_actions
from services.payment_service import handlers
from services.payment_service.domain.attempts import Attempt
from services.payment_service.store import NewWebhook
from shared.database import Database
from shared.errors import Conflict, Misconfigured, NotFound
from shared.ids import new_id
from tests.integration.dead_letters import holdfast, say
from tests.integration.payment_harness import (
    a_judge,
    keep,
    open_payment,
    payment_of,
    start_attempt,
    verdicts,
    webhook_body,
)


@pytest.fixture
async def payments(payment_db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The payment service's database, where operators' commands look for all three."""
    for service in ("ORDER", "INVENTORY", "PAYMENT"):
        monkeypatch.setenv(f"HOLDFAST_{service}_DATABASE_DSN", payment_db.dsn)
    monkeypatch.setenv("HOLDFAST_OPERATOR_NAME", "Ada")
    return payment_db


async def deliver(payments: Database, *deliveries: tuple[str, bytes]) -> None:
    """Have deliveries come in and be judged."""
    await keep(payments, *deliveries)
    await a_judge(payments).tick()


async def an_attempt(payments: Database) -> Attempt:
    """Return an attempt that waits for its gateway's word."""
    return await start_attempt(payments, await open_payment(payments))


def about_nobody() -> bytes:
    """Return a webhook about an attempt that we do not have."""
    data = {
        "payment_id": "p",
        "reference": str(new_id()),
        "amount_minor": 1,
        "currency": "EUR",
        "occurred_at": "2026-03-01T12:00:00Z",
    }
    return orjson.dumps({"type": "payment.succeeded", "data": data})


@asynccontextmanager
async def judging(payments: Database) -> AsyncIterator[None]:
    """Judge what is due, as the payment service does all the time."""
    judge = a_judge(payments)

    async def run() -> None:
        while True:
            await judge.tick()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def forget_the_verdict(payments: Database, verdict: str) -> None:
    """Leave a delivery as one that was judged before its cause was mended."""
    async with payments.connection() as connection:
        await connection.execute(
            "UPDATE webhooks SET verdict = $1, reason = 'a mistake of ours', judge_at = NULL, judge_tries = 1",
            verdict,
        )


# --- the list -------------------------------------------------------------------------------------------------------


async def test_deliveries_are_listed_with_their_verdicts(payments: Database) -> None:
    """In the order in which they came, with the order they were found to be about."""
    attempt = await an_attempt(payments)
    await deliver(
        payments, ("e1", webhook_body(attempt)), ("e1", webhook_body(attempt)), ("e2", about_nobody())
    )

    status, listed = await holdfast("webhooks", "list")

    assert status == 0
    assert [(row["event_id"], row["verdict"]) for row in listed["items"]] == [
        ("e1", "applied"),
        ("e1", "duplicate"),
        ("e2", "unmatched"),
    ]
    assert listed["items"][0]["order_id"] == str(attempt.order_id)
    assert listed["next"] is None


async def test_a_filter_finds_the_deliveries_that_are_meant(payments: Database) -> None:
    """By verdict, gateway, order and time, and each of them alone."""
    attempt = await an_attempt(payments)
    await deliver(payments, ("e1", webhook_body(attempt)), ("e2", about_nobody()))
    await keep(payments, ("e3", about_nobody()))
    async with payments.connection() as connection:
        await connection.execute(
            "UPDATE webhooks SET received_at = now() - interval '2 days' WHERE event_id = 'e1'"
        )
        await connection.execute("UPDATE webhooks SET gateway = 'stripe' WHERE event_id = 'e2'")

    async def found(*arguments: object) -> list[str]:
        _, listed = await holdfast("webhooks", "list", *arguments)
        return [row["event_id"] for row in listed["items"]]

    assert await found("--verdict", "applied") == ["e1"]
    assert await found("--verdict", "unjudged") == ["e3"]
    assert await found("--gateway", "stripe") == ["e2"]
    assert await found("--order-id", attempt.order_id) == ["e1"]
    assert await found("--since", "1d") == ["e2", "e3"]
    assert await found("--gateway", "sandbox", "--since", "1d") == ["e3"]


async def test_a_long_list_is_read_in_parts(payments: Database) -> None:
    """The last id of one part leads to the next."""
    await keep(payments, *[(f"e{number}", b"{}") for number in range(5)])
    seen: list[str] = []
    after: int | None = 0

    while after is not None:
        _, listed = await holdfast("webhooks", "list", "--limit", 2, "--after", after)
        seen += [row["event_id"] for row in listed["items"]]
        after = listed["next"]

    assert seen == [f"e{number}" for number in range(5)]


# --- one delivery ---------------------------------------------------------------------------------------------------


async def test_a_delivery_is_shown_without_signature_and_card_number(payments: Database) -> None:
    """Body as JSON, the other headers as they came, the verdict and why."""
    body = orjson.dumps({"type": "x", "card": {"number": "4111111111111111", "cvc": "123"}})
    headers = orjson.dumps({"webhook-id": "e1", "webhook-signature": "v1,c2lnbmVk"}).decode()
    async with payments.transaction() as tx:
        await handlers.keep_webhooks(tx, [NewWebhook("sandbox", "e1", headers, body)])
    await a_judge(payments).tick()
    _, listed = await holdfast("webhooks", "list")
    webhook_id = listed["items"][0]["id"]

    status, shown = await holdfast("webhooks", "show", webhook_id)
    _, printed = await say("webhooks", "show", webhook_id)

    assert (status, shown["verdict"], shown["judge_tries"]) == (0, "ignored", 1)
    assert shown["reason"]
    assert shown["headers"] == {"webhook-id": "e1", "webhook-signature": "***"}
    assert shown["body"]["card"] == {"number": "************1111", "cvc": "***"}
    assert "c2lnbmVk" not in printed
    assert "41111111" not in printed


async def test_a_delivery_that_is_not_there_is_refused(payments: Database) -> None:
    """The error says where to look."""
    with pytest.raises(NotFound, match="holdfast webhooks list"):
        await holdfast("webhooks", "show", 4711)


# --- judged again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["ignored", "unmatched", None])
async def test_a_delivery_is_judged_again_and_applied(payments: Database, verdict: str | None) -> None:
    """What was passed over by mistake counts after all, once the mistake is mended."""
    attempt = await an_attempt(payments)
    await keep(payments, ("e1", webhook_body(attempt)))
    await forget_the_verdict(payments, verdict)  # type: ignore[arg-type] # NULL is one of them
    _, listed = await holdfast("webhooks", "list")
    webhook_id = listed["items"][0]["id"]

    async with judging(payments):
        status, done = await holdfast(
            "webhooks", "retry", webhook_id, "--reason", "mended", "--execute", "--yes"
        )

    (result,) = done["results"]
    assert (status, result["after"], result["judged"]) == (0, "applied", True)
    assert result["before"] == (verdict or "unjudged")
    assert (await payment_of(payments, attempt.order_id)).settled_attempt_id == attempt.attempt_id


async def test_without_execute_nothing_is_judged_again(payments: Database) -> None:
    """The plan lists what would be; so it is where nobody can answer."""
    await keep(payments, ("e1", about_nobody()))
    await forget_the_verdict(payments, "unmatched")

    status, plan = await holdfast("webhooks", "retry", "--verdict", "unmatched")
    with pytest.raises(Conflict, match="--yes"):
        await holdfast("webhooks", "retry", "--verdict", "unmatched", "--execute")

    await a_judge(payments).tick()
    _, listed = await holdfast("webhooks", "list")
    assert (status, plan["executed"], len(plan["deliveries"])) == (0, False, 1)
    assert [row["judge_tries"] for row in listed["items"]] == [1]
    async with payments.connection() as connection:
        assert await list_actions(connection) == []


async def test_a_verdict_that_counted_stays(payments: Database) -> None:
    """What was applied is not judged again, and the exit status says that it was asked for in vain."""
    attempt = await an_attempt(payments)
    await deliver(payments, ("e1", webhook_body(attempt)))
    _, listed = await holdfast("webhooks", "list")
    webhook_id = listed["items"][0]["id"]

    status, done = await holdfast("webhooks", "retry", webhook_id, webhook_id + 1, "--execute", "--yes")
    await a_judge(payments).tick()

    assert status == 1
    assert [problem["id"] for problem in done["problems"]] == [webhook_id + 1, webhook_id]
    assert "applied" in done["problems"][1]["why"]
    assert await verdicts(payments) == ["applied"]


async def test_a_retry_is_recorded(payments: Database) -> None:
    """Who, why, and which deliveries; one that nobody judges in time is told of."""
    await keep(payments, ("e1", about_nobody()), ("e2", about_nobody()))
    await forget_the_verdict(payments, "unmatched")

    status, done = await holdfast(
        "webhooks",
        "retry",
        "--verdict",
        "unmatched",
        "--limit",
        1,
        "--reason",
        "ticket 1",
        "--wait",
        0,
        "--execute",
        "--yes",
    )

    async with payments.connection() as connection:
        (action,) = await list_actions(connection)
    assert (status, done["results"][0]["judged"]) == (1, False)
    assert (action.who, action.command, action.reason) == ("Ada", "webhooks retry", "ticket 1")
    assert action.counts == {"deliveries": 1}
    assert action.details["webhook_ids"] == [done["results"][0]["id"]]
    assert str(action.id) == done["action_id"]


@pytest.mark.parametrize(
    "arguments", [[], ["--gateway", "sandbox"], [1, "--verdict", "unmatched"], [1, "--gateway", "sandbox"]]
)
async def test_which_deliveries_are_meant_has_to_be_said(payments: Database, arguments: list[Any]) -> None:
    """Either by their ids or by their verdict: everything at once is never meant."""
    with pytest.raises(Misconfigured, match="--verdict"):
        await holdfast("webhooks", "retry", *arguments)
