"""How does a person read a reconciliation?"""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.reconcile.figures import Figure, Sum
from ops.reconcile.reconciler import ReconcileReport


def render_reconciliation(report: ReconcileReport, console: Console) -> None:
    """Print a table of the figures, one line for each disagreement, and one that sums up."""
    if report.figures:
        console.print(_figures(report))
        console.print("Amounts in minor units.", style="dim")
    for finding in report.findings:
        line = Text.assemble(
            (finding.check, "bold red"), "  ", (finding.subject, "bold"), "  ", finding.detail
        )
        console.print(line, soft_wrap=True)
    console.print(_summary(report), soft_wrap=True)


def _figures(report: ReconcileReport) -> Table:
    table = Table(
        "gateway", "", "settled", "given back", "heard as paid", "goods sold", "agreed", "open", box=None
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for figure in report.figures:
        for row in _rows(figure):
            table.add_row(*row)
    return table


def _rows(figure: Figure) -> list[list[str]]:
    sums = (figure.settled, figure.given_back, figure.heard, figure.goods)
    disagreed = figure.orders - figure.agreed - figure.open
    agreed = f"{figure.agreed:,} of {figure.orders:,}"
    return [
        [figure.gateway, "count", *map(_count, sums), agreed, f"{figure.open:,}"],
        ["", figure.currency, *map(_minor, sums), "", f"[bold red]{disagreed:,} not[/]" if disagreed else ""],
    ]


def _count(value: Sum) -> str:
    return f"{value.count:,}"


def _minor(value: Sum) -> str:
    return f"{value.minor:,}"


def _summary(report: ReconcileReport) -> Text:
    since = f"{report.period.since:%Y-%m-%d %H:%M:%S}"
    until = "now" if report.period.until is None else f"{report.period.until:%Y-%m-%d %H:%M:%S}"
    orders = "1 order" if report.orders == 1 else f"{report.orders:,} orders"
    looked_at = f"{orders} paid from {since} until {until}, {report.agreed:,} in agreement"
    still_open = f", {report.open:,} on their way" if report.open else ""
    count = len(report.findings)
    found = f"{count:,} {'disagreement' if count == 1 else 'disagreements'}"
    cut = "" if report.complete else " and more than can be listed"
    verdict = Text("Reconciled", "bold green") if report.ok else Text(f"{found}{cut}", "bold red")
    return verdict.append(f": {looked_at}{still_open}", "default not bold")
