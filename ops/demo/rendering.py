"""How does a shop owner read what the demo has to say?"""

from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from benchmarks.baskets import DIRT
from ops.audit import render as render_audit
from ops.demo.day import WAITING_MAX
from ops.demo.market import GatewayName
from ops.demo.plan import Story
from ops.demo.summary import DemoSummary, show_money
from shared.events import OrderStatus

_LINES_SHOWN = 20
_DOUBLES = "All of them are doubles on this machine: no real gateway was called, no money moved."

#: What a shop calls the statuses, and in which order it wants to hear of them.
_ENDS: Final[Mapping[str, str]] = {
    OrderStatus.PROCESSING: "sold",
    OrderStatus.REJECTED: "refused",
    OrderStatus.PAYMENT_FAILED: "declined",
    OrderStatus.EXPIRED: "unpaid",
    OrderStatus.CANCELLED: "cancelled",
    OrderStatus.REFUNDED: "money back",
}
_GATEWAYS: Final[Mapping[GatewayName, str]] = {
    "sandbox": "Sandbox",
    "stripe": "Stripe",
    "midtrans": "Midtrans",
}


def render_summary(summary: DemoSummary, console: Console) -> None:
    """Print the summary for a person."""
    console.print(_heading("What the customers did, and how it ended"))
    console.print(_stories(summary), highlight=False)
    console.print()
    console.print(_heading("Orders and money, by gateway"))
    console.print(_orders(summary), highlight=False)
    console.print()
    console.print(_money(summary), highlight=False)
    console.print(_DOUBLES, style="dim", highlight=False)
    for name, why in summary.left_out.items():
        console.print(f"Without {name.title()}: {why}.", style="yellow", highlight=False, markup=False)
    console.print()
    console.print(_heading("In short"))
    console.print(_facts(summary), highlight=False)
    console.print()
    for title, lines in (
        ("Orders left open", summary.open_orders),
        ("Not as it had to be", summary.problems),
    ):
        if lines:
            console.print(f"{title}: {len(lines):,}", style="bold red")
            for line in lines[:_LINES_SHOWN]:
                console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    render_audit(summary.audit, console)
    if summary.ok:
        console.print("Every order has ended, and every customer got what was right.", style="bold green")


def _heading(text: str) -> Rule:
    return Rule(text, align="left", style="dim")


def _stories(summary: DemoSummary) -> Table:
    table = Table("orders", "the customer", "the order", box=None, pad_edge=False, header_style="dim")
    table.columns[0].justify = "right"
    stories = sorted(
        summary.by_story.items(), key=lambda item: (item[0] != Story.PAYS, -sum(item[1].values()))
    )
    for story, ends in stories:
        table.add_row(f"{sum(ends.values()):,}", story, _count_ends(ends))
    return table


def _count_ends(ends: Mapping[str, int]) -> str:
    names = [(_ENDS.get(end, end), count) for end, count in ends.items()]
    if len(names) == 1:
        return names[0][0]
    return ", ".join(f"{count:,} {name}" for name, count in names)


def _orders(summary: DemoSummary) -> Table:
    ends = [end for end in _ENDS if end in summary.by_status]
    ends += sorted(summary.by_status.keys() - _ENDS.keys())
    table = _numbers("", "orders", *(_ENDS.get(end, end) for end in ends))
    for name, at in summary.gateways.items():
        counts = (at.by_status.get(end, 0) for end in ends)
        table.add_row(_GATEWAYS[name], f"{at.orders:,}", *map(_count, counts))
    totals = (summary.by_status.get(end, 0) for end in ends)
    table.add_row("all", f"{summary.orders:,}", *map(_count, totals), style="bold")
    return table


def _money(summary: DemoSummary) -> Table:
    table = _numbers("", "taken", "given back", "kept")
    for name, at in summary.gateways.items():
        amounts = (at.taken_minor, at.given_back_minor, at.taken_minor - at.given_back_minor)
        table.add_row(_GATEWAYS[name], *(show_money(minor, at.currency) for minor in amounts))
    return table


def _numbers(*names: str) -> Table:
    """Return a table of names and numbers, each on one line."""
    table = Table(*names, box=None, pad_edge=False, header_style="dim")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _count(count: int) -> str:
    return f"{count:,}" if count else "-"


def _facts(summary: DemoSummary) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _rows(summary):
        table.add_row(name, text)
    return table


def _rows(summary: DemoSummary) -> Iterator[tuple[str, str]]:
    """Yield a name and a text for each line of the summary."""
    given = summary.real_input
    text = (
        f"{given['baskets']:,} baskets of {given['households']:,} households: {given['lines']:,} lines, "
        f"{given['units']:,} units of {given['products']:,} products, {given['products_short']:,} of them short"
    )
    yield "Real input", text
    dirt = [f"{given[name]:,} {name.replace('_', ' ')}" for name in DIRT if given[name]]
    yield "Left out or mended", ", ".join(dirt) or "nothing"
    yield "Units sold", f"{summary.units_sold:,}"
    yield from _troubles(summary)
    timing = summary.timing
    text = (
        f"{timing.orders_per_second:,.0f} orders/s; from the order to the decision about its stock p50 "
        f"{timing.latency_ms_p50:,.0f} ms, p99 {timing.latency_ms_p99:,.0f} ms, with up to {WAITING_MAX} customers waiting"
    )
    yield "Speed", text
    yield "Until all was over", f"{timing.seconds:,.0f} s, holds that had to run out included"


def _troubles(summary: DemoSummary) -> Iterator[tuple[str, str]]:
    """Yield what went wrong outside, and what became of it."""
    duplicates, mended = summary.duplicates, summary.mended
    text = (
        f"{duplicates.webhooks_repeated:,} webhooks again, {duplicates.webhooks_overtaken:,} overtaken by others, "
        f"{duplicates.commands_repeated:,} commands again: none of them changed anything"
    )
    yield "Duplicates absorbed", text
    text = (
        f"of {mended.webhooks_lost:,} payments no webhook ever came; "
        f"{mended.found_by_reconciliation:,} were found by asking the gateway"
    )
    yield "Lost webhooks", text
    text = (
        f"{mended.paid_twice:,} orders; {mended.second_payments_refunded:,} second payments were given back"
    )
    yield "Paid twice", text
    text = (
        f"{mended.paid_late:,} orders; {mended.late_with_goods:,} still got their goods, "
        f"{mended.late_with_money_back:,} their money back"
    )
    yield "Paid too late", text
    text = (
        f"{mended.quarantined:,} payments; an operator accepted {mended.accepted_by_operator:,} "
        f"and gave {mended.refunded_by_operator:,} back"
    )
    yield "Not as asked for", text
