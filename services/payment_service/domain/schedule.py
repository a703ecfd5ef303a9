"""When is a gateway asked where an attempt stands, although it should have told?"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.payment_service.domain.attempts import Attempt


@dataclass(frozen=True, slots=True)
class Schedule:
    """The ages at which an attempt is asked about, and how long before its end once more; at its end, too.

    After the last of these it is asked about again and again, as far apart as the last age is long: an attempt that could
    not be called back at its end may still bring money, and the webhook that tells of it may be lost.
    """

    ages_seconds: tuple[float, ...] = (300.0, 900.0, 3_600.0, 21_600.0, 86_400.0)
    before_end_seconds: float = 60.0

    def next_after(self, attempt: Attempt, at: datetime) -> datetime:
        """Return when an attempt is to be asked about next, if it has not ended by then."""
        moments = [attempt.created_at + timedelta(seconds=age) for age in self.ages_seconds]
        if attempt.expires_at is not None:
            moments += [attempt.expires_at - timedelta(seconds=self.before_end_seconds), attempt.expires_at]
        again = at + timedelta(seconds=self.ages_seconds[-1])
        return min((moment for moment in moments if moment > at), default=again)


DEFAULT_SCHEDULE = Schedule()
