"""A5: does every order end in time?"""

from collections.abc import Collection

from ops.audit.findings import Finding, Suspect
from ops.audit.limits import AuditLimits
from ops.audit.snapshots import Snapshots


async def find_overdue_orders(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> list[Suspect]:
    """A5: no order is open longer than its hold plus grace."""
    rows = await snapshots.order.fetch(
        # An unpaid order ends when its hold does, known from `pay_by` once there is one. Money that came late, or must
        # go back, starts the time anew. $4 is the grace: the sweeper's, and what it takes to tell the order of it.
        """
        WITH open AS (
            SELECT order_id, status, make_interval(secs => coalesce(hold_seconds, $3::float8)) AS hold,
                   created_at, updated_at, pay_by, status = 'REFUND_DUE' OR payment = 'SUCCEEDED' AS paid
            FROM orders
            WHERE status IN ('REQUESTED', 'AWAITING_PAYMENT', 'REFUND_DUE')
                  AND ($1::uuid[] IS NULL OR order_id = ANY($1))
        ),
        due AS (
            SELECT order_id, status,
                   CASE WHEN paid THEN updated_at + hold ELSE coalesce(pay_by, created_at + hold) END
                   + make_interval(secs => $4) AS at
            FROM open
        )
        SELECT order_id::text AS order_id, status, extract(epoch FROM now() - at)::bigint AS late_seconds
        FROM due
        WHERE at < now()
        ORDER BY order_id LIMIT $2
        """,
        among,
        limits.suspects_max,
        limits.hold_seconds,
        limits.hold_grace_seconds + limits.settle_seconds,
    )
    return [
        Suspect(Finding("A5", order_id, f"{status}, and should have ended {late_seconds} s ago"))
        for order_id, status, late_seconds in rows
    ]
