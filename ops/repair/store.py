"""Which SQL tells a repair where things stand?

What is changed is changed by the services' own statements.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from ops.repair.standing import OrderStand, PaymentStand, ReservationStand
from shared.database import Connection


class LedgerStand(NamedTuple):
    """What the movements of a SKU add up to, and what reservations have of it by their lines.

    `booked` is what came from outside; `is_broken` says that the movements of an order with a finding are among them.
    """

    sku: str
    counters: tuple[int, int, int]
    sums: tuple[int, int, int]
    booked: int
    held: int
    sold: int
    is_broken: bool


async def get_now(tx: Connection) -> datetime:
    """Return the time of the transaction, by the database's clock."""
    now: datetime = await tx.fetchval("SELECT now()")
    return now


async def limit_waiting(connection: Connection, *, lock_seconds_max: float) -> None:
    """Have a session give up on rows that others keep, and end if it does nothing in the middle of a transaction."""
    await connection.execute(
        """
        SELECT set_config('lock_timeout', $1, false), set_config('idle_in_transaction_session_timeout', '10s', false)
        """,
        f"{round(lock_seconds_max * 1000)}ms",
    )


async def list_orders(tx: Connection, order_ids: Collection[UUID]) -> dict[UUID, OrderStand]:
    """Return where orders stand."""
    rows = await tx.fetch(
        "SELECT order_id, status, cancelled, stock, payment FROM orders WHERE order_id = ANY($1::uuid[])",
        order_ids,
    )
    return {row["order_id"]: OrderStand(*row) for row in rows}


async def list_reservations(
    tx: Connection, order_ids: Collection[UUID], *, grace_seconds: float
) -> dict[UUID, ReservationStand]:
    """Return where reservations stand, and which of them the sweeper should have released."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, unavailable, cancelled, payment_status,
               coalesce(status = 'HELD' AND expires_at < now() - make_interval(secs => $2), false) AS is_due,
               sequence > 0 AS told
        FROM reservations WHERE order_id = ANY($1::uuid[])
        """,
        order_ids,
        grace_seconds,
    )
    return {row["order_id"]: ReservationStand(*row) for row in rows}


async def list_payments(tx: Connection, order_ids: Collection[UUID]) -> dict[UUID, PaymentStand]:
    """Return where payments stand."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, amount_minor IS NOT NULL AS is_opened, closed,
               EXISTS (SELECT 1 FROM refunds WHERE attempt_id = settled_attempt_id AND is_full) AS is_refunded,
               sequence > 0 AS told
        FROM payments WHERE order_id = ANY($1::uuid[])
        """,
        order_ids,
    )
    return {row["order_id"]: PaymentStand(*row) for row in rows}


async def list_ledgers(
    tx: Connection, skus: Collection[str], broken_orders: Collection[UUID]
) -> list[LedgerStand]:
    """Return the counters of SKUs that have a row, and what the ledger and the reservations say of them."""
    rows = await tx.fetch(
        """
        WITH ledger AS (
            SELECT sku, sum(available_delta) AS available, sum(reserved_delta) AS reserved, sum(sold_delta) AS sold,
                   coalesce(sum(available_delta) FILTER (WHERE kind IN ('RECEIVED', 'ADJUSTED')), 0) AS booked,
                   coalesce(bool_or(order_id = ANY($2::uuid[])), false) AS is_broken
            FROM stock_movements WHERE sku = ANY($1::text[])
            GROUP BY sku
        ),
        reserved AS (
            SELECT sku, coalesce(sum(quantity) FILTER (WHERE status = 'HELD'), 0) AS held,
                   coalesce(sum(quantity) FILTER (WHERE status = 'CONFIRMED'), 0) AS sold
            FROM reservation_lines JOIN reservations USING (order_id)
            WHERE sku = ANY($1::text[])
            GROUP BY sku
        )
        SELECT sku, ARRAY[level.available, level.reserved, level.sold] AS counters,
               ARRAY[ledger.available, ledger.reserved, ledger.sold]::bigint[] AS sums, booked::bigint AS booked,
               coalesce(reserved.held, 0)::bigint AS held, coalesce(reserved.sold, 0)::bigint AS sold, is_broken
        FROM stock_levels AS level JOIN ledger USING (sku) LEFT JOIN reserved USING (sku)
        WHERE sku = ANY($1::text[])
        ORDER BY sku
        """,
        skus,
        broken_orders,
    )
    return [
        LedgerStand(sku, tuple(counters), tuple(sums), booked, held, sold, is_broken)
        for sku, counters, sums, booked, held, sold, is_broken in rows
    ]
