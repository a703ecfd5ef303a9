"""What is told of a payment once more, where news of it was lost?

Readers join what an event carries by rank, whatever its type: any event that carries the state of now will do.
"""

from collections.abc import Sequence
from typing import Any

from services.payment_service.domain.attempts import Attempt, AttemptStatus
from services.payment_service.domain.payments import FAILURE_REASONS, Payment
from shared.events import (
    PaymentAttemptFailed,
    PaymentFact,
    PaymentFailed,
    PaymentInitiated,
    PaymentQuarantined,
    PaymentRefunded,
    PaymentStatus,
    PaymentSucceeded,
)

_Told = tuple[type[PaymentFact], dict[str, Any]]


def tell_again(payment: Payment, lost: Sequence[int], cause: str) -> None:
    """Tell where a payment stands: under the numbers of lost events, or else under a new one; nothing if never told."""
    standing = _standing(payment) if payment.sequence else None
    if standing is None:
        return
    fact, content = standing
    for number in lost:
        payment.tell_numbered(number, fact, cause, **content)
    if not lost:
        payment.tell(fact, cause, **content)


def _standing(payment: Payment) -> _Told | None:
    """Return the event that says where a payment stands, and its content."""
    attempts = sorted(payment.attempts.values(), key=lambda attempt: (attempt.created_at, attempt.attempt_id))
    match payment.status:
        case PaymentStatus.SUCCEEDED:
            return _succeeded(payment)
        case PaymentStatus.REFUNDED:
            return _refunded(payment)
        case PaymentStatus.FAILED | PaymentStatus.CANCELLED:
            return PaymentFailed, {"reason": payment.reason, "attempts": len(attempts)}
        case PaymentStatus.QUARANTINED:
            held = [attempt for attempt in attempts if attempt.status is AttemptStatus.QUARANTINED]
            return _quarantined(held[-1]) if held else None
        case PaymentStatus.PENDING:
            return _pending(payment, attempts)


def _succeeded(payment: Payment) -> _Told | None:
    attempt = payment.settled_attempt
    if attempt is None:
        return None
    return PaymentSucceeded, {
        "attempt_id": attempt.attempt_id,
        "gateway": attempt.gateway,
        "gateway_transaction_id": attempt.gateway_transaction_id,
        "amount_minor": payment.settled_amount_minor,
        "currency": payment.settled_currency,
    }


def _refunded(payment: Payment) -> _Told | None:
    attempt = payment.settled_attempt
    made = [] if attempt is None else [refund for refund in payment.refunds_of(attempt) if refund.is_told]
    if not made:
        return None
    last = max(made, key=lambda refund: (refund.is_full, refund.created_at))
    return PaymentRefunded, {
        "attempt_id": last.attempt_id,
        "amount_minor": last.amount_minor,
        "currency": last.currency,
        "reason": last.reason,
    }


def _quarantined(attempt: Attempt) -> _Told:
    return PaymentQuarantined, {
        "attempt_id": attempt.attempt_id,
        "reason": attempt.review_reason or "mismatch",
        "expected_amount_minor": attempt.amount_minor,
        "expected_currency": attempt.currency,
        "received_amount_minor": attempt.received_amount_minor,
        "received_currency": attempt.received_currency,
    }


def _pending(payment: Payment, attempts: Sequence[Attempt]) -> _Told | None:
    last = attempts[-1] if attempts else None
    if last is None:
        return None
    if last.is_failed:
        return PaymentAttemptFailed, {
            "attempt_id": last.attempt_id,
            "gateway": last.gateway,
            "reason": FAILURE_REASONS[last.status],
            "attempts_left": max(0, payment.attempts_max - len(attempts)),
        }
    return PaymentInitiated, {
        "attempt_id": last.attempt_id,
        "gateway": last.gateway,
        "gateway_transaction_id": last.gateway_transaction_id,
        "payment_url": last.payment_url,
        "amount_minor": last.amount_minor,
        "currency": last.currency,
        "expires_at": last.expires_at,
    }
