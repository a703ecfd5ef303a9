"""What do the double's pages and payments hold, and how does Midtrans write them down?"""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

_WESTERN_INDONESIA: Final = timezone(timedelta(hours=7))
_PAGE_OPEN_SECONDS: Final = 86_400

#: The status code that goes with a status: the first in answers, the second in notifications.
_CODES: Final = {
    **dict.fromkeys(("capture", "settlement", "authorize", "refund", "partial_refund"), ("200", "200")),
    **dict.fromkeys(("chargeback", "partial_chargeback"), ("200", "200")),
    "pending": ("201", "201"),
    **dict.fromkeys(("deny", "failure"), ("202", "202")),
    "cancel": ("200", "202"),
    "expire": ("407", "202"),
}
_OF_THE_METHOD: Final[dict[str, dict[str, Any]]] = {
    "credit_card": {"masked_card": "48111111-1114", "bank": "bni", "approval_code": "1578569243927"},
    "bank_transfer": {"permata_va_number": "8562000087926752"},
    "echannel": {"bill_key": "990000000260", "biller_code": "70012"},
    "cstore": {"store": "indomaret", "payment_code": "25709650945026"},
}


@dataclass(slots=True)
class Page:
    """One Snap page; the customer who has its address may choose a method until it ends."""

    token: str
    order_id: str
    gross_amount: int
    ends_at: datetime
    request: dict[str, Any]
    is_cancelled: bool = False


@dataclass(slots=True)
class Payment:
    """What became of a page when a method was chosen."""

    order_id: str
    gross_amount: int
    payment_type: str
    transaction_id: str
    transaction_time: datetime
    status: str = "pending"
    fraud_status: str | None = "accept"
    settlement_time: datetime | None = None
    refunds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def refunded(self) -> int:
        """How many rupiah went back."""
        return sum(int(entry["refund_amount"].partition(".")[0]) for entry in self.refunds)


def describe(payment: Payment, server_key: str, *, is_notification: bool = False) -> dict[str, Any]:
    """Return what Midtrans says of a payment, signed."""
    code = _CODES.get(payment.status, ("200", "200"))[is_notification]
    amount = f"{payment.gross_amount}.00"
    signed = f"{payment.order_id}{code}{amount}{server_key}"
    document = {
        "status_code": code,
        "status_message": "midtrans payment notification"
        if is_notification
        else "Success, transaction is found",
        "transaction_id": payment.transaction_id,
        "order_id": payment.order_id,
        "merchant_id": "M004123",
        "gross_amount": amount,
        "currency": "IDR",
        "payment_type": payment.payment_type,
        "transaction_time": written(payment.transaction_time),
        "transaction_status": payment.status,
        "signature_key": hashlib.sha512(signed.encode()).hexdigest(),
        **_OF_THE_METHOD.get(payment.payment_type, {}),
    }
    if payment.fraud_status is not None:
        document["fraud_status"] = payment.fraud_status
    if payment.settlement_time is not None:
        document["settlement_time"] = written(payment.settlement_time)
    if payment.refunds:
        document["refund_amount"] = f"{payment.refunded}.00"
        document["refunds"] = payment.refunds
    return document


def page_end(expiry: dict[str, Any] | None) -> datetime | None:
    """Return when a page ends, or None if Midtrans would not take that."""
    if expiry is None:
        return datetime.now(UTC) + timedelta(seconds=_PAGE_OPEN_SECONDS)
    duration = timedelta(**{expiry["unit"]: expiry["duration"]})
    if not timedelta(minutes=5) <= duration <= timedelta(days=7):
        return None
    return datetime.strptime(expiry["start_time"], "%Y-%m-%d %H:%M:%S %z") + duration


def written(moment: datetime) -> str:
    """Return a time as Midtrans writes it: without a zone, GMT+7."""
    return f"{moment.astimezone(_WESTERN_INDONESIA):%Y-%m-%d %H:%M:%S}"
