"""Where does one refund stand, and what has a gateway answered?"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

from shared.events import RefundReason

_FULL = "full refund"


class RefundStatus(StrEnum):
    """How far a refund has come. FAILED says that the gateway refused, or took it back; it is asked again all the same."""

    DUE = "DUE"
    SENT = "SENT"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


@dataclass(slots=True, kw_only=True)
class Refund:
    """Money of one attempt that goes back; its id is the idempotency key that the gateway sees every time.

    `is_full` marks the one refund of an attempt that takes all that was left. `request_key` is the Idempotency-Key of
    the operator who asked for it, and `requested_minor` how much was named. `is_told`
    says that it was made and told once: that counts, also if the gateway takes it back and makes it again.
    """

    refund_id: UUID
    order_id: UUID
    attempt_id: UUID
    gateway: str
    amount_minor: int
    currency: str
    reason: RefundReason
    created_at: datetime
    is_full: bool = False
    status: RefundStatus = RefundStatus.DUE
    note: str | None = None
    request_key: str | None = None
    requested_minor: int | None = None
    gateway_refund_id: str | None = None
    error: str | None = None
    tries: int = 0
    next_try_at: datetime | None = None
    is_told: bool = False
    is_new: bool = False
    is_changed: bool = False


def full_refund_id(attempt_id: UUID) -> UUID:
    """Return the id of an attempt's one full refund.

    It depends on nothing else: even a database restored from yesterday asks the gateway with the same key.
    """
    return uuid5(attempt_id, _FULL)
