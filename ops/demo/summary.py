"""What came of the demo? The figures that a person, or a machine by `--json`, reads at the end."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from benchmarks.baskets import CURRENCY, RealInput
from ops.audit import AuditReport
from ops.demo.banks import Money
from ops.demo.day import Visit
from ops.demo.market import WEIGHTS, GatewayName, currency_of
from ops.demo.plan import LATE, Plan, Story
from shared.events import OrderStatus

_LINES_SHOWN = 20
_MINOR_PER_UNIT = 100


@dataclass(frozen=True, slots=True)
class AtGateway:
    """What happened at one gateway: amounts are in minor units, `webhooks` counts deliveries by verdict.

    `found_by_asking` is of how many payments the payment service says to have learned without a webhook: those whose
    webhooks were lost, and those that it called back.
    """

    currency: str
    orders: int
    by_status: dict[str, int]
    taken_minor: int
    given_back_minor: int
    webhooks: dict[str, int]
    found_by_asking: int


@dataclass(frozen=True, slots=True)
class Mended:
    """What went wrong outside, and came right all the same.

    Payments of which no webhook ever came (`webhooks_lost`) and that reconciliation found; orders that were paid twice,
    and what came twice given back; payments that came when the order had ended: the goods were still there, or the
    money went back; money that was not as asked for and on which an operator decided.
    """

    webhooks_lost: int
    found_by_reconciliation: int
    paid_twice: int
    second_payments_refunded: int
    paid_late: int
    late_with_goods: int
    late_with_money_back: int
    quarantined: int
    accepted_by_operator: int
    refunded_by_operator: int


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
    gateways: dict[GatewayName, AtGateway]
    left_out: dict[str, str]
    mended: Mended
    duplicates: Duplicates
    timing: Timing
    open_orders: list[str]
    problems: list[str]
    audit: AuditReport

    @property
    def money(self) -> dict[str, Money]:
        """What the gateways took and gave back, by currency."""
        money: defaultdict[str, Money] = defaultdict(Money)
        for at in self.gateways.values():
            money[at.currency] += Money(at.taken_minor, at.given_back_minor)
        return dict(money)

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
            "money": {"currency": CURRENCY, **asdict(self.money.get(CURRENCY, Money()))},
            "money_by_currency": {currency: asdict(money) for currency, money in self.money.items()},
            "gateways": {name: asdict(at) for name, at in self.gateways.items()},
            "gateways_left_out": self.left_out,
            "mended": asdict(self.mended),
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
    money: Mapping[GatewayName, Money]
    webhook_verdicts: Mapping[tuple[str, str | None], int]
    found_by_asking: Mapping[str, int]
    ended_at: float
    audit: AuditReport


def summarize(real: RealInput, plan: Plan, observed: Observed, *, left_out: Mapping[str, str]) -> DemoSummary:
    """Compare what was seen with what was planned; `left_out` says why a gateway could not take part."""
    visits = observed.visits
    verdicts = Counter[str | None]()
    for (_, verdict), count in observed.webhook_verdicts.items():
        verdicts[verdict] += count
    by_story: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for visit in visits:
        by_story[visit.planned.story.value][visit.status] += 1
    return DemoSummary(
        orders=len(visits),
        by_status=dict(Counter(visit.status for visit in visits).most_common()),
        by_story={story: dict(ends.most_common()) for story, ends in sorted(by_story.items())},
        real_input=_describe(real, plan),
        units_sold=observed.units_sold,
        gateways={name: _at_gateway(name, observed) for name in WEIGHTS if name in observed.money},
        left_out=dict(left_out),
        mended=_mended(visits),
        duplicates=Duplicates(
            webhooks_repeated=verdicts["duplicate"],
            webhooks_overtaken=verdicts["regressive"],
            commands_repeated=sum(
                visit.planned.same_command_again + visit.planned.same_content_again for visit in visits
            ),
        ),
        timing=_time(visits, observed.ended_at),
        open_orders=[f"{visit}: {visit.status}" for visit in visits if visit.is_open],
        problems=[*observed.problems, *_wrong_ends(visits), *_wrong_books(observed)],
        audit=observed.audit,
    )


def _at_gateway(name: GatewayName, observed: Observed) -> AtGateway:
    statuses = Counter(visit.status for visit in observed.visits if visit.planned.gateway == name)
    webhooks = {
        verdict or "not judged": count
        for (gateway, verdict), count in observed.webhook_verdicts.items()
        if gateway == name
    }
    money = observed.money[name]
    return AtGateway(
        currency=currency_of(name),
        orders=statuses.total(),
        by_status=dict(statuses.most_common()),
        taken_minor=money.taken_minor,
        given_back_minor=money.given_back_minor,
        webhooks=dict(sorted(webhooks.items())),
        found_by_asking=observed.found_by_asking.get(name, 0),
    )


def _mended(visits: Sequence[Visit]) -> Mended:
    played = [visit for visit in visits if visit.view is not None and not visit.turned_away]
    unheard = [visit for visit in played if visit.planned.story is Story.PAYS_UNHEARD]
    twice = [visit for visit in played if visit.planned.story is Story.PAYS_TWICE]
    late = [visit for visit in played if visit.planned.story in LATE]
    other = [visit for visit in played if visit.planned.story is Story.PAYS_ANOTHER_AMOUNT]
    quarantined = [visit for visit in visits if visit.view is not None and visit.view.quarantined_attempts]
    return Mended(
        webhooks_lost=len(unheard),
        found_by_reconciliation=_count_in(OrderStatus.PROCESSING, unheard),
        paid_twice=len(twice),
        second_payments_refunded=sum(bool(visit.view and visit.view.refunded_attempts) for visit in twice),
        paid_late=len(late),
        late_with_goods=_count_in(OrderStatus.PROCESSING, late),
        late_with_money_back=_count_in(OrderStatus.REFUNDED, late),
        quarantined=len(quarantined),
        accepted_by_operator=sum(visit not in other for visit in quarantined),
        refunded_by_operator=sum(visit in other for visit in quarantined),
    )


def _count_in(status: OrderStatus, visits: Iterable[Visit]) -> int:
    return sum(visit.status == status for visit in visits)


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
    """Compare the money that each gateway kept and the units that inventory sold with the orders that were confirmed."""
    confirmed = [visit.planned for visit in observed.visits if visit.status == OrderStatus.PROCESSING]
    problems = []
    for gateway, money in observed.money.items():
        worth_minor = sum(planned.total_minor for planned in confirmed if planned.gateway == gateway)
        kept_minor = money.taken_minor - money.given_back_minor
        if kept_minor != worth_minor:
            kept, worth = (show_money(minor, currency_of(gateway)) for minor in (kept_minor, worth_minor))
            problems.append(f"{gateway} kept {kept} for confirmed orders worth {worth}")
    units = sum(line.quantity for planned in confirmed for line in planned.basket.lines)
    if observed.units_sold != units:
        problems.append(f"inventory sold {observed.units_sold} units for confirmed orders of {units}")
    if refused := observed.audit.counted.get("dead_letters"):
        problems.append(f"{refused} messages became dead letters")
    return problems


def show_money(minor: int, currency: str) -> str:
    """Return an amount as people write it."""
    return f"{minor / _MINOR_PER_UNIT:,.2f} {currency}"
