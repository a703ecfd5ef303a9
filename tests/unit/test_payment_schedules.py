"""Does a payment end right whatever comes, in whatever order, however often?"""

from dataclasses import dataclass
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.payment_service.domain import paying, refunding
from services.payment_service.domain.answers import Declined, Refunded, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus
from services.payment_service.domain.payments import Payment, derive
from services.payment_service.domain.refunding import RefundAnswer
from services.payment_service.domain.refunds import RefundStatus
from shared.events import PaymentFact
from tests.payment_building import AT, a_notice, a_refund_notice, an_attempt_of, an_open_payment, told

Said = Literal["succeeded", "failed", "expired", "cancelled", "mismatch", "refunded"]
_STATUSES = {
    "succeeded": AttemptStatus.SUCCEEDED,
    "mismatch": AttemptStatus.SUCCEEDED,
    "failed": AttemptStatus.FAILED,
    "expired": AttemptStatus.EXPIRED,
    "cancelled": AttemptStatus.CANCELLED,
}


@dataclass(frozen=True)
class Step:
    """One thing that happens: to an attempt by its place, or to the whole payment (place None)."""

    what: str
    place: int | None = None


CLOSE, REFUND, ANSWER, DECLINE, SILENCE = (
    Step("close"),
    Step("refund"),
    Step("answer"),
    Step("decline"),
    Step("silence"),
)
OWN_STEPS = [CLOSE, REFUND, ANSWER, DECLINE, SILENCE]


def steps(*said: Said) -> st.SearchStrategy[list[Step]]:
    """Return schedules of what gateways say of two attempts, and of what we do, with repetitions."""
    words = st.builds(Step, st.sampled_from(said), st.sampled_from([0, 1]))
    return st.lists(st.one_of(words, words, st.sampled_from(OWN_STEPS)), max_size=25)


def run(schedule: list[Step]) -> tuple[Payment, list[Attempt]]:
    """Return a payment with two attempts after everything in the schedule has happened."""
    payment = an_open_payment(attempts_max=2)
    attempts = [an_attempt_of(payment), an_attempt_of(payment)]
    for step in schedule:
        if step.place is None:
            _do(payment, step)
        else:
            _say(payment, attempts[step.place], step.what)
    return payment, attempts


def _do(payment: Payment, step: Step) -> None:
    answers: dict[Step, RefundAnswer] = {
        ANSWER: Refunded(None),
        DECLINE: Declined("no"),
        SILENCE: Unanswered("?"),
    }
    if step == CLOSE:
        paying.close_payment(payment, cause="test", at=AT)
    elif step == REFUND:
        refunding.refund_settled(payment, "unavailable", cause="test", at=AT)
    else:
        for refund in list(payment.refunds.values()):
            refunding.learn_refund(payment, refund, answers[step], cause="test", retry_at=AT)


def _say(payment: Payment, attempt: Attempt, what: str) -> None:
    if what == "refunded":
        notice = a_refund_notice(attempt, attempt.amount_minor)
    else:
        notice = a_notice(attempt, _STATUSES[what], **({"amount_minor": 1} if what == "mismatch" else {}))
    paying.hear(payment, attempt, notice, cause="test", at=AT)


def check_money(payment: Payment) -> None:
    """Assert what must always be true of a payment's money and of what was told."""
    paid = [a for a in payment.attempts.values() if a.received_currency and a.status != "QUARANTINED"]
    assert (payment.settled_attempt_id is not None) == bool(paid)
    for attempt in payment.attempts.values():
        own = payment.refunds_of(attempt)
        assert sum(refund.amount_minor for refund in own) == attempt.refunding_minor
        assert attempt.refunding_minor <= (attempt.received_amount_minor or 0)
        assert sum(refund.is_full for refund in own) <= 1
        if attempt in paid and attempt.attempt_id != payment.settled_attempt_id:
            assert [refund.reason for refund in own] == ["overpayment"]
    done = [r for r in payment.refunds.values() if r.status is RefundStatus.SUCCEEDED]
    assert told(payment).count("PaymentRefunded") == len(done)
    assert told(payment).count("PaymentSucceeded") == min(1, len(paid))


def check_what_is_told(payment: Payment) -> None:
    """Assert that events are numbered without holes and that the last one says where the payment stands."""
    assert [emitted.sequence for emitted in payment.emitted] == list(range(1, payment.sequence + 1))
    last = payment.emitted[-1].event
    assert isinstance(last, PaymentFact)
    assert (last.payment_status, last.settled_attempt_id, last.refunded_minor) == (
        payment.status,
        payment.settled_attempt_id,
        payment.refunded_minor,
    )
    derived = derive(
        payment.attempts.values(),
        settled_attempt_id=payment.settled_attempt_id,
        attempts_max=payment.attempts_max,
        closed=payment.closed,
    )
    assert derived == (payment.status, payment.reason)


@settings(max_examples=200, deadline=None)
@given(steps("succeeded", "failed", "expired", "cancelled", "mismatch", "refunded"))
@example([Step("mismatch", 0), Step("succeeded", 0), CLOSE])
@example([Step("succeeded", 1), Step("failed", 0), Step("succeeded", 0), REFUND, ANSWER])
def test_whatever_happens_the_money_is_right_and_every_change_is_told(schedule: list[Step]) -> None:
    """One settled attempt if any money came, every other success going back, never more than what came."""
    payment, _ = run(schedule)

    check_money(payment)
    check_what_is_told(payment)


@settings(max_examples=150, deadline=None)
@given(steps("succeeded", "failed", "expired", "cancelled", "mismatch", "refunded"), st.data())
def test_everything_delivered_again_changes_nothing(schedule: list[Step], data: st.DataObject) -> None:
    """Gateways may repeat any of their deliveries, in any order, after all the rest."""
    payment, attempts = run(schedule)
    before = (payment.status, payment.sequence, [attempt.status for attempt in attempts])
    # A word about a refund may be news later: it is left open until there is such a refund.
    repeated = [step for step in schedule if step.place is not None and step.what != "refunded"]

    for step in data.draw(st.permutations(repeated)):
        _say(payment, attempts[step.place or 0], step.what)

    assert (payment.status, payment.sequence, [attempt.status for attempt in attempts]) == before


@settings(max_examples=150, deadline=None)
@given(
    fates=st.lists(
        st.tuples(st.sampled_from(["failed", "expired", None]), st.booleans()), min_size=2, max_size=2
    ),
    closes=st.booleans(),
    data=st.data(),
)
def test_the_end_does_not_depend_on_the_order(
    fates: list[tuple[str | None, bool]], *, closes: bool, data: st.DataObject
) -> None:
    """What each attempt met (a failure, a success, both), and a closure, lead to one end in any order and repetition."""
    facts = [Step(failure, place) for place, (failure, _) in enumerate(fates) if failure]
    facts += [Step("succeeded", place) for place, (_, paid) in enumerate(fates) if paid]
    facts += [CLOSE] if closes else []
    expected, expected_attempts = run(facts)

    repeated = st.lists(st.sampled_from(facts), max_size=6) if facts else st.just([])
    payment, attempts = run(data.draw(st.permutations(facts + data.draw(repeated))))

    assert [a.status for a in attempts] == [a.status for a in expected_attempts]
    assert (payment.status, payment.reason) == (expected.status, expected.reason)
    assert payment.settled_amount_minor == expected.settled_amount_minor
    assert len(payment.refunds) == len(expected.refunds)
    check_money(payment)
