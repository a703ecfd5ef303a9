"""What came of the demo? The figures that a person, or a machine by `--json`, reads at the end."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.baskets import CURRENCY, DIRT, RealInput
from ops.audit import AuditReport
from ops.audit import render as render_audit
from ops.demo.day import WAITING_MAX, Visit
from ops.demo.plan import Plan, Story
from ops.demo.shop import Money
from shared.events import OrderStatus

_LINES_SHOWN = 20
_MINOR_PER_UNIT = 100


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What came more than once, or too late, and changed nothing.

    `webhooks_repeated` were delivered before, `webhooks_overtaken` said less than what was known already,
    `commands_repeated` were placed before.
    """

    webhooks_repeated: int
    webhooks_overtaken: int
    commands_repeated: int


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things took, in seconds and milliseconds.

    The latency of an order is from the moment before its `PlaceOrder` is published to the moment when this process reads
    from Kafka that its stock is held (`OrderAwaitingPayment`) or not (`OrderRejected`), while up to 200 customers wait
    for that or at the till. `orders_per_second` counts orders decided in this way from the first `PlaceOrder` to
    the last decision, without those that the plan holds back. `seconds` is from the first `PlaceOrder` until the last
    customer was through, holds that had to run out included.
    """

    orders_per_second: float
    latency_ms_p50: float
    latency_ms_p99: float
    seconds: float


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """Everything that the demo has to say."""

    orders: int
    by_status: dict[str, int]
    by_story: dict[str, dict[str, int]]
    real_input: dict[str, int]
    units_sold: int
    money: Money
    duplicates: Duplicates
    timing: Timing
    open_orders: list[str]
    problems: list[str]
    audit: AuditReport

    @property
    def ok(self) -> bool:
        """Whether every order has ended, as it had to, and the audit finds nothing."""
        return not self.open_orders and not self.problems and self.audit.ok

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints; money is in minor units."""
        return {
            "ok": self.ok,
            "orders": self.orders,
            "by_status": self.by_status,
            "open_orders": self.open_orders,
            "units_sold": self.units_sold,
            "money": {"currency": CURRENCY, **asdict(self.money)},
            "duplicates_absorbed": sum(asdict(self.duplicates).values()),
            "duplicates": asdict(self.duplicates),
            "orders_per_second": self.timing.orders_per_second,
            "latency_ms": {"p50": self.timing.latency_ms_p50, "p99": self.timing.latency_ms_p99},
            "seconds": self.timing.seconds,
            "input": self.real_input,
            "by_story": self.by_story,
            "problems": self.problems,
            "audit": self.audit.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen from outside, and what the books of others say."""

    visits: Sequence[Visit]
    problems: Sequence[str]
    units_sold: int
    money: Money
    webhook_verdicts: Mapping[str | None, int]
    ended_at: float
    audit: AuditReport


def summarize(real: RealInput, plan: Plan, observed: Observed) -> DemoSummary:
    """Compare what was seen with what was planned."""
    visits = observed.visits
    by_story: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for visit in visits:
        by_story[visit.planned.story.value][visit.status] += 1
    return DemoSummary(
        orders=len(visits),
        by_status=dict(Counter(visit.status for visit in visits).most_common()),
        by_story={story: dict(ends.most_common()) for story, ends in sorted(by_story.items())},
        real_input=_describe(real, plan),
        units_sold=observed.units_sold,
        money=observed.money,
        duplicates=Duplicates(
            webhooks_repeated=observed.webhook_verdicts.get("duplicate", 0),
            webhooks_overtaken=observed.webhook_verdicts.get("regressive", 0),
            commands_repeated=sum(
                visit.planned.same_command_again + visit.planned.same_content_again for visit in visits
            ),
        ),
        timing=_time(visits, observed.ended_at),
        open_orders=[f"{visit}: {visit.status}" for visit in visits if visit.is_open],
        problems=[*observed.problems, *_wrong_ends(visits), *_wrong_books(observed)],
        audit=observed.audit,
    )


def _describe(real: RealInput, plan: Plan) -> dict[str, int]:
    return {
        "baskets": len(real.baskets),
        "lines": sum(len(basket.lines) for basket in real.baskets),
        "units": sum(line.quantity for basket in real.baskets for line in basket.lines),
        "households": len({basket.customer_id for basket in real.baskets}),
        "products": len(real.products),
        "products_short": len(plan.short_skus),
        **real.dirt,
    }


def _time(visits: Sequence[Visit], ended_at: float) -> Timing:
    # Those who wait for others on purpose say nothing about how fast the system is.
    views = [
        visit.view
        for visit in visits
        if visit.view is not None and visit.planned.story is not Story.BUYS_WHAT_ANOTHER_LOST
    ]
    began_at = min((view.placed_at for view in views), default=ended_at)
    decided_at = [view.decided_at for view in views if view.decided_at is not None]
    latencies = sorted(view.decided_at - view.placed_at for view in views if view.decided_at is not None)
    took = max(decided_at, default=began_at) - began_at
    return Timing(
        orders_per_second=round(len(latencies) / took, 1) if took else 0.0,
        latency_ms_p50=round(percentile(latencies, 0.50) * 1_000, 1),
        latency_ms_p99=round(percentile(latencies, 0.99) * 1_000, 1),
        seconds=round(ended_at - began_at, 1),
    )


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the smallest value that is not below this share of all values; 0 if there is none."""
    return ascending[max(0, ceil(share * len(ascending)) - 1)] if ascending else 0.0


def _wrong_ends(visits: Iterable[Visit]) -> list[str]:
    """Name the orders that have ended otherwise than their story allows."""
    return [
        f"{visit}: ended {visit.status}, not {' or '.join(sorted(visit.may_end_in))}"
        for visit in visits
        if not visit.is_open and visit.status not in visit.may_end_in
    ]


def _wrong_books(observed: Observed) -> list[str]:
    """Compare the money that the gateway kept and the units that inventory sold with the orders that were confirmed."""
    confirmed = [visit.planned for visit in observed.visits if visit.status == OrderStatus.PROCESSING]
    worth_minor = sum(planned.total_minor for planned in confirmed)
    units = sum(line.quantity for planned in confirmed for line in planned.basket.lines)
    kept_minor = observed.money.taken_minor - observed.money.given_back_minor
    problems = []
    if kept_minor != worth_minor:
        problems.append(f"the gateway kept {kept_minor} cents for confirmed orders worth {worth_minor}")
    if observed.units_sold != units:
        problems.append(f"inventory sold {observed.units_sold} units for confirmed orders of {units}")
    if refused := observed.audit.counted.get("dead_letters"):
        problems.append(f"{refused} messages became dead letters")
    return problems


def render_summary(summary: DemoSummary, console: Console) -> None:
    """Print the summary for a person."""
    table = Table.grid(padding=(0, 3))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, text in _rows(summary):
        table.add_row(name, text)
    console.print(_stories(summary), highlight=False)
    console.print(table, highlight=False)
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


def _stories(summary: DemoSummary) -> Table:
    table = Table("Customers", "who", "and how it ended", box=None, pad_edge=False)
    table.columns[0].justify = "right"
    for story, ends in sorted(summary.by_story.items(), key=lambda item: -sum(item[1].values())):
        table.add_row(
            f"{sum(ends.values()):,}",
            story,
            ", ".join(f"{count:,} {status}" for status, count in ends.items()),
            style="dim",
        )
    return table


def _rows(summary: DemoSummary) -> Iterator[tuple[str, str]]:
    """Yield a name and a text for each line of the summary."""
    given, money, duplicates, timing = summary.real_input, summary.money, summary.duplicates, summary.timing
    text = (
        f"{given['baskets']:,} baskets of {given['households']:,} households: {given['lines']:,} lines, "
        f"{given['units']:,} units of {given['products']:,} products, {given['products_short']:,} of them short"
    )
    yield "Real input", text
    dirt = [f"{given[name]:,} {name.replace('_', ' ')}" for name in DIRT if given[name]]
    yield "Left out or mended", ", ".join(dirt) or "nothing"
    yield "Orders", ", ".join(f"{count:,} {status}" for status, count in summary.by_status.items())
    yield "Units sold", f"{summary.units_sold:,}"
    text = (
        f"{_dollars(money.taken_minor)} taken, {_dollars(money.given_back_minor)} given back, "
        f"{_dollars(money.taken_minor - money.given_back_minor)} kept (the gateway's books)"
    )
    yield "Money", text
    text = (
        f"{duplicates.webhooks_repeated:,} webhooks again, {duplicates.webhooks_overtaken:,} overtaken by others, "
        f"{duplicates.commands_repeated:,} commands again"
    )
    yield "Duplicates absorbed", text
    text = (
        f"{timing.orders_per_second:,.0f} orders/s; from PlaceOrder to the decision about its stock p50 "
        f"{timing.latency_ms_p50:,.0f} ms, p99 {timing.latency_ms_p99:,.0f} ms, with up to {WAITING_MAX} customers waiting"
    )
    yield "Speed", text
    yield "Until all was over", f"{timing.seconds:,.0f} s, holds that had to run out included"


def _dollars(minor: int) -> str:
    return f"{minor / _MINOR_PER_UNIT:,.2f} {CURRENCY}"
