"""How does one order move, and what does it tell when it does?

An order joins what it hears by rank, follows the protocol's table, and keeps what has to be saved of this batch: its
transitions (one history row and one version each) and its events (numbered without holes).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never, cast
from uuid import UUID

from services.order_service.domain.cart import CartOutcome
from services.order_service.domain.placing import Quote
from services.order_service.domain.status import CANCELLABLE, PaymentState, Stock, StockState, status_of
from shared.envelope import Emitted
from shared.errors import LedgerViolation
from shared.events import (
    OrderAwaitingPayment,
    OrderCancelled,
    OrderConfirmed,
    OrderExpired,
    OrderFact,
    OrderPaymentFailed,
    OrderRefunded,
    OrderRefundRequested,
    OrderRejected,
    OrderRequested,
    OrderStatus,
    PaymentFact,
    PaymentInitiated,
    PlaceOrder,
    PricedLine,
    RefundReason,
    RejectionReason,
    StockFact,
    StockRejected,
    StockReserved,
)


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of an order: the version it made, where it led, why, and by which message."""

    version: int
    status: OrderStatus
    reason: str | None
    cause: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Cancellation:
    """That an order was cancelled, why, and by whom."""

    reason: str | None
    requested_by: str


@dataclass(slots=True)
class Order:
    """One order: what was ordered, what is known of it, and where it therefore stands.

    `lines` is None where they were not loaded; amounts are in minor units of `currency`. `cart_outcome` is what the
    order has decided about the cart it was placed from.
    """

    order_id: UUID
    customer_id: str
    currency: str
    total_minor: int
    hold_seconds: int | None
    fingerprint: bytes
    created_at: datetime
    updated_at: datetime
    lines: tuple[PricedLine, ...] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    pay_by: datetime | None = None
    payment_url: str | None = None
    payment_url_sequence: int = 0
    stock: StockState = field(default_factory=StockState)
    payment: PaymentState = field(default_factory=PaymentState)
    cancellation: Cancellation | None = None
    cart_id: str | None = None
    cart_outcome: CartOutcome | None = None
    status: OrderStatus = OrderStatus.REQUESTED
    reason: str | None = None
    version: int = 0
    sequence: int = 0
    changed: bool = False
    transitions: list[Transition] = field(default_factory=list)
    emitted: list[Emitted] = field(default_factory=list)

    @staticmethod
    def placed(
        command: PlaceOrder,
        quote: Quote,
        *,
        hold_seconds: int | None,
        fingerprint: bytes,
        cause: str,
        at: datetime,
    ) -> "Order":
        """Open an order at its quote: REQUESTED, or REJECTED for what speaks against it.

        Without `hold_seconds` inventory decides how long its units are held.
        """
        rejection = quote.rejection
        order = Order(
            order_id=command.order_id,
            customer_id=command.customer_id,
            currency=command.currency,
            total_minor=quote.total_minor,
            hold_seconds=hold_seconds,
            fingerprint=fingerprint,
            created_at=at,
            updated_at=at,
            lines=quote.lines,
            cart_id=command.cart_id,
        )
        if rejection is not None:
            order.stock = StockState(Stock.REJECTED, rejection.reason)
            order._decide_cart(CartOutcome.GIVEN_BACK)
            order.details = dict(rejection.details)
        order._enter(order._due_status(), None, cause, at)
        return order

    def is_for(self, customer_id: str | None) -> bool:
        """Tell whether a caller may know of the order: a customer of its own, anybody else (None) of every one."""
        return customer_id is None or customer_id == self.customer_id

    @property
    def is_cancelled(self) -> bool:
        """Tell whether the order was cancelled, wherever its money stands."""
        return self.cancellation is not None

    @property
    def holds_cart(self) -> bool:
        """Tell whether a cart waits for what becomes of the order."""
        return self.cart_id is not None and self.cart_outcome is None

    def join_stock(self, fact: StockFact, *, sequence: int, cause: str, at: datetime) -> None:
        """Take what an inventory event carries, if it is news, and move accordingly."""
        if isinstance(fact, StockReserved) and self.pay_by is None:
            self.pay_by = fact.expires_at
            self._touch(at)
        if isinstance(fact, StockRejected) and not self.details:
            self.details = {"shortages": [shortage.model_dump() for shortage in fact.shortages]}
            self._touch(at)
        joined = self.stock.joined(StockState.carried_by(fact, sequence))
        if joined is not self.stock:
            self.stock = joined
            rejected = joined.facet is Stock.REJECTED
            self._decide_cart(CartOutcome.GIVEN_BACK if rejected else CartOutcome.CLEARED)
            self._touch(at)
            self._follow(cause, at)

    def join_payment(self, fact: PaymentFact, *, sequence: int, cause: str, at: datetime) -> None:
        """Take what a payment event carries, if it is news, and move accordingly."""
        if isinstance(fact, PaymentInitiated) and sequence > self.payment_url_sequence:
            self.payment_url, self.payment_url_sequence = fact.payment_url, sequence
            self._touch(at)
        joined = self.payment.joined(PaymentState.carried_by(fact, sequence))
        if joined is not self.payment:
            self.payment = joined
            self._touch(at)
            self._follow(cause, at)

    def cancel(self, reason: str | None, *, requested_by: str, cause: str, at: datetime) -> bool:
        """Cancel the order and tell so; return False, changing nothing, where its status no longer allows it."""
        if self.status not in CANCELLABLE:
            return False
        if self.status is OrderStatus.REQUESTED:
            self._decide_cart(CartOutcome.GIVEN_BACK)
        self.cancellation = Cancellation(reason, requested_by)
        self._touch(at)
        self._follow(cause, at)
        return True

    def tell_again(self, lost: Sequence[int], cause: str, at: datetime) -> None:
        """Tell once more where the order stands, as its readers join what an event carries by rank.

        Args:
            lost: numbers of events that no topic holds any more, to be told under; without any, new ones are given out.
            cause: what the events name as their cause.
            at: the time of the batch.
        """
        key = str(self.order_id)
        standing = tuple(self._standing(at))
        for number in lost:
            opens = number == 1 and not self._was_refused
            told = (self._requested(),) if opens else standing
            self.emitted += [Emitted(event, key, number, cause, key) for event in told]
        events = {type(event): event for event in (*self._opening(), *standing)}
        for event in () if lost else events.values():
            self.sequence += 1
            self.changed = True
            self.emitted.append(Emitted(event, key, self.sequence, cause, key))

    @property
    def _was_refused(self) -> bool:
        """Tell whether the order was rejected as it was placed, so that nobody was asked for its goods."""
        return self.stock.facet is Stock.REJECTED and not self.stock.sequence

    def _opening(self) -> Iterator[OrderFact]:
        """Yield the event that asks for the goods, as long as inventory has not answered."""
        if self.stock.facet is Stock.NONE:
            yield self._requested()

    def _standing(self, at: datetime) -> Iterator[OrderFact]:
        """Yield the event that says where the order stands; a cancellation says it to everybody."""
        if self.cancellation is not None:
            yield self._cancelled(self.cancellation)
        else:
            yield from self._told_of(self.status, at)

    def _decide_cart(self, outcome: CartOutcome) -> None:
        """Decide the cart, once: what becomes of the order later changes nothing for it."""
        if self.holds_cart:
            self.cart_outcome = outcome

    def _touch(self, at: datetime) -> None:
        self.changed = True
        self.updated_at = at

    def _due_status(self) -> OrderStatus:
        return status_of(self.stock, self.payment, cancelled=self.is_cancelled)

    def _follow(self, cause: str, at: datetime) -> None:
        """Move to where the facets now lead, if that is elsewhere."""
        status = self._due_status()
        if status is not self.status:
            self._enter(status, self.status, cause, at)

    def _enter(self, status: OrderStatus, before: OrderStatus | None, cause: str, at: datetime) -> None:
        """Record the step into a status and tell of it."""
        self.status = status
        self.reason = self._reason()
        self.version += 1
        self.transitions.append(Transition(self.version, status, self.reason, cause, at))
        key = str(self.order_id)
        for event in self._news(before, at):
            self.sequence += 1
            self.emitted.append(Emitted(event, key, self.sequence, cause, key))

    def _reason(self) -> str | None:
        match self.status:
            case OrderStatus.REQUESTED | OrderStatus.AWAITING_PAYMENT | OrderStatus.PROCESSING:
                return None
            case OrderStatus.REJECTED | OrderStatus.PAYMENT_FAILED | OrderStatus.EXPIRED:
                return self.stock.reason
            case OrderStatus.CANCELLED:
                return self.cancellation.reason if self.cancellation is not None else None
            case OrderStatus.REFUND_DUE:
                return self._refund_reason()
            case OrderStatus.REFUNDED:
                decided_here = self.is_cancelled or self.stock.facet in {Stock.REJECTED, Stock.UNAVAILABLE}
                return self._refund_reason() if decided_here else "operator"
            case unreachable:
                assert_never(unreachable)

    def _refund_reason(self) -> RefundReason:
        return "cancelled" if self.is_cancelled else "unavailable"

    def _news(self, before: OrderStatus | None, at: datetime) -> Iterator[OrderFact]:
        """Yield the events of a step, in the order in which they are told.

        Late money that leads from EXPIRED or PAYMENT_FAILED back to AWAITING_PAYMENT tells nothing.
        """
        if before in CANCELLABLE and self.cancellation is not None:
            yield self._cancelled(self.cancellation)
        if self.status is not OrderStatus.AWAITING_PAYMENT or before is OrderStatus.REQUESTED:
            yield from self._told_of(self.status, at)

    def _told_of(self, status: OrderStatus, at: datetime) -> Iterator[OrderFact]:
        """Yield the event of a status, if it has one of its own."""
        match status:
            case OrderStatus.REQUESTED:
                yield self._requested()
            case OrderStatus.AWAITING_PAYMENT:
                yield self._awaiting_payment(at)
            case OrderStatus.PROCESSING:
                yield self._confirmed(at)
            case OrderStatus.REJECTED:
                yield self._rejected()
            case OrderStatus.PAYMENT_FAILED:
                yield self._payment_failed()
            case OrderStatus.EXPIRED:
                yield self._expired()
            case OrderStatus.CANCELLED:
                pass
            case OrderStatus.REFUND_DUE:
                yield self._refund_requested()
            case OrderStatus.REFUNDED:
                yield self._refunded()
            case unreachable:
                assert_never(unreachable)

    def _requested(self) -> OrderRequested:
        return OrderRequested(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            customer_id=self.customer_id,
            lines=self._loaded_lines(),
            total_minor=self.total_minor,
            currency=self.currency,
            hold_seconds=self.hold_seconds,
        )

    def _awaiting_payment(self, at: datetime) -> OrderAwaitingPayment:
        return OrderAwaitingPayment(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            customer_id=self.customer_id,
            total_minor=self.total_minor,
            currency=self.currency,
            # Unknown only where a later event overtook `StockReserved`: then no time to pay is promised.
            pay_by=self.pay_by or at,
        )

    def _confirmed(self, at: datetime) -> OrderConfirmed:
        return OrderConfirmed(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            customer_id=self.customer_id,
            lines=self._loaded_lines(),
            total_minor=self.total_minor,
            currency=self.currency,
            paid_at=self.payment.paid_at or at,
        )

    def _rejected(self) -> OrderRejected:
        return OrderRejected(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            reason=cast("RejectionReason", self.reason),
            details=self.details,
        )

    def _payment_failed(self) -> OrderPaymentFailed:
        return OrderPaymentFailed(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            reason=self.reason or "payment_failed",
        )

    def _expired(self) -> OrderExpired:
        return OrderExpired(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            reason=self.reason or "expired",
        )

    def _cancelled(self, cancellation: Cancellation) -> OrderCancelled:
        return OrderCancelled(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            reason=cancellation.reason,
            requested_by=cancellation.requested_by,
        )

    def _refund_requested(self) -> OrderRefundRequested:
        settled = self.payment.settled_amount_minor
        paid_minor = self.total_minor if settled is None else settled
        return OrderRefundRequested(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            amount_minor=max(paid_minor - self.payment.refunded_minor, 0),
            currency=self.payment.settled_currency or self.currency,
            reason=self._refund_reason(),
        )

    def _refunded(self) -> OrderRefunded:
        return OrderRefunded(
            order_id=self.order_id,
            order_status=self.status,
            cancelled=self.is_cancelled,
            amount_minor=self.payment.refunded_minor,
            currency=self.payment.settled_currency or self.currency,
        )

    def _loaded_lines(self) -> tuple[PricedLine, ...]:
        if self.lines is None:
            raise LedgerViolation("the lines of an order that tells them were not loaded")
        return self.lines
