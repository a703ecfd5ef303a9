"""What changes a refund: who may have one made, and what do gateways say of it?

An attempt has one full refund, whatever its reason, which takes all that partial ones have left. A refund is only ever
finished on the gateway's word, by its answer or by its webhook, whichever comes first. What somebody gave back at the
gateway itself counts as an operator's refund.
"""

from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from services.payment_service.domain.answers import Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import (
    NO_GATEWAY,
    Attempt,
    AttemptStatus,
    Judgement,
    RefundNotice,
    Verdict,
)
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunds import Refund, RefundStatus, full_refund_id
from shared.errors import Conflict
from shared.events import PaymentFact, PaymentRefunded, PaymentRefundFailed, PaymentStatus, RefundReason

#: Until the gateway is asked again; a success that it told before must not count after it.
_TAKEN_BACK: Final = "the gateway says that it failed"

RefundAnswer = Refunded | RefundPending | Declined | Unanswered


def refund_settled(payment: Payment, reason: RefundReason, *, cause: str, at: datetime) -> bool:
    """See to it that all that is left of the settled attempt goes back; False if nothing was ever settled."""
    attempt = payment.settled_attempt
    if attempt is None:
        return False
    refund_in_full(payment, attempt, reason, cause=cause, at=at)
    return True


def refund_in_full(
    payment: Payment, attempt: Attempt, reason: RefundReason, *, cause: str, at: datetime
) -> None:
    """Make the one full refund of an attempt, unless there is one."""
    if not _is_given_back(payment, attempt):
        refund = _new_refund(attempt, full_refund_id(attempt.attempt_id), _left_minor(attempt), reason, at)
        refund.is_full = True
        _add_refund(payment, attempt, refund, cause)


def request_refund(
    payment: Payment,
    refund_id: UUID,
    amount_minor: int | None,
    *,
    note: str,
    request_key: str,
    cause: str,
    at: datetime,
) -> Refund | Conflict:
    """Make an operator's refund of the settled attempt; without an amount all that is left.

    Returns:
        The refund, or why there cannot be one.
    """
    attempt = payment.settled_attempt
    if attempt is None or payment.status is not PaymentStatus.SUCCEEDED:
        return Conflict(f"the payment is {payment.status}: there is nothing to give back")
    left_minor = _left_minor(attempt)
    if _is_given_back(payment, attempt) or (amount_minor or 0) > left_minor:
        return Conflict(f"only {left_minor} {attempt.received_currency} can still be given back")
    is_full = amount_minor in {None, left_minor}
    refund = _new_refund(
        attempt,
        full_refund_id(attempt.attempt_id) if is_full else refund_id,
        left_minor if amount_minor is None else amount_minor,
        "operator",
        at,
    )
    refund.is_full, refund.note = is_full, note
    refund.request_key, refund.requested_minor = request_key, amount_minor
    _add_refund(payment, attempt, refund, cause)
    return refund


def learn_refund(
    payment: Payment, refund: Refund, answer: RefundAnswer, *, cause: str, retry_at: datetime
) -> None:
    """Take in what the gateway answered when it was asked for a refund; all but `Refunded` is asked again."""
    if refund.status is RefundStatus.SUCCEEDED:
        return
    refund.is_changed = True
    refund.next_try_at = retry_at
    match answer:
        case Refunded():
            _finish(payment, refund, answer.gateway_refund_id, cause)
        case RefundPending():
            refund.status, refund.error = RefundStatus.SENT, None
            refund.gateway_refund_id = answer.gateway_refund_id
        case Declined():
            _fail(payment, refund, answer.detail, cause, retry_at=retry_at)
        case Unanswered():
            refund.error = answer.detail
            # Once refused, silence is no better news: it stays FAILED until the money is back.
            if refund.status is not RefundStatus.FAILED:
                refund.status = RefundStatus.UNKNOWN


def hear_refund(
    payment: Payment, attempt: Attempt, notice: RefundNotice, *, cause: str, at: datetime
) -> Judgement:
    """Finish the refund that a gateway's webhook speaks of, or have it made again if the gateway took it back."""
    candidates = _candidates(payment, attempt, notice)
    if notice.is_foreign and not notice.failed and not candidates:
        return _count_foreign(payment, attempt, notice, cause=cause, at=at)
    if len(candidates) != 1:
        return Judgement(Verdict.UNMATCHED, "no refund of ours is known to be meant")
    refund = candidates[0]
    if (refund.amount_minor, refund.currency) != (notice.amount_minor, notice.currency):
        return Judgement(Verdict.MISMATCH, "refund")
    status = RefundStatus.FAILED if notice.failed else RefundStatus.SUCCEEDED
    if refund.status is status:
        return Judgement(Verdict.DUPLICATE, f"the refund is {status} already")
    if not notice.failed and refund.error == _TAKEN_BACK:
        return Judgement(Verdict.REGRESSIVE, "the gateway has taken it back since, and is asked again")
    before = refund.status
    if notice.failed:
        refund.gateway_refund_id = notice.gateway_refund_id or refund.gateway_refund_id
        _fail(payment, refund, _TAKEN_BACK, cause, retry_at=refund.next_try_at or at)
    else:
        _finish(payment, refund, notice.gateway_refund_id, cause)
    return Judgement(Verdict.APPLIED, f"refund {before} → {status}")


def _count_foreign(
    payment: Payment, attempt: Attempt, notice: RefundNotice, *, cause: str, at: datetime
) -> Judgement:
    """Count a refund that somebody had made at the gateway, as an operator's: the money is gone all the same."""
    if attempt.received_amount_minor is None:
        return Judgement(Verdict.UNMATCHED, "money went back that is not known to have come")
    money = f"{notice.amount_minor} {notice.currency}"
    left_minor = _left_minor(attempt)
    replaced = [
        refund
        for refund in payment.refunds_of(attempt)
        if refund.status is not RefundStatus.SUCCEEDED
        and not refund.is_told
        and (refund.amount_minor, refund.currency) == (notice.amount_minor, notice.currency)
    ]
    if notice.amount_minor > left_minor and len(replaced) == 1:
        # Both would be more than came: ours was not made, and cannot be any more.
        _finish(payment, replaced[0], notice.gateway_refund_id, cause)
        return Judgement(
            Verdict.APPLIED, f"the refund of {money} was made at the gateway in the place of ours"
        )
    if notice.currency != attempt.received_currency or not 0 < notice.amount_minor <= left_minor:
        dispute = (
            f"refund of {money} made at the gateway, but {left_minor} {attempt.received_currency} were left"
        )
        if attempt.dispute != dispute:
            attempt.contest(dispute, at)
            return Judgement(Verdict.MISMATCH, "refund", contested=dispute)
        return Judgement(Verdict.DUPLICATE, f"the attempt is contested already: {dispute}")
    refund_id = uuid5(attempt.attempt_id, f"refund {notice.gateway_refund_id}")
    refund = _new_refund(attempt, refund_id, notice.amount_minor, "operator", at)
    refund.is_full, refund.note = notice.amount_minor == left_minor, "made at the gateway"
    _add_refund(payment, attempt, refund, cause)
    _finish(payment, refund, notice.gateway_refund_id, cause)
    return Judgement(Verdict.APPLIED, f"a refund of {money} was made at the gateway")


def _candidates(payment: Payment, attempt: Attempt, notice: RefundNotice) -> list[Refund]:
    """Find the refunds that may be meant: by an id, else ones of the same amount, unanswered or (failed) made."""
    own = payment.refunds_of(attempt)
    if notice.refund_id is not None:
        return [refund for refund in own if refund.refund_id == notice.refund_id]
    if notice.gateway_refund_id is not None:
        known = [refund for refund in own if refund.gateway_refund_id == notice.gateway_refund_id]
        if known or notice.is_foreign:
            return known
    return [
        refund
        for refund in own
        if refund.gateway_refund_id is None
        and (notice.failed or refund.status is not RefundStatus.SUCCEEDED)
        and (refund.amount_minor, refund.currency) == (notice.amount_minor, notice.currency)
    ]


def _left_minor(attempt: Attempt) -> int:
    return (attempt.received_amount_minor or 0) - attempt.refunding_minor


def _is_given_back(payment: Payment, attempt: Attempt) -> bool:
    return any(refund.is_full for refund in payment.refunds_of(attempt))


def _new_refund(
    attempt: Attempt, refund_id: UUID, amount_minor: int, reason: RefundReason, at: datetime
) -> Refund:
    return Refund(
        refund_id=refund_id,
        order_id=attempt.order_id,
        attempt_id=attempt.attempt_id,
        gateway=attempt.gateway,
        amount_minor=amount_minor,
        currency=attempt.received_currency or attempt.currency,
        reason=reason,
        created_at=at,
        next_try_at=at,
        is_new=True,
        is_changed=True,
    )


def _add_refund(payment: Payment, attempt: Attempt, refund: Refund, cause: str) -> None:
    attempt.refunding_minor += refund.amount_minor
    payment.refunds[refund.refund_id] = refund
    payment.is_changed = True
    if refund.gateway == NO_GATEWAY or refund.amount_minor == 0:
        _finish(payment, refund, None, cause)


def _fail(payment: Payment, refund: Refund, error: str, cause: str, *, retry_at: datetime) -> None:
    """Note a refusal, and tell of the first: what was told of the payment stays, since a facet never goes down."""
    is_news = refund.status is not RefundStatus.FAILED
    refund.status, refund.error, refund.next_try_at = RefundStatus.FAILED, error, retry_at
    refund.is_changed = True
    if is_news:
        _tell(payment, PaymentRefundFailed, refund, cause)


def _finish(payment: Payment, refund: Refund, gateway_refund_id: str | None, cause: str) -> None:
    refund.status, refund.error, refund.next_try_at = RefundStatus.SUCCEEDED, None, None
    refund.gateway_refund_id = gateway_refund_id or refund.gateway_refund_id
    refund.is_changed = True
    if refund.is_told:
        return
    refund.is_told = True
    attempt = payment.attempts[refund.attempt_id]
    own = payment.refunds_of(attempt)
    refunded_minor = sum(r.amount_minor for r in own if r.is_told)
    if refunded_minor == attempt.received_amount_minor:
        attempt.status = AttemptStatus.REFUNDED
        attempt.is_changed = True
    if attempt.attempt_id == payment.settled_attempt_id:
        payment.refunded_minor = refunded_minor
    payment.update_status(cause)
    _tell(payment, PaymentRefunded, refund, cause)


def _tell(payment: Payment, event: type[PaymentFact], refund: Refund, cause: str) -> None:
    payment.tell(
        event,
        cause,
        attempt_id=refund.attempt_id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
    )
