"""What changes a payment on its way to being paid: the order's wishes, new attempts, and what gateways say of them?

Pure decisions on a loaded `Payment`; `cause` is what its events name as their cause, `at` the time of the database.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.payment_service.domain import attempts as attempt_rules
from services.payment_service.domain import refunding
from services.payment_service.domain.answers import Created, Declined, Unanswered
from services.payment_service.domain.attempts import (
    NO_GATEWAY,
    RANKS,
    Attempt,
    AttemptStatus,
    Judgement,
    Notice,
    Task,
    Verdict,
)
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.schedule import DEFAULT_SCHEDULE, Schedule
from shared.errors import Conflict
from shared.events import PaymentInitiated, PaymentQuarantined, PaymentStatus, PaymentSucceeded

AttemptAnswer = Created | Declined | Unanswered | Notice


@dataclass(frozen=True, slots=True)
class AttemptRequest:
    """What somebody asked for when they started an attempt: the same under the same key, or it is a conflict."""

    gateway: str
    return_url: str | None
    idempotency_key: str


def open_payment(
    payment: Payment,
    *,
    amount_minor: int,
    currency: str,
    pay_by: datetime,
    cause: str,
    at: datetime,
    zero_id: UUID,
) -> None:
    """Take in what is to be paid; a second time changes nothing.

    A total of 0 settles at once, by an attempt `zero_id` without a gateway.
    """
    if payment.amount_minor is not None:
        return
    payment.amount_minor, payment.currency, payment.pay_by = amount_minor, currency, pay_by
    payment.is_changed = True
    if amount_minor == 0 and not payment.closed:
        attempt = _add_attempt(payment, zero_id, NO_GATEWAY, at)
        attempt.initiated = True
        free = Notice("free", AttemptStatus.SUCCEEDED, amount_minor=0, currency=currency)
        paid = Judgement(Verdict.APPLIED, None, AttemptStatus.SUCCEEDED)
        _apply(payment, attempt, free, paid, cause=cause, at=at)


def close_payment(payment: Payment, *, cause: str, at: datetime) -> None:
    """Remember that the order wants no money any more, and call back the attempts that may still be paid."""
    if payment.closed:
        return
    payment.closed = True
    _withdraw_live(payment, at)
    payment.update_status(cause)


def refuse_attempt(payment: Payment) -> Conflict | None:
    """Return why no attempt can be started now, or None."""
    if payment.amount_minor is None or payment.status is not PaymentStatus.PENDING:
        return Conflict(f"the payment is {payment.status}: it cannot be paid")
    if len(payment.attempts) >= payment.attempts_max:
        return Conflict(f"no attempt is left: all {payment.attempts_max} are used")
    return None


def start_attempt(
    payment: Payment, attempt_id: UUID, gateway: str, *, task_at: datetime, at: datetime
) -> Attempt:
    """Add an attempt; at `task_at` a worker asks the gateway for it if nobody else has.

    An older one that may still be paid is called back. `refuse_attempt` must have been asked before.
    """
    for older in _withdraw_live(payment, at):
        older.superseded = older.is_marked = True
    attempt = _add_attempt(payment, attempt_id, gateway, at)
    attempt.ask_gateway(Task.CREATE, task_at)
    return attempt


def learn(
    payment: Payment,
    attempt: Attempt,
    answer: AttemptAnswer,
    *,
    cause: str,
    at: datetime,
    retry_at: datetime,
    schedule: Schedule = DEFAULT_SCHEDULE,
) -> None:
    """Take in what the gateway answered when it was asked to create or to cancel an attempt."""
    match answer:
        case Created():
            _learn_created(payment, attempt, answer, cause, at)
            attempt.ask_at = schedule.next_after(attempt, at) if attempt.is_live else None
        case Declined():
            hear(payment, attempt, Notice(answer.detail, AttemptStatus.FAILED), cause=cause, at=at)
        case Unanswered():
            _learn_nothing(attempt, answer, retry_at)
        case Notice():
            hear(payment, attempt, answer, cause=cause, at=at)
            # Cancelling is best effort, and done once the gateway has answered: its webhooks tell the rest.
            attempt.ask_gateway(None, None)


def hear(payment: Payment, attempt: Attempt, notice: Notice, *, cause: str, at: datetime) -> Judgement:
    """Apply what a gateway says about an attempt as far as it is news, and return the verdict."""
    judgement = attempt_rules.judge(attempt, notice)
    is_refund = notice.refund is not None and notice.dispute is None
    # Where a part went back of money that was not known to have come, both is news.
    if not is_refund or judgement.status is not None:
        _apply(payment, attempt, notice, judgement, cause=cause, at=at)
    if notice.refund is None or not is_refund:
        return judgement
    return refunding.hear_refund(payment, attempt, notice.refund, cause=cause, at=at)


def _add_attempt(payment: Payment, attempt_id: UUID, gateway: str, at: datetime) -> Attempt:
    if payment.amount_minor is None or payment.currency is None:
        detail = "an attempt needs an amount"
        raise ValueError(detail)
    attempt = Attempt(
        attempt_id=attempt_id,
        order_id=payment.order_id,
        gateway=gateway,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        expires_at=payment.pay_by,
        created_at=at,
        is_new=True,
        is_changed=True,
    )
    payment.attempts[attempt_id] = attempt
    payment.is_changed = True
    return attempt


def withdraw(attempt: Attempt, at: datetime) -> None:
    """Have an attempt cancelled at its gateway, best effort: what is paid all the same counts."""
    attempt.withdrawn = True
    attempt.ask_gateway(Task.CANCEL, at)


def _withdraw_live(payment: Payment, at: datetime) -> list[Attempt]:
    live = [attempt for attempt in payment.attempts.values() if attempt.is_live]
    for attempt in live:
        withdraw(attempt, at)
    return live


def _learn_created(payment: Payment, attempt: Attempt, created: Created, cause: str, at: datetime) -> None:
    if attempt.initiated:
        return
    attempt.initiated = True
    attempt.gateway_transaction_id = attempt.gateway_transaction_id or created.transaction_id
    attempt.payment_url = created.payment_url
    # A gateway's page may stay open for longer than the goods are held; the attempt does not.
    ends = [end for end in (created.expires_at, attempt.expires_at) if end is not None]
    attempt.expires_at = min(ends, default=None)
    attempt.native_status = attempt.native_status or created.native_status
    if attempt.status is AttemptStatus.UNKNOWN:
        attempt.status = AttemptStatus.PENDING
    attempt.ask_gateway(None, None)
    if attempt.withdrawn and RANKS[attempt.status] <= RANKS[AttemptStatus.CANCELLED]:
        # It was called back while the gateway was still creating it: what exists there now must go.
        withdraw(attempt, at)
    elif attempt.is_live:
        payment.tell(
            PaymentInitiated,
            cause,
            attempt_id=attempt.attempt_id,
            gateway=attempt.gateway,
            gateway_transaction_id=attempt.gateway_transaction_id,
            payment_url=attempt.payment_url,
            amount_minor=attempt.amount_minor,
            currency=attempt.currency,
            expires_at=attempt.expires_at,
        )


def _learn_nothing(attempt: Attempt, answer: Unanswered, retry_at: datetime) -> None:
    if attempt.task is None:
        return
    if attempt.status is AttemptStatus.PENDING and not attempt.initiated:
        attempt.status = AttemptStatus.UNKNOWN
    attempt.native_status = answer.detail
    attempt.task_at = retry_at
    attempt.is_changed = True


def _apply(
    payment: Payment, attempt: Attempt, notice: Notice, judgement: Judgement, *, cause: str, at: datetime
) -> None:
    """Let the attempt take the state it was judged to take, and the payment follow."""
    status = judgement.status
    if judgement.contested is not None:
        attempt.contest(judgement.contested, at)
    if status is None:
        return
    attempt.receive(notice, status)
    if status is AttemptStatus.SUCCEEDED:
        count_success(payment, attempt, paid_at=notice.occurred_at or at, cause=cause, at=at)
    elif status is AttemptStatus.QUARANTINED:
        reason = judgement.reason or "mismatch"
        attempt.have_reviewed(reason, at)
        payment.update_status(cause)
        _tell_quarantined(payment, attempt, reason, cause)
    else:
        payment.update_status(cause, failed=attempt if attempt.is_failed else None)


def count_success(payment: Payment, attempt: Attempt, *, paid_at: datetime, cause: str, at: datetime) -> None:
    """Let a success settle the payment, or go back as overpayment if another one has."""
    if payment.settled_attempt_id is None:
        _settle(payment, attempt, paid_at, cause)
        # Nobody should be able to pay twice; who does so all the same gets it back.
        _withdraw_live(payment, at)
    else:
        refunding.refund_in_full(payment, attempt, "overpayment", cause=cause, at=at)


def _settle(payment: Payment, attempt: Attempt, paid_at: datetime, cause: str) -> None:
    payment.settled_attempt_id = attempt.attempt_id
    payment.settled_amount_minor = attempt.received_amount_minor
    payment.settled_currency = attempt.received_currency
    payment.paid_at = paid_at
    payment.update_status(cause)
    payment.tell(
        PaymentSucceeded,
        cause,
        attempt_id=attempt.attempt_id,
        gateway=attempt.gateway,
        gateway_transaction_id=attempt.gateway_transaction_id,
        amount_minor=payment.settled_amount_minor,
        currency=payment.settled_currency,
    )


def _tell_quarantined(payment: Payment, attempt: Attempt, reason: str, cause: str) -> None:
    payment.tell(
        PaymentQuarantined,
        cause,
        attempt_id=attempt.attempt_id,
        reason=reason,
        expected_amount_minor=attempt.amount_minor,
        expected_currency=attempt.currency,
        received_amount_minor=attempt.received_amount_minor,
        received_currency=attempt.received_currency,
    )
