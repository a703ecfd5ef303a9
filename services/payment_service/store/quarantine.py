"""Which SQL lists what operators must look at, and keeps what they decided?"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.payment_service.domain.resolving import Action, Resolution
from services.payment_service.store.rows import columns
from shared.database import Connection, Row

_RESOLUTION_FIELDS = (
    *("resolution_id", "order_id", "attempt_id", "action", "reason", "review_reason", "decided_by"),
    *("request_key", "refund_id", "created_at"),
)


async def list_attempts_to_review(tx: Connection, after: UUID | None, limit: int) -> list[Row]:
    """Return quarantined and disputed attempts about which nobody has decided, by id."""
    return await tx.fetch(
        """
        SELECT attempt_id, order_id, gateway, coalesce(received_transaction_id, gateway_transaction_id) AS
               gateway_transaction_id, status, native_status, review_reason AS reason, dispute, review_at AS since,
               amount_minor AS expected_amount_minor, currency AS expected_currency, received_amount_minor,
               received_currency
        FROM attempts
        WHERE review_at IS NOT NULL AND attempt_id > coalesce($1::uuid, '00000000-0000-0000-0000-000000000000')
        ORDER BY attempt_id LIMIT $2
        """,
        after,
        limit,
    )


async def count_attempts_to_review(tx: Connection, limit: int) -> list[Row]:
    """Return how many attempts of each gateway and status wait for an operator, counting no further than `limit`."""
    return await tx.fetch(
        """
        SELECT gateway, status, count(*) AS attempts
        FROM (
            SELECT gateway, status FROM attempts WHERE review_at IS NOT NULL ORDER BY attempt_id LIMIT $1
        ) AS waiting
        GROUP BY gateway, status
        """,
        limit,
    )


async def list_resolutions(tx: Connection, attempt_ids: Sequence[UUID]) -> list[Resolution]:
    """Return what was decided about attempts, oldest first."""
    rows = await tx.fetch(
        """
        SELECT resolution_id, order_id, attempt_id, action, reason, review_reason, decided_by, request_key, refund_id,
               created_at
        FROM resolutions WHERE attempt_id = ANY($1::uuid[]) ORDER BY created_at, resolution_id
        """,
        attempt_ids,
    )
    return [_read_resolution(row) for row in rows]


async def list_newest_resolutions(tx: Connection, attempt_id: UUID | None, limit: int) -> list[Resolution]:
    """Return what was decided last, about one attempt or about all, the newest first."""
    rows = await tx.fetch(
        """
        SELECT resolution_id, order_id, attempt_id, action, reason, review_reason, decided_by, request_key, refund_id,
               created_at
        FROM resolutions WHERE $1::uuid IS NULL OR attempt_id = $1 ORDER BY resolution_id DESC LIMIT $2
        """,
        attempt_id,
        limit,
    )
    return [_read_resolution(row) for row in rows]


async def insert_resolutions(tx: Connection, resolutions: Sequence[Resolution]) -> None:
    """Keep decisions, for ever."""
    if not resolutions:
        return
    await tx.execute(
        """
        INSERT INTO resolutions (resolution_id, order_id, attempt_id, action, reason, review_reason, decided_by,
                                 request_key, refund_id, created_at)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
                             $8::text[], $9::uuid[], $10::timestamptz[])
        """,
        *columns(resolutions, _RESOLUTION_FIELDS),
    )


def _read_resolution(row: Row) -> Resolution:
    values: dict[str, Any] = dict(row)
    values["action"] = Action(values["action"])
    return Resolution(**values)
