"""A10 and A11: do events leave, and does each count once?"""

from collections.abc import Collection

from ops.audit.findings import Finding, Suspect
from ops.audit.limits import AuditLimits
from ops.audit.snapshots import Snapshots


async def find_waiting_events(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> list[Suspect]:
    """A10: the outbox of each database is empty, or what waits in it is young."""
    suspects = []
    for name, connection in zip(Snapshots._fields, snapshots, strict=True):
        waiting = await connection.fetchval(
            # The relay empties the outbox from its oldest row: an old row says that it does not.
            "SELECT count(*) FROM outbox WHERE created_at < now() - make_interval(secs => $1)",
            limits.outbox_age_seconds_max,
        )
        if waiting and (among is None or name in among):
            detail = (
                f"{waiting} events wait in the outbox for more than {limits.outbox_age_seconds_max:.0f} s"
            )
            suspects.append(Suspect(Finding("A10", name, detail)))
    return suspects


async def find_repeated_events(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> list[Suspect]:
    """A11: each event id is remembered at most once per consumer."""
    suspects = []
    for connection in snapshots:
        rows = await connection.fetch(
            # The primary key refuses a second row; without it an event could have had its effect twice.
            """
            SELECT consumer || ' ' || event_id AS subject, count(*) AS times
            FROM processed_events
            GROUP BY consumer, event_id
            HAVING count(*) > 1 AND ($1::text[] IS NULL OR consumer || ' ' || event_id = ANY($1))
            LIMIT $2
            """,
            among,
            limits.suspects_max,
        )
        suspects += [Suspect(Finding("A11", subject, f"handled {times} times")) for subject, times in rows]
    return suspects


async def count_dead_letters(snapshots: Snapshots) -> int:
    """Return how many events the consumers have refused and nobody has redriven since (told beside A10)."""
    counts: list[int] = [
        await connection.fetchval("SELECT count(*) FROM processed_events WHERE outcome = 'dead'")
        for connection in snapshots
    ]
    return sum(counts)
