"""Which SQL does a replay run in the services' databases?"""

from collections.abc import Collection
from uuid import UUID

from shared.database import Connection


async def limit_waiting(connection: Connection, *, lock_seconds_max: float) -> None:
    """Have a session give up on a lock soon: before Postgres looks for a deadlock, whose victim could be a service.

    It is ended if it does nothing in the middle of a transaction: an operator may have stopped it with Ctrl-Z.
    """
    await connection.execute(
        """
        SELECT set_config('lock_timeout', $1, false), set_config('idle_in_transaction_session_timeout', '5s', false)
        """,
        f"{round(lock_seconds_max * 1000)}ms",
    )


async def find_outcomes(connection: Connection, group: str, event_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return what became of those of the events that a group has in its inbox: `handled` or `dead`."""
    rows = await connection.fetch(
        """
        SELECT event_id, outcome FROM processed_events
        WHERE consumer = $1 AND event_id = ANY($2::uuid[])
        """,
        group,
        event_ids,
    )
    return {row["event_id"]: row["outcome"] for row in rows}


async def forget_events(connection: Connection, group: str, event_ids: Collection[UUID]) -> int:
    """Have a group forget that it has handled some events, and return how many it had. What it refused stays refused."""
    rows = await connection.fetch(
        """
        DELETE FROM processed_events
        WHERE consumer = $1 AND event_id = ANY($2::uuid[]) AND outcome = 'handled'
        RETURNING event_id
        """,
        group,
        event_ids,
    )
    return len(rows)


async def count_changes(tx: Connection) -> int:
    """Return how many rows this transaction has written so far, beside those of the inbox; undone ones count, too."""
    count: int = await tx.fetchval(
        """
        SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_xact_user_tables
        WHERE relname <> 'processed_events'
        """
    )
    return count


async def find_states(connection: Connection, service: str, order_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return in words where those of the orders stand that a service knows of."""
    rows = await connection.fetch(_STATES[service], order_ids)
    return {row["order_id"]: row["state"] for row in rows}


_STATES = {
    "order": """
        SELECT order_id, concat_ws(
            ' ', status, '(stock', stock || ',', 'payment', coalesce(payment, 'NONE') || ')',
            CASE WHEN refunded_minor > 0 THEN 'refunded ' || refunded_minor END
        ) AS state
        FROM orders WHERE order_id = ANY($1::uuid[])
        """,
    "inventory": """
        SELECT order_id, concat_ws(
            ' ', coalesce(status, 'only heard of'), CASE WHEN unavailable THEN 'unavailable' END,
            CASE WHEN cancelled THEN 'cancelled' END, '(payment ' || payment_status || ')'
        ) AS state
        FROM reservations WHERE order_id = ANY($1::uuid[])
        """,
    "payment": """
        SELECT order_id, concat_ws(
            ' ', status, CASE WHEN amount_minor IS NULL THEN 'without amount' END, CASE WHEN closed THEN 'closed' END,
            CASE WHEN refunded_minor > 0 THEN 'refunded ' || refunded_minor END,
            (SELECT '(' || count(*) || ' refunds)' FROM refunds WHERE refunds.order_id = payments.order_id HAVING count(*) > 0)
        ) AS state
        FROM payments WHERE order_id = ANY($1::uuid[])
        """,
}
