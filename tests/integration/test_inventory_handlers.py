"""Does the inventory handle batches on a real database as its domain decides them, shuffled and repeated?"""

import random
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest

from services.inventory_service import handlers
from shared import inbox
from shared.database import Database, DatabaseOptions
from shared.envelope import Message
from shared.ids import new_id
from tests.conftest import MakeDatabase
from tests.feeding import feed, message, outbox_events
from tests.inventory_building import (
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

Batch = list[Message[Fact]]


async def tell(database: Database, *facts: Fact) -> None:
    """Feed facts as one batch of new messages."""
    await feed(database, handlers, [message(fact) for fact in facts])


def histories(order_ids: list[UUID]) -> list[list[Fact]]:
    """Return, for each order, everything that is heard of it: kept, declined, cancelled, refunded or left."""
    baskets = [[("APPLE", 1)], [("APPLE", 2), ("PEAR", 1)], [("PEAR", 2), ("APPLE", 1)]]
    ends: list[Callable[[UUID], list[Fact]]] = [
        lambda order_id: [paid(order_id)],
        lambda order_id: [payment_failed(order_id)],
        lambda order_id: [order_cancelled(order_id)],
        lambda order_id: [paid(order_id), refunded(order_id)],
        lambda _: [],
    ]
    return [
        [ordered(order_id, *baskets[number % 3]), *ends[number % 5](order_id)]
        for number, order_id in enumerate(order_ids)
    ]


async def test_an_order_is_held_paid_and_sold(inventory_db: Database) -> None:
    """The plain story: counters, reservation, ledger and events all say the same."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)

    await tell(inventory_db, ordered(order_id, ("APPLE", 2)))
    held = await counters(inventory_db)
    await tell(inventory_db, paid(order_id))

    assert (held, await counters(inventory_db)) == ((3, 2, 0), (3, 0, 2))
    assert await standing(inventory_db, order_id) == ("CONFIRMED", None, False)
    assert await moves(inventory_db, order_id) == [("RESERVED", 1, "APPLE"), ("CONFIRMED", 1, "APPLE")]
    told = await outbox_events(inventory_db)
    assert [(item.type, item.sequence) for item in told] == [("StockReserved", 1), ("StockConfirmed", 2)]
    await assert_sound(inventory_db)


async def test_events_name_their_cause(inventory_db: Database) -> None:
    """What follows from a message names its id as the cause, its order as the correlation and the key."""
    order_id = new_id()
    heard = message(ordered(order_id))
    await receive(inventory_db, APPLE=5)

    await feed(inventory_db, handlers, [heard])

    (told,) = await outbox_events(inventory_db)
    assert told.key == str(order_id)
    assert told.headers["ce_causationid"] == str(heard.event_id)
    assert told.headers["ce_correlationid"] == str(order_id)


async def test_the_hold_begins_at_the_databases_now(inventory_db: Database) -> None:
    """`expires_at` is reckoned by the database's clock, and the event says what the row says."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)

    await tell(inventory_db, ordered(order_id, hold_seconds=30))

    (told,) = await outbox_events(inventory_db)
    async with inventory_db.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT expires_at, extract(epoch FROM expires_at - updated_at)::integer AS hold_seconds
            FROM reservations
            """
        )
    assert row is not None
    assert row["hold_seconds"] == 30
    assert told.event.expires_at == row["expires_at"]


@pytest.mark.parametrize("seed", range(6))
async def test_shuffled_and_repeated_deliveries_leave_the_books_in_order(
    inventory_db: Database, seed: int
) -> None:
    """Whatever the order, repetition and batching, no unit is lost and every order ends where it must."""
    chance = random.Random(seed)  # noqa: S311 (a seed, so that a failure can be repeated)
    order_ids = [new_id() for _ in range(15)]
    stories = histories(order_ids)
    batch = [message(fact) for story in stories for fact in story]
    deliveries = [*batch, *chance.choices(batch, k=30)]
    chance.shuffle(deliveries)
    await receive(inventory_db, APPLE=100, PEAR=100)

    while deliveries:
        size = chance.randint(1, 12)
        await feed(inventory_db, handlers, deliveries[:size])
        deliveries = deliveries[size:]

    await assert_sound(inventory_db)
    for number, order_id in enumerate(order_ids):
        stood = await standing(inventory_db, order_id)
        assert stood is not None
        allowed: list[set[str | None]] = [
            {"CONFIRMED"},
            {"RELEASED"},
            {"RELEASED"},
            {"RETURNED", "RELEASED"},
            {"HELD"},
        ]
        assert stood[0] in allowed[number % 5]


@pytest.fixture
async def twin_db(make_database: MakeDatabase) -> AsyncIterator[Database]:
    """A second database of the inventory service."""
    database = Database(DatabaseOptions(dsn=await make_database("inventory")))
    await database.open()
    yield database
    await database.close()


@pytest.mark.parametrize("seed", range(4))
async def test_a_batch_equals_its_messages_one_by_one(
    inventory_db: Database, twin_db: Database, seed: int
) -> None:
    """One transaction for all, or one for each: the same rows, the same movements, the same events."""
    chance = random.Random(seed)  # noqa: S311 (a seed, so that a failure can be repeated)
    facts = [fact for story in histories([new_id() for _ in range(10)]) for fact in story]
    chance.shuffle(facts)
    batch = [message(fact) for fact in facts]
    for database in (inventory_db, twin_db):
        await receive(database, APPLE=4, PEAR=3)

    await feed(inventory_db, handlers, batch)
    for one in batch:
        await feed(twin_db, handlers, [one])

    assert await everything(inventory_db) == await everything(twin_db)


async def everything(database: Database) -> list[object]:
    """Return all that a history leaves behind, but for ids and times."""
    async with database.connection() as connection:
        rows = [
            await connection.fetch("SELECT * FROM stock_levels ORDER BY sku"),
            await connection.fetch(
                """
                SELECT order_id, status, reason, cancelled, unavailable, payment_status, payment_reason, round, sequence
                FROM reservations ORDER BY order_id
                """
            ),
            await connection.fetch("SELECT * FROM reservation_lines ORDER BY order_id, sku"),
            await connection.fetch(
                """
                SELECT sku, order_id, kind, round, available_delta, reserved_delta, sold_delta, cause
                FROM stock_movements WHERE order_id IS NOT NULL ORDER BY id
                """
            ),
        ]
    told = [
        (item.key, item.type, item.sequence, item.event.model_dump(exclude={"expires_at"}))
        for item in await outbox_events(database)
    ]
    return [*rows, told]


async def test_two_orders_for_the_last_unit_in_one_batch(inventory_db: Database) -> None:
    """The first in the batch gets it, the second is told how many were left."""
    first, second = new_id(), new_id()
    await receive(inventory_db, APPLE=1)

    await tell(inventory_db, ordered(first), ordered(second))

    assert await standing(inventory_db, first) == ("HELD", None, False)
    assert await standing(inventory_db, second) == ("REJECTED", "insufficient_stock", False)
    (rejected,) = await outbox_events(inventory_db, types=["StockRejected"])
    assert [(item.sku, item.requested, item.available) for item in rejected.event.shortages] == [
        ("APPLE", 1, 0)
    ]
    await assert_sound(inventory_db)


async def test_the_same_sku_on_two_lines_is_one_movement(inventory_db: Database) -> None:
    """Lines of one SKU are added up before anything is written."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)

    await tell(inventory_db, ordered(order_id, ("APPLE", 2), ("APPLE", 3)))

    assert await counters(inventory_db) == (0, 5, 0)
    assert await moves(inventory_db, order_id) == [("RESERVED", 1, "APPLE")]
    await assert_sound(inventory_db)


async def test_an_unknown_sku_rejects_its_order(inventory_db: Database) -> None:
    """No level is made for it, and the other lines are not held."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)

    await tell(inventory_db, ordered(order_id, ("APPLE", 1), ("GHOST", 1)))

    assert await standing(inventory_db, order_id) == ("REJECTED", "insufficient_stock", False)
    async with inventory_db.connection() as connection:
        assert await connection.fetchval("SELECT array_agg(sku) FROM stock_levels") == ["APPLE"]
    assert await counters(inventory_db) == (5, 0, 0)


async def test_duplicates_inside_one_batch_count_once(inventory_db: Database) -> None:
    """The same message twice in one poll is one message."""
    order_id = new_id()
    heard: Batch = [message(ordered(order_id)), message(paid(order_id))]
    await receive(inventory_db, APPLE=5)

    await feed(inventory_db, handlers, [heard[0], heard[0], heard[1], heard[0], heard[1]])

    assert await counters(inventory_db) == (4, 0, 1)
    assert len(await outbox_events(inventory_db)) == 2
    await assert_sound(inventory_db)


async def test_event_2_before_event_1_is_remembered(inventory_db: Database) -> None:
    """A payment heard before its order shows nowhere, and is decided when the order comes."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)

    await feed(inventory_db, handlers, [message(paid(order_id), sequence=2)])
    before = await standing(inventory_db, order_id)
    told_before = await outbox_events(inventory_db)
    await tell(inventory_db, ordered(order_id))

    assert (before, told_before) == ((None, None, False), [])
    assert await standing(inventory_db, order_id) == ("CONFIRMED", None, False)
    assert await moves(inventory_db, order_id) == [("RESERVED", 1, "APPLE"), ("CONFIRMED", 1, "APPLE")]


async def test_an_order_cancelled_before_it_was_heard_of_reserves_nothing(inventory_db: Database) -> None:
    """The tombstone is silent; the order that comes later is told to be released, with no movement."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)

    await tell(inventory_db, order_cancelled(order_id))
    told_before = await outbox_events(inventory_db)
    await tell(inventory_db, ordered(order_id))

    (released,) = await outbox_events(inventory_db)
    assert told_before == []
    assert (released.type, released.event.reason, released.event.lines) == ("StockReleased", "cancelled", ())
    assert await standing(inventory_db, order_id) == ("RELEASED", "cancelled", False)
    assert (await counters(inventory_db), await moves(inventory_db, order_id)) == ((5, 0, 0), [])


async def test_releasing_twice_releases_once(inventory_db: Database) -> None:
    """A failed payment and a cancellation, each of which would release alone, release together once."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)
    await tell(inventory_db, ordered(order_id))

    await tell(inventory_db, payment_failed(order_id), order_cancelled(order_id))
    await tell(inventory_db, payment_failed(order_id), order_cancelled(order_id))

    assert await counters(inventory_db) == (5, 0, 0)
    assert await moves(inventory_db, order_id) == [("RESERVED", 1, "APPLE"), ("RELEASED", 1, "APPLE")]
    await assert_sound(inventory_db)


async def test_confirming_after_a_release_holds_again(inventory_db: Database) -> None:
    """Late money finds its units still there: a second round, told as late."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)
    await tell(inventory_db, ordered(order_id), payment_failed(order_id))

    await tell(inventory_db, paid(order_id))

    assert await counters(inventory_db) == (4, 0, 1)
    assert (await moves(inventory_db, order_id))[2:] == [("RESERVED", 2, "APPLE"), ("CONFIRMED", 2, "APPLE")]
    assert [item.event.late for item in await outbox_events(inventory_db, types=["StockConfirmed"])] == [True]
    await assert_sound(inventory_db)


async def test_late_money_for_units_that_were_sold_goes_back(inventory_db: Database) -> None:
    """The last unit went to somebody else: unavailable for ever, also when units come back."""
    late, other = new_id(), new_id()
    await receive(inventory_db, APPLE=1)
    await tell(inventory_db, ordered(late), payment_failed(late), ordered(other))

    await tell(inventory_db, paid(late))
    await tell(inventory_db, payment_failed(other), paid(late))

    assert await standing(inventory_db, late) == ("RELEASED", "payment_failed", True)
    assert [item.event.reason for item in await outbox_events(inventory_db, types=["StockUnavailable"])] == [
        "sold_since"
    ]
    assert await counters(inventory_db) == (1, 0, 0)


async def test_a_dead_letter_redriven_after_a_newer_event_changes_nothing(inventory_db: Database) -> None:
    """A refusal to pay that an operator sends again after the success adds nothing."""
    order_id, dead = new_id(), new_id()
    await receive(inventory_db, APPLE=5)
    async with inventory_db.transaction() as tx:
        await inbox.insert_processed_events(tx, handlers.CONSUMER, [dead], "dead")
    await tell(inventory_db, ordered(order_id), paid(order_id))

    await feed(inventory_db, handlers, [message(payment_failed(order_id), event_id=dead, redriven=True)])

    assert await standing(inventory_db, order_id) == ("CONFIRMED", None, False)
    assert len(await outbox_events(inventory_db)) == 2


async def test_a_sku_is_told_to_be_depleted_and_replenished(inventory_db: Database) -> None:
    """The catalog hears of zero and of its end, in the order of the SKU's own sequence."""
    order_id = new_id()
    await receive(inventory_db, APPLE=1)

    await tell(inventory_db, ordered(order_id))
    await receive(inventory_db, APPLE=1)

    told = [item for item in await outbox_events(inventory_db) if item.key == "APPLE"]
    assert [(item.type, item.sequence) for item in told] == [("StockDepleted", 1), ("StockReplenished", 2)]
    assert all("ce_correlationid" not in item.headers for item in told)


async def test_large_baskets_are_handled(inventory_db: Database) -> None:
    """Five hundred lines, the most an order may have, are one order like any other."""
    order_id = new_id()
    skus = [f"SKU-{number:03d}" for number in range(500)]
    await receive(inventory_db, **dict.fromkeys(skus, 1))

    await tell(inventory_db, ordered(order_id, *((sku, 1) for sku in skus)), paid(order_id))

    assert await standing(inventory_db, order_id) == ("CONFIRMED", None, False)
    assert len(await moves(inventory_db, order_id)) == 1000
    await assert_sound(inventory_db)
