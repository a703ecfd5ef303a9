"""What follows from asking a gateway where an attempt stands?

Webhooks can be lost, and some ends have none. What a gateway answers goes the same way as its webhooks; what it does not
know any more has ended; and what may still be paid after its end is called back, each time anew.
"""

from datetime import datetime
from enum import StrEnum

from services.payment_service.domain import paying
from services.payment_service.domain.answers import Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Judgement, Notice, Verdict
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.schedule import Schedule


class Outcome(StrEnum):
    """What came of asking: `repaired` what a lost webhook should have told, else why nothing changed."""

    REPAIRED = "repaired"
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"
    UNANSWERED = "unanswered"


def reconcile(
    payment: Payment,
    attempt: Attempt,
    answer: Notice | Unanswered | None,
    *,
    schedule: Schedule,
    cause: str,
    at: datetime,
    retry_at: datetime,
) -> Outcome:
    """Take in what a gateway answered when it was asked where an attempt stands, and say when it is asked again.

    None says that the gateway knows no such payment: before the attempt's end that may change (a page on which nobody
    has chosen a method yet), after it that is the end.
    """
    attempt.is_changed = True
    if isinstance(answer, Unanswered):
        attempt.ask_at = retry_at if attempt.is_live else None
        return Outcome.UNANSWERED
    is_over = attempt.expires_at is not None and attempt.expires_at <= at
    notice = answer
    if answer is None and is_over and attempt.is_live:
        end = AttemptStatus.CANCELLED if attempt.withdrawn else AttemptStatus.EXPIRED
        notice = Notice("not known to the gateway", end)
    judgement = Judgement(Verdict.IGNORED)
    if notice is not None:
        judgement = paying.hear(payment, attempt, notice, cause=cause, at=at)
    if attempt.is_live and is_over and attempt.task is None:
        paying.withdraw(attempt, at)
    attempt.ask_at = schedule.next_after(attempt, at) if attempt.is_live else None
    if judgement.moves:
        return Outcome.REPAIRED
    return Outcome.UNKNOWN if answer is None else Outcome.UNCHANGED
