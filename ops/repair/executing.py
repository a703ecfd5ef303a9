"""How is a plan carried out? Each remedy by the service's own code, in a transaction of its own database.

What no longer needs a remedy when its turn comes gets none. What fails by itself stops no other, and is told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

from ops.actions import begin_action, connected, finish_action
from ops.audit.auditor import recheck
from ops.audit.findings import Finding
from ops.audit.limits import AuditLimits
from ops.audit.snapshots import Snapshots, connect_all
from ops.place import Place
from ops.repair import store
from ops.repair.planning import Plan
from ops.repair.remedies import Recount, Remedy, Settle, TellAgain, remedy_as_dict
from services.inventory_service import handlers as inventory
from services.order_service import handlers as order
from services.payment_service import handlers as payment
from shared.database import Connection, DedicatedConnection, is_transient
from shared.errors import HoldfastError
from shared.ids import new_id
from shared.splitting import apply_splitting

COMMAND = "audit repair"

_AT_ONCE = 200
_LOOK_SECONDS = 0.25
_LOCK_SECONDS_MAX = 5.0
#: How many remedies an action lists by name; of the others it keeps how many there were.
_LISTED_MAX = 1_000

#: Numbers of lost events by key; none of them: the key is told of under a new one.
_Lost: TypeAlias = Mapping[str, Sequence[int]]


@dataclass(slots=True)
class Outcome:
    """What came of a repair.

    Attributes:
        action_id: under which each database keeps it in `operator_actions`, in its `details`.
        recounted: SKUs whose counters were corrected.
        told: events that were put into outboxes.
        swept: holds that were released.
        failures: what could not be done, as subject and error.
        remaining: findings that the remedies were meant to end, and that still hold.
    """

    action_id: UUID
    recounted: int = 0
    told: int = 0
    swept: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    remaining: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that was begun is right now."""
        return not self.failures and not self.remaining

    @property
    def counts(self) -> dict[str, int]:
        """How much of what was done."""
        return {"recounted": self.recounted, "told": self.told, "swept": self.swept}

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "action_id": self.action_id,
            **self.counts,
            "failures": [{"subject": subject, "error": error} for subject, error in self.failures],
            "remaining": [finding.as_dict() for finding in self.remaining],
        }


async def execute(
    place: Place, plan: Plan, *, reason: str, limits: AuditLimits, wait_seconds: float
) -> Outcome:
    """Carry a plan out, and wait until the services have made of it what they should.

    Args:
        place: where the system is.
        plan: what to do.
        reason: why; kept in `operator_actions` of each database that is changed.
        limits: what the audit allows.
        wait_seconds: how long the services may take; what is not right by then is told as remaining.

    Raises:
        Unavailable: a database does not answer.
    """
    outcome = Outcome(new_id())
    async with AsyncExitStack() as stack:
        looking = await stack.enter_async_context(connect_all(place.dsns, application_name="holdfast-repair"))
        needed = await _still_needed(looking, plan, limits)
        for service, steps in _steps(needed, limits).items():
            connection = await stack.enter_async_context(connected(service, place.dsns[service]))
            await store.limit_waiting(connection, lock_seconds_max=_LOCK_SECONDS_MAX)
            await _act(connection, steps, needed, outcome, reason=reason)
        outcome.remaining = await _wait(looking, needed, limits, wait_seconds)
    return outcome


async def _still_needed(connections: Snapshots, plan: Plan, limits: AuditLimits) -> list[Remedy]:
    """Return the remedies of which at least one finding still holds; lost events stay lost."""
    holding = {
        (item.check, item.subject) for item in await recheck(connections, plan.findings, limits=limits)
    }
    return [
        remedy
        for remedy in plan.remedies
        if isinstance(remedy, TellAgain)
        or any((finding.check, finding.subject) in holding for finding in remedy.findings)
    ]


# --- what to do in each database ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """Work on some subjects in one database: `apply` is all or nothing, and returns how much of `counted` it did."""

    counted: str
    subjects: Sequence[str]
    apply: Callable[[Connection, Sequence[str], str], Awaitable[int]]


def _steps(remedies: Sequence[Remedy], limits: AuditLimits) -> dict[str, list[_Step]]:
    """Return what is to be done, by service: counters first, then what is told, then what is swept."""
    recounted = [remedy.sku for remedy in remedies if isinstance(remedy, Recount)]
    swept = [str(remedy.order_id) for remedy in remedies if isinstance(remedy, Settle) and remedy.is_swept]
    steps: dict[str, list[_Step]] = {"order": [], "inventory": [], "payment": []}
    if recounted:
        steps["inventory"].append(_Step("recounted", recounted, _recount))
    for service, tell in (("order", _tell_orders), ("inventory", _tell_stock), ("payment", _tell_payments)):
        lost = _to_tell(remedies, service)
        if lost:
            steps[service].append(_Step("told", list(lost), _telling(tell, lost)))
    if swept:
        steps["inventory"].append(_Step("swept", swept, _sweeping(limits.hold_grace_seconds)))
    return {service: found for service, found in steps.items() if found}


def _to_tell(remedies: Sequence[Remedy], service: str) -> _Lost:
    lost: dict[str, Sequence[int]] = {}
    for remedy in remedies:
        if isinstance(remedy, TellAgain) and remedy.producer == service:
            lost[remedy.key] = remedy.numbers
        elif isinstance(remedy, Settle) and service in remedy.tellers:
            lost.setdefault(str(remedy.order_id), ())
    return lost


def _telling(
    tell: Callable[[Connection, _Lost, str], Awaitable[int]], lost: _Lost
) -> Callable[[Connection, Sequence[str], str], Awaitable[int]]:
    async def tell_some(tx: Connection, keys: Sequence[str], cause: str) -> int:
        return await tell(tx, {key: lost[key] for key in keys}, cause)

    return tell_some


async def _tell_orders(tx: Connection, lost: _Lost, cause: str) -> int:
    return await order.tell_again(tx, {UUID(key): numbers for key, numbers in lost.items()}, cause=cause)


async def _tell_payments(tx: Connection, lost: _Lost, cause: str) -> int:
    return await payment.tell_again(tx, {UUID(key): numbers for key, numbers in lost.items()}, cause=cause)


async def _tell_stock(tx: Connection, lost: _Lost, cause: str) -> int:
    """Tell of orders and of SKUs, whose events share a topic."""
    orders = {key: order_id for key in lost if (order_id := _order_id(key)) is not None}
    return await inventory.tell_again(
        tx,
        {order_id: lost[key] for key, order_id in orders.items()},
        {key: numbers for key, numbers in lost.items() if key not in orders},
        cause=cause,
    )


def _order_id(key: str) -> UUID | None:
    """Return the order that a key names; a SKU may look like anything but its canonical text."""
    try:
        order_id = UUID(key)
    except ValueError:
        return None
    return order_id if str(order_id) == key else None


async def _recount(tx: Connection, skus: Sequence[str], cause: str) -> int:
    return len(await inventory.recount(tx, skus, cause=cause))


def _sweeping(grace_seconds: float) -> Callable[[Connection, Sequence[str], str], Awaitable[int]]:
    async def sweep(tx: Connection, keys: Sequence[str], _cause: str) -> int:
        now = await store.get_now(tx)
        # What is not due by the database's clock, or is held no more, is left alone by the statement itself.
        return await inventory.expire(tx, [UUID(key) for key in keys], now - timedelta(seconds=grace_seconds))

    return sweep


# --- doing it -------------------------------------------------------------------------------------------------------


async def _act(
    connection: DedicatedConnection,
    steps: Sequence[_Step],
    remedies: Sequence[Remedy],
    outcome: Outcome,
    *,
    reason: str,
) -> None:
    """Do what is to be done in one database, and keep there that it was done."""
    subjects = {subject for step in steps for subject in step.subjects}
    listed = [remedy_as_dict(remedy) for remedy in remedies if remedy.told[1] in subjects]
    details = {"repair": str(outcome.action_id), "remedies": listed[:_LISTED_MAX], "of": len(listed)}
    action = await begin_action(connection, command=COMMAND, details=details, counts={}, reason=reason)
    done: dict[str, int] = {}
    failed = len(outcome.failures)
    for step in steps:
        done[step.counted] = await _do(connection, step, outcome)
    for name, count in done.items():
        setattr(outcome, name, getattr(outcome, name) + count)
    failures = [{"subject": subject, "error": error} for subject, error in outcome.failures[failed:]]
    await finish_action(
        connection,
        action,
        counts={**done, "failed": len(failures)},
        details={"failures": failures[:_LISTED_MAX]},
    )


async def _do(connection: DedicatedConnection, step: _Step, outcome: Outcome) -> int:
    count = 0

    async def apply(subjects: Sequence[str]) -> None:
        nonlocal count
        async with connection.transaction():
            done = await step.apply(connection, subjects, f"operator:{outcome.action_id}")
        count += done

    async def refuse(subject: str, error: Exception) -> None:
        outcome.failures.append(
            (subject, error.detail if isinstance(error, HoldfastError) else str(error) or repr(error))
        )

    for start in range(0, len(step.subjects), _AT_ONCE):
        batch = step.subjects[start : start + _AT_ONCE]
        try:
            await apply_splitting(batch, apply, is_transient=is_transient, refuse=refuse)
        except Exception as error:
            if not is_transient(error):
                raise
            others = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
            outcome.failures.append(
                (f"{batch[0]}{others}", f"others are at work there: do it again ({error})")
            )
    return count


async def _wait(
    connections: Snapshots, remedies: Sequence[Remedy], limits: AuditLimits, wait_seconds: float
) -> list[Finding]:
    """Wait until nothing that was to be repaired is wrong any more; return what is after so long."""
    findings = list(dict.fromkeys(finding for remedy in remedies for finding in remedy.findings))
    clock = asyncio.get_running_loop()
    end = clock.time() + wait_seconds
    while (remaining := await recheck(connections, findings, limits=limits)) and clock.time() < end:
        await asyncio.sleep(_LOOK_SECONDS)
    return remaining
