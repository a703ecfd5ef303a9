"""Where do order, reservation and payment stand right now?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ops.timeline.facts import Facts
from ops.timeline.masking import mask


class Standing(NamedTuple):
    """What each of the three says of itself; None where it has no row of the order, or did not answer."""

    order: Mapping[str, Any] | None
    reservation: Mapping[str, Any] | None
    payment: Mapping[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return self._asdict()


def stand(facts: Facts) -> Standing:
    """Return where the three stand."""
    return Standing(_order(facts), _reservation(facts), _payment(facts))


def _order(facts: Facts) -> Mapping[str, Any] | None:
    order = facts.order.order if facts.order is not None else None
    if order is None:
        return None
    return {
        "status": order.status,
        "reason": order.reason,
        "version": order.version,
        "cancelled": order.cancelled,
        "cancel_reason": None if order.cancel_reason is None else mask(order.cancel_reason),
        "total_minor": order.total_minor,
        "currency": order.currency,
        "heard_of_stock": order.stock,
        "heard_of_payment": order.payment,
        "created_at": order.created_at,
        "updated_at": order.updated_at,
    }


def _reservation(facts: Facts) -> Mapping[str, Any] | None:
    reservation = facts.stock.reservation if facts.stock is not None else None
    if reservation is None:
        return None
    return {
        "status": reservation.status,
        "reason": reservation.reason,
        "unavailable": reservation.unavailable,
        "expires_at": reservation.expires_at,
        "heard_of_payment": reservation.payment_status,
        "updated_at": reservation.updated_at,
    }


def _payment(facts: Facts) -> Mapping[str, Any] | None:
    payment = facts.payment.payment if facts.payment is not None else None
    if payment is None:
        return None
    return {
        "status": payment.status,
        "reason": payment.reason,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "pay_by": payment.pay_by,
        "settled_minor": payment.settled_amount_minor,
        "settled_currency": payment.settled_currency,
        "refunded_minor": payment.refunded_minor,
        "paid_at": payment.paid_at,
    }
