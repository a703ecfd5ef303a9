"""Which SQL finds deliveries, and has them judged again?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from ops.options import Moment
from shared.database import Connection

#: What a verdict may be; `unjudged` has none yet.
VerdictName = Literal["applied", "duplicate", "regressive", "mismatch", "unmatched", "ignored", "unjudged"]
_UNJUDGED = "unjudged"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilters:
    """Which deliveries are meant: those for which all of this is true.

    Attributes:
        verdict: what became of them; unjudged: nothing yet.
        gateway: who delivered them (sandbox, stripe, midtrans).
        order_id: the order they were found to be about.
        since: received at this time or later (2026-03-01T12:00:00Z, or how long ago: 15m, 2h, 3d).
    """

    verdict: VerdictName | None = None
    gateway: str | None = None
    order_id: UUID | None = None
    since: Moment | None = None

    def as_dict(self) -> dict[str, str]:
        """Return what is asked for, to be kept with what was done."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in asdict(self).items()
            if value is not None
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as it was stored, and what became of it; `judge_at` says when it is judged next, None: never."""

    id: int
    gateway: str
    event_id: str
    verdict: str | None
    reason: str | None
    order_id: UUID | None
    attempt_id: UUID | None
    transaction_id: str | None
    received_at: datetime
    judged_at: datetime | None
    judge_at: datetime | None
    judge_tries: int
    body_bytes: int

    @property
    def verdict_name(self) -> str:
        """The verdict as it is shown."""
        return self.verdict or _UNJUDGED


async def list_deliveries(
    connection: Connection, filters: DeliveryFilters, *, after: int, limit: int
) -> list[Delivery]:
    """Return deliveries that match, in the order in which they came, from behind the delivery `after` on."""
    rows = await connection.fetch(
        """
        SELECT id, gateway, event_id, verdict, reason, order_id, attempt_id, transaction_id, received_at,
               judged_at, judge_at, judge_tries, octet_length(body) AS body_bytes
        FROM webhooks
        WHERE id > $1
          AND ($2::text IS NULL OR verdict = $2 OR ($2 = 'unjudged' AND verdict IS NULL))
          AND ($3::text IS NULL OR gateway = $3)
          AND ($4::uuid IS NULL OR order_id = $4)
          AND ($5::timestamptz IS NULL OR received_at >= $5)
        ORDER BY id LIMIT $6
        """,
        after,
        filters.verdict,
        filters.gateway,
        filters.order_id,
        filters.since,
        limit,
    )
    return [Delivery(*row) for row in rows]


async def find_deliveries(connection: Connection, webhook_ids: Sequence[int]) -> list[Delivery]:
    """Return some deliveries in the order in which they came; those that are not there are left out."""
    rows = await connection.fetch(
        """
        SELECT id, gateway, event_id, verdict, reason, order_id, attempt_id, transaction_id, received_at,
               judged_at, judge_at, judge_tries, octet_length(body) AS body_bytes
        FROM webhooks
        WHERE id = ANY($1::bigint[]) ORDER BY id
        """,
        webhook_ids,
    )
    return [Delivery(*row) for row in rows]


async def find_delivery(
    connection: Connection, webhook_id: int
) -> tuple[Delivery, Mapping[str, Any], bytes] | None:
    """Return a delivery with the headers that were kept of it and its body; None if there is none."""
    found = await find_deliveries(connection, [webhook_id])
    row = await connection.fetchrow("SELECT headers::text, body FROM webhooks WHERE id = $1", webhook_id)
    if not found or row is None:
        return None
    return found[0], orjson.loads(row[0]), row[1]


async def release_deliveries(tx: Connection, webhook_ids: Sequence[int]) -> list[int]:
    """Have deliveries judged again now, and return which: what was applied, or refused for good, is left as it is."""
    rows = await tx.fetch(
        """
        UPDATE webhooks SET judge_at = now()
        WHERE id = ANY($1::bigint[]) AND (verdict IS NULL OR verdict IN ('unmatched', 'ignored'))
        RETURNING id
        """,
        webhook_ids,
    )
    return sorted(row["id"] for row in rows)
