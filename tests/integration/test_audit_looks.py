"""Does the audit tell what is wrong from what is on its way, and does it say what it saw? (A10, A11, the report)."""

import io
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest
from rich.console import Console

from deploy.local.ports import free_port
from deploy.local.postgres import EmbeddedPostgres
from ops.audit import AuditLimits, AuditReport, Finding, audit, render
from ops.audit.snapshots import connect_all, frozen
from shared.errors import Misconfigured, Unavailable
from shared.ids import new_id
from tests.audit_building import LATER, LONG_AGO, World, open_world


@pytest.fixture(scope="module")
async def kept_world(postgres: EmbeddedPostgres, templates: dict[str, str]) -> AsyncIterator[World]:
    """An order of every kind, nothing wrong."""
    async with open_world(postgres, templates) as world:
        yield world


@pytest.fixture
async def world(kept_world: World) -> AsyncIterator[World]:
    """The same, to be corrupted; put back afterwards."""
    yield kept_world
    await kept_world.put_back()


class Pauses:
    """Stands in for time: at the n-th pause something happens in the databases."""

    def __init__(self, world: World, *, at: int, name: str, **columns: Any) -> None:
        self._world, self._at, self._name, self._columns = world, at, name, columns
        self.count = 0

    async def __call__(self, _seconds: float) -> None:
        """Pause, in no time."""
        self.count += 1
        if self.count == self._at:
            for table, assignments in self._columns.items():
                await self._world.corrupt_saga(self._name, table, assignments)


async def look(world: World, pauses: Pauses, *, settle_seconds: float = 30) -> AuditReport:
    """Audit with a pause of one second between two looks, which takes no time."""
    limits = AuditLimits(second_look_seconds=1, settle_seconds=settle_seconds)
    return await audit(world.dsns, limits=limits, pause=pauses)


def found(report: AuditReport) -> list[tuple[str, str]]:
    """Return the check and the subject of each finding."""
    return [(finding.check, finding.subject) for finding in report.findings]


async def test_what_has_healed_at_the_second_look_is_not_reported(world: World) -> None:
    """An order that was on its way to its status is no finding."""
    await world.corrupt_saga("declined", "orders", "status = 'EXPIRED'")
    pauses = Pauses(world, at=1, name="declined", orders="status = 'PAYMENT_FAILED'")

    report = await look(world, pauses)

    assert report.ok
    assert report.counted["suspects"] == 1
    assert pauses.count == 1


async def test_only_what_was_wrong_before_is_looked_at_again(world: World) -> None:
    """What becomes wrong between two looks has been seen once, which does not count."""
    await world.corrupt_saga("declined", "orders", "status = 'EXPIRED'")
    pauses = Pauses(world, at=1, name="refunded", orders="status = 'CANCELLED'")

    report = await look(world, pauses)

    assert found(report) == [("A9", world["declined"])]


async def test_what_is_young_is_waited_for(world: World) -> None:
    """A disagreement that is young heals as soon as the news has arrived, however many looks that takes."""
    await world.corrupt_saga("declined", "payments", "updated_at = now()")
    await world.corrupt_saga("declined", "orders", "status = 'EXPIRED'")
    pauses = Pauses(world, at=3, name="declined", orders="status = 'PAYMENT_FAILED'")

    report = await look(world, pauses, settle_seconds=60)

    assert report.ok
    assert pauses.count == 3


async def test_what_stays_wrong_until_it_is_old_is_reported(world: World) -> None:
    """A young disagreement counts once it has had the time to heal and has not."""
    await world.corrupt_saga("cancelled", "reservations", "updated_at = now()")
    await world.corrupt_saga("cancelled", "orders", "status = 'EXPIRED'")
    aged = f"updated_at = '{LONG_AGO.isoformat()}'"
    pauses = Pauses(world, at=3, name="cancelled", reservations=aged)

    report = await look(world, pauses, settle_seconds=60)

    assert found(report) == [("A9", world["cancelled"])]
    assert pauses.count == 3


async def test_what_never_settles_is_counted(world: World) -> None:
    """An order that changes as long as it is looked at is no finding, and no secret."""
    await world.corrupt_saga(
        "processing", "orders", "status = 'REFUNDED', updated_at = now() + interval '1 day'"
    )

    report = await look(world, Pauses(world, at=0, name=""), settle_seconds=5)

    assert report.ok
    assert report.counted["unsettled"] == 2


async def test_a_database_is_read_as_of_one_moment(world: World) -> None:
    """What is written while the audit reads is not seen before its next look."""
    query = "SELECT status FROM orders WHERE order_id = $1"
    async with connect_all(world.dsns) as connections:
        async with frozen(connections) as snapshots:
            await world.corrupt_saga("expired", "orders", "status = 'CANCELLED'")
            before = await snapshots.order.fetchval(query, world["expired"])
        async with frozen(connections) as snapshots:
            after = await snapshots.order.fetchval(query, world["expired"])

    assert (before, after) == ("EXPIRED", "CANCELLED")


async def test_small_fetches_see_every_order(world: World) -> None:
    """Orders are compared rightly however few rows are fetched at once."""
    await world.corrupt_saga("refunded", "orders", "status = 'CANCELLED'")

    assert await world.found(rows_fetched_max=1) == [("A9", world["refunded"])]


async def test_too_many_suspects_leave_the_audit_incomplete(world: World) -> None:
    """A check that stopped at its limit is not passed off as clean."""
    for name in ("expired", "declined"):
        await world.corrupt_saga(name, "orders", "status = 'AWAITING_PAYMENT', pay_by = $2", LATER)

    report = await world.audit(suspects_max=1)

    assert not report.ok
    assert not report.complete
    assert len(report.findings) == 1


# --- A10, A11 -------------------------------------------------------------------------------------------------------


async def test_events_that_do_not_leave_are_found(world: World) -> None:
    """An outbox that holds an old event is A10; a young one is on its way."""
    for age in ("1 second", "1 hour"):
        await world.corrupt(
            world.payment_db,
            """
            INSERT INTO outbox (event_id, topic, type, sequence, headers, created_at)
            VALUES ($1, 'payment.events', 'PaymentFailed.v1', 1, '[]', now() - $2::text::interval)
            """,
            new_id(),
            age,
        )

    report = await world.audit()

    assert report.findings == [Finding("A10", "payment", "1 events wait in the outbox for more than 60 s")]


async def test_an_event_that_counted_twice_is_found(world: World) -> None:
    """An event id that one consumer remembers twice is A11."""
    await world.unguard(
        world.inventory_db, "ALTER TABLE processed_events DROP CONSTRAINT processed_events_pkey"
    )
    event_id = new_id()
    for outcome in ("dead", "handled"):
        await world.corrupt(
            world.inventory_db,
            "INSERT INTO processed_events (consumer, event_id, outcome) VALUES ('inventory-service', $1, $2)",
            event_id,
            outcome,
        )

    assert await world.found() == [("A11", f"inventory-service {event_id}")]


async def test_dead_letters_are_counted(world: World) -> None:
    """Dead letters are no finding, but the report says how many there are."""
    await world.corrupt(
        world.order_db,
        "INSERT INTO processed_events (consumer, event_id, outcome) VALUES ('order-service', $1, 'dead')",
        new_id(),
    )

    report = await world.audit()

    assert report.ok
    assert report.counted["dead_letters"] == 1


# --- what is said about it ------------------------------------------------------------------------------------------


async def test_a_database_that_is_not_named_is_asked_for(world: World) -> None:
    """The audit needs all three databases."""
    with pytest.raises(Misconfigured, match="payment"):
        await audit({name: dsn for name, dsn in world.dsns.items() if name != "payment"})


async def test_a_database_that_is_away_is_no_finding(world: World) -> None:
    """Without an answer there is no verdict."""
    dsns = {**world.dsns, "inventory": f"postgresql://nobody:none@127.0.0.1:{free_port()}/none"}

    with pytest.raises(Unavailable):
        await audit(dsns)


@pytest.mark.parametrize(
    "limits",
    [{"second_look_seconds": 0}, {"settle_seconds": -1}, {"suspects_max": 0}, {"rows_fetched_max": 0}],
)
def test_limits_without_an_end_are_refused(limits: Mapping[str, Any]) -> None:
    """An audit that would never end, or see nothing, does not start."""
    with pytest.raises(Misconfigured):
        AuditLimits(**limits)


def test_a_report_is_printed_as_json() -> None:
    """`--json` prints the verdict and each finding with check, subject and detail."""
    report = AuditReport(False, [Finding("A1", "APPLE", "available -1")], {"orders": 3})

    document = orjson.loads(orjson.dumps(report.as_dict()))

    assert document["ok"] is False
    assert document["findings"] == [{"check": "A1", "subject": "APPLE", "detail": "available -1"}]
    assert document["counted"] == {"orders": 3}


def test_a_report_is_printed_for_people() -> None:
    """One line a finding, whatever its text contains, then one that sums up."""
    console = Console(file=io.StringIO(), width=40)
    findings = [Finding("A2", "APPLE", "[bold] is 7, its movements add up to 8"), Finding("A9", "order", "x")]

    render(AuditReport(False, findings, {"orders": 1_000, "dead_letters": 2}), console)

    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]  # it is the StringIO above
        "A2  APPLE  [bold] is 7, its movements add up to 8",
        "A9  order  x",
        "Audit found 2 faults: 1,000 orders and 0 movements of stock; 2 dead letters",
    ]


def test_a_clean_report_says_so() -> None:
    """Without findings there is one line."""
    console = Console(file=io.StringIO())

    render(AuditReport(True, [], {"orders": 1, "movements": 2}), console)

    assert console.file.getvalue() == "Audit clean: 1 orders and 2 movements of stock\n"  # type: ignore[attr-defined]  # as above
