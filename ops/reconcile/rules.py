"""R1 to R7: which disagreements are there between gateway, order service and inventory about one order?

Pure rules over what the three databases say of it, written from docs/protocol.md and without anything of the services.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from ops.audit import Finding
from ops.audit.findings import Suspect
from ops.reconcile.limits import ReconcileLimits
from shared.events import PaymentStatus, ReservationStatus

_PAID = frozenset({PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDED})


class OrderRow(NamedTuple):
    """What the order service says; `payment` is what it has heard, `heard_at` when that was settled, or changed last."""

    order_id: UUID
    status: str
    payment: str | None
    settled_attempt_id: UUID | None
    settled_minor: int | None
    total_minor: int
    currency: str
    heard_at: datetime
    young: bool


class ReservationRow(NamedTuple):
    """What inventory says."""

    order_id: UUID
    status: str | None
    changed_at: datetime
    young: bool


class PaymentRow(NamedTuple):
    """What the payment service says; settled by an attempt, or by none."""

    order_id: UUID
    status: str
    settled_attempt_id: UUID | None
    settled_minor: int | None
    settled_currency: str | None
    paid_at: datetime | None
    young: bool


class AttemptRow(NamedTuple):
    """An attempt; `review_seconds` is how long it waits for a person's decision, None if it does not."""

    attempt_id: UUID
    order_id: UUID
    gateway: str
    status: str
    asked_minor: int
    received_minor: int | None
    currency: str
    dispute: str | None
    review_reason: str | None
    review_seconds: float | None
    age_seconds: float
    young: bool

    @property
    def is_settled(self) -> bool:
        """Whether the gateway took money for it, given back or not."""
        return self.status in _PAID


class RefundRow(NamedTuple):
    """Money of an attempt that goes back."""

    order_id: UUID
    attempt_id: UUID
    gateway: str
    status: str
    amount_minor: int
    currency: str
    error: str | None
    age_seconds: float

    @property
    def is_done(self) -> bool:
        """Whether the gateway has given it back."""
        return self.status == "SUCCEEDED"


@dataclass(frozen=True, slots=True)
class Case:
    """What the three databases say of one order; None where one has no row of it."""

    order_id: UUID
    order: OrderRow | None = None
    reservation: ReservationRow | None = None
    payment: PaymentRow | None = None
    attempts: Sequence[AttemptRow] = ()
    refunds: Sequence[RefundRow] = ()

    @property
    def is_settled(self) -> bool:
        """Whether an attempt has settled the payment."""
        return self.payment is not None and self.payment.settled_attempt_id is not None

    @property
    def is_heard(self) -> bool:
        """Whether the order service has heard `PaymentSucceeded`, or what came after it."""
        return self.order is not None and self.order.payment in _PAID

    @property
    def has_goods(self) -> bool:
        """Whether the goods are sold."""
        return self.reservation is not None and self.reservation.status == ReservationStatus.CONFIRMED

    @property
    def at(self) -> datetime | None:
        """When it was paid, or else when goods or news of a payment came; None if there is nothing of that."""
        if self.payment is not None and self.payment.paid_at is not None:
            return self.payment.paid_at
        if self.order is not None and self.is_heard:
            return self.order.heard_at
        return self.reservation.changed_at if self.reservation is not None and self.has_goods else None

    @property
    def young(self) -> bool:
        """Whether something changed so lately that news of it may still be on its way."""
        rows = (self.order, self.reservation, self.payment, *self.attempts)
        return any(row is not None and row.young for row in rows)

    @property
    def settled_attempt(self) -> AttemptRow | None:
        """The attempt that settled the payment."""
        settled = None if self.payment is None else self.payment.settled_attempt_id
        return next((attempt for attempt in self.attempts if attempt.attempt_id == settled), None)


def find_unheard(case: Case, _limits: ReconcileLimits) -> Iterator[str]:
    """R1: the order service has heard of every settlement, of its amount, and of the money that went back."""
    payment, order = case.payment, case.order
    if payment is None or payment.settled_attempt_id is None:
        return
    settled = _money(payment.settled_minor, payment.settled_currency)
    if order is None:
        yield f"{_gateway(case)} settled {settled}, and the order service knows no such order"
    elif not case.is_heard:
        yield (
            f"{_gateway(case)} settled {settled}, and the order service has not heard of it "
            f"(payment {order.payment}, order {order.status})"
        )
    elif order.settled_minor not in {None, payment.settled_minor}:
        heard = _money(order.settled_minor, payment.settled_currency)
        yield f"{_gateway(case)} settled {settled}, and the order service has heard of {heard}"
    elif payment.status == PaymentStatus.REFUNDED and order.payment != PaymentStatus.REFUNDED:
        yield f"{settled} went back, and the order service has not heard of it (order {order.status})"


def find_money_without_goods(case: Case, _limits: ReconcileLimits) -> Iterator[str]:
    """R2: for money that a gateway keeps there are goods, or it goes back; goods match one payment only."""
    settled = case.settled_attempt
    for attempt in case.attempts:
        kept = (attempt.received_minor or 0) - sum(
            refund.amount_minor for refund in case.refunds if refund.attempt_id == attempt.attempt_id
        )
        if not attempt.is_settled or kept <= 0 or (case.has_goods and attempt == settled):
            continue
        lack = f"no goods (reservation {_stock(case)})" if attempt == settled else "it settled nothing"
        yield f"{attempt.gateway} keeps {_money(kept, attempt.currency)} of attempt {attempt.attempt_id}: {lack}, no refund"


def find_goods_without_money(case: Case, _limits: ReconcileLimits) -> Iterator[str]:
    """R3: goods are sold only for money that was settled and is not given back in full."""
    if not case.has_goods:
        return
    status = None if case.payment is None else case.payment.status
    if not case.is_settled:
        yield f"the goods are confirmed, the payment is {status or 'missing'}"
    elif status == PaymentStatus.REFUNDED:
        yield "the goods are confirmed, though the money went back"


def find_refunds_not_made(case: Case, limits: ReconcileLimits) -> Iterator[str]:
    """R4: no refund is refused, or open for too long."""
    for refund in case.refunds:
        if refund.is_done or (refund.status != "FAILED" and refund.age_seconds < limits.refund_seconds_max):
            continue
        error = f" ({refund.error})" if refund.error else ""
        yield (
            f"the refund of {_money(refund.amount_minor, refund.currency)} by {refund.gateway} is {refund.status} "
            f"after {_age(refund.age_seconds)}{error}"
        )


def find_undecided(case: Case, _limits: ReconcileLimits) -> Iterator[str]:
    """R5: no money waits for a person's decision."""
    for attempt in case.attempts:
        if attempt.status != "QUARANTINED" and attempt.review_seconds is None:
            continue
        what = f"contested ({attempt.dispute})" if attempt.dispute else "quarantined"
        reason = f", {attempt.review_reason}" if attempt.review_reason and not attempt.dispute else ""
        seconds = attempt.age_seconds if attempt.review_seconds is None else attempt.review_seconds
        yield (
            f"{_received(attempt)} by {attempt.gateway} are {what}{reason}, and wait for a decision since "
            f"{_age(seconds)}"
        )


def find_unknown_attempts(case: Case, limits: ReconcileLimits) -> Iterator[str]:
    """R6: no attempt is UNKNOWN for too long."""
    for attempt in case.attempts:
        if attempt.status == "UNKNOWN" and attempt.age_seconds >= limits.unknown_seconds_max:
            yield (
                f"{attempt.gateway} has not said for {_age(attempt.age_seconds)} what became of "
                f"{_money(attempt.asked_minor, attempt.currency)} (attempt {attempt.attempt_id})"
            )


def find_believed(case: Case, _limits: ReconcileLimits) -> Iterator[str]:
    """R7: the order service believes in no payment that there is not."""
    if case.order is not None and case.is_heard and not case.is_settled:
        status = "missing" if case.payment is None else case.payment.status
        yield f"the order service heard that it is paid (order {case.order.status}), the payment is {status}"


Rule = Callable[[Case, ReconcileLimits], Iterator[str]]

#: What heals by itself as soon as news has arrived.
ON_THEIR_WAY: Mapping[str, Rule] = MappingProxyType(
    {"R1": find_unheard, "R2": find_money_without_goods, "R3": find_goods_without_money, "R7": find_believed}
)
#: What has had its time already, by the limits.
OVERDUE: Mapping[str, Rule] = MappingProxyType(
    {"R4": find_refunds_not_made, "R5": find_undecided, "R6": find_unknown_attempts}
)


def judge(case: Case, limits: ReconcileLimits) -> list[Suspect]:
    """Return the disagreements about an order, one for each rule that is broken."""
    return [
        Suspect(Finding(check, str(case.order_id), wrong), young)
        for rules, young in ((ON_THEIR_WAY, case.young), (OVERDUE, False))
        for check, rule in rules.items()
        if (wrong := "; ".join(rule(case, limits)))
    ]


def _gateway(case: Case) -> str:
    attempt = case.settled_attempt
    return "an unknown gateway" if attempt is None else attempt.gateway


def _stock(case: Case) -> str:
    return str(None if case.reservation is None else case.reservation.status)


def _received(attempt: AttemptRow) -> str:
    asked = _money(attempt.asked_minor, attempt.currency)
    if attempt.received_minor in {None, attempt.asked_minor}:
        return asked
    return f"{_money(attempt.received_minor, attempt.currency)} instead of {asked}"


def _money(minor: int | None, currency: str | None) -> str:
    return f"{minor} {currency}"


def _age(seconds: float) -> str:
    """Return an age in the unit that makes it short."""
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"
