"""A6 to A9: do an order, its reservation and its payment agree?

Pure rules over what the three databases say of one order. They are written from docs/protocol.md and use nothing of the
services, whose mistakes they are to find.
"""

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from shared.events import OrderStatus, PaymentStatus, ReservationStatus


class OrderRow(NamedTuple):
    """What the order service says; `lines` is a digest of what was ordered."""

    order_id: UUID
    status: str
    cancelled: bool
    total_minor: int
    currency: str
    lines: bytes | None
    young: bool


class ReservationRow(NamedTuple):
    """What inventory says; `status` is None before `OrderRequested`, `lines` a digest of what was first reserved."""

    order_id: UUID
    status: str | None
    reason: str | None
    unavailable: bool
    lines: bytes | None
    young: bool


class PaymentRow(NamedTuple):
    """What the payment service says.

    `settled` counts the successes that are not given back in full, due refunds included. If it is one, the fields
    behind it say what was asked, what came, and what an operator accepted instead (None: nothing else).
    `unreturned` also counts attempts that are REFUNDED without refunds that say so, `overdrawn` attempts of which more
    goes back than came in, and `refused` refunds that the gateway refuses or has taken back.
    """

    order_id: UUID
    status: str
    amount_minor: int | None
    currency: str | None
    settled: int
    asked_minor: int | None
    asked_currency: str | None
    received_minor: int | None
    received_currency: str | None
    accepted_minor: int | None
    unreturned: int
    overdrawn: int
    refused: int
    young: bool


class Case(NamedTuple):
    """What the three databases say of one order; None where one has no row of it."""

    order: OrderRow | None
    reservation: ReservationRow | None
    payment: PaymentRow | None

    @property
    def young(self) -> bool:
        """Whether something changed so lately that news of it may still be on its way."""
        return any(row is not None and row.young for row in self)

    @property
    def stock(self) -> str | None:
        """The reservation's status, None before it is open."""
        return None if self.reservation is None else self.reservation.status

    @property
    def money(self) -> str | None:
        """The payment's status, None before it is open."""
        return None if self.payment is None else self.payment.status


_HOLDING = frozenset({ReservationStatus.HELD, ReservationStatus.CONFIRMED})
_STILL_PAYABLE = frozenset({None, PaymentStatus.PENDING, PaymentStatus.QUARANTINED})
_ENDED_UNPAID = frozenset(
    {OrderStatus.REJECTED, OrderStatus.PAYMENT_FAILED, OrderStatus.EXPIRED, OrderStatus.CANCELLED}
)
_ENDED_WITHOUT_GOODS = _ENDED_UNPAID | {OrderStatus.REFUNDED}

#: docs/protocol.md, "Order", for orders that are not cancelled: (not paid, paid).
_STATUS = MappingProxyType(
    {
        None: (OrderStatus.REQUESTED, OrderStatus.AWAITING_PAYMENT),
        "HELD": (OrderStatus.AWAITING_PAYMENT, OrderStatus.AWAITING_PAYMENT),
        "REJECTED": (OrderStatus.REJECTED, OrderStatus.REFUND_DUE),
        "EXPIRED": (OrderStatus.EXPIRED, OrderStatus.AWAITING_PAYMENT),
        "RELEASED": (OrderStatus.PAYMENT_FAILED, OrderStatus.AWAITING_PAYMENT),
        "CONFIRMED": (OrderStatus.AWAITING_PAYMENT, OrderStatus.PROCESSING),
        "UNAVAILABLE": (OrderStatus.AWAITING_PAYMENT, OrderStatus.REFUND_DUE),
        "RETURNED": (OrderStatus.AWAITING_PAYMENT, OrderStatus.REFUND_DUE),
    }
)


def find_unsettled_processing(case: Case) -> Iterator[str]:
    """A6: a PROCESSING order has one settled attempt of its total, or of what was accepted, and its goods."""
    order, payment = case.order, case.payment
    if order is None or order.status != OrderStatus.PROCESSING:
        return
    if payment is None or payment.settled != 1:
        yield f"PROCESSING with {payment.settled if payment else 0} settled attempts"
    elif payment.accepted_minor is not None:
        if payment.accepted_minor != payment.received_minor:
            yield f"PROCESSING for {payment.accepted_minor} accepted, but {payment.received_minor} came"
    else:
        total = order.total_minor, order.currency
        asked = payment.asked_minor, payment.asked_currency
        received = payment.received_minor, payment.received_currency
        if asked != total or received != total:
            yield f"PROCESSING for {_money(*total)}, but {_money(*asked)} asked and {_money(*received)} received"
    if case.stock != ReservationStatus.CONFIRMED:
        yield f"PROCESSING, but its reservation is {case.stock or 'missing'}"


def find_unmatched_money(case: Case) -> Iterator[str]:
    """A7: every success is matched by a confirmed reservation or a refund, which is not refused and not too much."""
    payment = case.payment
    if payment is None:
        return
    goods = 1 if case.stock == ReservationStatus.CONFIRMED else 0
    if payment.unreturned > goods:
        yield f"{payment.unreturned} paid attempts are not refunded, {goods} confirmed reservations match them"
    if payment.overdrawn:
        yield f"of {payment.overdrawn} attempts more is refunded than was paid"
    if payment.refused:
        yield f"the gateway refuses {payment.refused} refunds that are due"


def find_held_by_ended(case: Case) -> Iterator[str]:
    """A8: no order that ended without goods holds stock."""
    if case.order is not None and case.order.status in _ENDED_WITHOUT_GOODS and case.stock in _HOLDING:
        yield f"{case.order.status}, but its reservation is {case.stock}"


def find_disagreements(case: Case) -> Iterator[str]:
    """A9: order, reservation and payment agree: on the status, on each other's news, on the money, on the lines."""
    if case.order is None:
        yield f"no order is known for reservation {case.stock}, payment {case.money}"
        return
    yield from _disagreements_on_status(case, case.order)
    yield from _unheard_news(case, case.order)
    yield from _disagreements_on_content(case, case.order)


def _disagreements_on_status(case: Case, order: OrderRow) -> Iterator[str]:
    expected = _expected_status(case, order)
    # What the order service refuses by itself reaches nobody else as an order: there is nothing to agree with.
    is_refused = (
        order.status == OrderStatus.REJECTED and case.stock is None and expected is OrderStatus.REQUESTED
    )
    if order.status != expected and not is_refused:
        yield f"{order.status}, but with {_stand(case, order)} it should be {expected}"


def _expected_status(case: Case, order: OrderRow) -> OrderStatus:
    if case.money == PaymentStatus.REFUNDED:
        return OrderStatus.REFUNDED
    paid = case.money == PaymentStatus.SUCCEEDED
    if order.cancelled:
        return OrderStatus.REFUND_DUE if paid else OrderStatus.CANCELLED
    return _STATUS[_facet(case.reservation)][paid]


def _facet(reservation: ReservationRow | None) -> str | None:
    """Name the row of the table that a reservation stands for."""
    if reservation is None or reservation.status != ReservationStatus.RELEASED:
        return None if reservation is None else reservation.status
    if reservation.unavailable:
        return "UNAVAILABLE"
    return "EXPIRED" if reservation.reason == "expired" else "RELEASED"


def _unheard_news(case: Case, order: OrderRow) -> Iterator[str]:
    """Yield what inventory and payment should have done by now about what the other services say."""
    stock, money = case.stock, case.money
    if stock in _HOLDING and (order.cancelled or money == PaymentStatus.REFUNDED):
        yield f"the reservation is still {stock} with {_stand(case, order)}"
    elif stock == ReservationStatus.HELD and money not in _STILL_PAYABLE:
        yield f"the reservation is still HELD with payment {money}"
    if money == PaymentStatus.PENDING and order.status in _ENDED_UNPAID:
        yield f"the payment is still PENDING, the order {order.status}"


def _disagreements_on_content(case: Case, order: OrderRow) -> Iterator[str]:
    reservation, payment = case.reservation, case.payment
    if payment is not None and payment.amount_minor is not None:
        asked = payment.amount_minor, payment.currency
        if asked != (order.total_minor, order.currency):
            yield f"the order costs {_money(order.total_minor, order.currency)}, the payment is of {_money(*asked)}"
    if reservation is not None and reservation.lines is not None and reservation.lines != order.lines:
        yield "other units were reserved than ordered"


def _stand(case: Case, order: OrderRow) -> str:
    reservation = case.reservation
    unavailable = " (unavailable)" if reservation is not None and reservation.unavailable else ""
    cancelled = ", cancelled" if order.cancelled else ""
    return f"reservation {case.stock}{unavailable}, payment {case.money}{cancelled}"


def _money(minor: int | None, currency: str | None) -> str:
    return f"{minor} {currency}"


#: Each check of one order: it yields a sentence for whatever is wrong.
RULES: MappingProxyType[str, Callable[[Case], Iterator[str]]] = MappingProxyType(
    {
        "A6": find_unsettled_processing,
        "A7": find_unmatched_money,
        "A8": find_held_by_ended,
        "A9": find_disagreements,
    }
)
