"""Does a command have its effect once, and only if it may, on a real Postgres?"""

import asyncio

import pytest

from services.order_service import handlers
from shared.database import Database
from shared.errors import ConcurrentWrite
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.order_building import (
    cancel_order,
    place_order,
    stock_rejected,
)
from tests.order_database import (
    place,
    reasons,
    rows,
    status_of,
    stock_catalog,
)
from tests.waiting import eventually


@pytest.fixture
async def db(order_db: Database) -> Database:
    """A database of the order service with a small catalog."""
    await stock_catalog(order_db)
    return order_db


async def test_an_order_is_stored_with_its_lines_history_and_event(db: Database) -> None:
    """One transaction writes order, lines, history and OrderRequested, whose cause is the command."""
    command = place_order(None, ("BREAD", 1), ("APPLE", 2), hold_seconds=60)
    placing = message(command)

    await feed(db, handlers, [placing])

    assert await rows(db, "SELECT status, total_minor, version, sequence FROM orders") == [
        ("REQUESTED", 450, 1, 1)
    ]
    assert await rows(db, "SELECT sku, quantity, unit_price_minor FROM order_lines ORDER BY sku") == [
        ("APPLE", 2, 100),
        ("BREAD", 1, 250),
    ]
    assert await rows(db, "SELECT version, status, reason, cause FROM order_history") == [
        (1, "REQUESTED", None, str(placing.event_id))
    ]
    [told] = await outbox_events(db)
    assert (told.key, told.type, told.sequence) == (str(command.order_id), "OrderRequested", 1)
    assert (told.event.total_minor, told.event.hold_seconds) == (450, 60)
    assert told.headers["ce_causationid"] == str(placing.event_id)
    assert told.headers["ce_correlationid"] == str(command.order_id)


async def test_a_method_of_payment_says_how_long_to_hold(db: Database) -> None:
    """The hold of the setting is stored with the order, and told to inventory."""
    policy = handlers.Policy(hold_seconds_by_method={"bank_transfer": 86_400})
    command = place_order(payment_method="bank_transfer")

    async with db.transaction() as tx:
        assert await handlers.handle(tx, [message(command)], policy=policy) == []

    [told] = await outbox_events(db)
    assert told.event.hold_seconds == 86_400
    assert await rows(db, "SELECT hold_seconds FROM orders") == [(86_400,)]


async def test_the_same_sku_on_two_lines_is_one_row_of_the_sum(db: Database) -> None:
    """Two lines of one SKU are added up in the table and in the event."""
    await place(db, place_order(None, ("APPLE", 1), ("APPLE", 4)))

    [told] = await outbox_events(db)
    assert await rows(db, "SELECT sku, quantity FROM order_lines") == [("APPLE", 5)]
    assert [(line.sku, line.quantity) for line in told.event.lines] == [("APPLE", 5)]


async def test_an_order_that_cannot_be_accepted_is_stored_as_rejected(db: Database) -> None:
    """An unknown SKU, an inactive product and an empty cart are orders in status REJECTED, told once, not dead letters."""
    orders = [
        place_order(None, ("APPLE", 1), ("NONE", 1)),
        place_order(None, ("GONE", 1)),
        place_order(lines=None, cart_id="cart-1"),
        place_order(currency="USD"),
        place_order(expected_total_minor=1),
    ]

    await place(db, *orders)

    found = [await status_of(db, order.order_id) for order in orders]
    assert found == [
        ("REJECTED", reason)
        for reason in ("unknown_sku", "inactive_product", "empty_cart", "currency", "total_changed")
    ]
    told = await outbox_events(db)
    assert {item.key: (item.type, item.sequence) for item in told} == {
        str(order.order_id): ("OrderRejected", 1) for order in orders
    }
    assert await rows(db, "SELECT count(*) FROM order_lines") == [(3,)]


async def test_a_total_that_is_too_large_is_a_dead_letter(db: Database) -> None:
    """A total beyond 2^53 - 1 is refused as invalid; its neighbours go on."""
    good, bad = place_order(), place_order(None, ("GOLD", 1), ("APPLE", 1))

    refusals = await feed(db, handlers, [message(bad), message(good)])

    assert reasons(refusals) == ["invalid"]
    assert await rows(db, "SELECT order_id FROM orders") == [(good.order_id,)]


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
async def test_the_same_command_again_changes_nothing(db: Database, batches: int) -> None:
    """A second message with the same content under the same order id has no effect and is no dead letter."""
    command = place_order()
    messages = [message(command), message(command)]

    refusals = (
        await feed(db, handlers, messages)
        if batches == 1
        else [refusal for one in messages for refusal in await feed(db, handlers, [one])]
    )

    assert refusals == []
    assert len(await outbox_events(db)) == 1
    assert await rows(db, "SELECT version FROM orders") == [(1,)]


@pytest.mark.parametrize("batches", [1, 2], ids=["in one batch", "in two batches"])
async def test_another_content_under_a_known_id_is_a_dead_letter(db: Database, batches: int) -> None:
    """The first content stays, the second is refused as a conflict; in one batch they are decided in order."""
    first = place_order()
    second = place_order(first.order_id, ("BREAD", 9))
    messages = [message(first), message(second)]

    refusals = (
        await feed(db, handlers, messages)
        if batches == 1
        else [refusal for one in messages for refusal in await feed(db, handlers, [one])]
    )

    assert reasons(refusals) == ["conflict"]
    assert refusals[0].message.event == second
    assert await rows(db, "SELECT sku, quantity FROM order_lines") == [("APPLE", 2)]


async def test_a_duplicate_inside_one_batch_counts_once(db: Database) -> None:
    """The same message twice in one poll is one message."""
    placing = message(place_order())

    await feed(db, handlers, [placing, placing])

    assert len(await outbox_events(db)) == 1


async def test_the_message_key_must_be_the_order_id(db: Database) -> None:
    """Another key, or one that is no id, is refused; another notation of the same id is the same key."""
    command = place_order()
    placed = place_order()
    await place(db, placed)

    refusals = await feed(
        db,
        handlers,
        [
            message(command, key=str(new_id())),
            message(command, key="customer-1"),
            message(command, key=""),
            message(cancel_order(placed.order_id), key=str(command.order_id)),
            message(command, key=str(command.order_id).upper()),
        ],
    )

    assert reasons(refusals) == ["key_mismatch"] * 4
    assert await status_of(db, command.order_id) == ("REQUESTED", None)
    assert await status_of(db, placed.order_id) == ("REQUESTED", None)


async def test_cancelling_an_unknown_order_is_a_dead_letter(db: Database) -> None:
    """A cancellation before its order is refused as unknown_order."""
    refusals = await feed(db, handlers, [message(cancel_order(new_id()))])

    assert reasons(refusals) == ["unknown_order"]


async def test_an_order_may_be_placed_and_cancelled_in_one_batch(db: Database) -> None:
    """The events keep their order and numbers."""
    command = place_order()

    refusals = await feed(db, handlers, [message(command), message(cancel_order(command.order_id))])

    told = [(item.type, item.sequence) for item in await outbox_events(db)]
    assert refusals == []
    assert told == [("OrderRequested", 1), ("OrderCancelled", 2)]
    assert await status_of(db, command.order_id) == ("CANCELLED", "changed my mind")


async def test_cancelling_again_or_after_the_end_changes_nothing(db: Database) -> None:
    """By Kafka both are handled without effect."""
    twice, ended = place_order(), place_order()
    await place(db, twice, ended)
    await feed(db, handlers, [message(cancel_order(twice.order_id)), message(stock_rejected(ended.order_id))])
    told_before = len(await outbox_events(db))

    refusals = await feed(
        db,
        handlers,
        [message(cancel_order(twice.order_id, "again")), message(cancel_order(ended.order_id))],
    )

    assert refusals == []
    assert len(await outbox_events(db)) == told_before
    assert await status_of(db, twice.order_id) == ("CANCELLED", "changed my mind")
    assert await status_of(db, ended.order_id) == ("REJECTED", "insufficient_stock")


async def test_an_order_that_another_process_stores_first_is_decided_again(db: Database) -> None:
    """Two batches with one new order: the later one raises a transient error, and done again it finds the order."""
    command = place_order()
    placing = message(command)
    first_wrote = asyncio.Event()
    may_commit = asyncio.Event()

    async def first() -> None:
        async with db.transaction() as tx:
            await handlers.handle(tx, [placing])
            first_wrote.set()
            await may_commit.wait()

    async def second() -> None:
        async with db.transaction() as tx:
            await handlers.handle(tx, [placing])

    async def a_lock_is_waited_for() -> bool:
        return bool(await rows(db, "SELECT 1 FROM pg_locks WHERE NOT granted"))

    running = asyncio.create_task(first())
    await first_wrote.wait()
    racing = asyncio.create_task(second())
    await eventually(a_lock_is_waited_for)
    may_commit.set()
    await running
    with pytest.raises(ConcurrentWrite):
        await racing
    await second()

    assert await rows(db, "SELECT version FROM orders") == [(1,)]
    assert len(await outbox_events(db)) == 1
