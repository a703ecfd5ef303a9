"""How are deliveries shown, without signatures, secrets and card numbers?"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ops.bodies import body_lines, cell, readable_body
from ops.masking import mask_named, mask_text
from ops.options import in_utc
from ops.webhooks.retrying import RetryPlan
from ops.webhooks.store import Delivery


def delivery_as_dict(delivery: Delivery) -> dict[str, Any]:
    """Return one row of a list as `--json` prints it."""
    reason = None if delivery.reason is None else mask_text(delivery.reason)
    return {**asdict(delivery), "event_id": mask_text(delivery.event_id), "reason": reason}


def delivery_in_full(delivery: Delivery, headers: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Return all that may be shown of a delivery as `--json` prints it."""
    kind, shown = readable_body(body)
    return {
        **delivery_as_dict(delivery),
        "headers": {name: mask_named(name, value) for name, value in headers.items()},
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "body_kind": kind,
        "body": shown,
    }


def plan_as_dict(plan: RetryPlan) -> dict[str, Any]:
    """Return a plan as `--json` prints it."""
    return {
        "filters": plan.filters.as_dict(),
        "deliveries": [delivery_as_dict(delivery) for delivery in plan.deliveries],
        "problems": [{"id": webhook_id, "why": why} for webhook_id, why in plan.problems],
    }


def render_deliveries(deliveries: Sequence[Delivery], console: Console, *, following: int | None) -> None:
    """Print deliveries in the order in which they came."""
    if not deliveries:
        console.print("No deliveries.")
        return
    table = Table("id", "received at", "gateway", "event", "verdict", "reason", "order", "judged", box=SIMPLE)
    for column in table.columns:
        column.overflow = "fold"
    for delivery in deliveries:
        row = delivery_as_dict(delivery)
        table.add_row(
            str(delivery.id),
            in_utc(delivery.received_at),
            delivery.gateway,
            cell(row["event_id"]),
            delivery.verdict_name,
            cell(row["reason"] or ""),
            str(delivery.order_id or ""),
            f"{delivery.judge_tries} times",
        )
    console.print(table)
    if following is not None:
        console.print(f"There may be more: --after {following}", highlight=False)


def render_delivery(delivery: Delivery, headers: Mapping[str, Any], body: bytes, console: Console) -> None:
    """Print all that may be shown of a delivery."""
    shown = delivery_in_full(delivery, headers, body)
    facts = Table("", "", show_header=False, box=None)
    facts.columns[1].overflow = "fold"
    for name in ("id", "gateway", "event_id", "reason", "order_id", "attempt_id", "transaction_id"):
        facts.add_row(name.replace("_", " "), cell("" if shown[name] is None else str(shown[name])))
    facts.add_row("verdict", delivery.verdict_name)
    facts.add_row("received at", in_utc(delivery.received_at))
    facts.add_row("judged", f"{delivery.judge_tries} times, last {in_utc(delivery.judged_at) or 'never'}")
    facts.add_row("judged next", in_utc(delivery.judge_at) or "never")
    facts.add_row("body", f"{len(body):,} bytes, SHA-256 {shown['body_sha256']}")
    console.print(facts)
    kept = Table("header", "value", box=SIMPLE)
    kept.columns[1].overflow = "fold"
    for name, value in shown["headers"].items():
        kept.add_row(cell(name), cell(str(value)))
    console.print(kept)
    for line in body_lines(shown["body_kind"], shown["body"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def render_plan(plan: RetryPlan, console: Console) -> None:
    """Print which deliveries would be judged again, and which would not."""
    if plan.deliveries:
        console.print(f"Would be judged again: {len(plan.deliveries):,}", highlight=False)
        render_deliveries(plan.deliveries, console, following=None)
    else:
        console.print("There is nothing to be judged again.")
    for webhook_id, why in plan.problems:
        console.print(f"Not judged again: {webhook_id}: {why}.", style="bold red", highlight=False)


def render_results(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what became of deliveries that were judged again."""
    table = Table("id", "before", "after", "reason", box=SIMPLE)
    for result in results:
        after = result["after"] if result["judged"] else "not judged yet"
        table.add_row(str(result["id"]), result["before"], after, cell(mask_text(result["reason"] or "")))
    console.print(table)
    if not all(result["judged"] for result in results):
        console.print(
            "Some were not judged in time. Is the payment service running? It takes them as soon as it is: "
            "see `holdfast webhooks show ID`.",
            style="bold red",
            soft_wrap=True,
        )
