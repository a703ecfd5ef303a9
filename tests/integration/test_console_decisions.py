"""Are decisions about money made once, after their plan, with their reason, and by the service whose money it is?"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ops.actions import Action, list_actions
from services.payment_service.domain.attempts import Attempt
from shared.access import Scope, new_key
from shared.database import Database
from shared.events import PaymentStatus
from shared.ids import new_id
from tests.integration.console_harness import NOWHERE, Browser, console
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


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """A gateway that gives money back."""
    async with fake_gateway() as running:
        yield running


@pytest.fixture
async def payments(payment_db: Database, gateway: FakeGateway) -> AsyncIterator[Client]:
    """The running payment service."""
    async with service(payment_db, gateway.url) as running:
        yield running


@pytest.fixture
def dsns(order_db: Database, inventory_db: Database, payment_db: Database) -> Mapping[str, str]:
    """Three fresh databases."""
    return {"order": order_db.dsn, "inventory": inventory_db.dsn, "payment": payment_db.dsn}


@pytest.fixture
async def browser(dsns: Mapping[str, str], payments: Client, tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser that has logged in, as Zoë."""
    async with logged_in(dsns, tmp_path, payments.url) as opened:
        yield opened


@asynccontextmanager
async def logged_in(dsns: Mapping[str, str], data_dir: Path, payment_url: str) -> AsyncIterator[Browser]:
    """Open a console of one payment service, and log in."""
    async with console(dsns, data_dir, payment_url=payment_url, operator_token=OPERATOR_TOKEN) as opened:
        await opened.post("/login", {"name": "Zoë", "token": OPERATOR_TOKEN})
        yield opened


async def a_quarantined(database: Database) -> Attempt:
    """Return an attempt of which 1 minor unit came."""
    attempt = await start_attempt(database, await open_payment(database))
    await keep(database, (f"e-{attempt.attempt_id}", webhook_body(attempt, amount_minor=1)))
    await a_judge(database).tick()
    return attempt


def address(attempt: Attempt) -> str:
    """Return where an attempt is decided about."""
    return f"/payments/{attempt.order_id}/attempts/{attempt.attempt_id}/resolve"


async def actions_of(database: Database) -> list[Action]:
    """Return what operators were recorded to have done, the newest first."""
    async with database.connection() as connection:
        return await list_actions(connection)


async def test_looking_at_a_plan_decides_nothing(browser: Browser, payment_db: Database) -> None:
    """However often, and for both decisions."""
    attempt = await a_quarantined(payment_db)

    plans = [await browser.get(f"{address(attempt)}?action={action}") for action in ("accept", "refund")]

    assert ["What would happen" in plan.words for plan in plans] == [True, True]
    assert (await payment_of(payment_db, attempt.order_id)).status is PaymentStatus.QUARANTINED


async def test_accepted_money_is_accepted_with_who_and_why(browser: Browser, payment_db: Database) -> None:
    """The payment service decides, and keeps the name of the login and the reason; the quarantine is empty then."""
    attempt = await a_quarantined(payment_db)
    plan = await browser.get(f"{address(attempt)}?action=accept")

    done = await browser.submit(plan, address(attempt), action="accept", reason="agreed by phone")
    shown = await browser.get(f"/payments/{attempt.order_id}")
    quarantine = await browser.get("/payments/quarantine")

    payment = await payment_of(payment_db, attempt.order_id)
    assert (done.status, payment.status, payment.settled_amount_minor) == (200, PaymentStatus.SUCCEEDED, 1)
    assert "agreed by phone" in shown.words
    assert "Zo\\xeb" in shown.words
    assert "Nothing is quarantined." in quarantine.words


async def test_money_goes_back_when_an_operator_says_so(browser: Browser, payment_db: Database) -> None:
    """The refund is stored, and can be seen."""
    attempt = await a_quarantined(payment_db)
    plan = await browser.get(f"{address(attempt)}?action=refund")

    done = await browser.submit(plan, address(attempt), action="refund", reason="not ours")
    shown = await browser.get(f"/payments/{attempt.order_id}")

    payment = await payment_of(payment_db, attempt.order_id)
    assert [refund.amount_minor for refund in payment.refunds.values()] == [1]
    assert "The refund is stored" in done.words
    assert "Refunds" in shown.words


async def test_a_decision_is_kept_under_the_name_of_the_api_key(
    dsns: Mapping[str, str], payments: Client, payment_db: Database, tmp_path: Path
) -> None:
    """Who logs in with a key is known by it, whoever it was said to be."""
    attempt, key, file = await a_quarantined(payment_db), new_key("grace", Scope.OPERATOR), tmp_path / "keys"
    file.write_text(key.text())

    async with console(
        dsns, tmp_path, payment_url=payments.url, operator_token=OPERATOR_TOKEN, api_keys_file=file
    ) as browser:
        await browser.post("/login", {"name": "Somebody Else", "token": key.key})
        plan = await browser.get(f"{address(attempt)}?action=accept")
        await browser.submit(plan, address(attempt), action="accept", reason="agreed by phone")
        shown = await browser.get(f"/payments/{attempt.order_id}")

    assert "key:grace" in shown.words
    assert "Somebody Else" not in shown.words


async def test_a_second_decision_is_refused_in_the_words_of_the_service(
    browser: Browser, payment_db: Database
) -> None:
    """Two operators with the same plan: the first one counts, and the second one is told."""
    attempt = await a_quarantined(payment_db)
    plan = await browser.get(f"{address(attempt)}?action=accept")

    await browser.submit(plan, address(attempt), action="accept", reason="agreed by phone")
    late = await browser.submit(plan, address(attempt), action="refund", reason="not ours")

    assert late.status == 409
    assert "The payment service refuses:" in late.words
    assert (await payment_of(payment_db, attempt.order_id)).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize("fields", [{"reason": " "}, {"reason": "x" * 401}, {"action": "keep"}])
async def test_without_a_reason_nothing_is_decided(
    browser: Browser, payment_db: Database, fields: dict[str, str]
) -> None:
    """Missing, endless, or for a decision that there is not: 422, and all stays as it is."""
    attempt = await a_quarantined(payment_db)
    plan = await browser.get(f"{address(attempt)}?action=accept")

    refused = await browser.submit(plan, address(attempt), **{"action": "accept", "reason": "yes", **fields})

    assert refused.status == 422
    assert (await payment_of(payment_db, attempt.order_id)).status is PaymentStatus.QUARANTINED


async def test_an_attempt_of_another_order_is_not_found(browser: Browser, payment_db: Database) -> None:
    """An address that was put together by hand decides about nothing."""
    attempt = await a_quarantined(payment_db)
    path = f"/payments/{new_id()}/attempts/{attempt.attempt_id}/resolve"

    assert (await browser.get(f"{path}?action=accept")).status == 404


async def test_the_payment_service_away_is_said_and_safe(
    dsns: Mapping[str, str], payment_db: Database, tmp_path: Path
) -> None:
    """503: the same again is safe."""
    attempt = await a_quarantined(payment_db)

    async with logged_in(dsns, tmp_path, f"http://{NOWHERE}") as browser:
        plan = await browser.get(f"{address(attempt)}?action=accept")
        away = await browser.submit(plan, address(attempt), action="accept", reason="agreed by phone")

    assert away.status == 503
    assert "Doing the same again is safe." in away.words


async def test_a_delivery_is_judged_again_with_who_and_why(browser: Browser, payment_db: Database) -> None:
    """By the service, once what it was missing is there; the action is recorded in its database."""
    attempt = await start_attempt(payment_db, await open_payment(payment_db))
    await keep(payment_db, ("early", webhook_body(attempt)))
    async with payment_db.connection() as connection:
        webhook_id = await connection.fetchval(
            "UPDATE webhooks SET verdict = 'unmatched', judge_at = NULL WHERE event_id = 'early' RETURNING id"
        )
    page = await browser.get(f"/webhooks/{webhook_id}")

    refused = await browser.submit(page, f"/webhooks/{webhook_id}/retry")
    done = await browser.submit(page, f"/webhooks/{webhook_id}/retry", reason="the attempt is there now")
    again = await browser.submit(page, f"/webhooks/{webhook_id}/retry", reason="once more")

    (action,) = await actions_of(payment_db)
    assert (refused.status, done.status, again.status) == (422, 200, 422)
    assert "Judged again: unmatched → applied." in done.words
    assert (action.who, action.command, action.reason) == (
        "Zoë (console)",
        "webhooks retry",
        "the attempt is there now",
    )
