"""How patient, and how thorough, is the audit?"""

from dataclasses import dataclass
from math import ceil

from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """What the audit allows a system at work; the first two are the inventory's settings of the same names.

    Attributes:
        hold_seconds: hold of an order that does not say how long.
        hold_grace_seconds: time from the end of a hold to its sweep.
        settle_seconds: how long a change may take until the other services have handled it.
        second_look_seconds: pause before what is suspected is looked at again.
        outbox_age_seconds_max: how long an event may wait for the relay.
        suspects_max: how many suspects one check may have; with more of them the report says that it is not complete.
        rows_fetched_max: rows of each database that are held in memory while the three are compared.
    """

    hold_seconds: float = 900.0
    hold_grace_seconds: float = 60.0
    settle_seconds: float = 30.0
    second_look_seconds: float = 2.0
    outbox_age_seconds_max: float = 60.0
    suspects_max: int = 10_000
    rows_fetched_max: int = 5_000

    def __post_init__(self) -> None:
        """Refuse limits under which the audit would never end, or see nothing.

        Raises:
            Misconfigured: a time is negative, or one that must be positive is not.
        """
        times = (self.hold_seconds, self.hold_grace_seconds, self.settle_seconds, self.outbox_age_seconds_max)
        if (
            min(times) < 0
            or self.second_look_seconds <= 0
            or min(self.suspects_max, self.rows_fetched_max) < 1
        ):
            detail = "audit: times cannot be negative; the pause, and the limits of rows, must be positive"
            raise Misconfigured(detail)

    @property
    def looks_max(self) -> int:
        """How often suspects are looked at again: until what was young at the first look no longer is."""
        return 1 + ceil(self.settle_seconds / self.second_look_seconds)
