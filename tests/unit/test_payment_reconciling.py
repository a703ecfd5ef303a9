"""Is a gateway asked at the right times, and does what it answers repair what was lost?"""

from datetime import datetime, timedelta

import pytest

from services.payment_service.domain import paying
from services.payment_service.domain.answers import Created, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice, Task
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.reconciling import Outcome, reconcile
from services.payment_service.domain.schedule import Schedule
from shared.events import PaymentStatus
from tests.payment_building import AT, a_notice, an_attempt_of, an_open_payment, hear, told

SCHEDULE = Schedule((300.0, 900.0, 3_600.0), 60.0)
SUCCEEDED, EXPIRED, CANCELLED, PENDING = (
    AttemptStatus.SUCCEEDED,
    AttemptStatus.EXPIRED,
    AttemptStatus.CANCELLED,
    AttemptStatus.PENDING,
)


def after(seconds: float) -> datetime:
    """Return a time after the attempt was made; the hold ends after 900 seconds."""
    return AT + timedelta(seconds=seconds)


def ask(payment: Payment, attempt: Attempt, answer: Notice | Unanswered | None, at: datetime) -> Outcome:
    """Have the gateway answered so at some time."""
    return reconcile(
        payment,
        attempt,
        answer,
        schedule=SCHEDULE,
        cause="timer:reconcile",
        at=at,
        retry_at=at + timedelta(9),
    )


def test_an_attempt_is_asked_about_at_its_ages_before_its_end_and_at_its_end() -> None:
    """5 minutes, shortly before the hold ends, at its end, an hour after it was made, and then every hour."""
    attempt = an_attempt_of(an_open_payment())
    attempt.expires_at = after(1_000)
    moments = [AT]

    for _ in range(7):
        moments.append(SCHEDULE.next_after(attempt, moments[-1]))

    seconds = [(moment - AT).total_seconds() for moment in moments[1:]]
    assert seconds == [300, 900, 940, 1_000, 3_600, 7_200, 10_800]


def test_a_created_attempt_has_its_first_question_and_an_ended_one_has_none() -> None:
    """The gateway's answer to the creation starts the schedule; any end stops it."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)
    first = attempt.ask_at

    hear(payment, a_notice(attempt, SUCCEEDED))

    assert (first, attempt.ask_at) == (after(300), None)


def test_an_attempt_that_the_gateway_may_not_have_is_created_and_not_asked_about() -> None:
    """As long as its creation is unanswered, that is asked again."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment, created=False)

    paying.learn(payment, attempt, Unanswered("?"), cause="test", at=AT, retry_at=AT)

    assert (attempt.task, attempt.ask_at) == (Task.CREATE, None)


def test_a_lost_success_is_repaired() -> None:
    """The answer settles the payment as its webhook would have, with the timer as its cause."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)

    outcome = ask(payment, attempt, a_notice(attempt, SUCCEEDED), after(300))

    assert (outcome, payment.status, attempt.ask_at) == (Outcome.REPAIRED, PaymentStatus.SUCCEEDED, None)
    assert payment.emitted[-1].cause == "timer:reconcile"


def test_a_wrong_amount_is_quarantined_as_by_webhook() -> None:
    """The judge is the same."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)

    ask(payment, attempt, a_notice(attempt, SUCCEEDED, amount_minor=1), after(300))

    assert payment.status is PaymentStatus.QUARANTINED


@pytest.mark.parametrize("known", [True, False])
def test_an_attempt_that_is_still_open_is_asked_about_again(*, known: bool) -> None:
    """Pending, or not known as long as nobody has chosen how to pay: nothing changes before the end."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)

    outcome = ask(payment, attempt, a_notice(attempt, PENDING) if known else None, after(300))

    assert outcome is (Outcome.UNCHANGED if known else Outcome.UNKNOWN)
    assert (attempt.status, attempt.ask_at, attempt.task) == (PENDING, after(840), None)


def test_silence_changes_nothing_and_is_asked_again() -> None:
    """An unanswered question is no failure, also after the end."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)

    outcome = ask(payment, attempt, Unanswered("no answer"), after(900))

    assert (outcome, attempt.status, attempt.task) == (Outcome.UNANSWERED, PENDING, None)
    assert attempt.ask_at == after(900) + timedelta(9)


@pytest.mark.parametrize(("withdrawn", "status"), [(False, EXPIRED), (True, CANCELLED)])
def test_what_the_gateway_does_not_know_at_its_end_has_ended(
    *, withdrawn: bool, status: AttemptStatus
) -> None:
    """Some pages expire without a word; an attempt that we called back has ended as we wished."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)
    if withdrawn:
        paying.close_payment(payment, cause="test", at=AT)

    outcome = ask(payment, attempt, None, after(900))

    assert (outcome, attempt.status, attempt.task, attempt.ask_at) == (Outcome.REPAIRED, status, None, None)
    assert told(payment)[-1] == "PaymentFailed"


def test_what_may_still_be_paid_after_its_end_is_called_back() -> None:
    """An attempt ends no later than its hold: the gateway is asked to cancel it, and what it says then counts."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)

    ask(payment, attempt, a_notice(attempt, PENDING), after(900))
    task = attempt.task
    paying.learn(payment, attempt, a_notice(attempt, SUCCEEDED), cause="test", at=after(901), retry_at=AT)

    assert (task, attempt.status, payment.status) == (Task.CANCEL, SUCCEEDED, PaymentStatus.SUCCEEDED)


def test_what_cannot_be_called_back_is_asked_about_until_it_has_ended() -> None:
    """Money that takes days is never forgotten, though all its webhooks are lost; each time it is called back again."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)
    tasks = []
    for seconds in (900, 3_600, 90_000):
        ask(payment, attempt, a_notice(attempt, PENDING), after(seconds))
        tasks.append(attempt.task)
        refused = a_notice(attempt, PENDING)
        paying.learn(payment, attempt, refused, cause="test", at=after(seconds + 1), retry_at=AT)
        tasks.append(attempt.task)

    ask(payment, attempt, a_notice(attempt, SUCCEEDED), after(180_000))

    assert tasks == [Task.CANCEL, None] * 3
    assert (payment.status, attempt.ask_at) == (PaymentStatus.SUCCEEDED, None)


@pytest.mark.parametrize(("offered", "kept"), [(300, 300), (1_800, 900), (None, 900)])
def test_an_attempt_ends_no_later_than_its_hold(offered: int | None, kept: int) -> None:
    """A gateway's page may stay open for longer than the goods are held."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment, created=False)
    end = None if offered is None else after(offered)

    paying.learn(payment, attempt, Created("t", None, "pending", end), cause="test", at=AT, retry_at=AT)

    assert attempt.expires_at == after(kept)


# --- attempts after attempts ----------------------------------------------------------------------------------------


def test_a_new_attempt_calls_the_older_one_back_and_that_is_no_failure() -> None:
    """The older one is to be cancelled; its end is told to nobody while the newer one may be paid."""
    payment = an_open_payment(attempts_max=3)
    older, newer = an_attempt_of(payment), an_attempt_of(payment)
    task = older.task

    for status in (CANCELLED, EXPIRED):
        paying.learn(payment, older, a_notice(older, status), cause="test", at=AT, retry_at=AT)

    assert (task, newer.task, older.is_failed) == (Task.CANCEL, None, False)
    assert told(payment) == ["PaymentInitiated", "PaymentInitiated"]


def test_the_payment_fails_when_the_last_attempt_has_failed_and_the_older_ones_have_ended() -> None:
    """Nobody waits for the hold to end when nothing can be paid any more."""
    payment = an_open_payment(attempts_max=2)
    older, newer = an_attempt_of(payment), an_attempt_of(payment)
    hear(payment, a_notice(newer, AttemptStatus.FAILED))
    before = payment.status

    hear(payment, a_notice(older, CANCELLED))

    assert (before, payment.status, payment.reason) == (
        PaymentStatus.PENDING,
        PaymentStatus.FAILED,
        "declined",
    )


def test_a_declined_attempt_with_tries_left_keeps_the_hold() -> None:
    """PaymentAttemptFailed, which inventory passes over; the payment can still be paid."""
    payment = an_open_payment(attempts_max=2)

    hear(payment, a_notice(an_attempt_of(payment), AttemptStatus.FAILED))

    assert (payment.status, told(payment)[-1]) == (PaymentStatus.PENDING, "PaymentAttemptFailed")
    assert paying.refuse_attempt(payment) is None


def test_a_success_calls_back_what_could_still_be_paid() -> None:
    """Nobody should pay twice; who does gets it back."""
    payment = an_open_payment(attempts_max=2)
    older, newer = an_attempt_of(payment), an_attempt_of(payment)

    hear(payment, a_notice(older, SUCCEEDED))

    assert newer.task is Task.CANCEL
