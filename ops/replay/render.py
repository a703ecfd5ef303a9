"""How does a person read a plan, watch it being carried out, and learn what came of it?"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ops.replay.execute import Done
from ops.replay.plan import Plan
from ops.replay.rewind import Move
from ops.replay.trial import OrderChange

_PARTITIONS_SHOWN_MAX = 32


def render_plan(plan: Plan, moves: Sequence[Move], console: Console) -> None:
    """Print what is in scope, what each group would make of it, and which orders would change."""
    if plan.request.way == "rewind":
        _render_moves(plan.request.group or "", moves, console)
    else:
        _render_scope(plan, console)
    if plan.consumers:
        _render_consumers(plan, console)
        _render_orders(plan, console)
        if plan.changes_nothing:
            console.print("It would change nothing: every group has handled what it wants of this.")


def _render_scope(plan: Plan, console: Console) -> None:
    whom = plan.request.group or "every group"
    console.print(
        f"{plan.selected:,} of {plan.looked_at:,} records in scope would be published again, for {whom}."
    )
    if plan.copies:
        console.print(f"{plan.copies:,} copies by earlier replays are passed over (--copies takes them in).")
    if plan.without_id:
        console.print(
            f"{plan.without_id:,} without a usable ce_id are passed over: no inbox could know them again."
        )
    for topic, partitions in plan.request.spans.items():
        shown = [f"{number}: {span.begin}-{span.end}" for number, span in sorted(partitions.items())]
        more = ", …" if len(shown) > _PARTITIONS_SHOWN_MAX else ""
        console.print(
            f"{topic}  {', '.join(shown[:_PARTITIONS_SHOWN_MAX])}{more}", style="dim", soft_wrap=True
        )


def _render_moves(group: str, moves: Sequence[Move], console: Console) -> None:
    if not moves:
        console.print(f"{group} has read nothing of this yet: it stays where it is.")
        return
    table = Table("group", "topic", "partition", "now at", "new offset", "read again")
    for column in (2, 3, 4, 5):
        table.columns[column].justify = "right"
    for move in moves:
        again = f"{move.committed - move.new:,}"
        table.add_row(group, move.topic, str(move.partition), str(move.committed), str(move.new), again)
    console.print(table)


def _render_consumers(plan: Plan, console: Console) -> None:
    names = ("applied", "duplicate", "stale", "refused", "passed over")
    table = Table("consumer", *names)
    for column in table.columns[1:]:
        column.justify = "right"
    for group, found in plan.consumers.items():
        numbers = (found.applied, found.duplicate, found.stale, found.refused, found.passed)
        table.add_row(
            group,
            *(f"{number:,}" for number in numbers),
            style="bold" if found.applied or found.refused else None,
        )
    console.print(table)
    dead = sum(found.dead for found in plan.consumers.values())
    if dead:
        console.print(
            f"{dead:,} of the duplicates are dead letters and stay so: `holdfast dlq redrive` is for them."
        )


def _render_orders(plan: Plan, console: Console) -> None:
    if not plan.order_count:
        return
    table = Table("order", "seen by", "now", "would be")
    for change in plan.orders:
        table.add_row(*_order_row(change))
    console.print(table)
    left_out = plan.order_count - len(plan.orders)
    if left_out:
        console.print(f"… and {left_out:,} more (--orders-max shows more of them).")


def _order_row(change: OrderChange) -> tuple[str, str, str, str]:
    return str(change.order_id), change.service, change.before or "unknown", change.after or "unknown"


def render_done(done: Done, console: Console) -> None:
    """Print what came of it."""
    counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in done.counts.items())
    if done.finished:
        console.print(f"Replay {done.replay_id} is done: {counts}.", soft_wrap=True)
    else:
        console.print(f"Replay {done.replay_id} is paused: {counts}.", style="bold", soft_wrap=True)
        console.print(
            f"Go on with: holdfast replay --resume {done.replay_id} --execute",
            soft_wrap=True,
            highlight=False,
        )
    for refusal in done.refusals:
        console.print(f"refused by Kafka: {refusal}", style="bold red", soft_wrap=True, highlight=False)


class Bar:
    """Shows on standard error how far it is, where that is a terminal."""

    def __init__(self, progress: Progress, total: int, verb: str) -> None:
        self._progress = progress
        self._task = progress.add_task(verb, total=total, taken=0)

    def show(self, looked_at: int, taken: int) -> None:
        """Show how many records were looked at and how many of them were taken."""
        self._progress.update(self._task, completed=looked_at, taken=taken)


@contextmanager
def progress_bar(total: int, verb: str) -> Iterator[Bar | None]:
    """Lend a bar; none where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[taken]:,} taken"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress, total, verb)
