"""Which SQL reads and writes refunds?"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.payment_service.domain.attempts import Attempt
from services.payment_service.domain.refunds import Refund, RefundStatus
from services.payment_service.store.attempts import list_attempts
from services.payment_service.store.rows import columns, must_be
from shared.database import Connection, Row

_REFUND_FIELDS = (
    *(
        "refund_id",
        "order_id",
        "attempt_id",
        "gateway",
        "amount_minor",
        "currency",
        "reason",
        "is_full",
        "status",
    ),
    *("note", "request_key", "requested_minor", "gateway_refund_id", "error", "next_try_at", "is_told"),
)
_UPDATED_FIELDS = ("refund_id", "status", "gateway_refund_id", "error", "next_try_at", "is_told")


async def list_refunds_of_orders(tx: Connection, order_ids: Sequence[UUID]) -> list[Refund]:
    """Read all refunds of some orders, oldest first."""
    rows = await tx.fetch(
        """
        SELECT refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, created_at, is_full, status,
               note, request_key, requested_minor, gateway_refund_id, error, tries, next_try_at, is_told
        FROM refunds WHERE order_id = ANY($1::uuid[]) ORDER BY created_at, refund_id
        """,
        order_ids,
    )
    return [_read_refund(row) for row in rows]


async def insert_refunds(tx: Connection, refunds: Sequence[Refund], at: datetime) -> None:
    """Add refunds and count them on their attempts, which may never give back more than they received."""
    if not refunds:
        return
    await tx.execute(
        """
        WITH added AS (
            INSERT INTO refunds (refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, is_full,
                                 status, note, request_key, requested_minor, gateway_refund_id, error, next_try_at,
                                 is_told, created_at, updated_at)
            SELECT row.*, $17, $17
            FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::text[], $7::text[],
                        $8::boolean[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::text[],
                        $15::timestamptz[], $16::boolean[]) AS row
            RETURNING attempt_id, amount_minor
        )
        UPDATE attempts SET refunding_minor = refunding_minor + more.amount_minor, updated_at = $17
        FROM (SELECT attempt_id, sum(amount_minor)::bigint AS amount_minor FROM added GROUP BY attempt_id) AS more
        WHERE attempts.attempt_id = more.attempt_id
        """,
        *columns(refunds, _REFUND_FIELDS),
        at,
    )


async def update_refunds(tx: Connection, refunds: Sequence[Refund], at: datetime) -> None:
    """Write what became of refunds of locked payments."""
    if not refunds:
        return
    done = await tx.execute(
        """
        UPDATE refunds
        SET status = row.status, gateway_refund_id = row.gateway_refund_id, error = row.error,
            next_try_at = row.next_try_at, is_told = row.is_told, updated_at = $7
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::boolean[])
             AS row (refund_id, status, gateway_refund_id, error, next_try_at, is_told)
        WHERE refunds.refund_id = row.refund_id
        """,
        *columns(refunds, _UPDATED_FIELDS),
        at,
    )
    must_be(done, refunds)


async def take_refunds(
    tx: Connection, gateway: str, limit: int, lease_seconds: float
) -> list[tuple[Refund, Attempt]]:
    """Take refunds that a gateway must be asked for; if nothing comes of it they are due again after the lease."""
    rows = await tx.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT refund_id FROM refunds
            WHERE gateway = $1 AND next_try_at <= now()
            ORDER BY next_try_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        UPDATE refunds
        SET next_try_at = now() + make_interval(secs => $3), tries = tries + 1, updated_at = now(),
            status = CASE status WHEN 'DUE' THEN 'SENT' ELSE status END
        FROM due WHERE refunds.refund_id = due.refund_id
        RETURNING refunds.refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, created_at,
                  is_full, status, note, request_key, requested_minor, gateway_refund_id, error, tries, next_try_at,
                  is_told
        """,
        gateway,
        limit,
        lease_seconds,
    )
    refunds = [_read_refund(row) for row in rows]
    attempts = await list_attempts(tx, [refund.attempt_id for refund in refunds]) if refunds else []
    by_id = {attempt.attempt_id: attempt for attempt in attempts}
    return [(refund, by_id[refund.attempt_id]) for refund in refunds]


def _read_refund(row: Row) -> Refund:
    values: dict[str, Any] = dict(row)
    values["status"] = RefundStatus(values["status"])
    return Refund(**values)


async def count_open_refunds(tx: Connection, limit: int) -> list[Row]:
    """Return how many refunds of each gateway and status are not made yet, up to `limit`, and the oldest one's age."""
    return await tx.fetch(
        """
        SELECT gateway, status, count(*) AS refunds,
               extract(epoch FROM now() - min(created_at))::float8 AS oldest_seconds
        FROM (
            SELECT gateway, status, created_at FROM refunds
            WHERE next_try_at IS NOT NULL ORDER BY gateway, next_try_at LIMIT $1
        ) AS waiting
        GROUP BY gateway, status
        """,
        limit,
    )
