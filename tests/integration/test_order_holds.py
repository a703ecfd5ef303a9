"""Can a customer hoard, when `HOLDFAST_HOLDS_PER_CUSTOMER_MAX` says how many orders may be open at once?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from uuid import UUID

import pytest

from services.order_service import handlers
from services.order_service.handlers import Policy
from shared.database import Database
from shared.envelope import Refusal
from shared.events import PlaceOrder
from tests.feeding import feed, message, outbox_events
from tests.order_building import cancel_order, confirmed, place_order, reserved, succeeded
from tests.order_database import reasons, rows, stock_catalog
from tests.order_shop import Shop, basket, serving

LIMIT = 3


class Limited:
    """The handlers of an order service with a limit."""

    CONSUMER = handlers.CONSUMER
    handle = staticmethod(partial(handlers.handle, policy=Policy(LIMIT)))


async def command(database: Database, *commands: PlaceOrder) -> list[Refusal]:
    """Place orders by Kafka in one batch; return what is refused."""
    return [*await feed(database, Limited(), [message(item) for item in commands])]


@pytest.fixture
async def shop(order_db: Database) -> AsyncIterator[Shop]:
    """The order service with a small catalog and a limit."""
    await stock_catalog(order_db)
    async with serving(order_db, holds_per_customer_max=LIMIT) as shop:
        yield shop


async def open_orders(database: Database) -> int:
    """Return how many unpaid orders the customer has open."""
    [[count]] = await rows(
        database,
        """
        SELECT count(*) FROM orders
        WHERE customer_id = 'customer-1' AND status IN ('REQUESTED', 'AWAITING_PAYMENT')
        """,
    )
    assert isinstance(count, int)
    return count


async def test_one_order_too_many_is_refused_by_http(shop: Shop) -> None:
    """429 with its reason, nothing stored nor told, the key not burnt; another customer is served."""
    order_ids = [(await shop.place(basket())).body["order_id"] for _ in range(LIMIT)]

    refused = await shop.place(basket(), "key-1")
    other = await shop.place(basket(customer_id="customer-2"))
    stored = len(await outbox_events(shop.database))
    await shop.call("POST", f"/orders/{order_ids[0]}/cancel", {})
    accepted = await shop.place(basket(), "key-1")

    assert refused.status == 429
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.body["type"] == "urn:holdfast:problem:too_many_holds"
    assert other.status == 202
    assert stored == LIMIT + 1
    assert accepted.status == 202


async def test_one_order_too_many_is_a_dead_letter_by_kafka(shop: Shop) -> None:
    """Its reason is too_many_holds; orders of the batch count, and its neighbours go on."""
    commands = [place_order() for _ in range(LIMIT + 2)]
    other = place_order(customer_id="customer-2")

    refusals = await command(shop.database, *commands, other)

    assert reasons(refusals) == ["too_many_holds"] * 2
    stored = {row[0] for row in await rows(shop.database, "SELECT order_id FROM orders")}
    assert stored == {item.order_id for item in [*commands[:LIMIT], other]}


async def test_what_is_paid_or_ended_makes_room(shop: Shop) -> None:
    """Only REQUESTED and AWAITING_PAYMENT count, in the same batch or an earlier one."""
    paid, cancelled, held = (place_order() for _ in range(3))
    await command(shop.database, paid, cancelled, held)
    await feed(shop.database, Limited(), [message(reserved(held.order_id))])
    full = await command(shop.database, place_order())

    facts = [message(succeeded(paid.order_id)), message(confirmed(paid.order_id))]
    cancelling = message(cancel_order(cancelled.order_id))
    refusals = await feed(
        shop.database, Limited(), [*facts, cancelling, *(message(place_order()) for _ in range(3))]
    )

    assert reasons(full) == ["too_many_holds"]
    assert reasons(refusals) == ["too_many_holds"]
    assert await open_orders(shop.database) == LIMIT


async def test_orders_at_once_by_several_ways_never_exceed_the_limit(order_db: Database) -> None:
    """Two copies of the service and two consumers decide at the same time; exactly as many as allowed are accepted."""
    await stock_catalog(order_db)
    async with AsyncExitStack() as stack:
        copies = [
            await stack.enter_async_context(serving(order_db, holds_per_customer_max=LIMIT)) for _ in range(2)
        ]

        answers = await asyncio.gather(
            *(copies[at % 2].place(basket()) for at in range(20)),
            *(command(order_db, place_order(), place_order()) for _ in range(4)),
        )

    assert len(answers) == 24
    assert await open_orders(order_db) == LIMIT


async def test_without_a_limit_nothing_is_counted(order_db: Database) -> None:
    """0, the default, lets a customer have as many as wanted."""
    await stock_catalog(order_db)

    async with serving(order_db) as shop:
        answers = await asyncio.gather(*(shop.place(basket()) for _ in range(30)))

    assert {answer.status for answer in answers} == {202}
    assert len({UUID(answer.body["order_id"]) for answer in answers}) == 30
