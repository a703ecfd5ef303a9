"""What do attempts, refunds and Stripe's documents look like in tests? In the shapes of Stripe's API reference."""

import hashlib
import hmac
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from services.payment_service.domain.attempts import Attempt
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways.stripe import Stripe, StripeOptions
from shared.ids import new_id

SECRET_KEY = "sk_test_a-key-that-opens-nothing"
WEBHOOK_SECRET = "whsec_a-secret-that-guards-nothing"
RETURN_URL = "https://shop.example/thanks"
AMOUNT_MINOR = 1_250
CREATED = 1_772_366_400
AT = datetime.fromtimestamp(CREATED, UTC)
SESSION_ID = "cs_test_a11YYufWQzNY63zpQ6QSNRQhkUpVph4WRmzW0zWJO2znZKdVujZ0N0S22u"
INTENT_ID = "pi_3MtwBwLkdIwHu7ix28a3tqPa"
CHARGE_ID = "ch_3MmlLrLkdIwHu7ix0snN0B15"


def a_gateway(url: str = "http://127.0.0.1:1", *, secret_key: str = SECRET_KEY, **changes: Any) -> Stripe:
    """Return the gateway as it is switched on."""
    options: dict[str, Any] = {"webhook_secrets": [WEBHOOK_SECRET], "return_url": RETURN_URL, **changes}
    return Stripe(StripeOptions(secret_key=secret_key, base_url=url, **options))


def an_attempt(**changes: Any) -> Attempt:
    """Return an attempt that was started just now and ends in a quarter of an hour."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "attempt_id": new_id(),
        "order_id": new_id(),
        "gateway": "stripe",
        "amount_minor": AMOUNT_MINOR,
        "currency": "EUR",
        "created_at": now,
        "expires_at": now + timedelta(minutes=15),
        **changes,
    }
    return Attempt(**values)


def a_refund(attempt: Attempt, amount_minor: int = AMOUNT_MINOR, **changes: Any) -> Refund:
    """Return a refund that is due."""
    values: dict[str, Any] = {
        "refund_id": new_id(),
        "order_id": attempt.order_id,
        "attempt_id": attempt.attempt_id,
        "gateway": "stripe",
        "amount_minor": amount_minor,
        "currency": attempt.currency,
        "reason": "operator",
        "created_at": datetime.now(UTC),
        **changes,
    }
    return Refund(**values)


def signed(body: bytes, *, secret: str = WEBHOOK_SECRET, at: float | None = None) -> dict[str, str]:
    """Return the headers of a delivery, as the page "Verify webhook signatures manually" says they are made."""
    stamp = int(time.time() if at is None else at)
    signature = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={stamp},v1={signature}"}


def event(kind: str, subject: dict[str, Any], **changes: Any) -> bytes:
    """Return an event as it is delivered (page "API reference, The Event object")."""
    document = {
        "id": "evt_1NG8Du2eZvKYlo2CUI79vXWy",
        "object": "event",
        "api_version": "2024-06-20",
        "created": CREATED,
        "data": {"object": subject},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": "req_5V8HK8LZkYV4Nl", "idempotency_key": None},
        "type": kind,
        **changes,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def session(attempt: Attempt, **changes: Any) -> dict[str, Any]:
    """Return a paid session (page "API reference, The Checkout Session object")."""
    return {
        "id": SESSION_ID,
        "object": "checkout.session",
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": attempt.amount_minor,
        "amount_total": attempt.amount_minor,
        "automatic_tax": {"enabled": False, "liability": None, "status": None},
        "cancel_url": None,
        "client_reference_id": str(attempt.attempt_id),
        "created": CREATED - 600,
        "currency": attempt.currency.lower(),
        "customer": None,
        "customer_details": {"email": "someone@example.com", "name": "Jenny Rosen"},
        "expires_at": CREATED + 600,
        "livemode": False,
        "metadata": {"holdfast_attempt_id": str(attempt.attempt_id)},
        "mode": "payment",
        "payment_intent": INTENT_ID,
        "payment_method_types": ["card"],
        "payment_status": "paid",
        "status": "complete",
        "success_url": RETURN_URL,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "url": None,
        **changes,
    }


def intent(attempt: Attempt, **changes: Any) -> dict[str, Any]:
    """Return a succeeded intent (page "API reference, The PaymentIntent object")."""
    return {
        "id": INTENT_ID,
        "object": "payment_intent",
        "amount": attempt.amount_minor,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": attempt.amount_minor,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": f"{INTENT_ID}_secret_YrKJUKribcBjcG8HVhfZluoGH",
        "created": CREATED - 60,
        "currency": attempt.currency.lower(),
        "last_payment_error": None,
        "latest_charge": CHARGE_ID,
        "livemode": False,
        "metadata": {"holdfast_attempt_id": str(attempt.attempt_id)},
        "next_action": None,
        "payment_method": "pm_1MqLiJLkdIwHu7ixUEgbFdYF",
        "status": "succeeded",
        **changes,
    }


def charge(attempt: Attempt, **changes: Any) -> dict[str, Any]:
    """Return a charge that was refunded in full (page "API reference, The Charge object")."""
    return {
        "id": CHARGE_ID,
        "object": "charge",
        "amount": attempt.amount_minor,
        "amount_captured": attempt.amount_minor,
        "amount_refunded": attempt.amount_minor,
        "currency": attempt.currency.lower(),
        "disputed": False,
        "metadata": {"holdfast_attempt_id": str(attempt.attempt_id)},
        "payment_intent": INTENT_ID,
        "payment_method_details": {"card": {"brand": "visa", "last4": "4242"}, "type": "card"},
        "refunded": True,
        "status": "succeeded",
        **changes,
    }


def a_stripe_refund(refund: Refund, **changes: Any) -> dict[str, Any]:
    """Return a refund that arrived (page "API reference, The Refund object")."""
    return {
        "id": "re_1Nispe2eZvKYlo2Cd31jOCgZ",
        "object": "refund",
        "amount": refund.amount_minor,
        "balance_transaction": "txn_1Nispe2eZvKYlo2CYezqFhEx",
        "charge": CHARGE_ID,
        "created": CREATED,
        "currency": refund.currency.lower(),
        "destination_details": {"card": {"reference_status": "pending", "type": "refund"}, "type": "card"},
        "metadata": {
            "holdfast_refund_id": str(refund.refund_id),
            "holdfast_attempt_id": str(refund.attempt_id),
        },
        "payment_intent": INTENT_ID,
        "reason": None,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
        **changes,
    }


def dispute(attempt: Attempt, **changes: Any) -> dict[str, Any]:
    """Return a dispute (page "API reference, The Dispute object")."""
    return {
        "id": "du_1MtJUT2eZvKYlo2CNaw2HvEv",
        "object": "dispute",
        "amount": attempt.amount_minor,
        "balance_transactions": [],
        "charge": CHARGE_ID,
        "created": CREATED,
        "currency": attempt.currency.lower(),
        "evidence_details": {"due_by": CREATED + 600_000, "has_evidence": False, "past_due": False},
        "is_charge_refundable": True,
        "livemode": False,
        "metadata": {},
        "payment_intent": INTENT_ID,
        "reason": "general",
        "status": "needs_response",
        **changes,
    }
