"""How do tests make what the order service hears? Commands, and the facts of its neighbours."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared.events import (
    CancelOrder,
    Line,
    OrderedLine,
    PaymentFact,
    PaymentFailed,
    PaymentInitiated,
    PaymentReason,
    PaymentRefunded,
    PaymentStatus,
    PaymentSucceeded,
    PlaceOrder,
    ReleaseReason,
    ReservationStatus,
    ReturnReason,
    Shortage,
    StockConfirmed,
    StockFact,
    StockRejected,
    StockReleased,
    StockReserved,
    StockReturned,
    StockUnavailable,
    UnavailableReason,
)
from shared.ids import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PAY_BY = NOW + timedelta(minutes=15)
LINES = (Line(sku="APPLE", quantity=2),)


def place_order(order_id: UUID | None = None, *lines: tuple[str, int], **fields: Any) -> PlaceOrder:
    """Return a command for two apples in EUR unless told otherwise."""
    ordered = tuple(OrderedLine(sku=sku, quantity=quantity) for sku, quantity in lines or [("APPLE", 2)])
    given = {"customer_id": "customer-1", "currency": "EUR", "lines": ordered, **fields}
    return PlaceOrder(order_id=order_id or new_id(), **given)


def cancel_order(order_id: UUID, reason: str | None = "changed my mind") -> CancelOrder:
    """Return a command to cancel."""
    return CancelOrder(order_id=order_id, reason=reason)


def _stock(
    status: ReservationStatus, reason: str | None = None, *, unavailable: bool = False
) -> dict[str, Any]:
    return {"reservation_status": status, "reservation_reason": reason, "unavailable": unavailable}


def reserved(order_id: UUID) -> StockReserved:
    """Return that all lines are held."""
    return StockReserved(order_id=order_id, lines=LINES, expires_at=PAY_BY, **_stock(ReservationStatus.HELD))


def stock_rejected(order_id: UUID, *shortages: Shortage) -> StockRejected:
    """Return that some line is short."""
    short = shortages or (Shortage(sku="APPLE", requested=2, available=1),)
    return StockRejected(order_id=order_id, shortages=short, **_stock(ReservationStatus.REJECTED))


def confirmed(order_id: UUID, *, late: bool = False) -> StockConfirmed:
    """Return that the hold became a sale."""
    return StockConfirmed(order_id=order_id, lines=LINES, late=late, **_stock(ReservationStatus.CONFIRMED))


def released(order_id: UUID, reason: ReleaseReason = "expired") -> StockReleased:
    """Return that the hold was given back."""
    return StockReleased(
        order_id=order_id, lines=LINES, reason=reason, **_stock(ReservationStatus.RELEASED, reason)
    )


def unavailable(order_id: UUID, reason: UnavailableReason = "sold_since") -> StockUnavailable:
    """Return that the units of a late payment are gone."""
    carried = _stock(ReservationStatus.RELEASED, "expired", unavailable=True)
    return StockUnavailable(order_id=order_id, reason=reason, **carried)


def returned(order_id: UUID, reason: ReturnReason = "cancelled") -> StockReturned:
    """Return that the sold units were given back."""
    return StockReturned(
        order_id=order_id, lines=LINES, reason=reason, **_stock(ReservationStatus.RETURNED, reason)
    )


ATTEMPT = UUID("0190f5a0-0000-7000-8000-000000000001")


def money(
    status: PaymentStatus,
    reason: PaymentReason | None = None,
    *,
    amount_minor: int | None = None,
    refunded_minor: int = 0,
) -> dict[str, Any]:
    """Return the state that a payment event carries."""
    settled = amount_minor is not None
    return {
        "payment_status": status,
        "payment_reason": reason,
        "settled_attempt_id": ATTEMPT if settled else None,
        "settled_amount_minor": amount_minor,
        "settled_currency": "EUR" if settled else None,
        "refunded_minor": refunded_minor,
        "paid_at": NOW if settled else None,
    }


def initiated(order_id: UUID, url: str | None = "https://pay.example/1") -> PaymentInitiated:
    """Return that a gateway waits for the customer."""
    return PaymentInitiated(
        order_id=order_id,
        attempt_id=ATTEMPT,
        gateway="sandbox",
        gateway_transaction_id="t-1",
        payment_url=url,
        amount_minor=200,
        currency="EUR",
        expires_at=PAY_BY,
        **money(PaymentStatus.PENDING),
    )


def succeeded(order_id: UUID, amount_minor: int = 200, *, refunded_minor: int = 0) -> PaymentSucceeded:
    """Return that the order is paid."""
    return PaymentSucceeded(
        order_id=order_id,
        attempt_id=ATTEMPT,
        gateway="sandbox",
        gateway_transaction_id="t-1",
        amount_minor=amount_minor,
        currency="EUR",
        **money(PaymentStatus.SUCCEEDED, amount_minor=amount_minor, refunded_minor=refunded_minor),
    )


def payment_failed(order_id: UUID, reason: PaymentReason = "declined") -> PaymentFailed:
    """Return that the order will not be paid."""
    return PaymentFailed(order_id=order_id, reason=reason, attempts=1, **money(PaymentStatus.FAILED, reason))


def refunded(order_id: UUID, amount_minor: int = 200) -> PaymentRefunded:
    """Return that all the money went back."""
    return PaymentRefunded(
        order_id=order_id,
        attempt_id=ATTEMPT,
        amount_minor=amount_minor,
        currency="EUR",
        reason="unavailable",
        **money(PaymentStatus.REFUNDED, amount_minor=amount_minor, refunded_minor=amount_minor),
    )


def partly_refunded(order_id: UUID, refunded_minor: int, amount_minor: int = 200) -> PaymentRefunded:
    """Return that an operator gave some of the money back."""
    return PaymentRefunded(
        order_id=order_id,
        attempt_id=ATTEMPT,
        amount_minor=refunded_minor,
        currency="EUR",
        reason="operator",
        **money(PaymentStatus.SUCCEEDED, amount_minor=amount_minor, refunded_minor=refunded_minor),
    )


def stories(order_id: UUID) -> dict[str, tuple[list[StockFact], list[PaymentFact]]]:
    """Return what inventory and the payment service tell of an order, each in its own order, by how it ends."""
    held = reserved(order_id)
    return {
        "nothing": ([], []),
        "held": ([held], []),
        "short": ([stock_rejected(order_id)], [payment_failed(order_id, "cancelled")]),
        "paid": ([held, confirmed(order_id)], [initiated(order_id), succeeded(order_id)]),
        "free": ([held, confirmed(order_id)], [succeeded(order_id, 0)]),
        "declined": (
            [held, released(order_id, "payment_failed")],
            [initiated(order_id), payment_failed(order_id)],
        ),
        "expired": ([held, released(order_id)], [initiated(order_id), payment_failed(order_id, "cancelled")]),
        "late": (
            [held, released(order_id), confirmed(order_id, late=True)],
            [initiated(order_id), payment_failed(order_id, "cancelled"), succeeded(order_id)],
        ),
        "too late": (
            [held, released(order_id), unavailable(order_id)],
            [initiated(order_id), succeeded(order_id), refunded(order_id)],
        ),
        "refunded by an operator": (
            [held, confirmed(order_id), returned(order_id, "refunded")],
            [initiated(order_id), succeeded(order_id), partly_refunded(order_id, 50), refunded(order_id)],
        ),
    }
