"""Which SQL keeps the answers to requests under an Idempotency-Key?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from services.order_service.store.rows import count
from shared.database import Connection
from shared.errors import ConcurrentWrite

#: A caller's scope and its key.
ScopedKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a request under a key was answered, about which order, and a digest of the request."""

    fingerprint: bytes
    order_id: UUID
    status: int
    body: bytes


async def find_answers(tx: Connection, keys: Collection[ScopedKey]) -> dict[ScopedKey, KeptAnswer]:
    """Return the answers that were given under these keys."""
    rows = await tx.fetch(
        """
        SELECT scope, key, fingerprint, order_id, status, body
        FROM unnest($1::text[], $2::text[]) AS row (scope, key) JOIN idempotency_keys USING (scope, key)
        """,
        [scope for scope, _ in keys],
        [key for _, key in keys],
    )
    return {(row["scope"], row["key"]): KeptAnswer(*row[2:]) for row in rows}


async def insert_answers(tx: Connection, answers: Mapping[ScopedKey, KeptAnswer]) -> None:
    """Keep answers under new keys.

    Raises:
        ConcurrentWrite: another process kept one under one of the keys first.
    """
    if not answers:
        return
    inserted = await tx.execute(
        """
        INSERT INTO idempotency_keys (scope, key, fingerprint, order_id, status, body)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::int[], $6::bytea[])
                      AS row (scope, key, fingerprint, order_id, status, body)
        ORDER BY scope, key
        ON CONFLICT DO NOTHING
        """,
        [scope for scope, _ in answers],
        [key for _, key in answers],
        [answer.fingerprint for answer in answers.values()],
        [answer.order_id for answer in answers.values()],
        [answer.status for answer in answers.values()],
        [answer.body for answer in answers.values()],
    )
    if count(inserted) != len(answers):
        raise ConcurrentWrite


async def update_answers(
    tx: Connection, answers: Mapping[ScopedKey, KeptAnswer], *, only_status: int
) -> None:
    """Put later answers in the place of those that have this status; which of two comes first stays."""
    await tx.execute(
        """
        UPDATE idempotency_keys SET status = row.status, body = row.body
        FROM (
            SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::int[], $5::bytea[])
                          AS row (scope, key, order_id, status, body)
        ) AS row
        WHERE idempotency_keys.scope = row.scope AND idempotency_keys.key = row.key
          AND idempotency_keys.order_id = row.order_id AND idempotency_keys.status = $6
        """,
        [scope for scope, _ in answers],
        [key for _, key in answers],
        [answer.order_id for answer in answers.values()],
        [answer.status for answer in answers.values()],
        [answer.body for answer in answers.values()],
        only_status,
    )


async def delete_old_answers(connection: Connection, *, hours: int, answers_max: int) -> int:
    """Forget some of the answers that are older than so many hours, the oldest first; return how many."""
    deleted = await connection.execute(
        """
        DELETE FROM idempotency_keys USING (
            SELECT scope, key FROM idempotency_keys
            WHERE created_at < now() - make_interval(hours => $1)
            ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ) AS old
        WHERE idempotency_keys.scope = old.scope AND idempotency_keys.key = old.key
        """,
        hours,
        answers_max,
    )
    return count(deleted)
