"""Does a gateway's word change an attempt exactly as its rank allows?"""

from itertools import product

import pytest

from services.payment_service.domain.attempts import RANKS, AttemptStatus, Verdict, judge
from tests.payment_building import a_notice, an_attempt_of, an_open_payment

PENDING, UNKNOWN, AUTHORIZED = AttemptStatus.PENDING, AttemptStatus.UNKNOWN, AttemptStatus.AUTHORIZED
FAILED, EXPIRED, CANCELLED = AttemptStatus.FAILED, AttemptStatus.EXPIRED, AttemptStatus.CANCELLED
QUARANTINED, SUCCEEDED, REFUNDED = (
    AttemptStatus.QUARANTINED,
    AttemptStatus.SUCCEEDED,
    AttemptStatus.REFUNDED,
)
A, D, R = Verdict.APPLIED, Verdict.DUPLICATE, Verdict.REGRESSIVE

#: For each state: the verdict on AUTHORIZED, FAILED, EXPIRED, CANCELLED and SUCCEEDED (of the right amount).
TABLE = {
    PENDING: (A, A, A, A, A),
    UNKNOWN: (A, A, A, A, A),
    AUTHORIZED: (D, A, A, A, A),
    FAILED: (R, D, R, R, A),
    EXPIRED: (R, R, D, R, A),
    CANCELLED: (R, R, R, D, A),
    QUARANTINED: (R, R, R, R, R),
    SUCCEEDED: (R, R, R, R, D),
    REFUNDED: (R, R, R, R, R),
}
SAID = (AUTHORIZED, FAILED, EXPIRED, CANCELLED, SUCCEEDED)
ROWS = [(now, said, row[place]) for now, row in TABLE.items() for place, said in enumerate(SAID)]


def test_the_ranks_are_those_of_the_design() -> None:
    """PENDING, UNKNOWN 10 < AUTHORIZED 20 < failed states 30 < QUARANTINED 35 < SUCCEEDED 40 < REFUNDED 50."""
    assert {status.value: rank for status, rank in RANKS.items()} == {
        "PENDING": 10,
        "UNKNOWN": 10,
        "AUTHORIZED": 20,
        "FAILED": 30,
        "EXPIRED": 30,
        "CANCELLED": 30,
        "QUARANTINED": 35,
        "SUCCEEDED": 40,
        "REFUNDED": 50,
    }


@pytest.mark.parametrize(("now", "said", "verdict"), ROWS, ids=str)
def test_a_notice_applies_only_if_its_rank_is_higher(
    now: AttemptStatus, said: AttemptStatus, verdict: Verdict
) -> None:
    """What is said again is a duplicate, what is lower regressive, and only an operator leads out of QUARANTINED."""
    attempt = an_attempt_of(an_open_payment())
    attempt.status = now

    judgement = judge(attempt, a_notice(attempt, said))

    assert judgement.verdict is verdict
    assert judgement.status is (said if verdict is A else None)


@pytest.mark.parametrize(
    ("now", "change"),
    list(
        product(
            AttemptStatus,
            [{"amount_minor": 1}, {"currency": "USD"}, {"transaction_id": "another"}],
        )
    ),
    ids=str,
)
def test_a_success_that_differs_from_ours_is_quarantined_and_never_applied(
    now: AttemptStatus, change: dict[str, object]
) -> None:
    """Another amount, currency or transaction is a mismatch; an attempt that is settled or quarantined stays so."""
    attempt = an_attempt_of(an_open_payment())
    attempt.status = now

    judgement = judge(attempt, a_notice(attempt, SUCCEEDED, **change))

    assert judgement.verdict is Verdict.MISMATCH
    assert judgement.reason == next(iter(change)).split("_")[0].removesuffix("_id")
    assert judgement.status is (QUARANTINED if RANKS[now] < RANKS[QUARANTINED] else None)


def test_a_failure_of_another_transaction_is_a_mismatch_that_changes_nothing() -> None:
    """Only money that came otherwise than asked for quarantines an attempt."""
    attempt = an_attempt_of(an_open_payment())

    judgement = judge(attempt, a_notice(attempt, FAILED, transaction_id="another"))

    assert (judgement.verdict, judgement.status) == (Verdict.MISMATCH, None)


def test_a_listed_correction_applies_although_its_rank_is_not_higher() -> None:
    """A gateway that is documented to take a failure back may do so."""
    attempt = an_attempt_of(an_open_payment())
    attempt.status = FAILED

    judgement = judge(attempt, a_notice(attempt, AUTHORIZED, corrects=frozenset({FAILED})))

    assert (judgement.verdict, judgement.status) == (A, AUTHORIZED)


@pytest.mark.parametrize("now", [QUARANTINED, SUCCEEDED, REFUNDED])
def test_no_correction_leads_out_of_a_settled_state(now: AttemptStatus) -> None:
    """Corrections are about failures: money that counts is not taken away by a list."""
    attempt = an_attempt_of(an_open_payment())
    attempt.status = now

    judgement = judge(attempt, a_notice(attempt, FAILED, corrects=frozenset(AttemptStatus)))

    assert (judgement.verdict, judgement.status) == (R, None)


def test_a_notice_without_a_status_is_ignored() -> None:
    """What a gateway says beside payments does not concern us."""
    attempt = an_attempt_of(an_open_payment())

    judgement = judge(attempt, a_notice(attempt, None))

    assert (judgement.verdict, judgement.status) == (Verdict.IGNORED, None)
