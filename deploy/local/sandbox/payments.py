"""What is a payment, and what may happen to it? Plain decisions: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import orjson

Outcome = Literal["succeeded", "failed", "expired"]
Status = Literal["pending", "cancelled", "succeeded", "failed", "expired"]

_RANK: Final[Mapping[Status, int]] = {"pending": 0, "cancelled": 1, "failed": 1, "expired": 1, "succeeded": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """What a merchant asked for and what became of it. Times are RFC 3339 text, amounts are in minor units."""

    payment_id: str
    reference: str
    amount_minor: int
    currency: str
    created_at: str
    return_url: str | None = None
    expires_at: str | None = None
    status: Status = "pending"
    # What was told to have been paid: may differ from what was asked, that is what tests want.
    captured_minor: int = 0
    captured_currency: str | None = None
    refunded_minor: int = 0

    @property
    def refundable_minor(self) -> int:
        """What is left of the captured money."""
        return self.captured_minor - self.refunded_minor

    def settled(self, outcome: Outcome, *, amount_minor: int, currency: str) -> "Payment":
        """The payment after this outcome: a higher rank wins, so money that came is never forgotten."""
        if _RANK[outcome] <= _RANK[self.status]:
            return self
        if outcome == "succeeded":
            return replace(self, status=outcome, captured_minor=amount_minor, captured_currency=currency)
        return replace(self, status=outcome)

    def cancelled(self) -> "Payment":
        """The payment without the wish to be paid; money that comes all the same still counts."""
        return replace(self, status="cancelled")

    def refunded(self, amount_minor: int) -> "Payment":
        """The payment with this much given back."""
        return replace(self, refunded_minor=self.refunded_minor + amount_minor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money given back; the two `requested_` fields are the request as it came, to recognise it again."""

    refund_id: str
    payment_id: str
    idempotency_key: str
    amount_minor: int
    currency: str
    created_at: str
    requested_amount_minor: int | None
    requested_currency: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A message to the merchant: the exact text to send, and how many deliveries are still owed."""

    webhook_id: str
    body: str
    deliveries_left: int
    due_at: float  # seconds since the epoch: nothing is sent earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One delivery of a webhook was answered with 2xx."""

    webhook_id: str


def webhook_body(
    kind: Outcome | Literal["refunded"],
    payment: Payment,
    *,
    amount_minor: int,
    currency: str,
    occurred_at: str,
    **more: Any,
) -> str:
    """The text of a webhook about this payment; `amount_minor` is what was paid, asked for, or refunded."""
    data = {
        "payment_id": payment.payment_id,
        "reference": payment.reference,
        "amount_minor": amount_minor,
        "currency": currency,
        "occurred_at": occurred_at,
        **more,
    }
    return orjson.dumps({"type": f"payment.{kind}", "data": data}).decode()
