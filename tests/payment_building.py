"""What do payments, notices and order events look like in tests?"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.payment_service.domain import paying
from services.payment_service.domain.answers import Created
from services.payment_service.domain.attempts import (
    Attempt,
    AttemptStatus,
    Notice,
    RefundNotice,
    Verdict,
)
from services.payment_service.domain.payments import Payment
from shared.events import (
    OrderAwaitingPayment,
    OrderCancelled,
    OrderExpired,
    OrderRefundRequested,
    OrderStatus,
    RefundReason,
)
from shared.ids import new_id

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AMOUNT_MINOR = 1_250
CURRENCY = "EUR"


def an_open_payment(*, attempts_max: int = 1, amount_minor: int = AMOUNT_MINOR) -> Payment:
    """Return a payment that waits for its money."""
    payment = Payment(order_id=new_id(), attempts_max=attempts_max, is_new=True)
    paying.open_payment(
        payment,
        amount_minor=amount_minor,
        currency=CURRENCY,
        pay_by=AT + timedelta(minutes=15),
        cause="test",
        at=AT,
        zero_id=new_id(),
    )
    return payment


def an_attempt_of(payment: Payment, *, created: bool = True, at: datetime = AT) -> Attempt:
    """Start an attempt by the sandbox, known to the gateway unless told otherwise."""
    attempt = paying.start_attempt(payment, new_id(), "sandbox", task_at=at, at=at)
    if created:
        answer = Created(f"transaction-{attempt.attempt_id}", "https://example.test/pay", "pending")
        paying.learn(payment, attempt, answer, cause="test", at=at, retry_at=at)
    return attempt


def a_notice(attempt: Attempt, status: AttemptStatus | None, **changes: Any) -> Notice:
    """Return what a gateway says about an attempt, of the right amount unless told otherwise."""
    is_money = status is AttemptStatus.SUCCEEDED
    values: dict[str, Any] = {
        "native_status": f"payment.{status}",
        "status": status,
        "attempt_id": attempt.attempt_id,
        "transaction_id": attempt.gateway_transaction_id,
        "amount_minor": attempt.amount_minor if is_money else None,
        "currency": attempt.currency if is_money else None,
    }
    return Notice(**{**values, **changes})


def a_refund_notice(attempt: Attempt, amount_minor: int, **changes: Any) -> Notice:
    """Return a gateway's word that money of an attempt went back."""
    refund = RefundNotice(**{"amount_minor": amount_minor, "currency": CURRENCY, **changes})
    return Notice(
        "payment.refunded",
        attempt_id=attempt.attempt_id,
        transaction_id=attempt.gateway_transaction_id,
        refund=refund,
    )


def hear(payment: Payment, notice: Notice) -> Verdict:
    """Have a payment hear a notice about the attempt it names."""
    assert notice.attempt_id is not None
    attempt = payment.attempts[notice.attempt_id]
    return paying.hear(payment, attempt, notice, cause="webhook:1", at=AT).verdict


def a_paid_payment() -> Payment:
    """Return a payment with one attempt that settled it."""
    payment = an_open_payment()
    hear(payment, a_notice(an_attempt_of(payment), AttemptStatus.SUCCEEDED))
    return payment


def told(payment: Payment) -> list[str]:
    """Return the names of the events that a payment has told, in order."""
    return [type(emitted.event).__name__ for emitted in payment.emitted]


def awaiting_payment(
    order_id: UUID, *, total_minor: int = AMOUNT_MINOR, currency: str = CURRENCY, cancelled: bool = False
) -> OrderAwaitingPayment:
    """Return the event that opens a payment."""
    return OrderAwaitingPayment(
        order_id=order_id,
        order_status=OrderStatus.AWAITING_PAYMENT,
        cancelled=cancelled,
        customer_id="customer-1",
        total_minor=total_minor,
        currency=currency,
        pay_by=datetime.now(UTC) + timedelta(minutes=15),
    )


def order_cancelled(order_id: UUID, *, status: OrderStatus = OrderStatus.CANCELLED) -> OrderCancelled:
    """Return the event that tells of a cancellation."""
    return OrderCancelled(
        order_id=order_id,
        order_status=status,
        cancelled=True,
        reason="changed my mind",
        requested_by="customer-1",
    )


def order_expired(order_id: UUID) -> OrderExpired:
    """Return the event that tells that an order was not paid in time."""
    return OrderExpired(
        order_id=order_id, order_status=OrderStatus.EXPIRED, cancelled=False, reason="expired"
    )


def refund_requested(
    order_id: UUID,
    *,
    reason: RefundReason = "unavailable",
    amount_minor: int = AMOUNT_MINOR,
    cancelled: bool = False,
) -> OrderRefundRequested:
    """Return the event that asks for the settled money to go back."""
    return OrderRefundRequested(
        order_id=order_id,
        order_status=OrderStatus.REFUND_DUE,
        cancelled=cancelled,
        amount_minor=amount_minor,
        currency=CURRENCY,
        reason=reason,
    )
