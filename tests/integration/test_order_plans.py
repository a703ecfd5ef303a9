"""Do the hot statements of the order service use their indexes, also on tables that were never analysed?

An empty table is read whole, whatever its indexes: that costs nothing, and every statement is planned anew each time.
"""

from typing import Any
from uuid import UUID

import pytest

from services.order_service import store
from services.order_service.domain.book import Availability
from services.order_service.domain.cart import CartOutcome
from services.order_service.domain.order import Order
from services.order_service.domain.placing import Price, quote
from services.order_service.store import KeptAnswer
from shared.database import Connection, Database
from shared.events import OrderStatus
from shared.ids import new_id
from tests.order_building import NOW, place_order

LARGE = 20_000
ANSWER = KeptAnswer(b"", UUID(int=7), 202, b"{}")


class Explaining:
    """A connection that explains each statement before it runs it, and keeps the plans."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[str] = []

    def __getattr__(self, name: str) -> Any:
        run = getattr(self._connection, name)

        async def explained(statement: str, *arguments: Any) -> Any:
            rows = await self._connection.fetch(f"EXPLAIN {statement}", *arguments)
            self.plans.append("\n".join(row[0] for row in rows))
            return await run(statement, *arguments)

        return explained


@pytest.fixture(params=["never analysed", "analysed"])
async def db(request: pytest.FixtureRequest, order_db: Database) -> Database:
    """A database of the order service with many orders and products."""
    async with order_db.connection() as connection:
        await fill(connection)
        if request.param == "analysed":
            await connection.execute("ANALYZE")
    return order_db


async def fill(connection: Connection) -> None:
    """Store many orders with lines, history and products."""
    await connection.execute(
        """
        INSERT INTO orders (order_id, customer_id, status, total_minor, currency, version, fingerprint, stock,
                            created_at, updated_at)
        SELECT gen_random_uuid(), 'customer-' || number % 1000, 'REQUESTED', 1, 'EUR', 1, '', 'NONE', now(), now()
        FROM generate_series(1, $1::int) AS number
        """,
        LARGE,
    )
    await connection.execute(
        """
        INSERT INTO order_lines SELECT order_id, 'SKU-' || number, 1, 1
        FROM orders CROSS JOIN generate_series(1, 3) AS number
        """
    )
    await connection.execute(
        "INSERT INTO order_history SELECT order_id, 1, 'REQUESTED', NULL, 'test', now() FROM orders"
    )
    await connection.execute(
        "INSERT INTO products SELECT 'SKU-' || n, 'x', 1, 'EUR', true FROM generate_series(1, $1::int) AS n",
        LARGE,
    )
    await connection.execute("INSERT INTO product_availability SELECT sku, false, 1 FROM products")
    await connection.execute(
        "INSERT INTO carts SELECT 'cart-' || n, NULL, now() FROM generate_series(1, $1::int) AS n", LARGE
    )
    await connection.execute(
        "INSERT INTO cart_items SELECT cart_id, 'SKU-' || n, 1 FROM carts CROSS JOIN generate_series(1, 3) AS n"
    )
    await connection.execute(
        """
        INSERT INTO idempotency_keys (scope, key, fingerprint, order_id, status, body)
        SELECT 'storefront', 'key-' || n, '', gen_random_uuid(), 202, '' FROM generate_series(1, $1::int) AS n
        """,
        LARGE,
    )


async def some_ids(connection: Connection) -> list[UUID]:
    """Return ids as a batch has them."""
    rows = await connection.fetch("SELECT order_id FROM orders ORDER BY order_id LIMIT 50")
    return [row["order_id"] for row in rows]


def scans(plans: list[str]) -> list[str]:
    """Return the plans that read a whole table."""
    return [plan for plan in plans if "Seq Scan" in plan]


async def test_loading_a_batch_reads_no_whole_table(db: Database) -> None:
    """Orders, lines and prices are found by their keys."""
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)
        ids = await some_ids(tx)

        await store.lock_orders(explaining, ids)
        await store.list_lines(explaining, ids)
        await store.get_prices(explaining, [f"SKU-{number}" for number in range(50)])

        assert len(explaining.plans) == 3
        assert scans(explaining.plans) == []


async def test_saving_a_batch_reads_no_whole_table(db: Database) -> None:
    """Orders are inserted and updated by their keys, and so is what is known of SKUs."""
    priced = quote(place_order(), {"APPLE": Price(100, "EUR", active=True)})
    orders = [
        Order.placed(place_order(), priced, hold_seconds=None, fingerprint=b"", cause="test", at=NOW)
        for _ in range(50)
    ]
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)

        await store.insert_orders(explaining, orders)
        await store.update_orders(explaining, orders)
        await store.insert_lines(explaining, orders)
        await store.insert_history(explaining, orders)
        await store.insert_availability(
            explaining, [Availability(f"SKU-{number:05}", depleted=True, sequence=9) for number in range(50)]
        )

        assert len(explaining.plans) == 5
        assert scans(explaining.plans) == []


async def test_reading_for_http_reads_no_whole_table(db: Database) -> None:
    """One order, its history, a customer's orders, a product and a part of the catalog are found by their keys."""
    async with db.connection() as connection:
        explaining: Any = Explaining(connection)
        [order_id, *_] = await some_ids(connection)

        await store.find_order(explaining, order_id)
        await store.list_history(explaining, order_id)
        await store.list_orders(explaining, customer_id="customer-7", status=None, after=None, limit=10)
        await store.list_orders(
            explaining, customer_id=None, status=OrderStatus.REQUESTED, after=order_id, limit=10
        )
        await store.find_product(explaining, "SKU-1")

        assert len(explaining.plans) >= 6
        assert scans(explaining.plans) == []


async def test_carts_are_found_by_their_keys(db: Database) -> None:
    """Loading, showing, checking out, emptying and changing carts read no whole table."""
    names = [f"cart-{number}" for number in range(1, 51)]
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)

        carts = await store.lock_carts(explaining, [*names, *(f"new-{number}" for number in range(50))])
        await store.load_items(explaining, carts.values())
        await store.find_cart(explaining, "cart-7")
        for number, cart in enumerate(carts.values()):
            cart.put_item("SKU-2", 5)
            cart.take_item("SKU-1")
            if number % 2:
                cart.check_out(new_id())
                cart.decide(CartOutcome.CLEARED)
        await store.save_carts(explaining, carts.values(), NOW)
        await store.delete_abandoned_carts(explaining, hours=1, carts_max=10)

        assert len(explaining.plans) == 9
        assert scans(explaining.plans) == []


async def test_kept_answers_are_found_by_their_keys(db: Database) -> None:
    """Looking up, keeping, replacing and forgetting answers read no whole table."""
    known = {("storefront", f"key-{number}"): ANSWER for number in range(1, 51)}
    new = {("storefront", f"new-{number}"): ANSWER for number in range(50)}
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)

        found = await store.find_answers(explaining, {**known, **new})
        await store.insert_answers(explaining, new)
        await store.update_answers(explaining, known, only_status=202)
        await store.delete_old_answers(explaining, hours=1, answers_max=10)

        assert len(found) == 50
        assert len(explaining.plans) == 4
        assert scans(explaining.plans) == []


async def test_open_orders_are_counted_by_customer(db: Database) -> None:
    """The limit on holds reads the orders of the customers in question alone."""
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)

        await store.lock_customers(tx, ["customer-7", "customer-8"])
        counts = await store.count_open_orders(explaining, ["customer-7", "customer-8"], besides=[])

        assert counts == {"customer-7": 20, "customer-8": 20}
        assert scans(explaining.plans) == []
