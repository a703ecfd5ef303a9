"""Does a person decide about money that is not as it should be, and does nothing move until then?"""

from dataclasses import replace
from typing import Any

import pytest

from services.payment_service.domain import refunding, resolving
from services.payment_service.domain.answers import Declined, Refunded
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Verdict
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunds import Refund, RefundStatus
from services.payment_service.domain.resolving import Action, Decision, Resolution
from shared.errors import Conflict
from shared.events import PaymentFact, PaymentStatus
from shared.ids import new_id
from tests.payment_building import (
    AMOUNT_MINOR,
    AT,
    CURRENCY,
    a_notice,
    a_paid_payment,
    a_refund_notice,
    an_attempt_of,
    an_open_payment,
    hear,
    told,
)

SUCCEEDED, FAILED, CANCELLED = AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.CANCELLED
TAKES_BACK = frozenset({SUCCEEDED})


def decide(payment: Payment, attempt: Attempt, action: Action) -> Resolution | Conflict:
    """Have an operator decide."""
    decision = Decision(new_id(), action, "asked the customer", "ann", None, "http:1")
    return resolving.resolve(payment, attempt, decision, at=AT)


def a_quarantined(**changes: Any) -> tuple[Payment, Attempt]:
    """Return a payment of two attempts whose first is quarantined, by default for 1 minor unit in another currency."""
    payment = an_open_payment(attempts_max=2)
    attempt = an_attempt_of(payment)
    hear(payment, a_notice(attempt, SUCCEEDED, **(changes or {"amount_minor": 1, "currency": "USD"})))
    return payment, attempt


def the_refund_of(payment: Payment) -> Refund:
    """Return the only refund of a payment."""
    (refund,) = payment.refunds.values()
    return refund


# --- what is contested ----------------------------------------------------------------------------------------------


def test_a_dispute_moves_nothing_and_waits_for_a_person() -> None:
    """The payment stays SUCCEEDED, nothing is told, and the attempt is to be reviewed; the same again is no news."""
    payment = a_paid_payment()
    attempt = payment.settled_attempt
    assert attempt is not None
    before = told(payment)

    verdicts = [hear(payment, a_notice(attempt, None, dispute="fraudulent")) for _ in range(2)]

    assert verdicts == [Verdict.APPLIED, Verdict.DUPLICATE]
    assert (payment.status, attempt.status, told(payment)) == (PaymentStatus.SUCCEEDED, SUCCEEDED, before)
    assert (attempt.dispute, attempt.review_reason, attempt.review_at) == ("fraudulent", "fraudulent", AT)


@pytest.mark.parametrize("status", [FAILED, CANCELLED])
def test_a_success_that_its_gateway_takes_back_stays_and_is_contested(status: AttemptStatus) -> None:
    """The first success settles for ever: the attempt is marked, and neither told of nor moved."""
    payment = a_paid_payment()
    attempt = payment.settled_attempt
    assert attempt is not None
    before = told(payment)

    verdict = hear(payment, a_notice(attempt, status, corrects=TAKES_BACK))

    assert verdict is Verdict.REGRESSIVE
    assert (payment.status, attempt.status, told(payment)) == (PaymentStatus.SUCCEEDED, SUCCEEDED, before)
    assert attempt.review_reason == f"payment.{status} after SUCCEEDED"


def test_a_failure_that_corrects_nothing_is_no_dispute() -> None:
    """A late failure of a settled attempt is regressive, and nobody has to look at it."""
    payment = a_paid_payment()
    attempt = payment.settled_attempt
    assert attempt is not None

    verdict = hear(payment, a_notice(attempt, FAILED))

    assert (verdict, attempt.review_at) == (Verdict.REGRESSIVE, None)


def test_money_that_goes_back_at_our_own_wish_is_not_contested() -> None:
    """Some gateways tell of a refund before settlement as a cancellation: it is ours."""
    payment = a_paid_payment()
    attempt = payment.settled_attempt
    assert attempt is not None
    refunding.refund_settled(payment, "cancelled", cause="test", at=AT)

    verdict = hear(payment, a_notice(attempt, CANCELLED, corrects=TAKES_BACK))

    assert (verdict, attempt.review_at) == (Verdict.REGRESSIVE, None)


@pytest.mark.parametrize(("is_final", "status"), [(True, "QUARANTINED"), (False, "SUCCEEDED")])
def test_a_success_after_a_cancellation_counts_unless_that_was_final(*, is_final: bool, status: str) -> None:
    """A gateway that contradicts its own last word is not believed; any other cancellation is as good as a failure."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)
    hear(payment, a_notice(attempt, CANCELLED, is_final=is_final))

    hear(payment, a_notice(attempt, SUCCEEDED))

    assert (payment.status, attempt.status) == (status, status)
    assert attempt.review_reason == ("cancelled" if is_final else None)
    assert told(payment)[-1] == ("PaymentQuarantined" if is_final else "PaymentSucceeded")


def test_another_success_of_a_settled_attempt_is_contested_once() -> None:
    """What it says of the money that is counted already is no news; other money is for a person."""
    payment = a_paid_payment()
    attempt = payment.settled_attempt
    assert attempt is not None

    for _ in range(2):
        hear(payment, a_notice(attempt, SUCCEEDED, amount_minor=5))

    assert attempt.status is SUCCEEDED
    assert attempt.review_reason == "another success, of another amount"


def test_a_quarantined_success_that_is_repeated_is_not_contested() -> None:
    """It is the very money that is quarantined."""
    payment, attempt = a_quarantined()

    verdict = hear(payment, a_notice(attempt, SUCCEEDED, amount_minor=1, currency="USD"))

    assert (verdict, attempt.dispute, attempt.review_reason) == (Verdict.MISMATCH, None, "currency")


# --- what operators decide ------------------------------------------------------------------------------------------


def test_an_accepted_success_settles_the_payment_as_it_came() -> None:
    """PaymentSucceeded with what was received; what was accepted is recorded beside it."""
    payment, attempt = a_quarantined(amount_minor=1)

    resolution = decide(payment, attempt, Action.ACCEPT)

    assert isinstance(resolution, Resolution)
    assert (resolution.review_reason, resolution.refund_id) == ("amount", None)
    assert (payment.status, payment.settled_amount_minor, payment.settled_currency) == (
        PaymentStatus.SUCCEEDED,
        1,
        CURRENCY,
    )
    assert (attempt.status, attempt.accepted_amount_minor, attempt.review_at) == (SUCCEEDED, 1, None)
    assert told(payment)[-2:] == ["PaymentQuarantined", "PaymentSucceeded"]


def test_an_accepted_success_after_another_one_goes_back_as_overpayment() -> None:
    """The first success settles for ever, whatever an operator decides about the other."""
    payment = an_open_payment(attempts_max=2)
    wrong, right = an_attempt_of(payment), an_attempt_of(payment)
    hear(payment, a_notice(wrong, SUCCEEDED, amount_minor=1))
    hear(payment, a_notice(right, SUCCEEDED))

    resolution = decide(payment, wrong, Action.ACCEPT)

    refund = the_refund_of(payment)
    assert isinstance(resolution, Resolution)
    assert (refund.reason, refund.amount_minor, refund.attempt_id) == ("overpayment", 1, wrong.attempt_id)
    assert (resolution.refund_id, wrong.accepted_amount_minor) == (refund.refund_id, None)
    assert payment.settled_attempt_id == right.attempt_id


def test_a_refunded_success_goes_back_as_it_came() -> None:
    """In the currency in which it came; the payment waits until it is back, and can be paid again then."""
    payment, attempt = a_quarantined()

    decide(payment, attempt, Action.REFUND)
    refund = the_refund_of(payment)
    before = (payment.status, attempt.status)
    refunding.learn_refund(payment, refund, Refunded("r-1"), cause="test", retry_at=AT)

    assert (refund.amount_minor, refund.currency, refund.reason) == (1, "USD", "operator")
    assert before == (PaymentStatus.QUARANTINED, AttemptStatus.QUARANTINED)
    assert (payment.status, attempt.status) == (PaymentStatus.PENDING, AttemptStatus.REFUNDED)
    event = payment.emitted[-1].event
    assert isinstance(event, PaymentFact)
    assert (told(payment)[-1], event.settled_attempt_id, event.refunded_minor) == ("PaymentRefunded", None, 0)


def test_money_in_another_transaction_is_given_back_there() -> None:
    """A success of another transaction names where the money is."""
    _, attempt = a_quarantined(transaction_id="another")

    assert attempt.review_reason == "transaction"
    assert attempt.received_transaction_id == "another"


@pytest.mark.parametrize("action", list(Action))
def test_what_nobody_said_the_amount_of_cannot_be_decided(action: Action) -> None:
    """Neither accepted nor given back: first somebody must look at the gateway."""
    payment, attempt = a_quarantined(amount_minor=None, currency=None)

    refusal = decide(payment, attempt, action)

    assert isinstance(refusal, Conflict)
    assert attempt.review_at is not None


def test_a_dispute_is_accepted_without_moving_anything() -> None:
    """The payment stays as it is, and nobody has to look at it any more."""
    payment = a_paid_payment()
    attempt = payment.settled_attempt
    assert attempt is not None
    hear(payment, a_notice(attempt, None, dispute="fraudulent"))
    before = told(payment)

    resolution = decide(payment, attempt, Action.ACCEPT)

    assert isinstance(resolution, Resolution)
    assert (payment.status, payment.refunds, told(payment)) == (PaymentStatus.SUCCEEDED, {}, before)
    assert (attempt.review_at, attempt.dispute) == (None, "fraudulent")


def test_a_disputed_payment_is_given_back_in_full() -> None:
    """An ordinary refund of the settled attempt; its end is REFUNDED."""
    payment = a_paid_payment()
    attempt = payment.settled_attempt
    assert attempt is not None
    hear(payment, a_notice(attempt, None, dispute="fraudulent"))

    decide(payment, attempt, Action.REFUND)
    refunding.learn_refund(payment, the_refund_of(payment), Refunded(None), cause="test", retry_at=AT)

    assert (payment.status, payment.refunded_minor) == (PaymentStatus.REFUNDED, AMOUNT_MINOR)


def test_nothing_is_decided_about_what_nobody_contests() -> None:
    """An attempt that is as it should be is a conflict."""
    payment = a_paid_payment()
    attempt = payment.settled_attempt
    assert attempt is not None

    refusal = decide(payment, attempt, Action.REFUND)

    assert isinstance(refusal, Conflict)
    assert payment.refunds == {}


# --- refunds that fail afterwards -----------------------------------------------------------------------------------


def a_refunded() -> tuple[Payment, Attempt, Refund]:
    """Return a payment whose money went back, by the gateway's word."""
    payment = a_paid_payment()
    refunding.refund_settled(payment, "unavailable", cause="test", at=AT)
    refund = the_refund_of(payment)
    refunding.learn_refund(payment, refund, Refunded("r-1"), cause="test", retry_at=AT)
    return payment, payment.attempts[refund.attempt_id], refund


def test_a_refund_that_the_gateway_takes_back_is_asked_for_again_and_told_once() -> None:
    """It is FAILED and due at once; the payment stays REFUNDED, and its second success is told to nobody."""
    payment, attempt, refund = a_refunded()
    before = told(payment)
    failed = a_refund_notice(attempt, AMOUNT_MINOR, gateway_refund_id="r-1", failed=True)

    verdicts = [hear(payment, failed) for _ in range(2)]
    after = (refund.status, refund.next_try_at, payment.status, payment.refunded_minor)
    refunding.learn_refund(payment, refund, Declined("still no"), cause="test", retry_at=AT)
    refunding.learn_refund(payment, refund, Refunded("r-2"), cause="test", retry_at=AT)

    assert verdicts == [Verdict.APPLIED, Verdict.DUPLICATE]
    assert after == (RefundStatus.FAILED, AT, PaymentStatus.REFUNDED, AMOUNT_MINOR)
    assert (refund.status, refund.next_try_at) == (RefundStatus.SUCCEEDED, None)
    assert told(payment) == [*before, "PaymentRefundFailed"]


def test_an_older_success_of_a_refund_does_not_undo_its_failure() -> None:
    """The gateway's words come in any order: after the failure only its answer counts."""
    payment, attempt, refund = a_refunded()
    word = a_refund_notice(attempt, AMOUNT_MINOR, gateway_refund_id="r-1")
    assert word.refund is not None
    hear(payment, replace(word, refund=replace(word.refund, failed=True)))

    verdict = hear(payment, word)

    assert (verdict, refund.status) == (Verdict.REGRESSIVE, RefundStatus.FAILED)
