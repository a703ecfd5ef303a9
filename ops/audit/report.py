"""How does a person read what the audit found?"""

from rich.console import Console
from rich.text import Text

from ops.audit.findings import AuditReport


def render(report: AuditReport, console: Console) -> None:
    """Print one line a finding, then one that sums up."""
    for finding in report.findings:
        line = Text.assemble(
            (finding.check, "bold red"), "  ", (finding.subject, "bold"), "  ", finding.detail
        )
        console.print(line, soft_wrap=True)
    console.print(_summary(report), soft_wrap=True)


def _summary(report: AuditReport) -> Text:
    counted = report.counted
    looked_at = f"{counted.get('orders', 0):,} orders and {counted.get('movements', 0):,} movements of stock"
    events = f"; {counted['events']:,} events" if "events" in counted else ""
    dead_letters = f"; {counted['dead_letters']:,} dead letters" if counted.get("dead_letters") else ""
    unsettled = f"; {counted['unsettled']:,} still changing" if counted.get("unsettled") else ""
    verdict = Text("Audit clean", "bold green") if report.ok else Text(_verdict(report), "bold red")
    return verdict.append(f": {looked_at}{events}{dead_letters}{unsettled}", "default not bold")


def _verdict(report: AuditReport) -> str:
    count = len(report.findings)
    found = f"Audit found {count:,} {'fault' if count == 1 else 'faults'}"
    return found if report.complete else f"{found} and stopped: too many suspects"
