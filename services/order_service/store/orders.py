"""Which SQL reads and writes orders, their lines and their history?"""

from collections.abc import Collection, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson

from services.order_service.domain.cart import CartOutcome
from services.order_service.domain.order import Cancellation, Order, Transition
from services.order_service.domain.status import PaymentState, Stock, StockState
from services.order_service.store.rows import count
from shared.database import Connection, Row
from shared.errors import ConcurrentWrite, LedgerViolation
from shared.events import OrderStatus, PaymentStatus, PricedLine

#: The class of the advisory locks that stand for customers.
_CUSTOMER_LOCKS = 1


async def lock_orders(tx: Connection, order_ids: Collection[UUID]) -> dict[UUID, Order]:
    """Lock and return those of the orders that exist, without their lines; always in the order of their ids."""
    rows = await tx.fetch(
        "SELECT * FROM orders WHERE order_id = ANY($1::uuid[]) ORDER BY order_id FOR UPDATE",
        list(order_ids),
    )
    return {row["order_id"]: _order(row) for row in rows}


async def get_time(tx: Connection) -> datetime:
    """Return the database's time; asked for after the locks, so that an order's history never runs backwards."""
    at: datetime = await tx.fetchval("SELECT clock_timestamp()")
    return at


async def find_orders(connection: Connection, order_ids: Collection[UUID]) -> dict[UUID, Order]:
    """Return those of the orders that exist, with their lines."""
    rows = await connection.fetch("SELECT * FROM orders WHERE order_id = ANY($1::uuid[])", list(order_ids))
    return {order.order_id: order for order in await _with_lines(connection, rows)}


async def find_order(connection: Connection, order_id: UUID) -> Order | None:
    """Return one order with its lines."""
    return (await find_orders(connection, [order_id])).get(order_id)


async def list_orders(
    connection: Connection, *, customer_id: str | None, status: str | None, after: UUID | None, limit: int
) -> list[Order]:
    """Return orders by id, with their lines, beginning behind `after`."""
    rows = await connection.fetch(
        """
        SELECT * FROM orders
        WHERE ($1::text IS NULL OR customer_id = $1) AND ($2::text IS NULL OR status = $2)
          AND ($3::uuid IS NULL OR order_id > $3)
        ORDER BY order_id LIMIT $4
        """,
        customer_id,
        status,
        after,
        limit,
    )
    return await _with_lines(connection, rows)


async def _with_lines(connection: Connection, rows: Sequence[Row]) -> list[Order]:
    orders = [_order(row) for row in rows]
    lines = await list_lines(connection, [order.order_id for order in orders])
    for order in orders:
        order.lines = lines.get(order.order_id, ())
    return orders


async def list_lines(
    connection: Connection, order_ids: Collection[UUID]
) -> dict[UUID, tuple[PricedLine, ...]]:
    """Return the lines of orders, sorted by SKU; an order without lines is left out."""
    if not order_ids:
        return {}
    rows = await connection.fetch(
        """
        SELECT order_id, sku, quantity, unit_price_minor FROM order_lines
        WHERE order_id = ANY($1::uuid[]) ORDER BY order_id, sku
        """,
        list(order_ids),
    )
    lines: dict[UUID, list[PricedLine]] = {}
    for order_id, sku, quantity, unit_price_minor in rows:
        line = PricedLine(sku=sku, quantity=quantity, unit_price_minor=unit_price_minor)
        lines.setdefault(order_id, []).append(line)
    return {order_id: tuple(found) for order_id, found in lines.items()}


async def list_history(
    connection: Connection, order_id: UUID, *, customer_id: str | None = None
) -> list[Transition]:
    """Return every step of an order, the first one first; none if the order is not of the customer, if one is given."""
    rows = await connection.fetch(
        """
        SELECT version, status, reason, cause, at FROM order_history
        WHERE order_id = $1
          AND ($2::text IS NULL OR EXISTS (SELECT FROM orders WHERE order_id = $1 AND customer_id = $2))
        ORDER BY version
        """,
        order_id,
        customer_id,
    )
    return [Transition(**{**row, "status": OrderStatus(row["status"])}) for row in rows]


async def lock_customers(tx: Connection, customer_ids: Collection[str]) -> None:
    """Let no other batch decide about orders of these customers until this one is committed."""
    numbers = {
        int.from_bytes(sha256(customer_id.encode()).digest()[:4], signed=True) for customer_id in customer_ids
    }
    await tx.execute(
        "SELECT pg_advisory_xact_lock($1::int, number) FROM unnest($2::int[]) AS number",
        _CUSTOMER_LOCKS,
        sorted(numbers),
    )


async def count_open_orders(
    tx: Connection, customer_ids: Collection[str], *, besides: Collection[UUID]
) -> dict[str, int]:
    """Return how many unpaid orders customers have that are not at their end, but for some."""
    rows = await tx.fetch(
        """
        SELECT customer_id, count(*) FROM orders
        WHERE customer_id = ANY($1::text[]) AND status IN ('REQUESTED', 'AWAITING_PAYMENT')
          AND order_id <> ALL($2::uuid[])
        GROUP BY customer_id
        """,
        list(customer_ids),
        list(besides),
    )
    return {row["customer_id"]: row["count"] for row in rows}


async def insert_orders(tx: Connection, orders: Sequence[Order]) -> None:
    """Store new orders; what they have heard in the same batch is stored by `update_orders`.

    Raises:
        ConcurrentWrite: another process stored one of them first.
    """
    if not orders:
        return
    inserted = await tx.execute(
        """
        INSERT INTO orders (
            order_id, customer_id, currency, total_minor, hold_seconds, fingerprint, created_at, updated_at,
            status, reason, details, version, sequence, stock, stock_reason, cancelled, cancel_reason,
            cancel_requested_by, cart_id, cart_outcome
        )
        SELECT order_id, customer_id, currency, total_minor, hold_seconds, fingerprint, created_at, updated_at,
               status, reason, details::jsonb, version, sequence, stock, stock_reason,
               cancel_requested_by IS NOT NULL, cancel_reason, cancel_requested_by, cart_id, cart_outcome
        FROM unnest(
            $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::timestamptz[],
            $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::text[],
            $15::text[], $16::text[], $17::text[], $18::text[], $19::text[]
        ) AS row (
            order_id, customer_id, currency, total_minor, hold_seconds, fingerprint, created_at, updated_at,
            status, reason, details, version, sequence, stock, stock_reason, cancel_reason, cancel_requested_by,
            cart_id, cart_outcome
        )
        ORDER BY order_id
        ON CONFLICT (order_id) DO NOTHING
        """,
        [order.order_id for order in orders],
        [order.customer_id for order in orders],
        [order.currency for order in orders],
        [order.total_minor for order in orders],
        [order.hold_seconds for order in orders],
        [order.fingerprint for order in orders],
        [order.created_at for order in orders],
        [order.updated_at for order in orders],
        [order.status for order in orders],
        [order.reason for order in orders],
        [_details(order) for order in orders],
        [order.version for order in orders],
        [order.sequence for order in orders],
        [order.stock.facet for order in orders],
        [order.stock.reason for order in orders],
        [order.cancellation and order.cancellation.reason for order in orders],
        [order.cancellation and order.cancellation.requested_by for order in orders],
        [order.cart_id for order in orders],
        [order.cart_outcome for order in orders],
    )
    if count(inserted) != len(orders):
        raise ConcurrentWrite


async def update_orders(tx: Connection, orders: Sequence[Order]) -> None:
    """Store what changed of locked orders.

    Raises:
        LedgerViolation: one of them is not there any more.
    """
    if not orders:
        return
    updated = await tx.execute(
        """
        UPDATE orders SET
            status = row.status, reason = row.reason, details = coalesce(row.details::jsonb, orders.details),
            version = row.version, sequence = row.sequence, pay_by = row.pay_by, updated_at = row.updated_at,
            stock = row.stock, stock_reason = row.stock_reason, stock_sequence = row.stock_sequence,
            payment = row.payment, payment_reason = row.payment_reason, payment_sequence = row.payment_sequence,
            settled_attempt_id = row.settled_attempt_id, settled_amount_minor = row.settled_amount_minor,
            settled_currency = row.settled_currency, refunded_minor = row.refunded_minor, paid_at = row.paid_at,
            payment_url = row.payment_url, payment_url_sequence = row.payment_url_sequence,
            cancelled = row.cancel_requested_by IS NOT NULL, cancel_reason = row.cancel_reason,
            cancel_requested_by = row.cancel_requested_by, cart_outcome = row.cart_outcome
        FROM unnest(
            $1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[],
            $8::timestamptz[], $9::text[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::bigint[],
            $15::uuid[], $16::bigint[], $17::text[], $18::bigint[], $19::timestamptz[], $20::text[], $21::bigint[],
            $22::text[], $23::text[], $24::text[]
        ) AS row (
            order_id, status, reason, details, version, sequence, pay_by,
            updated_at, stock, stock_reason, stock_sequence, payment, payment_reason, payment_sequence,
            settled_attempt_id, settled_amount_minor, settled_currency, refunded_minor, paid_at, payment_url,
            payment_url_sequence, cancel_reason, cancel_requested_by, cart_outcome
        )
        WHERE orders.order_id = row.order_id
        """,
        [order.order_id for order in orders],
        [order.status for order in orders],
        [order.reason for order in orders],
        [_details(order) for order in orders],
        [order.version for order in orders],
        [order.sequence for order in orders],
        [order.pay_by for order in orders],
        [order.updated_at for order in orders],
        *_stock_columns([order.stock for order in orders]),
        *_payment_columns([order.payment for order in orders]),
        [order.payment_url for order in orders],
        [order.payment_url_sequence for order in orders],
        [order.cancellation and order.cancellation.reason for order in orders],
        [order.cancellation and order.cancellation.requested_by for order in orders],
        [order.cart_outcome for order in orders],
    )
    if count(updated) != len(orders):
        raise LedgerViolation(f"{len(orders)} orders were decided on, {updated} were there")


async def insert_lines(tx: Connection, orders: Sequence[Order]) -> None:
    """Store the lines of new orders."""
    rows = [(order.order_id, line) for order in orders for line in order.lines or ()]
    if not rows:
        return
    await tx.execute(
        """
        INSERT INTO order_lines (order_id, sku, quantity, unit_price_minor)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[])
        """,
        [order_id for order_id, _ in rows],
        [line.sku for _, line in rows],
        [line.quantity for _, line in rows],
        [line.unit_price_minor for _, line in rows],
    )


async def insert_history(tx: Connection, orders: Sequence[Order]) -> None:
    """Store the steps that this batch made orders go."""
    rows = [(order.order_id, step) for order in orders for step in order.transitions]
    if not rows:
        return
    await tx.execute(
        """
        INSERT INTO order_history (order_id, version, status, reason, cause, at)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
        """,
        [order_id for order_id, _ in rows],
        [step.version for _, step in rows],
        [step.status for _, step in rows],
        [step.reason for _, step in rows],
        [step.cause for _, step in rows],
        [step.at for _, step in rows],
    )


def _order(row: Row) -> Order:
    payment = row["payment"]
    return Order(
        order_id=row["order_id"],
        customer_id=row["customer_id"],
        currency=row["currency"],
        total_minor=row["total_minor"],
        hold_seconds=row["hold_seconds"],
        fingerprint=row["fingerprint"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        details=row["details"] or {},
        pay_by=row["pay_by"],
        payment_url=row["payment_url"],
        payment_url_sequence=row["payment_url_sequence"],
        stock=StockState(Stock(row["stock"]), row["stock_reason"], row["stock_sequence"]),
        payment=PaymentState(
            status=None if payment is None else PaymentStatus(payment),
            reason=row["payment_reason"],
            sequence=row["payment_sequence"],
            settled_attempt_id=row["settled_attempt_id"],
            settled_amount_minor=row["settled_amount_minor"],
            settled_currency=row["settled_currency"],
            refunded_minor=row["refunded_minor"],
            paid_at=row["paid_at"],
        ),
        cancellation=Cancellation(row["cancel_reason"], row["cancel_requested_by"])
        if row["cancelled"]
        else None,
        cart_id=row["cart_id"],
        cart_outcome=None if row["cart_outcome"] is None else CartOutcome(row["cart_outcome"]),
        status=OrderStatus(row["status"]),
        reason=row["reason"],
        version=row["version"],
        sequence=row["sequence"],
    )


def _stock_columns(states: Sequence[StockState]) -> tuple[list[Any], ...]:
    return (
        [state.facet for state in states],
        [state.reason for state in states],
        [state.sequence for state in states],
    )


def _payment_columns(states: Sequence[PaymentState]) -> tuple[list[Any], ...]:
    return (
        [state.status for state in states],
        [state.reason for state in states],
        [state.sequence for state in states],
        [state.settled_attempt_id for state in states],
        [state.settled_amount_minor for state in states],
        [state.settled_currency for state in states],
        [state.refunded_minor for state in states],
        [state.paid_at for state in states],
    )


def _details(order: Order) -> str | None:
    return orjson.dumps(order.details).decode() if order.details else None
