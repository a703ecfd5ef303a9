"""Which SQL reads and writes attempts?"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.payment_service.domain.attempts import Attempt, AttemptStatus, Task
from services.payment_service.store.rows import columns, must_be
from shared.database import Connection, Row

_ATTEMPT_FIELDS = (
    *("attempt_id", "order_id", "gateway", "gateway_transaction_id", "status", "amount_minor", "currency"),
    *("accepted_amount_minor", "received_amount_minor", "received_currency", "payment_url", "native_status"),
    *("expires_at", "initiated", "withdrawn", "task", "task_at", "tries"),
)
_ATTEMPT_REQUEST_FIELDS = ("idempotency_key", "requested_gateway", "return_url", "created_at")
_FIXED_FIELDS = {"order_id", "gateway", "amount_minor", "currency"}
_UPDATED_FIELDS = (*(name for name in _ATTEMPT_FIELDS if name not in _FIXED_FIELDS), "ask_at")
_MARKS = (
    *("attempt_id", "superseded", "cancelled_for_good", "received_transaction_id", "dispute", "review_at"),
    *("review_reason", "shown_status"),
)


async def list_attempts_of_orders(tx: Connection, order_ids: Sequence[UUID]) -> list[Attempt]:
    """Read all attempts of some orders, oldest first."""
    rows = await tx.fetch(
        """
        SELECT attempt_id, order_id, gateway, amount_minor, currency, created_at, status, gateway_transaction_id,
               payment_url, native_status, expires_at, accepted_amount_minor, received_amount_minor,
               received_currency, refunding_minor, idempotency_key, requested_gateway, return_url, initiated,
               withdrawn, task, task_at, tries, ask_at, asks, superseded, cancelled_for_good, received_transaction_id,
               dispute, review_at, review_reason, shown_status
        FROM attempts WHERE order_id = ANY($1::uuid[]) ORDER BY created_at, attempt_id
        """,
        order_ids,
    )
    return [_read_attempt(row) for row in rows]


async def list_attempts(tx: Connection, attempt_ids: Sequence[UUID]) -> list[Attempt]:
    """Read attempts by their ids, as far as there are any."""
    rows = await tx.fetch(
        """
        SELECT attempt_id, order_id, gateway, amount_minor, currency, created_at, status, gateway_transaction_id,
               payment_url, native_status, expires_at, accepted_amount_minor, received_amount_minor,
               received_currency, refunding_minor, idempotency_key, requested_gateway, return_url, initiated,
               withdrawn, task, task_at, tries, ask_at, asks, superseded, cancelled_for_good, received_transaction_id,
               dispute, review_at, review_reason, shown_status
        FROM attempts WHERE attempt_id = ANY($1::uuid[])
        """,
        attempt_ids,
    )
    return [_read_attempt(row) for row in rows]


async def find_orders_of_attempts(tx: Connection, attempt_ids: Sequence[UUID]) -> list[Row]:
    """Return to which order and gateway each attempt belongs."""
    return await tx.fetch(
        "SELECT attempt_id, gateway, order_id FROM attempts WHERE attempt_id = ANY($1::uuid[])", attempt_ids
    )


async def find_orders_of_transactions(
    tx: Connection, gateways: Sequence[str], transaction_ids: Sequence[str]
) -> list[Row]:
    """Return to which attempt and order these transactions belong, in any of the gateways."""
    return await tx.fetch(
        """
        SELECT attempt_id, gateway, gateway_transaction_id, order_id
        FROM attempts
        WHERE gateway = ANY($1::text[]) AND gateway_transaction_id = ANY($2::text[])
        """,
        gateways,
        transaction_ids,
    )


async def insert_attempts(tx: Connection, attempts: Sequence[Attempt], at: datetime) -> None:
    """Add attempts."""
    if not attempts:
        return
    await tx.execute(
        """
        INSERT INTO attempts (attempt_id, order_id, gateway, gateway_transaction_id, status, amount_minor, currency,
                              accepted_amount_minor, received_amount_minor, received_currency, payment_url,
                              native_status, expires_at, initiated, withdrawn, task, task_at, tries, idempotency_key,
                              requested_gateway, return_url, created_at, updated_at)
        SELECT row.*, $23
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
                    $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::timestamptz[],
                    $14::boolean[], $15::boolean[], $16::text[], $17::timestamptz[], $18::integer[], $19::text[],
                    $20::text[], $21::text[], $22::timestamptz[]) AS row
        """,
        *columns(attempts, (*_ATTEMPT_FIELDS, *_ATTEMPT_REQUEST_FIELDS)),
        at,
    )


async def update_attempts(tx: Connection, attempts: Sequence[Attempt], at: datetime) -> None:
    """Write attempts of locked payments; what is refunded of them is counted by `insert_refunds`."""
    if not attempts:
        return
    done = await tx.execute(
        """
        UPDATE attempts
        SET gateway_transaction_id = row.gateway_transaction_id, status = row.status,
            accepted_amount_minor = row.accepted_amount_minor, received_amount_minor = row.received_amount_minor,
            received_currency = row.received_currency, payment_url = row.payment_url,
            native_status = row.native_status, expires_at = row.expires_at, initiated = row.initiated,
            withdrawn = row.withdrawn, task = row.task, task_at = row.task_at, tries = row.tries, ask_at = row.ask_at, updated_at = $16,
            leased_until = CASE WHEN attempts.task_at = row.task_at THEN leased_until END
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[],
                    $8::text[], $9::timestamptz[], $10::boolean[], $11::boolean[], $12::text[], $13::timestamptz[],
                    $14::integer[], $15::timestamptz[])
             AS row (attempt_id, gateway_transaction_id, status, accepted_amount_minor, received_amount_minor,
                     received_currency, payment_url, native_status, expires_at, initiated, withdrawn, task, task_at,
                     tries, ask_at)
        WHERE attempts.attempt_id = row.attempt_id
        """,
        *columns(attempts, _UPDATED_FIELDS),
        at,
    )
    must_be(done, attempts)


async def mark_attempts(tx: Connection, attempts: Sequence[Attempt]) -> None:
    """Write what is rarely known of an attempt of a locked payment."""
    if not attempts:
        return
    done = await tx.execute(
        """
        UPDATE attempts
        SET superseded = row.superseded, cancelled_for_good = row.cancelled_for_good,
            received_transaction_id = row.received_transaction_id, dispute = row.dispute, review_at = row.review_at,
            review_reason = row.review_reason, shown_status = row.shown_status
        FROM unnest($1::uuid[], $2::boolean[], $3::boolean[], $4::text[], $5::text[], $6::timestamptz[], $7::text[],
                    $8::text[])
             AS row (attempt_id, superseded, cancelled_for_good, received_transaction_id, dispute, review_at,
                     review_reason, shown_status)
        WHERE attempts.attempt_id = row.attempt_id
        """,
        *columns(attempts, _MARKS),
    )
    must_be(done, attempts)


async def take_attempts(tx: Connection, gateway: str, limit: int, lease_seconds: float) -> list[Attempt]:
    """Take attempts that a gateway must be asked about; if nothing comes of it they are due again after the lease."""
    rows = await tx.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT attempt_id AS due_id FROM attempts
            WHERE gateway = $1 AND task IS NOT NULL AND task_at <= now()
              AND (leased_until IS NULL OR leased_until <= now())
            ORDER BY task_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        UPDATE attempts SET leased_until = now() + make_interval(secs => $3), tries = tries + 1
        FROM due WHERE attempt_id = due_id
        RETURNING attempt_id, order_id, gateway, amount_minor, currency, created_at, status, gateway_transaction_id,
                  payment_url, native_status, expires_at, accepted_amount_minor, received_amount_minor,
                  received_currency, refunding_minor, idempotency_key, requested_gateway, return_url, initiated,
                  withdrawn, task, task_at, tries, ask_at, asks, superseded, cancelled_for_good,
                  received_transaction_id, dispute, review_at, review_reason, shown_status
        """,
        gateway,
        limit,
        lease_seconds,
    )
    return [_read_attempt(row) for row in rows]


async def take_attempts_to_ask_about(
    tx: Connection, gateway: str, limit: int, lease_seconds: float
) -> list[Attempt]:
    """Take attempts whose gateway is to be asked where they stand; if nothing comes of it, again after the lease."""
    rows = await tx.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT attempt_id AS due_id FROM attempts
            WHERE gateway = $1 AND ask_at <= now()
            ORDER BY ask_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        UPDATE attempts SET ask_at = now() + make_interval(secs => $3), asks = asks + 1
        FROM due WHERE attempt_id = due_id
        RETURNING attempt_id, order_id, gateway, amount_minor, currency, created_at, status, gateway_transaction_id,
                  payment_url, native_status, expires_at, accepted_amount_minor, received_amount_minor,
                  received_currency, refunding_minor, idempotency_key, requested_gateway, return_url, initiated,
                  withdrawn, task, task_at, tries, ask_at, asks, superseded, cancelled_for_good,
                  received_transaction_id, dispute, review_at, review_reason, shown_status
        """,
        gateway,
        limit,
        lease_seconds,
    )
    return [_read_attempt(row) for row in rows]


def _read_attempt(row: Row) -> Attempt:
    values: dict[str, Any] = dict(row)
    values["status"] = AttemptStatus(values["status"])
    values["task"] = Task(values["task"]) if values["task"] else None
    values["shown_status"] = AttemptStatus(values["shown_status"]) if values["shown_status"] else None
    return Attempt(**values)
