"""How does a person read an explanation?"""

from rich.console import Console

from ops.bodies import cell
from ops.explain.explaining import Check, Explanation, Verdict
from ops.repair.report import render_plan

_STYLES = {Verdict.RIGHT: "green", Verdict.WRONG: "bold red", Verdict.YOUNG: "yellow"}


def render_explanation(found: Explanation, console: Console) -> None:
    """Print where the order stands, each check with what it looked at, and what a repair would do."""
    console.print(f"Order {found.order_id}", style="bold", highlight=False)
    console.print(found.conclusion, markup=False, highlight=False)
    for check in found.checks:
        _render_check(check, console)
    for note in found.notes:
        console.print(note, style="yellow", markup=False, highlight=False)
    if not found.ok:
        render_plan(found.plan, console)


def _render_check(check: Check, console: Console) -> None:
    line = cell(f"{check.name:<4}{check.title}: ").append(check.verdict, _STYLES[check.verdict])
    console.print(line, soft_wrap=True)
    for fact in check.facts:
        console.print(cell(f"      {fact}"), style="dim", soft_wrap=True)
    for wrong in check.wrong:
        console.print(cell(f"    ✗ {wrong}"), style=_STYLES[check.verdict], soft_wrap=True)
