"""Does each layer of protection hold alone, the inbox, the ranks, and the database's own constraints?"""

from collections.abc import Callable
from uuid import UUID

import pytest

from services.inventory_service import handlers, store
from services.inventory_service.domain.ledger import Ledger
from services.inventory_service.domain.reservation import Reservation
from services.inventory_service.domain.stock import Kind, Level, Movement
from shared.database import Database
from shared.errors import ConcurrentWrite, LedgerViolation
from shared.events import ReservationStatus
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.inventory_building import (
    NOW,
    Fact,
    assert_sound,
    counters,
    moves,
    order_cancelled,
    ordered,
    paid,
    payment_failed,
    receive,
    refunded,
    standing,
)


async def handle_without_inbox(database: Database, *facts: Fact) -> None:
    """Hand a batch to the handler, as if nothing had ever been remembered."""
    async with database.transaction() as tx:
        await handlers.handle(tx, [message(fact) for fact in facts])


async def refusal(database: Database, statement: str, *values: object) -> str:
    """Return the name of the constraint that refuses a statement."""
    try:
        async with database.transaction() as tx:
            await tx.execute(statement, *values)
    except (
        Exception
    ) as error:  # a UniqueViolationError or its like: asyncpg is imported by shared.database alone
        return getattr(error, "constraint_name", None) or repr(error)
    return "nothing"


async def test_without_the_inbox_ranks_make_repetition_harmless(inventory_db: Database) -> None:
    """Every message three times, with nothing remembered of any: one hold, one sale, one of each event."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)

    for fact in (ordered(order_id), paid(order_id), payment_failed(order_id)):
        for _ in range(3):
            await handle_without_inbox(inventory_db, fact)

    assert await counters(inventory_db) == (4, 0, 1)
    assert [item.type for item in await outbox_events(inventory_db)] == ["StockReserved", "StockConfirmed"]
    await assert_sound(inventory_db)


async def test_without_the_inbox_a_replay_of_everything_changes_nothing(inventory_db: Database) -> None:
    """A pruned inbox and a replay of the whole topic, forwards and backwards: the books stay as they are."""
    stories: list[list[Callable[[UUID], Fact]]] = [
        [ordered],
        [ordered, payment_failed],
        [ordered, order_cancelled],
        [ordered, paid, refunded],
        [ordered, paid, order_cancelled],
        [ordered, payment_failed, paid],
    ]
    facts = [fact(order_id) for story in stories for order_id in [new_id()] for fact in story]
    await receive(inventory_db, APPLE=9)
    await handle_without_inbox(inventory_db, *facts)
    before = (await counters(inventory_db), len(await outbox_events(inventory_db)))

    await handle_without_inbox(inventory_db, *facts, *reversed(facts))

    assert (await counters(inventory_db), len(await outbox_events(inventory_db))) == before
    await assert_sound(inventory_db)


async def test_the_inbox_alone_makes_repetition_harmless(inventory_db: Database) -> None:
    """A message that was handled is not handed to the handler again, even if its effect were gone."""
    order_id = new_id()
    heard = message(ordered(order_id))
    await receive(inventory_db, APPLE=5)
    await feed(inventory_db, handlers, [heard])
    async with inventory_db.transaction() as tx:
        await tx.execute("DELETE FROM reservations")

    await feed(inventory_db, handlers, [heard])

    assert await standing(inventory_db, order_id) is None


INSERT_MOVEMENT = """
    INSERT INTO stock_movements (sku, order_id, kind, round, available_delta, reserved_delta, sold_delta, cause)
    VALUES ('APPLE', $1, $2, $3, $4, $5, $6, 'test')
"""


async def test_the_ledger_alone_refuses_a_second_movement(inventory_db: Database) -> None:
    """Were code to move a line of an order twice in one round, the UNIQUE would refuse the transaction."""
    order_id = new_id()
    deltas = {
        "RESERVED": (-1, 1, 0),
        "CONFIRMED": (0, -1, 1),
        "RELEASED": (1, -1, 0),
        "RETURNED": (1, 0, -1),
    }

    answers = [
        await refusal(inventory_db, INSERT_MOVEMENT, order_id, kind, in_round, *moved)
        for kind, moved in deltas.items()
        for in_round in (1, 1, 2)
    ]

    assert answers == ["nothing", "stock_movements_order_id_sku_kind_round_key", "nothing"] * 4


async def test_the_ledger_refuses_a_batch_that_forgot_its_reservation(inventory_db: Database) -> None:
    """With the reservation's row lost, the order is not reserved a second time: all of the batch is undone."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)
    await handle_without_inbox(inventory_db, ordered(order_id))
    async with inventory_db.transaction() as tx:
        await tx.execute("DELETE FROM reservations")
        await tx.execute("DELETE FROM reservation_lines")

    with pytest.raises(Exception, match="stock_movements_order_id_sku_kind_round_key"):
        await handle_without_inbox(inventory_db, ordered(order_id), ordered(new_id()))

    assert await counters(inventory_db) == (4, 1, 0)
    assert await moves(inventory_db, order_id) == [("RESERVED", 1, "APPLE")]


async def test_no_counter_goes_below_zero(inventory_db: Database) -> None:
    """The table's CHECK refuses an impossible number, whoever writes it."""
    await receive(inventory_db, APPLE=5)

    answers = [
        await refusal(inventory_db, "UPDATE stock_levels SET available = -1"),
        await refusal(inventory_db, "UPDATE stock_levels SET reserved = -1"),
        await refusal(inventory_db, "UPDATE stock_levels SET sold = -1"),
    ]

    assert answers == ["stock_levels_check"] * 3


async def test_a_movement_must_be_what_its_kind_says(inventory_db: Database) -> None:
    """Deltas that do not fit their kind are refused, so that sums can be trusted; so are orders without a round."""
    impossible: list[tuple[UUID | None, str, int | None, int, int, int]] = [
        (None, "RECEIVED", None, -1, 0, 0),
        (None, "ADJUSTED", None, 1, 1, 0),
        (None, "ADJUSTED", None, 0, 0, 0),
        (new_id(), "RESERVED", 1, 1, -1, 0),
        (new_id(), "RESERVED", 1, -1, 2, 0),
        (new_id(), "CONFIRMED", 1, -1, 0, 1),
        (new_id(), "RELEASED", 1, 1, 0, -1),
        (new_id(), "RETURNED", 1, 1, -1, 0),
        (new_id(), "STOLEN", 1, -1, 0, 0),
        (None, "RESERVED", 1, -1, 1, 0),
        (new_id(), "RESERVED", None, -1, 1, 0),
        (new_id(), "RECEIVED", 1, 1, 0, 0),
    ]

    answers = [await refusal(inventory_db, INSERT_MOVEMENT, *movement) for movement in impossible]

    assert {answer.rstrip("1") for answer in answers} == {"stock_movements_check"}


async def test_a_reservation_must_be_possible(inventory_db: Database) -> None:
    """Statuses are those of the contract, a hold has an end, and only what holds nothing is unavailable."""
    statement = "INSERT INTO reservations (order_id, status, unavailable) VALUES ($1, $2, $3)"

    answers = [
        await refusal(inventory_db, statement, new_id(), "SOLD", False),
        await refusal(inventory_db, statement, new_id(), "HELD", False),
        await refusal(inventory_db, statement, new_id(), "CONFIRMED", True),
        await refusal(inventory_db, statement, new_id(), None, True),
    ]

    assert all(answer.startswith("reservations_") and "check" in answer for answer in answers), answers


async def test_more_than_there_is_cannot_be_taken(inventory_db: Database) -> None:
    """An update that was decided on a wrong level changes no row, and that is noticed."""
    await receive(inventory_db, APPLE=5)
    wrong = Ledger(NOW, levels=[Level("APPLE", available=9, stored=True)])
    wrong.levels["APPLE"].add(Movement.of(Kind.ADJUSTED, "APPLE", -6, "test"))

    with pytest.raises(LedgerViolation):
        async with inventory_db.transaction() as tx:
            await store.save(tx, wrong)

    assert await counters(inventory_db) == (5, 0, 0)


async def test_a_reservation_that_moved_meanwhile_is_not_overwritten(inventory_db: Database) -> None:
    """A save that was decided on an older state of the row is refused."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)
    await handle_without_inbox(inventory_db, ordered(order_id), paid(order_id))
    stale = Reservation(order_id, ReservationStatus.RELEASED, sequence=2, stored_sequence=1, changed=True)

    with pytest.raises(LedgerViolation):
        async with inventory_db.transaction() as tx:
            await store.save(tx, Ledger(NOW, reservations=[stale]))

    assert await standing(inventory_db, order_id) == ("CONFIRMED", None, False)


async def test_a_row_that_another_process_made_first_is_noticed(inventory_db: Database) -> None:
    """Inserting a reservation or a level that exists by now is transient: the batch is decided again."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)
    await handle_without_inbox(inventory_db, ordered(order_id))
    first_heard = Ledger(NOW, reservations=[Reservation(order_id, sequence=0, changed=True)])
    first_received = Ledger(NOW, levels=[Level("APPLE", available=1, changed=True)])

    for late in (first_heard, first_received):
        with pytest.raises(ConcurrentWrite) as caught:
            async with inventory_db.transaction() as tx:
                await store.save(tx, late)
        assert caught.value.transient
