"""What of a gateway's words may a person be shown? Never card numbers, signatures or keys.

Of a body only the fields are shown that are named here, whatever else it holds; and no text leaves without what looks
like the number of a card, or like a secret, having been taken out of it (`ops.masking`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from ops.bodies import printable
from ops.masking import mask_named, mask_text

#: Fields that say what happened, to what, how much and when, in the bodies of the gateways we know.
_SHOWN = frozenset(
    {
        *("id", "type", "object", "status", "reason", "code", "decline_code", "failure_code", "created"),
        *("amount", "amount_minor", "amount_received", "amount_captured", "amount_refunded", "currency"),
        *("reference", "payment_id", "refund_id", "attempt_id", "occurred_at"),
        *("payment_intent", "charge", "payment_status", "client_reference_id"),
        *("order_id", "transaction_id", "transaction_status", "transaction_time", "settlement_time"),
        *("status_code", "fraud_status", "payment_type", "gross_amount", "refund_amount", "expiry_time"),
    }
)
#: Objects that such fields stand in; nothing else is looked into, above all not what a customer paid with.
_ENTERED = frozenset({"data", "object", "metadata", "last_payment_error"})
_DEPTH_MAX = 4
_VALUE_CHARACTERS_MAX = 80


def mask(text: str) -> str:
    """Return a text without what looks like a card's number or a secret, and without what steers a terminal."""
    return printable(mask_text(text)).replace("\n", " ")


def show_body(body: bytes, characters_max: int) -> str:
    """Return what a delivery says, as far as it may be shown: `name=value, …`, shortened."""
    try:
        document = orjson.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return f"({len(body)} bytes that are not a JSON object)"
    return shorten(", ".join(f"{name}={value}" for name, value in _fields(document)), characters_max)


def shorten(text: str, characters_max: int) -> str:
    """Return a text, or its beginning and a sign that there was more."""
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"


def _fields(document: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    for name, value in document.items():
        if isinstance(value, dict):
            if name in _ENTERED and depth < _DEPTH_MAX:
                yield from _fields(value, f"{prefix}{name}.", depth + 1)
        elif name in _SHOWN and isinstance(value, str | int | float):
            yield f"{prefix}{name}", shorten(mask(str(mask_named(name, value))), _VALUE_CHARACTERS_MAX)
