"""When is a gateway asked where an attempt stands, although it should have told?"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.payment_service.domain.attempts import Attempt


@dataclass(frozen=True, slots=True)
class Schedule:
    """The ages at which an attempt is asked about, and how long before its end once more; at its end, too.

    After the last of these nobody asks any more: the attempt was called back at its end, and its webhooks still count.
    """

    ages_seconds: tuple[float, ...] = (300.0, 900.0, 3_600.0, 21_600.0, 86_400.0)
    before_end_seconds: float = 60.0

    def next_after(self, attempt: Attempt, at: datetime) -> datetime | None:
        """Return when an attempt is to be asked about next, None if never again."""
        moments = [attempt.created_at + timedelta(seconds=age) for age in self.ages_seconds]
        if attempt.expires_at is not None:
            moments += [attempt.expires_at - timedelta(seconds=self.before_end_seconds), attempt.expires_at]
        return min((moment for moment in moments if moment > at), default=None)


DEFAULT_SCHEDULE = Schedule()
