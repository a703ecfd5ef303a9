"""How many orders, and how much money, does each of the three tell of? By currency and gateway."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ops.reconcile.rules import Case

#: The gateway of what no attempt accounts for.
UNKNOWN_GATEWAY = "(none)"


@dataclass(slots=True)
class Sum:
    """How many, and how much in minor units."""

    count: int = 0
    minor: int = 0

    def add(self, minor: int) -> None:
        """Add one."""
        self.count += 1
        self.minor += minor


@dataclass(slots=True)
class Figure:
    """What belongs to one currency and one gateway.

    Attributes:
        currency: ISO 4217.
        gateway: the gateway that settled; `(none)` where goods or news have no attempt behind them.
        settled: attempts for which the gateway took money.
        given_back: refunds that it has made.
        heard: orders whose payment the order service has heard of.
        goods: orders whose goods are sold, at what was paid for them.
        orders: orders that any of the three tells of.
        agreed: orders about which all three agree.
        open: orders that are still on their way: a refund within its time, or changes as long as they were looked at.
    """

    currency: str
    gateway: str
    settled: Sum = field(default_factory=Sum)
    given_back: Sum = field(default_factory=Sum)
    heard: Sum = field(default_factory=Sum)
    goods: Sum = field(default_factory=Sum)
    orders: int = 0
    agreed: int = 0
    open: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return asdict(self)


class Figures:
    """Adds up, order by order; in memory there is one figure for each currency and gateway."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], Figure] = {}

    def __iter__(self) -> Iterator[Figure]:
        return iter([self._figures[key] for key in sorted(self._figures)])

    def of(self, currency: str, gateway: str) -> Figure:
        """Return the figure of a currency and a gateway."""
        return self._figures.setdefault((currency, gateway), Figure(currency, gateway))

    def add(self, case: Case) -> Figure:
        """Count an order, and return the figure that it belongs to."""
        for attempt in case.attempts:
            if attempt.is_settled:
                self.of(attempt.currency, attempt.gateway).settled.add(attempt.received_minor or 0)
        for refund in case.refunds:
            if refund.is_done:
                self.of(refund.currency, refund.gateway).given_back.add(refund.amount_minor)
        figure = self.of(*_place(case))
        figure.orders += 1
        if case.is_heard and case.order is not None:
            heard = case.order.settled_minor
            figure.heard.add(_worth(case) if heard is None else heard)
        if case.has_goods:
            figure.goods.add(_worth(case))
        return figure


def _place(case: Case) -> tuple[str, str]:
    attempt = case.settled_attempt
    if attempt is not None:
        return attempt.currency, attempt.gateway
    if case.payment is not None and case.payment.settled_currency is not None:
        return case.payment.settled_currency, UNKNOWN_GATEWAY
    return "" if case.order is None else case.order.currency, UNKNOWN_GATEWAY


def _worth(case: Case) -> int:
    """Return what was paid for an order, or else what it costs."""
    if case.payment is not None and case.payment.settled_minor is not None:
        return case.payment.settled_minor
    return 0 if case.order is None else case.order.total_minor
