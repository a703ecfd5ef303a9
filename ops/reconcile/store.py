"""Which SQL finds the orders of a period, and what each database says of some of them?

The orders of a period come sorted through a cursor, and what is said of them in pages: a million orders need no more
memory than a page of them.
"""

from collections.abc import AsyncGenerator, Collection
from datetime import datetime
from uuid import UUID

from ops.reconcile.rules import AttemptRow, OrderRow, PaymentRow, RefundRow, ReservationRow
from shared.database import Connection

# --- which orders ---------------------------------------------------------------------------------------------------


async def list_paid(
    tx: Connection, since: datetime, until: datetime | None, prefetch: int
) -> AsyncGenerator[UUID, None]:
    """Yield by id the orders that were paid in a period, and those whose money is undecided, however old."""
    cursor = tx.cursor(
        """
        SELECT order_id FROM payments WHERE paid_at >= $1 AND ($2::timestamptz IS NULL OR paid_at < $2)
        UNION
        SELECT order_id FROM attempts
        WHERE (status IN ('UNKNOWN', 'QUARANTINED') OR review_at IS NOT NULL)
              AND ($2::timestamptz IS NULL OR created_at < $2)
        UNION
        SELECT order_id FROM refunds
        WHERE status <> 'SUCCEEDED' AND ($2::timestamptz IS NULL OR created_at < $2)
        ORDER BY order_id
        """,
        since,
        until,
        prefetch=prefetch,
    )
    async for row in cursor:
        yield row["order_id"]


async def list_heard(
    tx: Connection, since: datetime, until: datetime | None, prefetch: int
) -> AsyncGenerator[UUID, None]:
    """Yield by id the orders of a period that the order service takes for paid."""
    cursor = tx.cursor(
        """
        SELECT order_id FROM orders
        WHERE payment IN ('SUCCEEDED', 'REFUNDED') AND coalesce(paid_at, updated_at) >= $1
              AND ($2::timestamptz IS NULL OR coalesce(paid_at, updated_at) < $2)
        ORDER BY order_id
        """,
        since,
        until,
        prefetch=prefetch,
    )
    async for row in cursor:
        yield row["order_id"]


async def list_confirmed(
    tx: Connection, since: datetime, until: datetime | None, prefetch: int
) -> AsyncGenerator[UUID, None]:
    """Yield by id the orders whose goods were sold in a period."""
    cursor = tx.cursor(
        """
        SELECT order_id FROM reservations
        WHERE status = 'CONFIRMED' AND updated_at >= $1 AND ($2::timestamptz IS NULL OR updated_at < $2)
        ORDER BY order_id
        """,
        since,
        until,
        prefetch=prefetch,
    )
    async for row in cursor:
        yield row["order_id"]


# --- what is said of them -------------------------------------------------------------------------------------------


async def list_orders(
    tx: Connection, order_ids: Collection[UUID], settle_seconds: float
) -> dict[UUID, OrderRow]:
    """Return what the order service says."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, payment, settled_attempt_id, settled_amount_minor, total_minor, currency,
               coalesce(paid_at, updated_at), updated_at > now() - make_interval(secs => $2)
        FROM orders WHERE order_id = ANY($1::uuid[])
        """,
        order_ids,
        settle_seconds,
    )
    return {row["order_id"]: OrderRow(*row) for row in rows}


async def list_reservations(
    tx: Connection, order_ids: Collection[UUID], settle_seconds: float
) -> dict[UUID, ReservationRow]:
    """Return what inventory says."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, updated_at, updated_at > now() - make_interval(secs => $2)
        FROM reservations WHERE order_id = ANY($1::uuid[])
        """,
        order_ids,
        settle_seconds,
    )
    return {row["order_id"]: ReservationRow(*row) for row in rows}


async def list_payments(
    tx: Connection, order_ids: Collection[UUID], settle_seconds: float
) -> dict[UUID, PaymentRow]:
    """Return what the payment service says."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, settled_attempt_id, settled_amount_minor, settled_currency, paid_at,
               updated_at > now() - make_interval(secs => $2)
        FROM payments WHERE order_id = ANY($1::uuid[])
        """,
        order_ids,
        settle_seconds,
    )
    return {row["order_id"]: PaymentRow(*row) for row in rows}


async def list_attempts(
    tx: Connection, order_ids: Collection[UUID], settle_seconds: float
) -> list[AttemptRow]:
    """Return the attempts of some orders, oldest first."""
    rows = await tx.fetch(
        """
        SELECT attempt_id, order_id, gateway, status, amount_minor, received_amount_minor,
               coalesce(received_currency, currency), dispute, review_reason,
               extract(epoch FROM now() - review_at)::float8, extract(epoch FROM now() - created_at)::float8,
               updated_at > now() - make_interval(secs => $2)
        FROM attempts WHERE order_id = ANY($1::uuid[]) ORDER BY created_at, attempt_id
        """,
        order_ids,
        settle_seconds,
    )
    return [AttemptRow(*row) for row in rows]


async def list_refunds(tx: Connection, order_ids: Collection[UUID]) -> list[RefundRow]:
    """Return the refunds of some orders, oldest first."""
    rows = await tx.fetch(
        """
        SELECT order_id, attempt_id, gateway, status, amount_minor, currency, error,
               extract(epoch FROM now() - created_at)::float8
        FROM refunds WHERE order_id = ANY($1::uuid[]) ORDER BY created_at, refund_id
        """,
        order_ids,
    )
    return [RefundRow(*row) for row in rows]
