"""Which SQL finds what a database holds of one order?"""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import orjson

from ops.timeline.facts import (
    AttemptRow,
    HistoryRow,
    InboxRow,
    MovementRow,
    OrderRow,
    PaymentRow,
    RefundRow,
    ReservationRow,
    ResolutionRow,
    WaitingRow,
    WebhookRow,
)
from shared.database import Connection


async def limit_statements(connection: Connection, seconds_max: float) -> None:
    """Have Postgres give up a statement of this session that takes longer."""
    await connection.execute(
        "SELECT set_config('statement_timeout', $1, false)", f"{round(seconds_max * 1000)}ms"
    )


# --- every service --------------------------------------------------------------------------------------------------


async def list_waiting(tx: Connection, order_id: UUID, rows_max: int) -> list[WaitingRow]:
    """Return the messages about an order that have not reached Kafka; the outbox is short unless Kafka is away."""
    rows = await tx.fetch(
        """
        SELECT event_id, topic, type, sequence, headers::text AS headers, created_at
        FROM outbox WHERE key = $1 ORDER BY id LIMIT $2
        """,
        str(order_id).encode(),
        rows_max,
    )
    return [
        WaitingRow(
            row["event_id"],
            row["topic"],
            row["type"],
            row["sequence"],
            _read_headers(row["headers"]),
            row["created_at"],
        )
        for row in rows
    ]


def _read_headers(packed: str) -> Mapping[str, str]:
    """Return the first value of each header as text."""
    found: dict[str, str] = {}
    for name, value in orjson.loads(packed):
        found.setdefault(name, (value or "").encode("latin-1", "replace").decode(errors="replace"))
    return found


async def list_inbox(tx: Connection, consumer: str, event_ids: Collection[UUID]) -> list[InboxRow]:
    """Return what a consumer remembers of some messages."""
    rows = await tx.fetch(
        """
        SELECT event_id, outcome, handled_at FROM processed_events
        WHERE consumer = $1 AND event_id = ANY($2::uuid[])
        """,
        consumer,
        event_ids,
    )
    return [InboxRow(*row) for row in rows]


# --- order ----------------------------------------------------------------------------------------------------------


async def find_order(tx: Connection, order_id: UUID) -> OrderRow | None:
    """Return the order."""
    row = await tx.fetchrow(
        """
        SELECT status, reason, version, customer_id, total_minor, currency, pay_by, stock, payment, cancelled,
               cancel_reason, cancel_requested_by, created_at, updated_at
        FROM orders WHERE order_id = $1
        """,
        order_id,
    )
    return None if row is None else OrderRow(*row)


async def list_history(tx: Connection, order_id: UUID) -> list[HistoryRow]:
    """Return each step of the order."""
    rows = await tx.fetch(
        """
        SELECT version, status, reason, cause, at FROM order_history WHERE order_id = $1 ORDER BY version
        """,
        order_id,
    )
    return [HistoryRow(*row) for row in rows]


# --- inventory ------------------------------------------------------------------------------------------------------


async def find_reservation(tx: Connection, order_id: UUID) -> ReservationRow | None:
    """Return the reservation."""
    row = await tx.fetchrow(
        """
        SELECT status, reason, expires_at, unavailable, cancelled, payment_status, updated_at
        FROM reservations WHERE order_id = $1
        """,
        order_id,
    )
    return None if row is None else ReservationRow(*row)


async def list_movements(tx: Connection, order_id: UUID) -> list[MovementRow]:
    """Return which units moved for the order, in the order of time."""
    rows = await tx.fetch(
        """
        SELECT sku, kind, round, greatest(abs(available_delta), abs(reserved_delta)) AS quantity, cause, at
        FROM stock_movements WHERE order_id = $1
        ORDER BY at, round, array_position(ARRAY['RESERVED', 'CONFIRMED', 'RELEASED', 'RETURNED'], kind::text), sku
        """,
        order_id,
    )
    return [MovementRow(*row) for row in rows]


# --- payment --------------------------------------------------------------------------------------------------------


async def find_payment(tx: Connection, order_id: UUID) -> PaymentRow | None:
    """Return the payment."""
    row = await tx.fetchrow(
        """
        SELECT status, reason, amount_minor, currency, pay_by, attempts_max, settled_attempt_id,
               settled_amount_minor, settled_currency, refunded_minor, paid_at, created_at
        FROM payments WHERE order_id = $1
        """,
        order_id,
    )
    return None if row is None else PaymentRow(*row)


async def list_attempts(tx: Connection, order_id: UUID) -> list[AttemptRow]:
    """Return the attempts, oldest first."""
    rows = await tx.fetch(
        """
        SELECT attempt_id, gateway, gateway_transaction_id, status, amount_minor, currency, received_amount_minor,
               received_currency, accepted_amount_minor, native_status, expires_at, dispute, review_at, review_reason,
               created_at, updated_at
        FROM attempts WHERE order_id = $1 ORDER BY created_at, attempt_id
        """,
        order_id,
    )
    return [AttemptRow(*row) for row in rows]


async def list_webhooks(
    tx: Connection, order_id: UUID, attempts: Sequence[AttemptRow], rows_max: int
) -> list[WebhookRow]:
    """Return the deliveries about an order, also those that have found no order: by attempt, or by transaction.

    There is no index by order, which every delivery would have to pay for: this walks through the table once.
    """
    rows = await tx.fetch(
        """
        SELECT id, gateway, event_id, verdict, reason, received_at, judge_at, body
        FROM webhooks
        WHERE order_id = $1 OR attempt_id = ANY($2::uuid[])
              OR (transaction_id = ANY($3::text[]) AND gateway = ANY($4::text[]))
        ORDER BY id LIMIT $5
        """,
        order_id,
        [attempt.attempt_id for attempt in attempts],
        [attempt.gateway_transaction_id for attempt in attempts if attempt.gateway_transaction_id],
        [attempt.gateway for attempt in attempts],
        rows_max,
    )
    return [WebhookRow(*row) for row in rows]


async def list_refunds(tx: Connection, order_id: UUID) -> list[RefundRow]:
    """Return the refunds, oldest first."""
    rows = await tx.fetch(
        """
        SELECT refund_id, attempt_id, gateway, amount_minor, currency, reason, status, note, error, tries,
               next_try_at, created_at, updated_at
        FROM refunds WHERE order_id = $1 ORDER BY created_at, refund_id
        """,
        order_id,
    )
    return [RefundRow(*row) for row in rows]


async def list_resolutions(tx: Connection, order_id: UUID) -> list[ResolutionRow]:
    """Return what operators decided about an order's attempts."""
    rows = await tx.fetch(
        """
        SELECT attempt_id, action, reason, review_reason, decided_by, created_at
        FROM resolutions WHERE order_id = $1 ORDER BY created_at, resolution_id
        """,
        order_id,
    )
    return [ResolutionRow(*row) for row in rows]
