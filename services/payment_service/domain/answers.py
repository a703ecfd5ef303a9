"""What can a gateway answer when it is asked for something?

Refusals and silence are results, not exceptions: what is not certain is `Unanswered`, and is asked again.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Created:
    """The gateway is ready to take the money of an attempt."""

    transaction_id: str
    payment_url: str | None
    native_status: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """The gateway will not do it, and says so for certain; `not_found` if it does not even know the payment."""

    detail: str
    not_found: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Whether the gateway did it is unknown: no answer in time, or one that says nothing."""

    detail: str


@dataclass(frozen=True, slots=True)
class Refunded:
    """The gateway gave the money back."""

    gateway_refund_id: str | None


@dataclass(frozen=True, slots=True)
class RefundPending:
    """The gateway has taken a refund on and will tell by webhook when it is done."""

    gateway_refund_id: str | None
