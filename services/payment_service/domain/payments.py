"""Where does the payment of an order stand, and how is that told?

The status is derived from the attempts (docs/protocol.md, "Payment"), never set. Events are kept in `emitted`, in the
order of their sequence; each carries the state right after its step. What changes a payment is in `paying` and
`refunding`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from services.payment_service.domain.attempts import Attempt, AttemptStatus
from services.payment_service.domain.refunds import Refund
from shared.envelope import Emitted
from shared.events import PaymentAttemptFailed, PaymentFact, PaymentFailed, PaymentReason, PaymentStatus

FAILURE_REASONS: Final[dict[AttemptStatus, PaymentReason]] = {
    AttemptStatus.FAILED: "declined",
    AttemptStatus.EXPIRED: "expired",
    AttemptStatus.CANCELLED: "cancelled",
}
_UNPAID: Final = {PaymentStatus.FAILED, PaymentStatus.CANCELLED}


def derive(
    attempts: Iterable[Attempt], *, settled_attempt_id: UUID | None, attempts_max: int, closed: bool
) -> tuple[PaymentStatus, PaymentReason | None]:
    """Return the status of a payment and the reason why it will not be paid; the first match wins."""
    known = sorted(attempts, key=lambda attempt: (attempt.created_at, attempt.attempt_id))
    for attempt in known:
        if attempt.attempt_id == settled_attempt_id:
            refunded = attempt.status is AttemptStatus.REFUNDED
            return (PaymentStatus.REFUNDED if refunded else PaymentStatus.SUCCEEDED), None
    if any(attempt.status is AttemptStatus.QUARANTINED for attempt in known):
        return PaymentStatus.QUARANTINED, None
    failed = [attempt for attempt in known if attempt.is_failed]
    if failed and sum(attempt.is_spent for attempt in known) >= attempts_max:
        return PaymentStatus.FAILED, FAILURE_REASONS[failed[-1].status]
    if closed:
        return PaymentStatus.CANCELLED, "cancelled"
    return PaymentStatus.PENDING, None


@dataclass(slots=True, kw_only=True)
class Payment:
    """The payment of one order with its attempts and refunds; amounts are in minor units.

    `amount_minor` and `customer_id` are None until the order awaits payment. `closed` remembers that the order will not be paid any more.
    `refunded_minor` is what went back of the settled attempt.
    """

    order_id: UUID
    attempts_max: int
    customer_id: str | None = None
    status: PaymentStatus = PaymentStatus.PENDING
    reason: PaymentReason | None = None
    amount_minor: int | None = None
    currency: str | None = None
    pay_by: datetime | None = None
    closed: bool = False
    settled_attempt_id: UUID | None = None
    settled_amount_minor: int | None = None
    settled_currency: str | None = None
    refunded_minor: int = 0
    paid_at: datetime | None = None
    sequence: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    attempts: dict[UUID, Attempt] = field(default_factory=dict)
    refunds: dict[UUID, Refund] = field(default_factory=dict)
    emitted: list[Emitted] = field(default_factory=list)
    is_new: bool = False
    is_changed: bool = False

    @property
    def settled_attempt(self) -> Attempt | None:
        """The attempt whose success settled the payment for ever."""
        return None if self.settled_attempt_id is None else self.attempts[self.settled_attempt_id]

    def is_for(self, customer_id: str | None) -> bool:
        """Tell whether a caller may know of the payment: a customer of its own, anybody else (None) of every one."""
        return customer_id is None or customer_id == self.customer_id

    def agrees_with(self, amount_minor: int, currency: str) -> bool:
        """Tell whether the payment is, or may be, opened with this amount."""
        return self.amount_minor is None or (self.amount_minor, self.currency) == (amount_minor, currency)

    def attempt_of_key(self, idempotency_key: str) -> Attempt | None:
        """Return the attempt that was started under this key."""
        return next((a for a in self.attempts.values() if a.idempotency_key == idempotency_key), None)

    def refund_of_key(self, request_key: str) -> Refund | None:
        """Return the refund that an operator asked for under this key."""
        return next((r for r in self.refunds.values() if r.request_key == request_key), None)

    def refunds_of(self, attempt: Attempt) -> list[Refund]:
        """Return the refunds of one attempt."""
        return [refund for refund in self.refunds.values() if refund.attempt_id == attempt.attempt_id]

    def update_status(self, cause: str, *, failed: Attempt | None = None) -> None:
        """Derive the status anew; tell of an unpaid end, or of the attempt that `failed` while others are left."""
        before = self.status
        self.status, self.reason = derive(
            self.attempts.values(),
            settled_attempt_id=self.settled_attempt_id,
            attempts_max=self.attempts_max,
            closed=self.closed,
        )
        self.is_changed = True
        if self.status in _UNPAID and self.status is not before:
            self.tell(PaymentFailed, cause, reason=self.reason, attempts=len(self.attempts))
        elif failed is not None and self.status is PaymentStatus.PENDING:
            self.tell(
                PaymentAttemptFailed,
                cause,
                attempt_id=failed.attempt_id,
                gateway=failed.gateway,
                reason=FAILURE_REASONS[failed.status],
                attempts_left=max(0, self.attempts_max - len(self.attempts)),
            )

    def tell(self, event: type[PaymentFact], cause: str, **content: Any) -> None:
        """Keep an event with its content, the state as it is now, and the next number."""
        self.sequence += 1
        self.is_changed = True
        self.tell_numbered(self.sequence, event, cause, **content)

    def tell_numbered(self, number: int, event: type[PaymentFact], cause: str, **content: Any) -> None:
        """Keep an event with its content and the state as it is now, under a number that was given out before."""
        told = event(
            order_id=self.order_id,
            payment_status=self.status,
            payment_reason=self.reason,
            settled_attempt_id=self.settled_attempt_id,
            settled_amount_minor=self.settled_amount_minor,
            settled_currency=self.settled_currency,
            refunded_minor=self.refunded_minor,
            paid_at=self.paid_at,
            **content,
        )
        key = str(self.order_id)
        self.emitted.append(Emitted(told, key, number, cause, key))
