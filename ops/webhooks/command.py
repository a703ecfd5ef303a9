"""What can an operator say about gateways' deliveries? `holdfast webhooks list|show|retry`."""

import sys
from typing import Annotated

from cyclopts import App, Parameter

from ops import place
from ops.actions import connected
from ops.options import DataDir, Execute, Json, Limit, Yes, a_console, consent, print_json
from ops.webhooks import rendering
from ops.webhooks.retrying import RetryPlan, plan_retry, retry, wait_for_verdicts
from ops.webhooks.store import DeliveryFilters, find_delivery, list_deliveries
from shared.errors import Misconfigured, NotFound

Selected = Annotated[DeliveryFilters, Parameter(name="*")]

_EVERY = DeliveryFilters()
_SERVICE = "payment"
_LIST_LIMIT = 50
_RETRY_LIMIT = 1_000

webhooks = App(
    name="webhooks",
    help="Look after what the gateways delivered: how it was judged, and what should be judged again.",
    help_epilogue=(
        "Examples:\n\n"
        "holdfast webhooks list --verdict unmatched --since 1d\n\n"
        "holdfast webhooks show 4711\n\n"
        "holdfast webhooks retry 4711 4712\n\n"
        "holdfast webhooks retry --verdict ignored --gateway stripe --since 2h --execute --yes"
    ),
)


@webhooks.command(name="list")
async def list_webhooks(
    *,
    filters: Selected = _EVERY,
    after: int = 0,
    limit: Limit = _LIST_LIMIT,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """List deliveries in the order in which they came.

    Args:
        filters: which ones.
        after: only those behind this id; the last one of a list leads to the next.
        limit: how many at most.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of a table.
    """
    found = place.find(data_dir)
    async with connected(_SERVICE, found.dsns[_SERVICE]) as connection:
        deliveries = await list_deliveries(connection, filters, after=after, limit=limit)
    following = deliveries[-1].id if len(deliveries) == limit else None
    if json:
        items = [rendering.delivery_as_dict(delivery) for delivery in deliveries]
        print_json({"items": items, "next": following})
    else:
        rendering.render_deliveries(deliveries, a_console(), following=following)
    return 0


@webhooks.command
async def show(webhook_id: int, /, *, data_dir: DataDir = place.DEFAULT_DATA_DIR, json: Json = False) -> int:
    """Show one delivery: its verdict and why, and what it said, without signatures, secrets and card numbers.

    Args:
        webhook_id: its id, as `webhooks list` says.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of tables.
    """
    found = place.find(data_dir)
    async with connected(_SERVICE, found.dsns[_SERVICE]) as connection:
        delivery = await find_delivery(connection, webhook_id)
    if delivery is None:
        detail = f"There is no delivery {webhook_id}. `holdfast webhooks list` tells which there are."
        raise NotFound(detail)
    if json:
        print_json(rendering.delivery_in_full(*delivery))
    else:
        rendering.render_delivery(*delivery, a_console())
    return 0


@webhooks.command(name="retry")
async def retry_webhooks(
    *webhook_ids: int,
    filters: Selected = _EVERY,
    reason: str | None = None,
    limit: Limit = _RETRY_LIMIT,
    wait_seconds: Annotated[float, Parameter(name="--wait")] = 10.0,
    execute: Execute = False,
    yes: Yes = False,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Have deliveries judged again now that were unmatched or ignored, or could not be judged.

    Without --execute nothing changes: what would be judged again is shown. Every other verdict stays.

    Exit status 1 if one cannot be judged again, was not judged in time, or if it was not agreed to.

    Args:
        webhook_ids: which ones, by id; without any those that match the filters (--verdict is needed then).
        filters: which ones.
        reason: why; it is kept with who did it, when, and to which deliveries.
        limit: how many at most.
        wait_seconds: how long to wait for the verdicts, in seconds.
        execute: do it; without this only the plan is shown and nothing changes.
        yes: do not ask; needed together with --execute where nobody can answer.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of tables.
    """
    if bool(webhook_ids) == (filters.verdict is not None) or (webhook_ids and filters != _EVERY):
        raise Misconfigured(
            "Say which deliveries: either their ids, or --verdict unmatched|ignored|unjudged with further filters."
        )
    found = place.find(data_dir)
    plan = await plan_retry(found, webhook_ids, filters, limit=limit)
    if not _decide(plan, execute=execute, yes=yes, json=json):
        return 1 if plan.problems or (execute and plan.deliveries) else 0
    retried = await retry(found, plan, reason=reason)
    results = await wait_for_verdicts(found, retried, timeout_seconds=wait_seconds)
    if json:
        problems = rendering.plan_as_dict(plan)["problems"]
        print_json(
            {"executed": True, "action_id": retried.action_id, "results": results, "problems": problems}
        )
    else:
        rendering.render_results(results, a_console())
    return 1 if plan.problems or not all(result["judged"] for result in results) else 0


def _decide(plan: RetryPlan, *, execute: bool, yes: bool, json: bool) -> bool:
    """Show a plan, and return whether it is to be carried out; as JSON it is shown only if it is not."""
    is_wanted = execute and bool(plan.deliveries)
    if not json:
        rendering.render_plan(plan, a_console())
        if not execute and plan.deliveries:
            print("Nothing was changed. Give --execute to do this.")
    elif not is_wanted:
        print_json({"executed": False, **rendering.plan_as_dict(plan)})
    if not is_wanted:
        return False
    if consent(f"Judge {len(plan.deliveries):,} deliveries again?", yes=yes):
        return True
    print("Nothing was changed.", file=sys.stderr)
    return False
