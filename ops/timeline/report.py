"""How does a person read a timeline?"""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ops.timeline.entries import Entry
from ops.timeline.reading import Timeline

_TIME_WIDTH = 12
_WHAT_WIDTH_MAX = 24


def render_timeline(timeline: Timeline, console: Console) -> None:
    """Print where the order stands, why, and what happened, one row after the other."""
    console.print(f"Order {timeline.order_id}", style="bold", highlight=False)
    console.print(timeline.conclusion, markup=False, highlight=False)
    console.print(_standing(timeline))
    if timeline.entries:
        console.print(_entries(timeline.entries))
        console.print("Times are UTC, amounts in minor units.", style="dim")
    for note in timeline.notes:
        console.print(note, style="yellow", markup=False, highlight=False)
    for problem in timeline.problems:
        console.print(problem, style="bold red", soft_wrap=True, markup=False, highlight=False)


def _standing(timeline: Timeline) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, row in timeline.standing.as_dict().items():
        status = "none" if row is None else str(row["status"] or "none")
        table.add_row(name, status, "" if row is None else escape(_about(row)))
    return table


def _about(row: Mapping[str, Any]) -> str:
    """Return what stands beside a status, as far as there is something."""
    amounts = {"total": "total_minor", "settled": "settled_minor", "given back": "refunded_minor"}
    told = [str(row["reason"])] if row.get("reason") else []
    told += ["cancelled"] if row.get("cancelled") else []
    told += ["unavailable"] if row.get("unavailable") else []
    told += [
        f"{name} {row[column]:,} {row.get('settled_currency') or row['currency']}"
        for name, column in amounts.items()
        if row.get(column)
    ]
    told += [
        f"{name} {row[column].astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        for name, column in {"hold until": "expires_at", "paid": "paid_at"}.items()
        if row.get(column) and (column != "expires_at" or row["status"] == "HELD")
    ]
    return ", ".join(told)


def _entries(entries: list[Entry]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("time", no_wrap=True, min_width=_TIME_WIDTH)
    table.add_column("where", no_wrap=True)
    table.add_column("what", max_width=_WHAT_WIDTH_MAX)
    table.add_column("detail ← because of", overflow="fold")
    day = ""
    for entry in entries:
        at = entry.at.astimezone(UTC)
        if f"{at:%Y-%m-%d}" != day:
            day = f"{at:%Y-%m-%d}"
            table.add_row(day, style="dim")
        table.add_row(
            f"{at:%H:%M:%S}.{at.microsecond // 1000:03}",
            entry.where,
            escape(entry.what),
            _detail(entry),
            style="red" if entry.what.startswith(("dead letter", "refused")) else None,
        )
    return table


def _detail(entry: Entry) -> Text:
    cause = entry.cause_type or entry.cause
    return Text.assemble(entry.detail, (f" ← {cause}" if cause else "", "dim"))
