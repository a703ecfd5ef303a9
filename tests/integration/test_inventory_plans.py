"""Do the hot statements use their indexes, on fresh tables that were never analysed and on large ones?"""

from typing import Any
from uuid import UUID

import pytest

from services.inventory_service import store
from shared.database import Connection, Database

ROWS = 20_000
BATCH = 500


async def fill(database: Database) -> None:
    """Store many reservations with a line and a movement each, and as many levels, as a busy day leaves them."""
    async with database.transaction() as tx:
        await tx.execute(
            """
            INSERT INTO stock_levels (sku, available, reserved, sold)
            SELECT 'SKU-' || number, 9, 0, 0 FROM generate_series(1, $1::integer) AS number
            """,
            ROWS,
        )
        await tx.execute(
            """
            INSERT INTO reservations (order_id, status, expires_at, round, sequence)
            SELECT md5('order' || number)::uuid, CASE number % 10 WHEN 0 THEN 'HELD' ELSE 'CONFIRMED' END,
                   now() + make_interval(secs => number), 1, 1
            FROM generate_series(1, $1::integer) AS number
            """,
            ROWS,
        )
        await tx.execute(
            """
            INSERT INTO reservation_lines (order_id, sku, quantity)
            SELECT md5('order' || number)::uuid, 'SKU-' || number, 1 FROM generate_series(1, $1::integer) AS number
            """,
            ROWS,
        )
        await tx.execute(
            """
            INSERT INTO stock_movements (
                sku, order_id, kind, round, available_delta, reserved_delta, sold_delta, cause
            )
            SELECT 'SKU-' || number, md5('order' || number)::uuid, 'RESERVED', 1, -1, 1, 0, 'test'
            FROM generate_series(1, $1::integer) AS number
            """,
            ROWS,
        )


class Explaining:
    """A connection that explains each statement before it runs it, and keeps the plans."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[str] = []

    def __getattr__(self, name: str) -> Any:
        run = getattr(self._connection, name)

        async def explained(statement: str, *values: Any) -> Any:
            rows = await self._connection.fetch(f"EXPLAIN {statement}", *values)
            self.plans.append("\n".join(row[0] for row in rows))
            return await run(statement, *values)

        return explained


@pytest.fixture(params=["never analysed", "analysed"])
async def db(request: pytest.FixtureRequest, inventory_db: Database) -> Database:
    """A database of the inventory service after a busy day."""
    await fill(inventory_db)
    if request.param == "analysed":
        async with inventory_db.connection() as connection:
            await connection.execute("ANALYZE")
    return inventory_db


async def test_a_batch_finds_its_rows_by_index(db: Database) -> None:
    """No statement that loads or saves a batch reads a large table whole."""
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)
        rows = await tx.fetch("SELECT order_id FROM reservations WHERE status = 'HELD' LIMIT $1", BATCH)
        order_ids = [row["order_id"] for row in rows]
        skus = [f"SKU-{number}" for number in range(1, BATCH + 1)]

        held = await store.lock_reservations(explaining, order_ids)
        await store.list_lines(explaining, order_ids)
        levels = await store.lock_levels(explaining, skus)
        await store.update_reservations(explaining, held)
        await store.update_levels(explaining, levels)

    for plan in explaining.plans:
        assert "Index" in plan, plan
        assert "Seq Scan" not in plan, plan


async def test_the_sweeper_finds_what_is_due_by_index(db: Database) -> None:
    """Neither the search nor the lock reads all reservations, however many were ever made."""
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)
        now = await store.get_now(tx)

        due = await store.find_due(explaining, 0.0, (now, UUID(int=0)), BATCH)
        await store.lock_due_reservations(explaining, [row["order_id"] for row in due] or [UUID(int=0)], now)

    assert "reservations_due" in explaining.plans[0]
    assert "Sort" not in explaining.plans[0]
    assert "Seq Scan" not in explaining.plans[1], explaining.plans[1]


async def test_lists_are_read_by_index(db: Database) -> None:
    """Pages of levels and movements come from their indexes in order: nothing is sorted, whatever is behind."""
    async with db.connection() as connection:
        explaining: Any = Explaining(connection)

        await store.list_levels(explaining, "SKU-5", 100)
        await store.list_movements(explaining, "SKU-5", 0, 100)
        await store.get_level(explaining, "SKU-5")
        await store.get_reservation(explaining, UUID(int=1))

    for plan in explaining.plans:
        assert "Index" in plan, plan
        assert "Sort" not in plan, plan
