"""How does a person read a plan of repairs, and what came of it?"""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.bodies import cell
from ops.repair.executing import Outcome
from ops.repair.planning import Plan

_ROWS_MAX = 50


def render_plan(plan: Plan, console: Console) -> None:
    """Print what would be done, and what cannot be repaired, with where to look instead."""
    if plan.remedies:
        table = Table("remedy", "subject", "why", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for remedy in plan.remedies[:_ROWS_MAX]:
            what, subject, why = remedy.told
            table.add_row(what, cell(subject), cell(why))
        console.print(table)
        _tell_more(len(plan.remedies), console)
    for item in plan.unrepairable[:_ROWS_MAX]:
        finding = item.finding
        console.print(
            Text.assemble(
                ("not repairable  ", "yellow"),
                f"{finding.check}  ",
                cell(finding.subject),
                f"  {item.advice}",
            ),
            soft_wrap=True,
        )
    _tell_more(len(plan.unrepairable), console)


def _tell_more(count: int, console: Console) -> None:
    if count > _ROWS_MAX:
        console.print(f"… and {count - _ROWS_MAX:,} more (--json lists all)", style="dim")


def render_outcome(outcome: Outcome, console: Console) -> None:
    """Print how much was done, what failed, and what is still wrong."""
    told = f"{outcome.recounted} recounted, {outcome.told} events told again, {outcome.swept} holds swept"
    console.print(f"Repair {outcome.action_id}: {told}", highlight=False, soft_wrap=True)
    for subject, error in outcome.failures:
        console.print(cell(f"failed  {subject}  {error}"), style="red", soft_wrap=True)
    for finding in outcome.remaining:
        line = f"still {finding.check}  {finding.subject}  {finding.detail}"
        console.print(cell(line), style="red", soft_wrap=True)
    if outcome.remaining:
        console.print(
            "The services have not made it right yet: do they run (`holdfast lag`)? Then audit again.",
            style="yellow",
        )
