"""Is the status of a payment what its attempts say, and is every change told with the state right after it?"""

from datetime import timedelta
from itertools import permutations

import pytest

from services.payment_service.domain import paying, refunding
from services.payment_service.domain.answers import Created, Declined, Refunded, Unanswered
from services.payment_service.domain.attempts import AttemptStatus, Notice, Task, Verdict
from services.payment_service.domain.payments import Payment, derive
from services.payment_service.domain.refunds import RefundStatus
from shared.errors import Conflict
from shared.events import PaymentFact, PaymentStatus
from shared.ids import new_id
from tests.payment_building import (
    AMOUNT_MINOR,
    AT,
    CURRENCY,
    a_notice,
    a_paid_payment,
    an_attempt_of,
    an_open_payment,
    hear,
    told,
)

PENDING, FAILED, EXPIRED, CANCELLED = (
    AttemptStatus.PENDING,
    AttemptStatus.FAILED,
    AttemptStatus.EXPIRED,
    AttemptStatus.CANCELLED,
)
QUARANTINED, SUCCEEDED, REFUNDED = (
    AttemptStatus.QUARANTINED,
    AttemptStatus.SUCCEEDED,
    AttemptStatus.REFUNDED,
)


def a_payment_with(statuses: list[AttemptStatus], *, attempts_max: int) -> Payment:
    """Return a payment whose attempts stand as named, oldest first."""
    payment = an_open_payment(attempts_max=attempts_max)
    for place, status in enumerate(statuses):
        an_attempt_of(payment, at=AT + timedelta(seconds=place)).status = status
    return payment


# --- the derivation, row by row -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "settled", "closed", "expected"),
    [
        ([], None, False, ("PENDING", None)),
        ([], None, True, ("CANCELLED", "cancelled")),
        ([PENDING], None, False, ("PENDING", None)),
        ([PENDING], None, True, ("CANCELLED", "cancelled")),
        ([FAILED], None, False, ("PENDING", None)),
        ([FAILED], None, True, ("CANCELLED", "cancelled")),
        ([FAILED, PENDING], None, False, ("PENDING", None)),
        ([FAILED, FAILED], None, False, ("FAILED", "declined")),
        ([FAILED, EXPIRED], None, False, ("FAILED", "expired")),
        ([EXPIRED, FAILED], None, False, ("FAILED", "declined")),
        ([EXPIRED, CANCELLED], None, False, ("FAILED", "cancelled")),
        ([FAILED, FAILED], None, True, ("FAILED", "declined")),
        ([QUARANTINED, FAILED], None, False, ("QUARANTINED", None)),
        ([QUARANTINED], None, True, ("QUARANTINED", None)),
        ([SUCCEEDED, QUARANTINED], 0, True, ("SUCCEEDED", None)),
        ([FAILED, SUCCEEDED], 1, False, ("SUCCEEDED", None)),
        ([REFUNDED, SUCCEEDED], 0, False, ("REFUNDED", None)),
        ([SUCCEEDED, REFUNDED], 0, True, ("SUCCEEDED", None)),
    ],
)
def test_the_first_match_decides_the_status(
    statuses: list[AttemptStatus], settled: int | None, *, closed: bool, expected: tuple[str, str | None]
) -> None:
    """Refunded, settled, quarantined, all failed, closed, else pending; the last attempt gives the reason."""
    payment = a_payment_with(statuses, attempts_max=2)
    attempts = list(payment.attempts.values())
    settled_attempt_id = None if settled is None else attempts[settled].attempt_id

    for order in permutations(attempts):
        status = derive(order, settled_attempt_id=settled_attempt_id, attempts_max=2, closed=closed)

        assert status == expected


# --- opening and closing --------------------------------------------------------------------------------------------


def test_a_total_of_zero_settles_at_once_without_a_gateway() -> None:
    """Gateway `none`, no transaction, and PaymentSucceeded of 0 in the same step."""
    payment = an_open_payment(amount_minor=0)

    (attempt,) = payment.attempts.values()

    assert (attempt.gateway, attempt.gateway_transaction_id, attempt.status) == ("none", None, SUCCEEDED)
    assert told(payment) == ["PaymentSucceeded"]
    assert (payment.settled_amount_minor, payment.paid_at) == (0, AT)


def test_the_refund_of_a_zero_total_is_a_row_of_zero_that_is_done_at_once() -> None:
    """The same path without a gateway."""
    payment = an_open_payment(amount_minor=0)

    refunding.refund_settled(payment, "cancelled", cause="test", at=AT)

    (refund,) = payment.refunds.values()
    assert (refund.amount_minor, refund.status, refund.next_try_at) == (0, RefundStatus.SUCCEEDED, None)
    assert told(payment) == ["PaymentSucceeded", "PaymentRefunded"]
    assert payment.status is PaymentStatus.REFUNDED


def test_a_closure_before_the_amount_is_remembered() -> None:
    """The payment is CANCELLED without an amount, and stays so when the amount comes, even if that is 0."""
    payment = Payment(order_id=new_id(), attempts_max=1, is_new=True)

    paying.close_payment(payment, cause="test", at=AT)
    paying.open_payment(
        payment, amount_minor=0, currency=CURRENCY, pay_by=AT, cause="test", at=AT, zero_id=new_id()
    )

    assert (payment.status, payment.amount_minor, payment.attempts) == (PaymentStatus.CANCELLED, 0, {})
    assert told(payment) == ["PaymentFailed"]


def test_closing_tells_failed_once_and_calls_live_attempts_back() -> None:
    """PaymentFailed with reason `cancelled`; the gateway is to be asked to cancel what may still be paid."""
    payment = an_open_payment(attempts_max=2)
    declined, live = an_attempt_of(payment), an_attempt_of(payment)
    hear(payment, a_notice(declined, FAILED))

    for _ in range(2):
        paying.close_payment(payment, cause="test", at=AT)

    assert told(payment) == [*["PaymentInitiated"] * 2, "PaymentAttemptFailed", "PaymentFailed"]
    event = payment.emitted[-1].event
    assert isinstance(event, PaymentFact)
    assert (event.payment_status, event.payment_reason) == (PaymentStatus.CANCELLED, "cancelled")
    assert (live.task, declined.task) == (Task.CANCEL, None)


def test_an_attempt_that_we_called_back_ourselves_does_not_turn_cancelled_into_failed() -> None:
    """The gateway's consent to our own cancellation is no news about the payment."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)
    paying.close_payment(payment, cause="test", at=AT)
    before = told(payment)

    paying.learn(payment, attempt, a_notice(attempt, CANCELLED), cause="test", at=AT, retry_at=AT)

    assert (attempt.status, attempt.task, payment.status) == (CANCELLED, None, PaymentStatus.CANCELLED)
    assert told(payment) == before


def test_a_success_after_the_closure_counts() -> None:
    """Money that still arrives settles the payment."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)
    paying.close_payment(payment, cause="test", at=AT)

    verdict = hear(payment, a_notice(attempt, SUCCEEDED))

    assert (verdict, payment.status) == (Verdict.APPLIED, PaymentStatus.SUCCEEDED)
    assert told(payment)[-1] == "PaymentSucceeded"


# --- attempts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "attempts_max", "refused"),
    [
        ([], 1, False),
        ([PENDING], 1, True),
        ([PENDING], 2, False),
        ([FAILED], 2, False),
        ([FAILED, FAILED], 3, False),
    ],
)
def test_an_attempt_needs_one_that_is_left(
    statuses: list[AttemptStatus], attempts_max: int, *, refused: bool
) -> None:
    """The limit counts all attempts, whatever became of them."""
    payment = a_payment_with(statuses, attempts_max=attempts_max)

    refusal = paying.refuse_attempt(payment)

    assert isinstance(refusal, Conflict) is refused


@pytest.mark.parametrize(
    "status", [status for status in PaymentStatus if status is not PaymentStatus.PENDING]
)
def test_only_a_pending_payment_can_be_paid(status: PaymentStatus) -> None:
    """Any other status is a conflict."""
    payment = an_open_payment(attempts_max=5)
    payment.status = status

    refusal = paying.refuse_attempt(payment)

    assert isinstance(refusal, Conflict)


def test_each_decline_but_the_last_tells_how_many_attempts_are_left() -> None:
    """PaymentAttemptFailed while attempts are left; the last decline tells PaymentFailed alone."""
    payment = an_open_payment(attempts_max=2)

    hear(payment, a_notice(an_attempt_of(payment), FAILED))
    hear(payment, a_notice(an_attempt_of(payment), EXPIRED))

    assert told(payment) == ["PaymentInitiated", "PaymentAttemptFailed", "PaymentInitiated", "PaymentFailed"]
    assert payment.emitted[1].event.model_dump(include={"reason", "attempts_left"}) == {
        "reason": "declined",
        "attempts_left": 1,
    }
    assert payment.emitted[3].event.model_dump(include={"reason", "attempts"}) == {
        "reason": "expired",
        "attempts": 2,
    }


def test_a_failure_of_the_first_attempt_after_the_success_of_the_second_changes_nothing_of_the_payment() -> (
    None
):
    """The first success settles the payment for ever."""
    payment = an_open_payment(attempts_max=2)
    first, second = an_attempt_of(payment), an_attempt_of(payment)
    hear(payment, a_notice(second, SUCCEEDED))
    before = (told(payment), payment.status, payment.sequence)

    verdict = hear(payment, a_notice(first, FAILED))

    assert verdict is Verdict.APPLIED
    assert first.status is FAILED
    assert (told(payment), payment.status, payment.sequence) == before


def test_an_answer_after_a_webhook_that_overtook_it_only_completes_the_attempt() -> None:
    """A success that came before the gateway's answer is not followed by PaymentInitiated."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment, created=False)
    hear(payment, a_notice(attempt, SUCCEEDED, transaction_id="t-1"))

    paying.learn(payment, attempt, Created("t-1", "https://pay", "pending"), cause="test", at=AT, retry_at=AT)

    assert told(payment) == ["PaymentSucceeded"]
    assert (attempt.status, attempt.payment_url, attempt.task) == (SUCCEEDED, "https://pay", None)


def test_silence_of_the_gateway_is_unknown_and_never_a_failure() -> None:
    """The attempt is asked about again later; nothing is told until something is known."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment, created=False)
    later = AT + timedelta(seconds=5)

    paying.learn(payment, attempt, Unanswered("no answer"), cause="test", at=AT, retry_at=later)

    assert (attempt.status, attempt.task, attempt.task_at) == (AttemptStatus.UNKNOWN, Task.CREATE, later)
    assert (payment.status, told(payment)) == (PaymentStatus.PENDING, [])


def test_an_answer_makes_an_unknown_attempt_pending_and_is_told_once() -> None:
    """The same answer again changes nothing."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment, created=False)
    paying.learn(payment, attempt, Unanswered("no answer"), cause="test", at=AT, retry_at=AT)

    for _ in range(2):
        answer = Created("t-1", "https://pay", "pending")
        paying.learn(payment, attempt, answer, cause="test", at=AT, retry_at=AT)

    assert (attempt.status, told(payment)) == (PENDING, ["PaymentInitiated"])


def test_a_gateway_that_declines_to_create_fails_the_attempt() -> None:
    """A certain no is a decline like any other."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment, created=False)

    paying.learn(payment, attempt, Declined("422: no"), cause="test", at=AT, retry_at=AT)

    assert (attempt.status, attempt.task, told(payment)) == (FAILED, None, ["PaymentFailed"])


def test_an_attempt_created_while_it_was_called_back_is_cancelled_again() -> None:
    """The gateway's late answer to the creation leads to another cancellation, and is not told."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment, created=False)
    paying.close_payment(payment, cause="test", at=AT)
    not_found = Notice("not_found", CANCELLED)
    paying.learn(payment, attempt, not_found, cause="test", at=AT, retry_at=AT)

    paying.learn(payment, attempt, Created("t-1", "https://pay", "pending"), cause="test", at=AT, retry_at=AT)

    assert (attempt.task, attempt.gateway_transaction_id) == (Task.CANCEL, "t-1")
    assert told(payment) == ["PaymentFailed"]


def test_a_mismatch_is_told_with_what_was_expected_and_received() -> None:
    """PaymentQuarantined; nothing is paid."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)

    verdict = hear(payment, a_notice(attempt, SUCCEEDED, amount_minor=1))

    assert (verdict, payment.status, payment.settled_attempt_id) == (
        Verdict.MISMATCH,
        PaymentStatus.QUARANTINED,
        None,
    )
    assert told(payment)[-1] == "PaymentQuarantined"
    assert payment.emitted[-1].event.model_dump(exclude={"attempt_id", "order_id", "paid_at"}) == {
        "payment_status": "QUARANTINED",
        "payment_reason": None,
        "settled_attempt_id": None,
        "settled_amount_minor": None,
        "settled_currency": None,
        "refunded_minor": 0,
        "reason": "amount",
        "expected_amount_minor": AMOUNT_MINOR,
        "expected_currency": CURRENCY,
        "received_amount_minor": 1,
        "received_currency": CURRENCY,
    }


def test_every_event_carries_the_state_after_its_step_and_the_next_number() -> None:
    """Sequences are 1, 2, 3…, and the key is the order id."""
    payment = a_paid_payment()
    refunding.refund_settled(payment, "unavailable", cause="test", at=AT)
    (refund,) = payment.refunds.values()
    refunding.learn_refund(payment, refund, Refunded("r-1"), cause="test", retry_at=AT)

    facts = [emitted.event for emitted in payment.emitted if isinstance(emitted.event, PaymentFact)]

    assert [emitted.sequence for emitted in payment.emitted] == [1, 2, 3]
    assert {emitted.key for emitted in payment.emitted} == {str(payment.order_id)}
    assert [(fact.payment_status.value, fact.refunded_minor) for fact in facts] == [
        ("PENDING", 0),
        ("SUCCEEDED", 0),
        ("REFUNDED", AMOUNT_MINOR),
    ]
