"""Where does an order stand, given what is known of its stock, its payment and its cancellation?

The table of the protocol as a pure function, and the ranks by which each facet is joined: a facet never goes down, and
of two states of one rank the newer by its producer's sequence holds, so that any order of delivery ends the same.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from shared.events import OrderStatus, PaymentFact, PaymentStatus, ReservationStatus, StockFact


class Stock(StrEnum):
    """What the order service knows of an order's units."""

    NONE = "NONE"
    HELD = "HELD"
    REJECTED = "REJECTED"
    RELEASED = "RELEASED"
    CONFIRMED = "CONFIRMED"
    UNAVAILABLE = "UNAVAILABLE"
    RETURNED = "RETURNED"


_STOCK_RANK = {
    Stock.NONE: 0,
    Stock.HELD: 1,
    Stock.REJECTED: 1,
    Stock.RELEASED: 2,
    Stock.CONFIRMED: 3,
    Stock.UNAVAILABLE: 3,
    Stock.RETURNED: 4,
}

_PAYMENT_RANK = {
    None: 0,
    PaymentStatus.PENDING: 1,
    PaymentStatus.QUARANTINED: 1,
    PaymentStatus.FAILED: 2,
    PaymentStatus.CANCELLED: 2,
    PaymentStatus.SUCCEEDED: 3,
    PaymentStatus.REFUNDED: 4,
}

#: The statuses in which a cancellation is accepted.
CANCELLABLE = frozenset({OrderStatus.REQUESTED, OrderStatus.AWAITING_PAYMENT, OrderStatus.PROCESSING})


@dataclass(frozen=True, slots=True)
class StockState:
    """The stock facet as inventory last told it; `sequence` is that of the event that carried it."""

    facet: Stock = Stock.NONE
    reason: str | None = None
    sequence: int = 0

    @staticmethod
    def carried_by(fact: StockFact, sequence: int) -> "StockState":
        """Return the state that an inventory event carries; `unavailable` is a mark on a released reservation."""
        if fact.reservation_status is ReservationStatus.REJECTED:
            return StockState(Stock.REJECTED, "insufficient_stock", sequence)
        if fact.unavailable and fact.reservation_status is ReservationStatus.RELEASED:
            return StockState(Stock.UNAVAILABLE, fact.reservation_reason, sequence)
        return StockState(Stock(fact.reservation_status), fact.reservation_reason, sequence)

    def joined(self, other: "StockState") -> "StockState":
        """Return whichever of the two states is further on."""
        mine, theirs = _STOCK_RANK[self.facet], _STOCK_RANK[other.facet]
        return other if (theirs, other.sequence) > (mine, self.sequence) else self


@dataclass(frozen=True, slots=True)
class PaymentState:
    """The payment facet as the payment service last told it, with the money behind it in minor units."""

    status: PaymentStatus | None = None
    reason: str | None = None
    sequence: int = 0
    settled_attempt_id: UUID | None = None
    settled_amount_minor: int | None = None
    settled_currency: str | None = None
    refunded_minor: int = 0
    paid_at: datetime | None = None

    @staticmethod
    def carried_by(fact: PaymentFact, sequence: int) -> "PaymentState":
        """Return the state that a payment event carries."""
        return PaymentState(
            status=fact.payment_status,
            reason=fact.payment_reason,
            sequence=sequence,
            settled_attempt_id=fact.settled_attempt_id,
            settled_amount_minor=fact.settled_amount_minor,
            settled_currency=fact.settled_currency,
            refunded_minor=fact.refunded_minor,
            paid_at=fact.paid_at,
        )

    def joined(self, other: "PaymentState") -> "PaymentState":
        """Return whichever of the two states is further on."""
        mine, theirs = _PAYMENT_RANK[self.status], _PAYMENT_RANK[other.status]
        return other if (theirs, other.sequence) > (mine, self.sequence) else self


_STATUS_UNPAID = {
    Stock.NONE: OrderStatus.REQUESTED,
    Stock.HELD: OrderStatus.AWAITING_PAYMENT,
    Stock.REJECTED: OrderStatus.REJECTED,
    Stock.CONFIRMED: OrderStatus.AWAITING_PAYMENT,
    Stock.UNAVAILABLE: OrderStatus.AWAITING_PAYMENT,
    Stock.RETURNED: OrderStatus.AWAITING_PAYMENT,
}

_STATUS_PAID = {
    Stock.NONE: OrderStatus.AWAITING_PAYMENT,
    Stock.HELD: OrderStatus.AWAITING_PAYMENT,
    Stock.REJECTED: OrderStatus.REFUND_DUE,
    Stock.RELEASED: OrderStatus.AWAITING_PAYMENT,
    Stock.CONFIRMED: OrderStatus.PROCESSING,
    Stock.UNAVAILABLE: OrderStatus.REFUND_DUE,
    Stock.RETURNED: OrderStatus.REFUND_DUE,
}


def status_of(stock: StockState, payment: PaymentState, *, cancelled: bool) -> OrderStatus:
    """Return the status that the facets add up to, in whatever order they became known."""
    if payment.status is PaymentStatus.REFUNDED:
        return OrderStatus.REFUNDED
    paid = payment.status is PaymentStatus.SUCCEEDED
    if cancelled:
        return OrderStatus.REFUND_DUE if paid else OrderStatus.CANCELLED
    if paid:
        return _STATUS_PAID[stock.facet]
    if stock.facet is Stock.RELEASED:
        return OrderStatus.EXPIRED if stock.reason == "expired" else OrderStatus.PAYMENT_FAILED
    return _STATUS_UNPAID[stock.facet]
