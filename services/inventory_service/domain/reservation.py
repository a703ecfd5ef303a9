"""Where do the units of one order stand?"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.events import PaymentReason, PaymentStatus, ReservationStatus

#: A payment facet never goes down (docs/protocol.md, "Events carry state").
_PAYMENT_RANKS = {
    PaymentStatus.PENDING: 0,
    PaymentStatus.QUARANTINED: 0,
    PaymentStatus.FAILED: 1,
    PaymentStatus.CANCELLED: 1,
    PaymentStatus.SUCCEEDED: 2,
    PaymentStatus.REFUNDED: 3,
}


@dataclass(slots=True)
class Reservation:
    """The units of one order, and what has been heard of the order's cancellation and payment.

    `status` is None as long as facts are only remembered for an `OrderRequested` that has not come yet. `round` counts
    how often units were reserved, `sequence` the events told. `stored_sequence` is that of the stored row, None if
    there is no row; `expired_by` is the time by which the hold must have ended for its release to be right.
    """

    order_id: UUID
    status: ReservationStatus | None = None
    reason: str | None = None
    lines: dict[str, int] = field(default_factory=dict)
    expires_at: datetime | None = None
    cancelled: bool = False
    unavailable: bool = False
    payment_status: PaymentStatus = PaymentStatus.PENDING
    payment_reason: PaymentReason | None = None
    round: int = 0
    sequence: int = 0
    stored_sequence: int | None = None
    expired_by: datetime | None = None
    changed: bool = False

    @property
    def opened(self) -> bool:
        """Whether `OrderRequested` was handled: that always tells something, and nothing is told before."""
        return self.sequence > 0

    @property
    def may_move(self) -> bool:
        """Whether something that can still be heard moves units, so that the lines are needed."""
        match self.status:
            case ReservationStatus.HELD | ReservationStatus.CONFIRMED:
                return True
            case ReservationStatus.RELEASED:
                return not self.cancelled and not self.unavailable
            case _:
                return False

    def is_news(self, payment_status: PaymentStatus) -> bool:
        """Tell whether a payment stands further than what is known of it."""
        return _PAYMENT_RANKS[payment_status] > _PAYMENT_RANKS[self.payment_status]

    def carried(self) -> dict[str, Any]:
        """Return what every event about the order says, whatever has happened."""
        return {
            "order_id": self.order_id,
            "reservation_status": self.status,
            "reservation_reason": self.reason,
            "unavailable": self.unavailable,
        }

    def stand(self, status: ReservationStatus, reason: str | None = None) -> None:
        """Move on."""
        self.status, self.reason, self.changed = status, reason, True
