"""How patient is the reconciliation, and how much does it hold in memory?"""

from dataclasses import dataclass

from ops.audit import AuditLimits
from shared.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class ReconcileLimits:
    """What is allowed to a system at work.

    Attributes:
        settle_seconds: how long a change may take until the other services have handled it.
        second_look_seconds: pause before a disagreement is looked at again.
        unknown_seconds_max: age from which an attempt must not be UNKNOWN any more.
        refund_seconds_max: age from which a refund must have been made; one that is refused counts at once.
        findings_max: disagreements that are listed; with more of them the report says that it is not complete.
        orders_at_once: orders that are held in memory while they are compared.
    """

    settle_seconds: float = 30.0
    second_look_seconds: float = 2.0
    unknown_seconds_max: float = 900.0
    refund_seconds_max: float = 3_600.0
    findings_max: int = 10_000
    orders_at_once: int = 2_000

    def __post_init__(self) -> None:
        """Refuse limits under which nothing would ever end, or be seen.

        Raises:
            Misconfigured: an age is negative, or a number is not positive.
        """
        ages = (self.settle_seconds, self.unknown_seconds_max, self.refund_seconds_max)
        numbers = (self.second_look_seconds, self.findings_max, self.orders_at_once)
        if min(ages) < 0 or min(numbers) <= 0:
            detail = "reconcile: ages cannot be negative; the pause, and the limits of rows, must be positive"
            raise Misconfigured(detail)

    def for_looks(self) -> AuditLimits:
        """Return what the audit's second looks go by."""
        return AuditLimits(
            settle_seconds=self.settle_seconds,
            second_look_seconds=self.second_look_seconds,
            suspects_max=self.findings_max,
        )
