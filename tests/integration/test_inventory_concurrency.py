"""Do processes that work on the same stock at the same time leave it in order?"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from services.inventory_service import handlers
from shared.database import Database, is_transient
from shared.envelope import Message
from shared.errors import ConcurrentWrite
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.inventory_building import (
    Fact,
    assert_sound,
    counters,
    moves,
    order_cancelled,
    ordered,
    paid,
    receive,
    standing,
    sweep,
)

LATER = timedelta(hours=1)

Work = Callable[..., Awaitable[object]]


async def again_while_transient(work: Work, *values: Any, **more: Any) -> int:
    """Do something as the edges of a service do it, again after each transient error; return how often again."""
    retries = 0
    while True:
        try:
            await work(*values, **more)
        except Exception as error:
            if not is_transient(error):
                raise
            retries += 1
        else:
            return retries


async def persist(database: Database, batch: Sequence[Message[Fact]]) -> int:
    """Feed a batch as a consumer does; return how often it had to be decided again."""
    return await again_while_transient(feed, database, handlers, batch)


async def together(*works: Awaitable[object]) -> None:
    """Do things at the same time, in an order that the event loop chooses anew each time."""
    shuffled = list(works)
    random.shuffle(shuffled)
    await asyncio.gather(*shuffled)


async def test_crossed_baskets_in_parallel_never_deadlock(inventory_db: Database) -> None:
    """(A, B, …) and (…, B, A) in parallel transactions: locks are taken in the order of SKUs, so none is a circle."""
    skus = [f"SKU-{number:03d}" for number in range(400)]
    basket = [(sku, 1) for sku in skus]
    await receive(inventory_db, **dict.fromkeys(skus, 1000))

    async def buy(lines: list[tuple[str, int]]) -> int:
        batches = [[message(ordered(new_id(), *lines))] for _ in range(8)]
        return sum([await persist(inventory_db, batch) for batch in batches])

    retries = await asyncio.gather(*(buy(lines) for lines in (basket, basket[::-1]) * 2))

    assert retries == [0, 0, 0, 0]
    assert await counters(inventory_db, skus[0]) == await counters(inventory_db, skus[-1]) == (968, 32, 0)
    await assert_sound(inventory_db)


async def test_parallel_batches_never_sell_a_unit_twice(inventory_db: Database) -> None:
    """Forty orders in four parallel streams for ten units: ten are held, thirty rejected."""
    order_ids = [new_id() for _ in range(40)]
    await receive(inventory_db, APPLE=10)

    await together(
        *(
            persist(inventory_db, [message(ordered(order_id)) for order_id in order_ids[start::8]])
            for start in range(8)
        )
    )

    assert await counters(inventory_db) == (0, 10, 0)
    told = [item.type for item in await outbox_events(inventory_db)]
    assert (told.count("StockReserved"), told.count("StockRejected")) == (10, 30)
    await assert_sound(inventory_db)


async def test_two_processes_that_hear_of_one_order_first_do_not_miss_each_other(
    inventory_db: Database,
) -> None:
    """`OrderRequested` and `PaymentSucceeded` handled at once by two processes: always confirmed in the end."""
    order_ids = [new_id() for _ in range(15)]
    await receive(inventory_db, APPLE=100)

    for order_id in order_ids:
        await together(
            persist(inventory_db, [message(ordered(order_id))]),
            persist(inventory_db, [message(paid(order_id))]),
        )

    assert [await standing(inventory_db, order_id) for order_id in order_ids] == [
        ("CONFIRMED", None, False)
    ] * 15
    await assert_sound(inventory_db)


async def test_the_second_to_hear_of_an_order_decides_again(inventory_db: Database) -> None:
    """While one transaction that heard of the order is open, another waits, and finds its own decision outdated."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)

    async with inventory_db.transaction() as tx:
        await handlers.handle(tx, [message(ordered(order_id))])
        second = asyncio.create_task(feed(inventory_db, handlers, [message(paid(order_id))]))
        await _until_somebody_waits(inventory_db)

    with pytest.raises(ConcurrentWrite):
        await second
    assert await standing(inventory_db, order_id) == ("HELD", None, False)


async def test_the_sweeper_against_a_payment_on_the_same_row(inventory_db: Database) -> None:
    """Released and paid at the same moment, many times: always sold in the end, in one round or in two."""
    order_ids = [new_id() for _ in range(20)]
    await receive(inventory_db, APPLE=20)
    await feed(inventory_db, handlers, [message(ordered(order_id)) for order_id in order_ids])

    for order_id in order_ids:
        await together(
            sweep(inventory_db, ahead=LATER, batch_max=3), persist(inventory_db, [message(paid(order_id))])
        )

    for order_id in order_ids:
        assert await standing(inventory_db, order_id) == ("CONFIRMED", None, False)
        kinds = [kind for kind, _, _ in await moves(inventory_db, order_id)]
        assert kinds in (
            ["RESERVED", "CONFIRMED"],
            ["RESERVED", "RELEASED", "RESERVED", "CONFIRMED"],
        )
    assert await counters(inventory_db) == (0, 0, 20)
    await assert_sound(inventory_db)


async def test_sweepers_in_several_processes_release_each_hold_once(inventory_db: Database) -> None:
    """Three sweepers at once share the work, and nothing is released twice."""
    order_ids = [new_id() for _ in range(60)]
    await receive(inventory_db, APPLE=60)
    await feed(inventory_db, handlers, [message(ordered(order_id)) for order_id in order_ids])

    await together(*(sweep(inventory_db, ahead=LATER, batch_max=7) for _ in range(3)))
    await sweep(inventory_db, ahead=LATER)

    assert await counters(inventory_db) == (60, 0, 0)
    assert len(await outbox_events(inventory_db, types=["StockReleased"])) == 60
    await assert_sound(inventory_db)


@pytest.mark.parametrize("seed", range(3))
async def test_a_cancellation_racing_a_payment_ends_with_nothing_held(
    inventory_db: Database, seed: int
) -> None:
    """Whoever wins, with a sweep and repetitions in between: the goods are free, and the money is told to go back."""
    chance = random.Random(seed)  # noqa: S311 (a seed, so that a failure can be repeated)
    order_ids = [new_id() for _ in range(12)]
    await receive(inventory_db, APPLE=12)

    for order_id in order_ids:
        batch = [message(ordered(order_id)), message(order_cancelled(order_id)), message(paid(order_id))]
        streams = [[one] for one in batch] + [chance.sample(batch, k=chance.randint(1, 3))]
        await together(
            *(persist(inventory_db, stream) for stream in streams), sweep(inventory_db, ahead=LATER)
        )

    for order_id in order_ids:
        stood = await standing(inventory_db, order_id)
        assert stood is not None
        status, _, unavailable = stood
        assert status == "RETURNED" or (status == "RELEASED" and unavailable)
    assert await counters(inventory_db) == (12, 0, 0)
    await assert_sound(inventory_db)


async def test_receipts_and_orders_in_parallel_keep_the_books(inventory_db: Database) -> None:
    """Units arrive, also of new SKUs, while others are bought."""
    skus = [f"SKU-{number}" for number in range(6)]

    async def arrive(number: int) -> None:
        for _ in range(5):
            await again_while_transient(receive, inventory_db, **dict.fromkeys(skus[number:], 2))

    async def buy(number: int) -> None:
        for _ in range(5):
            basket = [(sku, 1) for sku in reversed(skus[: number + 2])]
            await persist(inventory_db, [message(ordered(new_id(), *basket))])

    await together(*(arrive(number) for number in range(3)), *(buy(number) for number in range(3)))

    await assert_sound(inventory_db)
    assert sum(await counters(inventory_db, skus[5])) == 30


async def _until_somebody_waits(database: Database) -> None:
    """Return as soon as a transaction waits for another one."""
    async with database.connection() as connection, asyncio.timeout(10):
        while not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')"
        ):
            pass
