"""How is the quarantine shown?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ops.bodies import cell
from ops.masking import mask_text
from ops.options import in_utc
from ops.quarantine.resolving import Outcome
from services.payment_service.domain.resolving import Resolution


def waiting_as_dict(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an attempt that waits for a decision as `--json` prints it; what a gateway wrote is masked."""
    written = ("gateway_transaction_id", "native_status", "reason", "dispute")
    return {
        name: mask_text(value) if name in written and value is not None else value
        for name, value in row.items()
    }


def resolution_as_dict(resolution: Resolution) -> dict[str, Any]:
    """Return a decision as `--json` prints it."""
    told = {name: value for name, value in asdict(resolution).items() if name != "request_key"}
    return {**told, "review_reason": mask_text(resolution.review_reason)}


def outcome_as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return what a decision changes as `--json` prints it."""
    refund = outcome.refund
    return {
        "resolution": resolution_as_dict(outcome.resolution),
        "already_decided": outcome.is_known,
        "payment_before": outcome.before,
        "payment_after": outcome.after,
        "refund": None
        if refund is None
        else {
            "refund_id": refund.refund_id,
            "amount_minor": refund.amount_minor,
            "currency": refund.currency,
            "status": refund.status,
        },
    }


def render_waiting(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what waits for a decision, one attempt a line."""
    if not rows:
        console.print("Nothing waits for a decision.")
        return
    table = Table("attempt", "order", "gateway", "status", "why", "expected", "received", "since", box=SIMPLE)
    for column in table.columns:
        column.overflow = "fold"
    for row in map(waiting_as_dict, rows):
        table.add_row(
            str(row["attempt_id"]),
            str(row["order_id"]),
            row["gateway"],
            row["status"],
            cell(row["reason"] or ""),
            _money(row["expected_amount_minor"], row["expected_currency"]),
            _money(row["received_amount_minor"], row["received_currency"]),
            in_utc(row["since"]),
        )
    console.print(table)


def render_resolutions(resolutions: Sequence[Resolution], console: Console) -> None:
    """Print what was decided, the newest first."""
    if not resolutions:
        console.print("Nothing was decided.")
        return
    table = Table("at", "attempt", "decision", "by", "because", "it was", box=SIMPLE)
    for column in table.columns:
        column.overflow = "fold"
    for resolution in resolutions:
        table.add_row(
            in_utc(resolution.created_at),
            str(resolution.attempt_id),
            resolution.action,
            cell(resolution.decided_by),
            cell(mask_text(resolution.reason)),
            cell(mask_text(resolution.review_reason)),
        )
    console.print(table)


def render_outcome(outcome: Outcome, console: Console, *, is_done: bool) -> None:
    """Print what a decision changes, or has changed."""
    resolution, refund = outcome.resolution, outcome.refund
    if outcome.is_known:
        console.print(
            f"Decided before: {resolution.action} by {resolution.decided_by}, {in_utc(resolution.created_at)}.",
            highlight=False,
            markup=False,
        )
        return
    console.print(
        f"{'Decided' if is_done else 'Would be decided'}: {resolution.action} "
        f"({mask_text(resolution.review_reason)}). Payment of order {resolution.order_id}: "
        f"{outcome.before} → {outcome.after}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if refund is not None:
        money = _money(refund.amount_minor, refund.currency)
        console.print(
            f"{money} {'go' if is_done else 'would go'} back (refund {refund.refund_id}).", highlight=False
        )


def _money(minor: int | None, currency: str | None) -> str:
    return "unknown" if minor is None else f"{minor} {currency}"
