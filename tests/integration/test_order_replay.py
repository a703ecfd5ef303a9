"""Are repetition, disorder and batching harmless, on a real Postgres?"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from services.order_service import handlers
from services.order_service.domain.book import Decided
from services.order_service.handlers import Withdrawal
from shared.database import Database, DatabaseOptions
from shared.envelope import Message
from shared.events import CancelOrder, PlaceOrder
from shared.ids import new_id
from tests.conftest import MakeDatabase
from tests.feeding import feed, message, outbox_events
from tests.order_building import cancel_order, place_order, stories
from tests.order_database import assert_without_holes, place, rows, snapshot, stock_catalog


@pytest.fixture
async def db(order_db: Database) -> Database:
    """A database of the order service with a small catalog."""
    await stock_catalog(order_db)
    return order_db


async def test_losing_the_inbox_does_not_matter(db: Database) -> None:
    """Every fact again under a new id changes no row and tells nothing: ranks alone are enough."""
    command = place_order()
    await place(db, command)
    stock, payment = stories(command.order_id)["too late"]
    numbered = [*enumerate(stock, 1), *enumerate(payment, 1)]
    await feed(db, handlers, [message(fact, sequence=number) for number, fact in numbered])
    before = await snapshot(db), await rows(db, "SELECT updated_at, xmin::text FROM orders")

    await feed(db, handlers, [message(fact, sequence=number) for number, fact in reversed(numbered)])
    await feed(db, handlers, [message(command)])

    assert (await snapshot(db), await rows(db, "SELECT updated_at, xmin::text FROM orders")) == before


def deliveries(rng: random.Random, orders: int) -> list[Message[Any]]:
    """Return everything that is said of some orders: each placed first, the rest shuffled, repeated, and cancelled at times."""
    placing, following = [], []
    for number in range(orders):
        command = place_order(UUID(int=rng.getrandbits(128)), ("APPLE", 2), ("BREAD", 1))
        order_id = command.order_id
        placing.append(message(command))
        stock, payment = rng.choice(list(stories(order_id).values()))
        following += [message(fact, sequence=at) for at, fact in enumerate(stock, 1)]
        following += [message(fact, sequence=at) for at, fact in enumerate(payment, 1)]
        if number % 3 == 0:
            following.append(message(CancelOrder(order_id=order_id, reason=None)))
    following += [
        replace(again, event_id=new_id()) if rng.random() < 0.5 else again
        for again in rng.sample(following, len(following) // 2)
    ]
    rng.shuffle(following)
    return [*placing, *following]


@pytest.mark.parametrize("seed", range(4))
async def test_a_batch_equals_its_messages_one_by_one(make_database: MakeDatabase, seed: int) -> None:
    """Orders, lines, history and events are the same whether messages are fed alone, in batches, or all at once."""
    rng = random.Random(seed)  # noqa: S311 (a repeatable shuffle)
    messages = deliveries(rng, orders=12)
    snapshots = []

    for size in (1, 7, len(messages)):
        database = await _database(make_database)
        for start in range(0, len(messages), size):
            await feed(database, handlers, messages[start : start + size])
        snapshots.append(await snapshot(database))
        await database.close()

    assert snapshots[0] == snapshots[1] == snapshots[2]


@pytest.mark.parametrize("seed", range(4))
async def test_shuffled_and_repeated_facts_end_the_same(make_database: MakeDatabase, seed: int) -> None:
    """Two orders of delivery lead to the same facets and status; numbers have no holes and follow the outbox."""
    rng = random.Random(seed)  # noqa: S311 (a repeatable shuffle)
    messages = [item for item in deliveries(rng, orders=12) if not isinstance(item.event, CancelOrder)]
    placing = [item for item in messages if isinstance(item.event, PlaceOrder)]
    facts = [item for item in messages if not isinstance(item.event, PlaceOrder)]
    ends = []

    for _ in range(2):
        rng.shuffle(facts)
        database = await _database(make_database)
        for start in range(0, len(facts), 9):
            await feed(database, handlers, [*placing, *facts[start : start + 9]])
        ends.append(
            await rows(
                database,
                "SELECT order_id, status, stock, stock_sequence, payment, payment_sequence FROM orders ORDER BY 1",
            )
        )
        await assert_without_holes(database)
        await database.close()

    assert ends[0] == ends[1]


async def _database(make_database: MakeDatabase) -> Database:
    database = Database(DatabaseOptions(dsn=await make_database("order"), application_name="tests"))
    await database.open()
    await stock_catalog(database)
    return database


@pytest.mark.parametrize("seed", range(3))
async def test_cancellations_race_facts_on_the_same_orders(db: Database, seed: int) -> None:
    """Batches of facts and of cancellations at once: every order ends where its facets lead, with nothing told twice."""
    rng = random.Random(seed)  # noqa: S311 (a repeatable shuffle)
    commands = [place_order() for _ in range(30)]
    await place(db, *commands)
    facts = [
        message(fact, sequence=number)
        for command in commands
        for facts_of_one in stories(command.order_id)["paid"]
        for number, fact in enumerate(facts_of_one, 1)
    ]
    cancellations = [
        Withdrawal(cancel_order(command.order_id), "http:1", "storefront")
        for command in rng.sample(commands, 20)
        for _ in range(2)
    ]
    rng.shuffle(facts)
    rng.shuffle(cancellations)

    async def cancel(requests: Sequence[Withdrawal]) -> list[Decided]:
        async with db.transaction() as tx:
            answers = await handlers.cancel(tx, requests)
        return [answer for answer in answers if isinstance(answer, Decided) and answer.changed]

    async with asyncio.TaskGroup() as group:
        for start in range(0, len(facts), 15):
            group.create_task(feed(db, handlers, facts[start : start + 15]))
        cancelling = [
            group.create_task(cancel(cancellations[start : start + 8]))
            for start in range(0, len(cancellations), 8)
        ]

    accepted = {decided.order.order_id for task in cancelling for decided in task.result()}
    ends = dict(await rows(db, "SELECT order_id, status FROM orders"))
    assert sum(len(task.result()) for task in cancelling) == 20
    assert ends == {
        command.order_id: "REFUND_DUE" if command.order_id in accepted else "PROCESSING"
        for command in commands
    }
    told = await outbox_events(db, types=["OrderCancelled", "OrderRefundRequested"])
    assert Counter(item.type for item in told) == {"OrderCancelled": 20, "OrderRefundRequested": 20}
    await assert_without_holes(db)
