"""What does an operator's decision about a quarantined or disputed attempt change?

A quarantined success is accepted as it came, or given back. A disputed one is settled already: accepting it leaves
everything as it is, and giving it back is an ordinary refund in full.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from services.payment_service.domain import paying, refunding
from services.payment_service.domain.attempts import Attempt, AttemptStatus
from services.payment_service.domain.payments import Payment
from shared.errors import Conflict


class Action(StrEnum):
    """What an operator can decide."""

    ACCEPT = "accept"
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
class Resolution:
    """An operator's decision as it is kept: who, when, why, and what for."""

    resolution_id: UUID
    order_id: UUID
    attempt_id: UUID
    action: Action
    reason: str
    review_reason: str
    decided_by: str
    request_key: str | None
    refund_id: UUID | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """What an operator asks for."""

    resolution_id: UUID
    action: Action
    reason: str
    decided_by: str
    request_key: str | None
    cause: str


def resolve(payment: Payment, attempt: Attempt, decision: Decision, *, at: datetime) -> Resolution | Conflict:
    """Apply a decision to an attempt that waits for one, and return it as it is to be kept."""
    review_reason = attempt.review_reason
    if review_reason is None:
        return Conflict(f"the attempt is {attempt.status}: nothing is to be decided about it")
    refund_id: UUID | None = None
    has_money = attempt.received_amount_minor is not None and attempt.received_currency is not None
    if attempt.status is AttemptStatus.QUARANTINED or decision.action is Action.REFUND:
        if not has_money:
            return Conflict("the gateway has not said what it took: nothing can be accepted or given back")
        refund_id = _move_money(payment, attempt, decision, at)
    attempt.end_review()
    return Resolution(
        resolution_id=decision.resolution_id,
        order_id=attempt.order_id,
        attempt_id=attempt.attempt_id,
        action=decision.action,
        reason=decision.reason,
        review_reason=review_reason,
        decided_by=decision.decided_by,
        request_key=decision.request_key,
        refund_id=refund_id,
        created_at=at,
    )


def _move_money(payment: Payment, attempt: Attempt, decision: Decision, at: datetime) -> UUID | None:
    """Count the money or give it back; return the refund that takes it back, if there is one."""
    if decision.action is Action.REFUND:
        refunding.refund_in_full(payment, attempt, "operator", cause=decision.cause, at=at)
    else:
        if payment.settled_attempt_id is None:
            attempt.accepted_amount_minor = attempt.received_amount_minor
        attempt.status = AttemptStatus.SUCCEEDED
        paying.count_success(payment, attempt, paid_at=at, cause=decision.cause, at=at)
        if payment.settled_attempt_id != attempt.attempt_id:
            payment.update_status(decision.cause)
    full = (refund.refund_id for refund in payment.refunds_of(attempt) if refund.is_full)
    return next(full, None)
