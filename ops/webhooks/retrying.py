"""How is a delivery judged again, after what kept it from being applied was mended?

Only its time to be judged is set to now: the payment service's judge takes it from there, with the same rules as for
every delivery. What was applied, was a duplicate or contradicted us keeps its verdict.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ops.actions import connected, record_action
from ops.place import Place
from ops.webhooks.store import (
    Delivery,
    DeliveryFilters,
    find_deliveries,
    list_deliveries,
    release_deliveries,
)

COMMAND = "webhooks retry"
_SERVICE = "payment"
_RETRIED_VERDICTS = frozenset({None, "unmatched", "ignored"})
_LOOK_AGAIN_SECONDS = 0.1


@dataclass(slots=True)
class RetryPlan:
    """Which deliveries would be judged again, and which of those asked for cannot be, with why."""

    filters: DeliveryFilters
    deliveries: list[Delivery] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Retried:
    """The action that was recorded, and each delivery as it was before."""

    action_id: UUID
    before: Sequence[Delivery]


async def plan_retry(
    place: Place, webhook_ids: Sequence[int], filters: DeliveryFilters, *, limit: int
) -> RetryPlan:
    """Return what a retry would do to the deliveries named, or else to those that match the filters.

    Raises:
        Unavailable: the payment service's database does not answer.
    """
    plan = RetryPlan(filters)
    async with connected(_SERVICE, place.dsns[_SERVICE]) as connection:
        if webhook_ids:
            found = await find_deliveries(connection, webhook_ids)
        else:
            found = await list_deliveries(connection, filters, after=0, limit=limit)
    there = {delivery.id for delivery in found}
    plan.problems += [
        (webhook_id, "there is no such delivery") for webhook_id in webhook_ids if webhook_id not in there
    ]
    for delivery in found:
        if delivery.verdict in _RETRIED_VERDICTS:
            plan.deliveries.append(delivery)
        else:
            plan.problems.append((delivery.id, f"its verdict stays: {delivery.verdict_name}"))
    return plan


async def retry(
    place: Place, plan: RetryPlan, *, reason: str | None = None, who: str | None = None
) -> Retried:
    """Have the deliveries of a plan judged again, and keep who asked for it (the operator).

    Raises:
        Unavailable: the payment service's database does not answer.
        Misconfigured: it cannot be told who asks.
    """
    async with connected(_SERVICE, place.dsns[_SERVICE]) as connection, connection.transaction():
        released = await release_deliveries(connection, [delivery.id for delivery in plan.deliveries])
        action_id = await record_action(
            connection,
            command=COMMAND,
            details={"filters": plan.filters.as_dict(), "webhook_ids": released},
            counts={"deliveries": len(released)},
            reason=reason,
            who=who,
        )
    return Retried(action_id, [delivery for delivery in plan.deliveries if delivery.id in {*released}])


async def wait_for_verdicts(
    place: Place, retried: Retried, *, timeout_seconds: float
) -> list[dict[str, Any]]:
    """Return what became of deliveries, as soon as all were judged or the time is over.

    Each has `id`, `before` and `after` (verdicts), `reason`, and `judged`: whether it was judged again by then.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout_seconds
    before = {delivery.id: delivery for delivery in retried.before}
    async with connected(_SERVICE, place.dsns[_SERVICE]) as connection:
        while True:
            now = await find_deliveries(connection, [*before])
            results = [_compare(before[delivery.id], delivery) for delivery in now]
            if all(result["judged"] for result in results) or clock() >= deadline:
                return results
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _compare(before: Delivery, after: Delivery) -> dict[str, Any]:
    return {
        "id": after.id,
        "before": before.verdict_name,
        "after": after.verdict_name,
        "reason": after.reason,
        "judged": after.judge_tries > before.judge_tries,
    }
