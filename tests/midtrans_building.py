"""What do Midtrans's documents and attempts in rupiah look like in tests?"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from services.payment_service.domain.attempts import Attempt
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways.midtrans import Midtrans, MidtransOptions
from shared.ids import new_id

SERVER_KEY = "SB-Mid-server-a-key-that-guards-nothing"
AMOUNT_MINOR = 1_000_000
GROSS_AMOUNT = "10000.00"


def a_rupiah_attempt(**changes: Any) -> Attempt:
    """Return an attempt of Rp 10,000 that ends in a quarter of an hour and whose page was opened."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "attempt_id": new_id(),
        "order_id": new_id(),
        "gateway": "midtrans",
        "amount_minor": AMOUNT_MINOR,
        "currency": "IDR",
        "created_at": now,
        "expires_at": now + timedelta(minutes=15),
        "initiated": True,
    }
    return Attempt(**{**values, **changes})


def a_rupiah_refund(attempt: Attempt, amount_minor: int = AMOUNT_MINOR) -> Refund:
    """Return a refund that is due."""
    return Refund(
        refund_id=new_id(),
        order_id=attempt.order_id,
        attempt_id=attempt.attempt_id,
        gateway="midtrans",
        amount_minor=amount_minor,
        currency="IDR",
        reason="operator",
        created_at=datetime.now(UTC),
    )


def a_midtrans(*server_keys: str) -> Midtrans:
    """Return the gateway with some server keys, calling nobody."""
    return Midtrans(MidtransOptions(server_keys or [SERVER_KEY], "http://127.0.0.1:1", "http://127.0.0.1:1"))


def signed(document: dict[str, Any], server_key: str = SERVER_KEY) -> bytes:
    """Return a notification with the signature that belongs to it."""
    parts = (document.get(name, "") for name in ("order_id", "status_code", "gross_amount"))
    signature = hashlib.sha512(("".join(map(str, parts)) + server_key).encode()).hexdigest()
    return orjson.dumps({"signature_key": signature, **document})


def a_document(status: str = "settlement", **changes: Any) -> dict[str, Any]:
    """Return what Midtrans says of a payment; a change to None leaves a field out."""
    document = {
        "order_id": "0190163d-8694-739b-aea5-966c26f8ad91",
        "transaction_id": "57d5293c-e65f-4a29-95e4-5959c3fa335b",
        "transaction_status": status,
        "transaction_time": "2026-03-01 18:27:19",
        "status_code": "200",
        "gross_amount": GROSS_AMOUNT,
        "payment_type": "gopay",
        "fraud_status": "accept",
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def a_listed_refund(**changes: Any) -> dict[str, Any]:
    """Return an entry of `refunds`, confirmed by the bank; a change to None leaves a field out."""
    entry = {
        "refund_chargeback_id": 1,
        "refund_amount": "4000.00",
        "created_at": "2026-03-02 00:14:20",
        "reason": "operator",
        "refund_key": "0190163d-8694-739b-aea5-000000000001",
        "refund_method": "online",
        "bank_confirmed_at": "2026-03-02 02:30:20",
        **changes,
    }
    return {name: value for name, value in entry.items() if value is not None}
