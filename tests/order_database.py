"""How do tests prepare and read a database of the order service?"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.order_service import handlers, store
from services.order_service.store import Product
from shared.database import Database
from shared.envelope import Refusal
from shared.events import INTEGER_MAX, PlaceOrder
from tests.feeding import feed, message, outbox_events

CATALOG = [
    Product("APPLE", "Apple", 100, "EUR", active=True),
    Product("BREAD", "Bread", 250, "EUR", active=True),
    Product("FREE", "Sample", 0, "EUR", active=True),
    Product("GOLD", "Gold", INTEGER_MAX, "EUR", active=True),
    Product("GONE", "Gone", 100, "EUR", active=False),
]


async def stock_catalog(database: Database) -> None:
    """Store the catalog."""
    async with database.connection() as connection:
        await store.insert_products(connection, CATALOG)


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds, as plain tuples."""
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(query)]


async def status_of(database: Database, order_id: UUID) -> tuple[str, str | None]:
    """Return an order's status and reason."""
    async with database.connection() as connection:
        order = await store.find_order(connection, order_id)
    assert order is not None
    return order.status.value, order.reason


def reasons(refusals: Sequence[Refusal]) -> list[str]:
    """Return why messages were refused."""
    return [refusal.reason for refusal in refusals]


async def place(database: Database, *orders: PlaceOrder) -> None:
    """Place orders in one batch; none may be refused."""
    assert await feed(database, handlers, [message(order) for order in orders]) == []


async def snapshot(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return what a database says of its orders, without times."""
    return {
        "orders": await rows(
            database,
            """
            SELECT order_id, status, reason, details::text, version, sequence, stock, stock_reason, stock_sequence,
                   payment, payment_sequence, refunded_minor, payment_url, pay_by, cancelled
            FROM orders ORDER BY order_id
            """,
        ),
        "lines": await rows(database, "SELECT * FROM order_lines ORDER BY order_id, sku"),
        "history": await rows(
            database,
            "SELECT order_id, version, status, reason, cause FROM order_history ORDER BY order_id, version",
        ),
        "events": [
            (item.key, item.sequence, item.type, item.headers["ce_causationid"])
            for item in sorted(await outbox_events(database), key=lambda item: (item.key, item.sequence))
        ],
    }


async def assert_without_holes(database: Database) -> None:
    """Per order: sequences follow the outbox from 1 to the order's own, versions the history."""
    sequences: dict[str, list[int]] = {}
    for told in await outbox_events(database):
        sequences.setdefault(told.key, []).append(told.sequence)
    counters = await rows(database, "SELECT order_id, sequence, version FROM orders")
    assert sequences == {str(order_id): list(range(1, last + 1)) for order_id, last, _ in counters}
    history = await rows(
        database, "SELECT order_id, array_agg(version ORDER BY version) FROM order_history GROUP BY order_id"
    )
    assert dict(history) == {order_id: list(range(1, version + 1)) for order_id, _, version in counters}
