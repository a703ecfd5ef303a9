"""Why is this order here? One plain sentence, from what the three services and the topics say."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from ops.timeline.facts import (
    AttemptRow,
    Facts,
    OrderRow,
    PaymentFacts,
    PaymentRow,
    RefundRow,
    ReservationRow,
    StockFacts,
)
from ops.timeline.masking import mask
from shared.events import COMMANDS_TOPIC, OrderStatus

_LIVE = frozenset({"PENDING", "UNKNOWN", "AUTHORIZED"})
_CONTENT_OF_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "insufficient_stock": "there are not enough units",
        "unknown_sku": "the catalog does not know a SKU",
        "inactive_product": "a product is not sold",
        "currency": "a price is in another currency",
        "total_changed": "the total was another one than expected",
        "empty_cart": "the cart was empty",
    }
)


def conclude(facts: Facts, now: datetime) -> str:
    """Return the order's status and why it stands there, with whatever keeps news of it from arriving."""
    order = facts.order.order if facts.order is not None else None
    if order is not None:
        reason = _REASONS[OrderStatus(order.status)](facts, order, now)
        sentence = f"{order.status}: {reason}"
    else:
        sentence = _without_order(facts)
    return mask("; ".join([sentence, *_obstacles(facts)]).rstrip(".") + ".")


def _obstacles(facts: Facts) -> list[str]:
    """Name what is on its way, or was refused: it may be the very news that is missing."""
    told = []
    if facts.waiting:
        first = facts.waiting[0]
        topics = ", ".join(sorted({row.topic for row in facts.waiting}))
        told.append(
            f"{_count(len(facts.waiting), 'message')} for {topics} ({first.type} first) "
            f"{'waits' if len(facts.waiting) == 1 else 'wait'} in the outbox"
        )
    refused = {position.event_id: position for position in facts.letters if position.letter is not None}
    for position in refused.values():
        if position.letter is not None and not _is_redriven(facts, position.event_id, position.letter.group):
            letter = position.letter
            told.append(f"{letter.group} refused {position.type} ({letter.reason}: {letter.detail})")
    return told


def _is_redriven(facts: Facts, event_id: str | None, group: str) -> bool:
    """Tell whether the group has handled the message after all."""
    rows = (facts.inboxes or {}).get(group.removesuffix("-service"), ())
    return any(str(row.event_id) == event_id and row.outcome == "handled" for row in rows)


def _without_order(facts: Facts) -> str:
    if facts.order is None:
        return "What the order service says is not known, because its database does not answer"
    command = next((p for p in facts.positions or () if p.topic == COMMANDS_TOPIC), None)
    if command is not None:
        return f"The order service has no such order, though {command.place} holds a {command.type} for it"
    return "The order service does not know this order, though others have heard of it"


# --- one answer a status --------------------------------------------------------------------------------------------


def _requested(facts: Facts, _order: OrderRow, _now: datetime) -> str:
    reservation = _reservation(facts)
    if facts.stock is None:
        return "the order service waits for inventory's answer; what inventory says is not known"
    if reservation is None or reservation.status is None:
        return "inventory has not answered yet whether the goods can be held"
    return f"inventory has answered ({reservation.status}), but the order service has not heard it yet"


def _awaiting_payment(facts: Facts, order: OrderRow, now: datetime) -> str:
    payment = _payment(facts)
    if facts.payment is None:
        return f"what the payment service says is not known; {_hold(facts, order, now)}"
    if payment is None or payment.amount_minor is None:
        return f"the payment service has not heard that it is to be paid; {_hold(facts, order, now)}"
    if payment.status == "SUCCEEDED":
        return _paid_but_waiting(facts)
    if payment.status == "QUARANTINED":
        return f"{_quarantined(facts.payment)}; {_hold(facts, order, now)}"
    if payment.status in {"FAILED", "CANCELLED"}:
        return f"the payment is {payment.status}, and inventory has still to give the goods back"
    return f"{_unpaid(facts.payment, payment)}; {_hold(facts, order, now)}"


def _paid_but_waiting(facts: Facts) -> str:
    reservation = _reservation(facts)
    if facts.stock is None:
        return "it is paid; what inventory says is not known"
    status = None if reservation is None else reservation.status
    if reservation is not None and reservation.unavailable:
        return "it was paid too late and the goods are gone, but the order service has not heard it yet"
    if status == "CONFIRMED":
        return "it is paid and its goods are sold, but the order service has not heard of both yet"
    if status == "RELEASED":
        return "it was paid after its hold was given back, and inventory has still to try to hold the goods again"
    return "it is paid, and inventory has still to turn the hold into a sale"


def _unpaid(facts: PaymentFacts, payment: PaymentRow) -> str:
    attempts = facts.attempts
    live = [attempt for attempt in attempts if attempt.status in _LIVE]
    if not attempts:
        return "no payment has been received, and none was attempted"
    if not live:
        failed = attempts[-1]
        return (
            f"no payment has been received: {len(attempts)} of {payment.attempts_max} attempts failed, the last one "
            f"is {failed.status}"
        )
    last = live[-1]
    if last.status == "UNKNOWN":
        return f"no payment has been received: {last.gateway} did not answer about attempt {last.attempt_id}"
    if last.status == "AUTHORIZED":
        return f"the payment with {last.gateway} is authorized, but not captured"
    started = f"{last.created_at:%Y-%m-%d %H:%M:%S}"
    return f"no payment has been received; {last.gateway} has not said how the attempt of {started} ended"


def _quarantined(facts: PaymentFacts) -> str:
    attempt = next((attempt for attempt in facts.attempts if attempt.status == "QUARANTINED"), None)
    if attempt is None:
        return "the payment is quarantined until an operator decides"
    why = f" ({attempt.review_reason})" if attempt.review_reason else ""
    return f"{_difference(attempt)}{why}: an operator has to accept or to refund it"


def _difference(attempt: AttemptRow) -> str:
    asked = f"{attempt.amount_minor:,} {attempt.currency}"
    if attempt.received_amount_minor is None:
        return f"what {attempt.gateway} took for {asked} does not match"
    received = f"{attempt.received_amount_minor:,} {attempt.received_currency}"
    return f"{attempt.gateway} took {received} instead of {asked}"


def _hold(facts: Facts, order: OrderRow, now: datetime) -> str:
    reservation = _reservation(facts)
    if reservation is not None and reservation.status == "RELEASED":
        return "the hold was given back, but the order service has not heard it yet"
    end = order.pay_by if reservation is None else reservation.expires_at or order.pay_by
    if end is None:
        return "no hold is known"
    at = f"{end:%Y-%m-%d %H:%M:%S}"
    return f"the hold ends at {at}" if end > now else f"the hold ended at {at} and was not swept yet"


def _processing(facts: Facts, _order: OrderRow, _now: datetime) -> str:
    payment = _payment(facts)
    refunded = payment.refunded_minor if payment is not None else 0
    back = f"; {refunded:,} {payment.settled_currency} went back" if payment is not None and refunded else ""
    if facts.payment is not None and facts.payment.refunds and not back:
        back = _and_refunds(facts.payment)
    contested = next((attempt for attempt in _attempts(facts) if attempt.review_at and attempt.dispute), None)
    if contested is not None:
        return f"it is paid and its goods are sold, but the payment is contested ({contested.dispute}): an operator has to decide{back}"
    return f"it is paid and its goods are sold, so it may be shipped{back}"


def _and_refunds(facts: PaymentFacts) -> str:
    missing = [refund for refund in facts.refunds if refund.next_try_at is not None]
    return f"; {_refund(missing[-1])}" if missing else ""


def _rejected(facts: Facts, order: OrderRow, _now: datetime) -> str:
    paid = _payment(facts)
    late = " (though it was paid)" if paid is not None and paid.settled_attempt_id is not None else ""
    return f"{_CONTENT_OF_REASONS.get(order.reason or '', order.reason or 'no reason is known')}{late}"


def _payment_failed(facts: Facts, _order: OrderRow, _now: datetime) -> str:
    payment = _payment(facts)
    attempts = len(facts.payment.attempts) if facts.payment is not None else 0
    reason = f" ({payment.reason})" if payment is not None and payment.reason else ""
    return f"its payment failed{reason} after {_count(attempts, 'attempt')}, and the goods were given back"


def _expired(facts: Facts, order: OrderRow, _now: datetime) -> str:
    reservation = _reservation(facts)
    end = order.pay_by if reservation is None else reservation.expires_at or order.pay_by
    when = f" at {end:%Y-%m-%d %H:%M:%S}" if end is not None else ""
    attempts = "" if facts.payment is None or facts.payment.attempts else "; no payment was attempted"
    return f"no payment had been received when its hold ended{when}, and the goods were given back{attempts}"


def _cancelled(_facts: Facts, order: OrderRow, _now: datetime) -> str:
    reason = f" ({order.cancel_reason})" if order.cancel_reason else ""
    return f"{order.cancel_requested_by or 'somebody'} cancelled it{reason} before it was paid"


def _refund_due(facts: Facts, order: OrderRow, _now: datetime) -> str:
    why = (
        "it was cancelled after it was paid"
        if order.cancelled
        else "it is paid, but there are no goods for it"
    )
    payments = facts.payment
    if payments is None:
        return f"{why}; what the payment service says of its refund is not known"
    full = [refund for refund in payments.refunds if refund.attempt_id == _settled_attempt(payments)]
    if not full:
        return f"{why}; the payment service has not begun to refund it"
    if all(refund.status == "SUCCEEDED" for refund in full):
        return f"{why}; the money is back, but the order service has not heard it yet"
    return f"{why}; {_refund(full[-1])}"


def _refund(refund: RefundRow) -> str:
    money = f"{refund.amount_minor:,} {refund.currency}"
    again = f"it is asked again at {refund.next_try_at:%Y-%m-%d %H:%M:%S}" if refund.next_try_at else ""
    match refund.status:
        case "FAILED":
            return f"{refund.gateway} refuses to give {money} back ({refund.error}); {again}"
        case "UNKNOWN":
            return f"{refund.gateway} did not answer when it was asked to give {money} back; {again}"
        case "SENT":
            return f"{refund.gateway} has taken the order to give {money} back, but has not done it yet"
        case _:
            return f"{refund.gateway} is to be asked to give {money} back"


def _refunded(facts: Facts, order: OrderRow, _now: datetime) -> str:
    payments = facts.payment
    reasons = (
        {refund.reason for refund in payments.refunds if refund.reason != "overpayment"}
        if payments
        else set()
    )
    if "operator" in reasons:
        why = "an operator gave the money back"
    elif order.cancelled:
        why = "it was cancelled after it was paid, and the money went back"
    else:
        why = "it was paid, but there were no goods for it, and the money went back"
    return why


_REASONS: Mapping[OrderStatus, Callable[[Facts, OrderRow, datetime], str]] = MappingProxyType(
    {
        OrderStatus.REQUESTED: _requested,
        OrderStatus.AWAITING_PAYMENT: _awaiting_payment,
        OrderStatus.PROCESSING: _processing,
        OrderStatus.REJECTED: _rejected,
        OrderStatus.PAYMENT_FAILED: _payment_failed,
        OrderStatus.EXPIRED: _expired,
        OrderStatus.CANCELLED: _cancelled,
        OrderStatus.REFUND_DUE: _refund_due,
        OrderStatus.REFUNDED: _refunded,
    }
)


# --- what the others say --------------------------------------------------------------------------------------------


def _reservation(facts: Facts) -> ReservationRow | None:
    return (facts.stock or StockFacts()).reservation


def _payment(facts: Facts) -> PaymentRow | None:
    return (facts.payment or PaymentFacts()).payment


def _attempts(facts: Facts) -> Sequence[AttemptRow]:
    return (facts.payment or PaymentFacts()).attempts


def _settled_attempt(facts: PaymentFacts) -> object:
    return None if facts.payment is None else facts.payment.settled_attempt_id


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
