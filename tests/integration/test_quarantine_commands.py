"""Does `holdfast quarantine` tell which money waits for a decision, and let an operator make it, once and on record?"""

import pytest

from ops.actions import list_actions
from services.payment_service.domain.attempts import Attempt, AttemptStatus
from services.payment_service.domain.refunds import RefundStatus
from shared.database import Database
from shared.errors import Conflict, NotFound
from shared.events import PaymentStatus
from shared.ids import new_id
from tests.feeding import outbox_events
from tests.integration.dead_letters import holdfast, say
from tests.integration.payment_harness import (
    a_judge,
    keep,
    open_payment,
    payment_of,
    start_attempt,
    webhook_body,
)


@pytest.fixture
async def payments(payment_db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The payment service's database, where operators' commands look for all three."""
    for service in ("ORDER", "INVENTORY", "PAYMENT"):
        monkeypatch.setenv(f"HOLDFAST_{service}_DATABASE_DSN", payment_db.dsn)
    monkeypatch.setenv("HOLDFAST_OPERATOR_NAME", "Ada")
    return payment_db


async def a_quarantined(payments: Database) -> Attempt:
    """Return an attempt for which one cent too little came."""
    attempt = await start_attempt(payments, await open_payment(payments))
    await keep(payments, (f"e-{attempt.attempt_id}", webhook_body(attempt, amount_minor=1_249)))
    await a_judge(payments).tick()
    return attempt


async def test_the_quarantine_is_listed_until_it_is_decided(payments: Database) -> None:
    """With what was expected and what came; exit status 1 as long as anything waits."""
    attempt = await a_quarantined(payments)

    status, told = await holdfast("quarantine", "list")

    (waiting,) = told["items"]
    assert (status, waiting["attempt_id"], waiting["reason"]) == (1, str(attempt.attempt_id), "amount")
    assert (waiting["expected_amount_minor"], waiting["received_amount_minor"]) == (1_250, 1_249)
    _, table = await say("quarantine", "list")
    assert "1249 EUR" in table


async def test_a_long_quarantine_is_read_in_parts(payments: Database) -> None:
    """The last one of a list leads to the next."""
    attempts = {str((await a_quarantined(payments)).attempt_id) for _ in range(3)}

    _, first = await holdfast("quarantine", "list", "--limit", 2)
    _, rest = await holdfast("quarantine", "list", "--limit", 2, "--after", first["next"])

    assert {item["attempt_id"] for item in [*first["items"], *rest["items"]]} == attempts
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("action", "after", "refunds"),
    [("accept", PaymentStatus.SUCCEEDED, []), ("refund", PaymentStatus.QUARANTINED, [RefundStatus.DUE])],
)
async def test_a_decision_is_made_by_the_services_own_rules(
    payments: Database, action: str, after: PaymentStatus, refunds: list[RefundStatus]
) -> None:
    """What came counts, or is due to go back; who decided, when and why is kept twice: as decision and as action."""
    attempt = await a_quarantined(payments)

    status, told = await holdfast(
        *("quarantine", "resolve", attempt.attempt_id, "--action", action, "--reason", "by telephone"),
        *("--execute", "--yes"),
    )

    payment = await payment_of(payments, attempt.order_id)
    assert (status, told["executed"], told["payment_after"]) == (0, True, after)
    assert payment.status is after
    assert [refund.status for refund in payment.refunds.values()] == refunds
    assert (await holdfast("quarantine", "list"))[0] == 0
    _, made = await holdfast("quarantine", "decisions")
    (decision,) = made["items"]
    assert (decision["action"], decision["decided_by"], decision["reason"], decision["review_reason"]) == (
        action,
        "Ada",
        "by telephone",
        "amount",
    )
    async with payments.connection() as connection:
        (recorded,) = await list_actions(connection, command="quarantine resolve")
    assert (recorded.who, recorded.reason, recorded.counts) == ("Ada", "by telephone", {"decisions": 1})


async def test_without_execute_nothing_is_decided(payments: Database) -> None:
    """What would follow is shown, and undone: no row, no event, no record."""
    attempt = await a_quarantined(payments)
    before = await outbox_events(payments)

    status, told = await holdfast(
        "quarantine", "resolve", attempt.attempt_id, "--action", "refund", "--reason", "a try"
    )

    payment = await payment_of(payments, attempt.order_id)
    assert (status, told["executed"], told["refund"]["amount_minor"]) == (0, False, 1_249)
    assert (payment.refunds, payment.attempts[attempt.attempt_id].status) == ({}, AttemptStatus.QUARANTINED)
    assert await outbox_events(payments) == before
    assert (await holdfast("quarantine", "decisions"))[1] == {"items": []}
    async with payments.connection() as connection:
        assert await list_actions(connection) == []


async def test_nobody_decides_unasked(payments: Database) -> None:
    """Where nobody can answer, --yes must say so."""
    attempt = await a_quarantined(payments)

    with pytest.raises(Conflict, match="--execute --yes"):
        await say(
            "quarantine", "resolve", attempt.attempt_id, "--action", "accept", "--reason", "x", "--execute"
        )

    assert (await holdfast("quarantine", "list"))[0] == 1


async def test_a_decision_is_made_once(payments: Database) -> None:
    """The same again changes nothing; another one is refused with who decided before."""
    attempt = await a_quarantined(payments)
    words = ("--reason", "so", "--execute", "--yes")
    await holdfast("quarantine", "resolve", attempt.attempt_id, "--action", "accept", *words)

    _, again = await holdfast("quarantine", "resolve", attempt.attempt_id, "--action", "accept", *words)

    assert (again["executed"], again["already_decided"]) == (False, True)
    with pytest.raises(Conflict, match="accept by Ada"):
        await say("quarantine", "resolve", attempt.attempt_id, "--action", "refund", *words)


async def test_what_is_not_to_be_decided_is_refused(payments: Database) -> None:
    """An attempt that nobody contests, and one that there is not."""
    attempt = await start_attempt(payments, await open_payment(payments))
    words = ("--action", "accept", "--reason", "so")

    with pytest.raises(Conflict, match="nothing is to be decided"):
        await say("quarantine", "resolve", attempt.attempt_id, *words)
    with pytest.raises(NotFound, match="quarantine list"):
        await say("quarantine", "resolve", new_id(), *words)
