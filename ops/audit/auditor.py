"""How do the checks become a report? One look at everything, then others at what is suspected alone.

The three snapshots are not of one moment, and events are on their way between the services: what is wrong at first
sight counts only if it is still wrong at another, and has had the time to become right.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import TypeAlias

from ops.audit.comparison import find_disagreements
from ops.audit.delivery import count_dead_letters, find_repeated_events, find_waiting_events
from ops.audit.findings import AuditReport, Finding, Lost, Suspect
from ops.audit.inventory import (
    find_negative_counters,
    find_wrong_holds,
    find_wrong_moves,
    find_wrong_sums,
)
from ops.audit.limits import AuditLimits
from ops.audit.order import find_overdue_orders
from ops.audit.snapshots import Snapshots, connect_all, frozen
from ops.audit.topics import Topics, find_lost_events

#: A look at everything (None), or only at some subjects.
Look: TypeAlias = Callable[[Snapshots, AuditLimits, Collection[str] | None], Awaitable[list[Suspect]]]
Pause: TypeAlias = Callable[[float], Awaitable[None]]

#: Each look, and the checks whose findings it brings.
LOOKS: Mapping[Look, tuple[str, ...]] = MappingProxyType(
    {
        find_negative_counters: ("A1",),
        find_wrong_sums: ("A2",),
        find_wrong_holds: ("A3",),
        find_wrong_moves: ("A4",),
        find_overdue_orders: ("A5",),
        find_disagreements: ("A6", "A7", "A8", "A9"),
        find_waiting_events: ("A10",),
        find_repeated_events: ("A11",),
    }
)

_DEFAULT_LIMITS = AuditLimits()


async def audit(
    dsns: Mapping[str, str],
    *,
    topics: Topics | None = None,
    limits: AuditLimits = _DEFAULT_LIMITS,
    pause: Pause = asyncio.sleep,
) -> AuditReport:
    """Check the databases `order`, `inventory` and `payment`, which may be at work meanwhile; nothing is changed.

    Args:
        dsns: where the three databases are.
        topics: where the topics are, to be read from beginning to end (A12).
        limits: what is allowed to a system at work.
        pause: waits so many seconds between two looks.

    Raises:
        Misconfigured: one of the three databases is not named.
        NotFound: a topic is missing.
        Unavailable: a database does not answer, or Kafka.
    """
    async with connect_all(dsns) as connections:
        async with frozen(connections) as snapshots:
            suspected = {look: await look(snapshots, limits, None) for look in LOOKS}
            counted = await count_rows(snapshots)
        counted["suspects"] = sum(len(suspects) for suspects in suspected.values())
        complete = all(len(suspects) < limits.suspects_max for suspects in suspected.values())
        findings, counted["unsettled"] = await confirm(connections, limits, pause, suspected)
        lost: list[Lost] = []
        if topics is not None:
            missing, lost, counted["events"] = await find_lost_events(connections, limits, topics)
            findings += missing
            complete = complete and len(missing) < limits.suspects_max
    return AuditReport(complete and not findings, findings, counted, complete, lost)


async def recheck(
    connections: Snapshots, findings: Collection[Finding], *, limits: AuditLimits = _DEFAULT_LIMITS
) -> list[Finding]:
    """Look once more, now, and return those findings that still hold; what the topics lack (A12) is passed over."""
    async with frozen(connections) as snapshots:
        again = [
            await _look_again(look, snapshots, limits, [Suspect(f) for f in findings if f.check in checks])
            for look, checks in LOOKS.items()
        ]
    return [suspect.finding for suspects in again for suspect in suspects]


async def confirm(
    connections: Snapshots, limits: AuditLimits, pause: Pause, suspected: dict[Look, list[Suspect]]
) -> tuple[list[Finding], int]:
    """Look again until every suspect has proved right, has proved wrong, or has changed for too long to tell.

    Returns:
        The findings in order, and how many suspects were still changing.
    """
    findings: list[Finding] = []
    for _ in range(limits.looks_max):
        if not any(suspected.values()):
            break
        await pause(limits.second_look_seconds)
        async with frozen(connections) as snapshots:
            again = {
                look: await _look_again(look, snapshots, limits, suspects)
                for look, suspects in suspected.items()
            }
        findings += [
            suspect.finding for suspects in again.values() for suspect in suspects if not suspect.young
        ]
        suspected = {look: [suspect for suspect in again[look] if suspect.young] for look in again}
    return sorted(findings, key=lambda finding: finding.place), sum(map(len, suspected.values()))


async def _look_again(
    look: Look, snapshots: Snapshots, limits: AuditLimits, before: Collection[Suspect]
) -> list[Suspect]:
    """Return those of the suspects that the look still suspects of the same."""
    if not before:
        return []
    keys = {suspect.key for suspect in before}
    again = await look(snapshots, limits, sorted({suspect.finding.subject for suspect in before}))
    return [suspect for suspect in again if suspect.key in keys]


async def count_rows(snapshots: Snapshots) -> dict[str, int]:
    """Return how much there was to look at, and how many dead letters nobody has redriven."""
    inventory = await snapshots.inventory.fetchrow(
        """
        SELECT (SELECT count(*) FROM stock_levels) AS skus, (SELECT count(*) FROM reservations) AS reservations,
               (SELECT count(*) FROM stock_movements) AS movements
        """
    )
    return {
        "orders": await snapshots.order.fetchval("SELECT count(*) FROM orders"),
        **dict(inventory or {}),
        "payments": await snapshots.payment.fetchval("SELECT count(*) FROM payments"),
        "refunds": await snapshots.payment.fetchval("SELECT count(*) FROM refunds"),
        "dead_letters": await count_dead_letters(snapshots),
    }
