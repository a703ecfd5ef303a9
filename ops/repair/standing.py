"""Who has not heard of what, that an order stands still? Pure rules, written from docs/protocol.md.

Each service remembers how far it has heard of the others. Where that is behind what the others say of themselves, the
news was lost (a discarded dead letter, a topic that is gone), and its owner has to tell it again.
"""

from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from shared.events import OrderStatus, PaymentStatus, ReservationStatus


class OrderStand(NamedTuple):
    """An order, and what it has heard of stock and payment."""

    order_id: UUID
    status: str
    cancelled: bool
    stock: str
    payment: str | None


class ReservationStand(NamedTuple):
    """A reservation, and what it has heard; `is_due`: its hold ended longer ago than the grace; `told`: of it, ever."""

    order_id: UUID
    status: str | None
    unavailable: bool
    cancelled: bool
    payment_status: str
    is_due: bool
    told: bool


class PaymentStand(NamedTuple):
    """A payment, whether it heard that the order ended, and whether all its money goes back; `told`: of it, ever."""

    order_id: UUID
    status: str
    is_opened: bool
    closed: bool
    is_refunded: bool
    told: bool


class Stands(NamedTuple):
    """Where the three stand; None where one has no row of the order."""

    order: OrderStand | None
    reservation: ReservationStand | None
    payment: PaymentStand | None


class News(NamedTuple):
    """What somebody has not heard, and who has to tell it again."""

    teller: str
    what: str


#: What the payment service hears of. Of REFUNDED it does not: it was the first to know.
_CLOSED = frozenset(
    {
        *(OrderStatus.REJECTED, OrderStatus.PAYMENT_FAILED, OrderStatus.EXPIRED, OrderStatus.CANCELLED),
        OrderStatus.REFUND_DUE,
    }
)
#: Of the others nothing is told to inventory, since it would change nothing there.
_TOLD_TO_INVENTORY = frozenset(
    {PaymentStatus.SUCCEEDED, PaymentStatus.FAILED, PaymentStatus.CANCELLED, PaymentStatus.REFUNDED}
)


def find_unheard(stands: Stands) -> list[News]:
    """Return what news is missing where."""
    return [
        *_unheard_by_inventory(stands),
        *_unheard_by_payment(stands),
        *_unheard_by_order(stands),
    ]


def is_to_be_swept(stands: Stands) -> bool:
    """Tell whether a hold is due, and inventory has heard all that could decide it otherwise."""
    reservation = stands.reservation
    is_due = reservation is not None and reservation.is_due
    return is_due and not [*_unheard_by_inventory(stands)]


def _unheard_by_inventory(stands: Stands) -> Iterator[News]:
    order, reservation, payment = stands
    status = None if reservation is None else reservation.status
    if order is not None and status is None and order.status == OrderStatus.REQUESTED:
        yield News("order", "inventory has not heard that the goods are wanted")
    if reservation is None or status is None:
        return
    if order is not None and order.cancelled and not reservation.cancelled:
        yield News("order", "inventory has not heard that the order is cancelled")
    if (
        payment is not None
        and payment.status in _TOLD_TO_INVENTORY
        and payment.status != reservation.payment_status
    ):
        yield News("payment", f"inventory has not heard that the payment is {payment.status}")


def _unheard_by_payment(stands: Stands) -> Iterator[News]:
    order, _, payment = stands
    if order is None:
        return
    if order.status == OrderStatus.AWAITING_PAYMENT and (payment is None or not payment.is_opened):
        yield News("order", "the payment service has not heard that the order is to be paid")
    if payment is None:
        return
    if order.status in _CLOSED and not payment.closed:
        yield News("order", f"the payment service has not heard that the order is {order.status}")
    elif (
        order.status == OrderStatus.REFUND_DUE
        and payment.status == PaymentStatus.SUCCEEDED
        and not payment.is_refunded
    ):
        yield News("order", "the payment service was never asked for the refund that is due")


def _unheard_by_order(stands: Stands) -> Iterator[News]:
    order, reservation, payment = stands
    if order is None:
        return
    if reservation is not None and reservation.told and order.stock != _facet(reservation):
        yield News("inventory", f"the order has not heard that its goods are {_facet(reservation)}")
    if payment is not None and payment.told and payment.status != order.payment:
        yield News("payment", f"the order has not heard that its payment is {payment.status}")


def _facet(reservation: ReservationStand) -> str | None:
    """Return a reservation as the order service names it."""
    if reservation.unavailable and reservation.status == ReservationStatus.RELEASED:
        return "UNAVAILABLE"
    return reservation.status
