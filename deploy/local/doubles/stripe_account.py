"""What happens in an account at Stripe? Customers pay or do not, banks refuse and take back, and events tell of it."""

import time
from collections.abc import Callable
from typing import Any

import orjson

from deploy.local.doubles.stripe_objects import (
    Object,
    nested,
    new_charge,
    new_dispute,
    new_event,
    new_intent,
    new_refund,
    new_session,
)


class StripeAccount:
    """The objects of an account, and what people do to them; `publish` is called with each event.

    Payments are named by the id of their Checkout Session. `refunds_become` is the status of new refunds.
    """

    def __init__(self, publish: Callable[[bytes], None]) -> None:
        self.refunds_become = "succeeded"
        self.sessions: dict[str, Object] = {}
        self.intents: dict[str, Object] = {}
        self.charges: dict[str, Object] = {}
        self.refunds: dict[str, Object] = {}
        self.disputes: dict[str, Object] = {}
        #: The events that were made, also those held back.
        self.events: list[bytes] = []
        self._publish = publish
        self._forms: dict[str, dict[str, str]] = {}

    # --- the merchant -------------------------------------------------------------------------------------------

    def open(self, form: dict[str, str], page_url: str) -> Object:
        """Open a Checkout Session."""
        session = new_session(form, page_url)
        self.sessions[session["id"]] = session
        self._forms[session["id"]] = form
        return session

    def close(self, session: Object) -> None:
        """End an open session, before its time or when it has come."""
        session.update(status="expired", url=None)
        self.tell("checkout.session.expired", session)

    def cancel(self, intent: Object) -> None:
        """Give up what was held or not yet paid."""
        intent.update(status="canceled", canceled_at=int(time.time()))
        self.tell("payment_intent.canceled", intent)

    def give_back(self, charge: Object, amount: int, metadata: dict[str, str]) -> Object:
        """Refund a charge in whole or in part."""
        refund = new_refund(charge, amount, metadata, self.refunds_become)
        self.refunds[refund["id"]] = refund
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self.tell("refund.created", refund)
        self.tell("charge.refunded", charge)
        return refund

    def left_of(self, charge: Object) -> int:
        """Return how much of a charge has not gone back; what failed to arrive has not."""
        own = [refund for refund in self.refunds.values() if refund["charge"] == charge["id"]]
        gone = sum(refund["amount"] for refund in own if refund["status"] not in {"failed", "canceled"})
        return int(charge["amount"] - gone)

    # --- the customer and the banks -----------------------------------------------------------------------------

    def pay(self, session_id: str, **changes: Any) -> None:
        """Have the customer pay at once; `changes` are other fields of the session (`amount_total`, `currency`)."""
        session = self.sessions[session_id]
        session.update(changes)
        intent = self._intent_of(session)
        intent.update(amount=session["amount_total"], currency=session["currency"])
        self._succeed(intent)
        session.update(status="complete", payment_status="paid", url=None)
        self.tell("checkout.session.completed", session)

    def pay_later(self, session_id: str) -> None:
        """Have the customer choose a method that takes days: `arrive` or `fail` ends it."""
        self._complete(session_id, "processing", "payment_intent.processing")

    def authorize(self, session_id: str) -> None:
        """Have the money held, not taken: `arrive` takes it."""
        self._complete(session_id, "requires_capture", "payment_intent.amount_capturable_updated")

    def arrive(self, session_id: str) -> None:
        """Have the money of a complete session come."""
        session = self.sessions[session_id]
        self._succeed(self._intent_of(session))
        session["payment_status"] = "paid"
        self.tell("checkout.session.async_payment_succeeded", session)

    def fail(self, session_id: str) -> None:
        """Have the money of a complete session not come."""
        session = self.sessions[session_id]
        self._refuse(self._intent_of(session))
        self.tell("checkout.session.async_payment_failed", session)

    def decline(self, session_id: str) -> None:
        """Have the customer's card declined; the page stays open."""
        self._refuse(self._intent_of(self.sessions[session_id]))

    def expire(self, session_id: str) -> None:
        """Let the time of an open session pass."""
        session = self.sessions[session_id]
        session["expires_at"] = int(time.time())
        self.close(session)

    def settle_refund(self, refund_id: str) -> None:
        """Have a pending refund arrive."""
        self.refunds[refund_id]["status"] = "succeeded"
        self.tell("refund.updated", self.refunds[refund_id])
        self.tell("charge.refund.updated", self.refunds[refund_id])

    def fail_refund(self, refund_id: str, reason: str = "expired_or_canceled_card") -> None:
        """Have a refund come back, also one that had succeeded."""
        self.refunds[refund_id].update(status="failed", failure_reason=reason)
        for kind in ("refund.updated", "charge.refund.updated", "refund.failed"):
            self.tell(kind, self.refunds[refund_id])

    def dispute(self, session_id: str, reason: str = "fraudulent") -> str:
        """Have the customer contest the charge; return the id of the dispute."""
        charge = self.charges[self._intent_of(self.sessions[session_id])["latest_charge"]]
        charge["disputed"] = True
        dispute = new_dispute(charge, reason)
        self.disputes[dispute["id"]] = dispute
        self.tell("charge.dispute.created", dispute)
        self.tell("charge.dispute.funds_withdrawn", dispute)
        return str(dispute["id"])

    def close_dispute(self, dispute_id: str, status: str = "lost") -> None:
        """Decide a dispute."""
        self.disputes[dispute_id]["status"] = status
        self.tell("charge.dispute.closed", self.disputes[dispute_id])

    def _complete(self, session_id: str, intent_status: str, kind: str) -> None:
        session = self.sessions[session_id]
        intent = self._intent_of(session)
        intent["status"] = intent_status
        session.update(status="complete", url=None)
        self.tell(kind, intent)
        self.tell("checkout.session.completed", session)

    def _intent_of(self, session: Object) -> Object:
        if session["payment_intent"] is None:
            intent = new_intent(session, nested(self._forms[session["id"]], "payment_intent_data[metadata]"))
            self.intents[intent["id"]] = intent
            session["payment_intent"] = intent["id"]
            self.tell("payment_intent.created", intent)
        return self.intents[session["payment_intent"]]

    def _succeed(self, intent: Object) -> None:
        intent.update(status="succeeded", amount_received=intent["amount"])
        charge = new_charge(intent)
        self.charges[charge["id"]] = charge
        intent["latest_charge"] = charge["id"]
        self.tell("charge.succeeded", charge)
        self.tell("payment_intent.succeeded", intent)

    def _refuse(self, intent: Object) -> None:
        error = {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}
        intent.update(status="requires_payment_method", last_payment_error=error)
        self.tell("payment_intent.payment_failed", intent)

    def tell(self, kind: str, subject: Object) -> None:
        """Make an event of what has become of an object."""
        body = orjson.dumps(new_event(kind, subject), option=orjson.OPT_INDENT_2)
        self.events.append(body)
        self._publish(body)
