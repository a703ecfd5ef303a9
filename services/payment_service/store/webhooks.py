"""Which SQL keeps deliveries and their verdicts?"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.payment_service.domain.attempts import Verdict
from services.payment_service.store.rows import columns, must_be
from shared.database import Connection, Row


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """A verified delivery to be stored: `headers` is the JSON of what its signature needs."""

    gateway: str
    event_id: str
    headers: str
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredWebhook:
    """A delivery that waits for its verdict; `age_seconds` since it came."""

    webhook_id: int
    gateway: str
    event_id: str
    body: bytes
    tries: int
    age_seconds: float


@dataclass(slots=True)
class JudgedWebhook:
    """What is known of a delivery after it was judged; `judge_at` says when it is judged again, None: never.

    `is_decisive` says that its verdict is that of its event, and all other deliveries of it are duplicates.
    """

    webhook_id: int
    verdict: Verdict | None
    reason: str | None
    attempt_id: UUID | None = None
    transaction_id: str | None = None
    order_id: UUID | None = None
    judge_at: datetime | None = None
    is_decisive: bool = True


async def insert_webhooks(tx: Connection, webhooks: Sequence[NewWebhook]) -> None:
    """Keep deliveries as they came, to be judged in this order."""
    await tx.execute(
        """
        INSERT INTO webhooks (gateway, event_id, headers, body)
        SELECT gateway, event_id, headers, body
        FROM unnest($1::text[], $2::text[], $3::text[]::json[], $4::bytea[])
             WITH ORDINALITY AS row (gateway, event_id, headers, body, position)
        ORDER BY position
        """,
        *columns(webhooks, ("gateway", "event_id", "headers", "body")),
    )


async def list_webhooks_to_judge(tx: Connection, limit: int) -> list[int]:
    """Return the deliveries whose time to be judged has come."""
    rows = await tx.fetch(
        """
        SELECT id FROM webhooks WHERE judge_at IS NOT NULL AND judge_at <= now() ORDER BY judge_at, id LIMIT $1
        """,
        limit,
    )
    return [row["id"] for row in rows]


async def lock_webhooks(tx: Connection, webhook_ids: Sequence[int]) -> list[StoredWebhook]:
    """Take deliveries for judgement; those that another process has taken or judged stay away."""
    rows = await tx.fetch(
        """
        SELECT id, gateway, event_id, body, judge_tries,
               extract(epoch FROM now() - received_at)::float8 AS age_seconds
        FROM webhooks
        WHERE id = ANY($1::bigint[]) AND judge_at <= now()
        ORDER BY id FOR UPDATE SKIP LOCKED
        """,
        webhook_ids,
    )
    return [StoredWebhook(*row) for row in rows]


async def find_judged_events(tx: Connection, event_ids: Collection[str]) -> set[tuple[str, str]]:
    """Return which of these events (gateway, event id) have their verdict already."""
    rows = await tx.fetch(
        """
        SELECT gateway, event_id FROM webhooks
        WHERE event_id = ANY($1::text[]) AND verdict IN ('applied', 'regressive', 'mismatch') AND is_decisive
        """,
        list(event_ids),
    )
    return {(row["gateway"], row["event_id"]) for row in rows}


async def update_webhooks(tx: Connection, judged: Sequence[JudgedWebhook]) -> None:
    """Write verdicts."""
    done = await tx.execute(
        """
        UPDATE webhooks
        SET verdict = row.verdict, reason = row.reason, attempt_id = row.attempt_id,
            transaction_id = row.transaction_id, order_id = row.order_id, judge_at = row.judge_at,
            is_decisive = row.is_decisive, judge_tries = judge_tries + 1, judged_at = now()
        FROM unnest($1::bigint[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::uuid[], $7::timestamptz[],
                    $8::boolean[])
             AS row (id, verdict, reason, attempt_id, transaction_id, order_id, judge_at, is_decisive)
        WHERE webhooks.id = row.id
        """,
        *columns(
            judged,
            (
                *("webhook_id", "verdict", "reason", "attempt_id", "transaction_id", "order_id", "judge_at"),
                "is_decisive",
            ),
        ),
    )
    must_be(done, judged)


async def postpone_webhook(tx: Connection, webhook_id: int, reason: str, seconds: float) -> None:
    """Put off a delivery that cannot be judged, and say why."""
    await tx.execute(
        """
        UPDATE webhooks
        SET reason = $2, judge_tries = judge_tries + 1, judge_at = now() + make_interval(secs => $3)
        WHERE id = $1
        """,
        webhook_id,
        reason,
        seconds,
    )


async def is_any_unmatched(tx: Connection) -> bool:
    """Tell whether any delivery waits for its attempt: mostly none does, and this is the cheapest way to know."""
    found: bool = await tx.fetchval(
        "SELECT EXISTS (SELECT FROM webhooks WHERE verdict = 'unmatched' AND judge_at IS NOT NULL)"
    )
    return found


async def release_webhooks(
    tx: Connection, attempt_ids: Sequence[UUID], transaction_ids: Sequence[str]
) -> None:
    """Have deliveries judged again that came before their attempt; one being judged right now keeps its own time."""
    if not await is_any_unmatched(tx):
        return
    await tx.execute(
        """
        WITH waiting AS MATERIALIZED (
            SELECT id FROM webhooks
            WHERE verdict = 'unmatched' AND judge_at IS NOT NULL
              AND (attempt_id = ANY($1::uuid[]) OR transaction_id = ANY($2::text[]))
            FOR UPDATE SKIP LOCKED
        )
        UPDATE webhooks SET judge_at = now() FROM waiting WHERE webhooks.id = waiting.id
        """,
        attempt_ids,
        transaction_ids,
    )


async def list_webhooks(tx: Connection, verdict: str | None, after: int, limit: int) -> list[Row]:
    """Return deliveries in the order in which they were stored, for operators."""
    return await tx.fetch(
        """
        SELECT id, gateway, event_id, verdict, reason, order_id, attempt_id, received_at, judged_at, judge_tries,
               octet_length(body) AS body_bytes
        FROM webhooks
        WHERE id > $2 AND ($1::text IS NULL OR verdict = $1)
        ORDER BY id LIMIT $3
        """,
        verdict,
        after,
        limit,
    )
