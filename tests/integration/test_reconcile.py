"""Does `holdfast reconcile` find every disagreement about money and goods, and nothing else?"""

import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from rich.console import Console

from deploy.local.postgres import EmbeddedPostgres
from ops.reconcile import Period, ReconcileLimits, ReconcileReport, reconcile, render_reconciliation
from ops.reconcile.command import reconcile as run_command
from shared.errors import Misconfigured
from tests.audit_building import CONFIRMED, LONG_AGO, TOTAL, Paid, Saga, World, lately, open_world

#: Holds every order of the world, which were all paid at one time.
PERIOD = Period(LONG_AGO - timedelta(hours=1))


@pytest.fixture(scope="module")
async def kept_world(postgres: EmbeddedPostgres, templates: dict[str, str]) -> AsyncIterator[World]:
    """An order of every kind, nothing wrong, and no money undecided."""
    async with open_world(postgres, templates) as world:
        async with world.payment_db.transaction() as tx:
            await tx.execute("UPDATE attempts SET status = 'PENDING' WHERE status = 'QUARANTINED'")
            await tx.execute("UPDATE refunds SET status = 'SUCCEEDED', next_try_at = NULL")
            for table in ("attempts", "refunds"):
                await tx.execute(f"DROP TABLE kept.{table}")
                await tx.execute(f"CREATE TABLE kept.{table} AS TABLE public.{table}")
        yield world


@pytest.fixture
async def world(kept_world: World) -> AsyncIterator[World]:
    """The same, to be corrupted; put back afterwards."""
    yield kept_world
    await kept_world.put_back()


async def no_pause(_seconds: float) -> None:
    """Lose no time between two looks."""


async def reconciled(world: World, *, period: Period = PERIOD, **limits: Any) -> ReconcileReport:
    """Reconcile without losing time."""
    return await reconcile(world.dsns, period, limits=ReconcileLimits(**limits), pause=no_pause)


def found(report: ReconcileReport) -> list[tuple[str, str]]:
    """Return the rule and the order of each disagreement."""
    return [(finding.check, finding.subject) for finding in report.findings]


def detail(report: ReconcileReport) -> str:
    """Return what the only disagreement says."""
    (finding,) = report.findings
    return finding.detail


async def change(world: World, table: str, name: str, assignments: str, *values: Any) -> None:
    """Change the rows of an order by hand; values are $2, $3 and so on."""
    owner = {"orders": world.order_db, "reservations": world.inventory_db}.get(table, world.payment_db)
    async with owner.connection() as connection:
        # Only the literals of tests get here.
        statement = f"UPDATE {table} SET {assignments} WHERE order_id = $1"  # noqa: S608
        await connection.execute(statement, world[name], *values)


_UNSETTLED = """
    status = 'PENDING', settled_attempt_id = NULL, settled_amount_minor = NULL, settled_currency = NULL, paid_at = NULL,
    refunded_minor = 0
"""


async def test_a_world_in_order_agrees(world: World) -> None:
    """Every order that was paid is counted once, and what was settled, heard and sold adds up."""
    report = await reconciled(world)

    assert report.findings == []
    assert report.ok
    (figure,) = report.figures
    # The eight that are PROCESSING (one of them paid twice, one free, one of 499), a refund due and one made.
    assert (figure.currency, figure.gateway) == ("EUR", "sandbox")
    assert (report.orders, report.agreed, report.open) == (10, 10, 0)
    assert figure.settled.count == 11
    assert figure.settled.minor == figure.given_back.minor + figure.goods.minor - (TOTAL - 1)
    assert figure.heard.count == 10
    assert figure.goods.count == 8


async def test_a_missing_payment_event_is_found(world: World) -> None:
    """The gateway settled, and the order still waits for its money (R1)."""
    await change(world, "orders", "processing", "payment = 'PENDING', status = 'AWAITING_PAYMENT'")

    report = await reconciled(world)

    assert found(report) == [("R1", world["processing"])]
    assert detail(report) == (
        "sandbox settled 500 EUR, and the order service has not heard of it (payment PENDING, order AWAITING_PAYMENT)"
    )
    assert (report.orders, report.agreed) == (10, 9)


@pytest.mark.parametrize(
    ("name", "assignments"),
    [
        ("processing", "settled_amount_minor = 1"),
        ("refunded", "payment = 'SUCCEEDED', status = 'REFUND_DUE'"),
    ],
)
async def test_wrong_news_of_money_is_found(world: World, name: str, assignments: str) -> None:
    """Another amount than was settled, or no word of the money that went back (R1)."""
    await change(world, "orders", name, assignments)

    assert found(await reconciled(world)) == [("R1", world[name])]


async def test_an_order_that_only_the_payment_service_knows_is_found(world: World) -> None:
    """Money for an order that the order service has lost (R1)."""
    await world.corrupt(world.order_db, "DELETE FROM orders WHERE order_id = $1", world["processing"])

    assert found(await reconciled(world)) == [("R1", world["processing"])]


async def test_money_without_goods_and_without_a_refund_is_found(world: World) -> None:
    """The gateway keeps it, and nothing was sold for it (R2)."""
    await change(world, "reservations", "processing", "status = 'RELEASED'")

    report = await reconciled(world)

    assert found(report) == [("R2", world["processing"])]
    assert "keeps 500 EUR" in detail(report)
    assert "reservation RELEASED" in detail(report)


async def test_a_second_payment_without_a_refund_is_found(world: World) -> None:
    """Goods match one payment only (R2)."""
    await world.corrupt(world.payment_db, "DELETE FROM refunds WHERE order_id = $1", world["paid twice"])

    assert found(await reconciled(world)) == [("R2", world["paid twice"])]


async def test_goods_without_money_are_found(world: World) -> None:
    """Goods sold for a payment that nobody settled (R3), or that went back in full (R3)."""
    await change(world, "reservations", "declined", "status = 'CONFIRMED', updated_at = now()")
    await change(world, "reservations", "refunded", "status = 'CONFIRMED', updated_at = now()")

    report = await reconciled(world, settle_seconds=0)

    assert found(report) == sorted([("R3", world["declined"]), ("R3", world["refunded"])])
    assert report.orders == 11


async def test_a_refund_that_is_refused_is_found_at_once(world: World) -> None:
    """With how long it has been owed, and why the gateway refuses (R4)."""
    await change(
        world,
        "refunds",
        "refund due",
        "status = 'FAILED', next_try_at = now(), error = 'no funds', created_at = now()",
    )

    report = await reconciled(world)

    assert found(report) == [("R4", world["refund due"])]
    assert detail(report) == "the refund of 500 EUR by sandbox is FAILED after 0 s (no funds)"


@pytest.mark.parametrize("status", ["DUE", "SENT", "UNKNOWN"])
async def test_a_refund_has_its_time(world: World, status: str) -> None:
    """Until then the order is on its way, which is neither agreement nor disagreement (R4)."""
    await change(
        world,
        "refunds",
        "refund due",
        "status = $2, next_try_at = now(), created_at = now() - interval '10 minutes'",
        status,
    )

    patient = await reconciled(world, refund_seconds_max=1_200)
    impatient = await reconciled(world, refund_seconds_max=300)

    assert (patient.ok, patient.open, patient.agreed) == (True, 1, 9)
    assert found(impatient) == [("R4", world["refund due"])]
    assert f"is {status} after 10 min" in detail(impatient)


async def test_money_that_waits_for_a_decision_is_found(world: World) -> None:
    """Quarantined, with what came instead of what (R5), however long ago the period began."""
    await change(world, "attempts", "quarantined", "status = 'QUARANTINED'")

    report = await reconciled(world, period=Period(lately()))

    assert found(report) == [("R5", world["quarantined"])]
    assert "1 EUR instead of 500 EUR by sandbox are quarantined" in detail(report)
    assert report.orders == 0


async def test_contested_money_is_found(world: World) -> None:
    """Settled, sold, and now disputed (R5)."""
    await change(
        world,
        "attempts",
        "processing",
        "dispute = 'chargeback', review_at = now() - interval '3 hours', review_reason = 'chargeback'",
    )

    report = await reconciled(world)

    assert found(report) == [("R5", world["processing"])]
    assert (
        detail(report) == "500 EUR by sandbox are contested (chargeback), and wait for a decision since 3 h"
    )


async def test_an_attempt_that_stays_unknown_is_found(world: World) -> None:
    """After a time; a younger one may still be answered (R6)."""
    await change(
        world, "attempts", "awaiting", "status = 'UNKNOWN', created_at = now() - interval '20 minutes'"
    )

    patient = await reconciled(world, unknown_seconds_max=1_800)
    impatient = await reconciled(world, unknown_seconds_max=900)

    assert patient.ok
    assert found(impatient) == [("R6", world["awaiting"])]
    assert "sandbox has not said for 20 min" in detail(impatient)


async def test_a_payment_event_without_a_payment_is_found(world: World) -> None:
    """The order service takes it for paid, the payment service does not (R7), and its goods are sold (R3)."""
    await change(world, "payments", "processing", _UNSETTLED)
    await change(world, "attempts", "processing", "status = 'PENDING'")

    report = await reconciled(world)

    assert found(report) == [("R3", world["processing"]), ("R7", world["processing"])]
    assert (report.orders, report.agreed) == (10, 9)


async def test_only_the_period_is_counted(world: World) -> None:
    """An order belongs to the time at which it was paid; the figures of another period know nothing of it."""
    lonely = Saga(
        status="PROCESSING", stock="CONFIRMED", path=CONFIRMED, money="SUCCEEDED", paid=[Paid()], at=lately()
    )
    await world.add("lonely", lonely)

    late = await reconciled(world, period=Period(lately() - timedelta(hours=1)))
    early = await reconciled(world, period=Period(PERIOD.since, lately() - timedelta(hours=1)))

    # The order whose refund is due was paid lately, too.
    assert (late.orders, late.agreed) == (2, 2)
    assert (early.orders, early.agreed) == (9, 9)


async def test_a_gateway_has_figures_of_its_own(world: World) -> None:
    """By currency and by gateway."""
    await change(
        world, "attempts", "processing", "gateway = 'stripe', currency = 'USD', received_currency = 'USD'"
    )

    figures = {(f.currency, f.gateway): f for f in (await reconciled(world)).figures}

    assert {*figures} == {("EUR", "sandbox"), ("USD", "stripe")}
    assert (figures["USD", "stripe"].settled.count, figures["USD", "stripe"].settled.minor) == (1, TOTAL)
    assert figures["USD", "stripe"].agreed == 1


async def test_traffic_under_way_is_no_disagreement(world: World) -> None:
    """What has healed at the second look is counted as agreed."""
    await change(world, "orders", "processing", "payment = 'PENDING'")

    async def heal(_seconds: float) -> None:
        await change(world, "orders", "processing", "payment = 'SUCCEEDED'")

    report = await reconcile(world.dsns, PERIOD, pause=heal)

    assert report.ok
    assert (report.orders, report.agreed) == (10, 10)


async def test_what_keeps_changing_is_on_its_way(world: World) -> None:
    """A young disagreement is waited for; if it stays young it is neither right nor wrong."""
    await change(world, "orders", "processing", "payment = 'PENDING', updated_at = now() + interval '1 day'")

    report = await reconciled(world, settle_seconds=5, second_look_seconds=1)

    assert report.ok
    assert (report.agreed, report.open) == (9, 1)


async def test_small_pages_see_every_order(world: World) -> None:
    """Orders are compared rightly however few are held at once."""
    await change(world, "orders", "processing", "payment = 'PENDING'")

    whole, single = await reconciled(world), await reconciled(world, orders_at_once=1)

    assert single.as_dict() == whole.as_dict()


async def test_more_than_can_be_listed_is_not_passed_off_as_all(world: World) -> None:
    """The report is not complete, and does not count as agreed what it did not list."""
    for name in ("processing", "paid late", "free", "accepted"):
        await change(world, "orders", name, "payment = 'PENDING'")

    report = await reconciled(world, findings_max=2)

    assert not report.complete
    assert not report.ok
    assert len(report.findings) == 2
    assert report.agreed == 6


async def test_a_period_that_ends_before_it_begins_is_refused(world: World) -> None:
    """It would be an empty report that looks like a clean one."""
    with pytest.raises(Misconfigured, match="ends before it begins"):
        await reconciled(world, period=Period(lately(), LONG_AGO))


async def test_a_report_is_a_table_and_json(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints one object and exits with 1 on a disagreement; the table fits a hundred columns."""
    await change(world, "orders", "processing", "payment = 'PENDING'")
    for service, dsn in world.dsns.items():
        monkeypatch.setenv(f"HOLDFAST_{service.upper()}_DATABASE_DSN", dsn)
    monkeypatch.setenv("HOLDFAST_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    console = Console(file=io.StringIO(), width=100)

    status = await run_command(
        since=PERIOD.since, json=True, limits=ReconcileLimits(second_look_seconds=0.01)
    )
    answer = orjson.loads(capsys.readouterr().out)
    report = await reconciled(world)
    render_reconciliation(report, console)

    assert status == 1
    assert answer["findings"] == [finding.as_dict() for finding in report.findings]
    assert answer["figures"][0]["settled"]["count"] == 11
    shown = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO from above
    assert "9 of 10" in shown
    assert "1 disagreement" in shown
    tables = [line for line in shown.splitlines() if not line.startswith(("R1", "1 disagreement"))]
    assert max(map(len, tables)) <= 100
