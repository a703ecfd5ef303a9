"""Does the sweeper give back exactly what is due, whatever stands in its way?"""

from datetime import timedelta
from uuid import UUID

import pytest

from services.inventory_service import handlers, store
from services.inventory_service.domain.ledger import Ledger
from services.inventory_service.domain.reservation import Reservation
from services.inventory_service.worker import NAME, Sweeper
from shared import metrics
from shared.database import Database
from shared.errors import LedgerViolation
from shared.events import ReservationStatus
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.inventory_building import (
    NOW,
    assert_sound,
    counters,
    moves,
    ordered,
    paid,
    receive,
    standing,
    sweep,
)

LATER = timedelta(hours=1)


async def hold(database: Database, *order_ids: UUID, hold_seconds: int | None = None) -> None:
    """Have an apple held for each order."""
    await feed(
        database,
        handlers,
        [message(ordered(order_id, hold_seconds=hold_seconds)) for order_id in order_ids],
    )


async def end_hold(database: Database, order_id: UUID, *, seconds_ago: int) -> None:
    """Let a hold have ended by the database's clock."""
    async with database.transaction() as tx:
        await tx.execute(
            "UPDATE reservations SET expires_at = now() - make_interval(secs => $2) WHERE order_id = $1",
            order_id,
            seconds_ago,
        )


async def test_a_hold_is_released_when_its_grace_is_over(inventory_db: Database) -> None:
    """One whose end is further back than the grace is released as expired; one that ended a moment ago is not."""
    over, in_grace, running = new_id(), new_id(), new_id()
    await receive(inventory_db, APPLE=3)
    await hold(inventory_db, over, in_grace, running)
    await end_hold(inventory_db, over, seconds_ago=61)
    await end_hold(inventory_db, in_grace, seconds_ago=30)

    await Sweeper(inventory_db, grace_seconds=60, batch_max=10).tick()

    assert await standing(inventory_db, over) == ("RELEASED", "expired", False)
    assert await standing(inventory_db, in_grace) == ("HELD", None, False)
    assert await standing(inventory_db, running) == ("HELD", None, False)
    assert await counters(inventory_db) == (1, 2, 0)
    (released,) = await outbox_events(inventory_db, types=["StockReleased"])
    assert (released.event.reason, released.headers["ce_causationid"]) == ("expired", "timer:sweep")
    await assert_sound(inventory_db)


async def test_success_one_second_after_the_sweeper_is_sold_again(inventory_db: Database) -> None:
    """Money that comes right after the release takes the units a second time."""
    order_id = new_id()
    await receive(inventory_db, APPLE=1)
    await hold(inventory_db, order_id)
    await sweep(inventory_db, ahead=LATER)

    await feed(inventory_db, handlers, [message(paid(order_id))])

    assert await standing(inventory_db, order_id) == ("CONFIRMED", None, False)
    assert await moves(inventory_db, order_id) == [
        ("RESERVED", 1, "APPLE"),
        ("RELEASED", 1, "APPLE"),
        ("RESERVED", 2, "APPLE"),
        ("CONFIRMED", 2, "APPLE"),
    ]
    assert await counters(inventory_db) == (0, 0, 1)
    await assert_sound(inventory_db)


async def test_a_sweep_goes_on_while_there_is_more(inventory_db: Database) -> None:
    """Full pages say that there may be more; the last one says that there is not. The oldest go first."""
    order_ids = [new_id() for _ in range(5)]
    await receive(inventory_db, APPLE=5)
    await hold(inventory_db, *order_ids)
    for age, order_id in enumerate(reversed(order_ids), start=1):
        await end_hold(inventory_db, order_id, seconds_ago=100 * age)
    sweeper = Sweeper(inventory_db, grace_seconds=60, batch_max=2)

    more = [await sweeper.tick() for _ in range(3)]

    assert more == [True, True, False]
    released = [item.key for item in await outbox_events(inventory_db, types=["StockReleased"])]
    assert {*released[:2]} == {str(order_id) for order_id in order_ids[:2]}
    assert {*released} == {str(order_id) for order_id in order_ids}


async def test_one_bad_row_never_stops_the_rest(inventory_db: Database) -> None:
    """A hold that cannot be released is logged and counted, and every other one is released, on every sweep."""
    order_ids = [new_id() for _ in range(9)]
    bad = order_ids[4]
    await receive(inventory_db, APPLE=9, PEAR=1)
    await hold(inventory_db, *order_ids)
    async with inventory_db.transaction() as tx:
        await tx.execute("UPDATE reservation_lines SET sku = 'PEAR' WHERE order_id = $1", bad)
    errors_before = metrics.WORKER_ERRORS.labels(NAME)._value.get()

    await sweep(inventory_db, ahead=LATER, batch_max=3)
    errors_first = metrics.WORKER_ERRORS.labels(NAME)._value.get() - errors_before
    await receive(inventory_db, APPLE=1)
    await hold(inventory_db, late := new_id())
    await sweep(inventory_db, ahead=LATER, batch_max=1)

    stood = [await standing(inventory_db, order_id) for order_id in (*order_ids, late)]
    assert [item[0] for item in stood if item] == ["RELEASED"] * 4 + ["HELD"] + ["RELEASED"] * 5
    assert errors_first == 1


async def test_a_row_that_is_being_worked_on_is_left_for_the_next_sweep(inventory_db: Database) -> None:
    """A locked hold does not make the sweeper wait, and does not keep it from the others."""
    locked, free = new_id(), new_id()
    await receive(inventory_db, APPLE=2)
    await hold(inventory_db, locked, free)

    async with inventory_db.transaction() as tx:
        await store.lock_reservations(tx, [locked])
        await sweep(inventory_db, ahead=LATER)
        while_locked = [await standing(inventory_db, order_id) for order_id in (locked, free)]
    await sweep(inventory_db, ahead=LATER)

    assert while_locked == [("HELD", None, False), ("RELEASED", "expired", False)]
    assert await standing(inventory_db, locked) == ("RELEASED", "expired", False)


@pytest.mark.parametrize("is_due", [True, False])
async def test_the_statement_that_releases_looks_at_the_time_itself(
    inventory_db: Database, *, is_due: bool
) -> None:
    """A release that was decided wrongly, of a hold that has not ended, changes no row, and that is noticed."""
    order_id = new_id()
    await receive(inventory_db, APPLE=1)
    await hold(inventory_db, order_id)
    async with inventory_db.connection() as connection:
        expires_at = await connection.fetchval("SELECT expires_at FROM reservations")
    decided = Reservation(
        order_id, ReservationStatus.RELEASED, "expired", sequence=2, stored_sequence=1, changed=True
    )
    decided.expired_by = expires_at if is_due else expires_at - timedelta(seconds=1)

    async def save() -> None:
        async with inventory_db.transaction() as tx:
            await store.save(tx, Ledger(NOW, reservations=[decided]))

    if is_due:
        await save()
    else:
        with pytest.raises(LedgerViolation):
            await save()

    stood = await standing(inventory_db, order_id)
    assert stood is not None
    assert stood[0] == ("RELEASED" if is_due else "HELD")
