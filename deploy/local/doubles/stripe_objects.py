"""What do Stripe's objects look like? Those that a payment has, in the shapes of the API reference."""

import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

Object = dict[str, Any]

#: What an event carries as `api_version`: that of the endpoint, which need not be that of the calls.
API_VERSION: Final = "2026-10-28.endive"
#: A card of Stripe's page "Test card numbers", as far as Stripe ever shows one.
_CARD: Final = {"brand": "visa", "exp_month": 8, "exp_year": 2034, "funding": "credit", "last4": "4242"}


def new_id(prefix: str) -> str:
    """Return a new id as Stripe makes them."""
    return f"{prefix}_{uuid4().hex}"


def nested(form: Mapping[str, str], prefix: str) -> Object:
    """Return the form fields `prefix[name]` by name."""
    start = f"{prefix}["
    return {
        name[len(start) : -1]: value
        for name, value in form.items()
        if name.startswith(start) and name.endswith("]")
    }


def new_session(form: Mapping[str, str], page_url: str) -> Object:
    """Return an open Checkout Session of one line item; its address is `page_url` and its id."""
    session_id = new_id("cs_test")
    price = "line_items[0][price_data]"
    total = int(form[f"{price}[unit_amount]"]) * int(form["line_items[0][quantity]"])
    now = int(time.time())
    return {
        "id": session_id,
        "object": "checkout.session",
        "amount_subtotal": total,
        "amount_total": total,
        "cancel_url": form.get("cancel_url"),
        "client_reference_id": form.get("client_reference_id"),
        "created": now,
        "currency": form[f"{price}[currency]"],
        "customer": None,
        "customer_details": None,
        "expires_at": int(form.get("expires_at", now + 86_400)),
        "livemode": False,
        "metadata": nested(form, "metadata"),
        "mode": "payment",
        "payment_intent": None,
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "status": "open",
        "success_url": form["success_url"],
        "url": f"{page_url}/{session_id}#fidkdWxOYHwnPyd1blpxYHZxWjA0",
    }


def new_intent(session: Object, metadata: Mapping[str, str]) -> Object:
    """Return the PaymentIntent that a session gets when somebody pays."""
    return {
        "id": new_id("pi"),
        "object": "payment_intent",
        "amount": session["amount_total"],
        "amount_capturable": 0,
        "amount_received": 0,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "created": int(time.time()),
        "currency": session["currency"],
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": dict(metadata),
        "status": "requires_payment_method",
    }


def new_charge(intent: Object) -> Object:
    """Return the charge of a PaymentIntent, which takes its metadata over."""
    return {
        "id": new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount_received"],
        "amount_refunded": 0,
        "created": int(time.time()),
        "currency": intent["currency"],
        "disputed": False,
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "paid": True,
        "payment_intent": intent["id"],
        "payment_method_details": {"card": _CARD, "type": "card"},
        "refunded": False,
        "status": "succeeded",
    }


def new_refund(charge: Object, amount: int, metadata: Mapping[str, str], status: str) -> Object:
    """Return a refund of a charge."""
    return {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": charge["id"],
        "created": int(time.time()),
        "currency": charge["currency"],
        "metadata": dict(metadata),
        "payment_intent": charge["payment_intent"],
        "reason": None,
        "status": status,
    }


def new_dispute(charge: Object, reason: str) -> Object:
    """Return a dispute of a whole charge; it has no metadata but its own."""
    return {
        "id": new_id("du"),
        "object": "dispute",
        "amount": charge["amount"],
        "charge": charge["id"],
        "created": int(time.time()),
        "currency": charge["currency"],
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": reason,
        "status": "needs_response",
    }


def new_event(kind: str, subject: Object, **previous: Any) -> Object:
    """Return the event that tells of an object as it is now."""
    data: Object = {"object": dict(subject)}
    if previous:
        data["previous_attributes"] = previous
    return {
        "id": new_id("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": int(time.time()),
        "data": data,
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
