"""What does Stripe say of a payment, in our words? Webhooks by one table, and the objects that answers are made of.

A payment has three objects at Stripe. The Checkout Session is what we create, so its id is our
`gateway_transaction_id`; the PaymentIntent and its charge do not exist before somebody pays, so what speaks of them
carries no transaction and is matched by our attempt id, which Stripe keeps as metadata of session, intent and refund.
Disputes, and refunds that somebody made by hand, have no metadata: their intent is an alias, about which Stripe is asked.
What is cancelled is so for good: an expired session cannot be completed, a canceled intent makes no further charges.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final, assert_never
from uuid import UUID

from services.payment_service.domain.answers import Declined, Refunded, RefundPending
from services.payment_service.domain.attempts import AttemptStatus, Notice, RefundNotice
from services.payment_service.gateways import documents
from services.payment_service.gateways.documents import Document
from services.payment_service.gateways.stripe_currencies import amount_minor

ATTEMPT_ID: Final = "holdfast_attempt_id"
ORDER_ID: Final = "holdfast_order_id"
REFUND_ID: Final = "holdfast_refund_id"

_PENDING, _AUTHORIZED, _FAILED = AttemptStatus.PENDING, AttemptStatus.AUTHORIZED, AttemptStatus.FAILED
_EXPIRED, _CANCELLED = AttemptStatus.EXPIRED, AttemptStatus.CANCELLED
_SUCCEEDED = AttemptStatus.SUCCEEDED


class Money(Enum):
    """What an event says beside where an attempt stands."""

    BACK = auto()
    NOT_BACK = auto()
    DISPUTED = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """What an event means (None: nothing that concerns us), and the page of Stripe's documentation that says so."""

    meaning: AttemptStatus | Money | None
    source: str


_TYPES: Final = "API reference, Types of events"
_FULFILL: Final = "Fulfill orders (Checkout)"
_EXPIRY: Final = "API reference, Expire a Checkout Session"
_INTENTS: Final = "How PaymentIntents work (PaymentIntent lifecycle)"
_CANCELED: Final = "API reference, The PaymentIntent object (cancellation_reason)"
_HOLD: Final = "Place a hold on a payment method"
_REFUNDS: Final = "API reference, The Refund object (status)"
_FAILED_REFUNDS: Final = "Refund and cancel payments (handle failed refunds)"
_DISPUTES: Final = "How disputes work"

#: The status map: a type of event, and the state of its object where the type alone does not say it (None: any other).
#: The state is a session's payment_status, an intent's cancellation_reason, a refund's or a dispute's status.
EVENTS: Final[Mapping[tuple[str, str | None], Row]] = {
    ("checkout.session.completed", "paid"): Row(_SUCCEEDED, _FULFILL),
    # A method that takes days, or money that is only held: later events tell.
    ("checkout.session.completed", "unpaid"): Row(_PENDING, _FULFILL),
    ("checkout.session.completed", None): Row(None, "API reference, The Checkout Session object"),
    ("checkout.session.async_payment_succeeded", None): Row(_SUCCEEDED, _FULFILL),
    ("checkout.session.async_payment_failed", None): Row(_FAILED, _FULFILL),
    # CANCELLED where it came before the session's time: somebody called the session back.
    ("checkout.session.expired", None): Row(_EXPIRED, _EXPIRY),
    ("payment_intent.created", None): Row(None, _TYPES),
    ("payment_intent.processing", None): Row(_PENDING, _INTENTS),
    ("payment_intent.requires_action", None): Row(_PENDING, _INTENTS),
    ("payment_intent.partially_funded", None): Row(_PENDING, _TYPES),
    # A try failed, not the payment: the customer may try another card on the same page.
    ("payment_intent.payment_failed", None): Row(None, _INTENTS),
    ("payment_intent.amount_capturable_updated", None): Row(_AUTHORIZED, _HOLD),
    ("payment_intent.succeeded", None): Row(_SUCCEEDED, _INTENTS),
    ("payment_intent.canceled", "expired"): Row(_EXPIRED, _CANCELED),
    ("payment_intent.canceled", None): Row(_CANCELLED, _CANCELED),
    # It adds up what went back and does not name the refund: refund.* tells of each.
    ("charge.refunded", None): Row(None, _TYPES),
    ("charge.refund.updated", "succeeded"): Row(Money.BACK, _REFUNDS),
    ("charge.refund.updated", "failed"): Row(Money.NOT_BACK, _FAILED_REFUNDS),
    ("charge.refund.updated", "canceled"): Row(Money.NOT_BACK, _REFUNDS),
    ("charge.refund.updated", None): Row(None, _REFUNDS),
    ("refund.created", "succeeded"): Row(Money.BACK, _REFUNDS),
    ("refund.created", "failed"): Row(Money.NOT_BACK, _FAILED_REFUNDS),
    ("refund.created", "canceled"): Row(Money.NOT_BACK, _REFUNDS),
    ("refund.created", None): Row(None, _REFUNDS),
    ("refund.updated", "succeeded"): Row(Money.BACK, _REFUNDS),
    ("refund.updated", "failed"): Row(Money.NOT_BACK, _FAILED_REFUNDS),
    ("refund.updated", "canceled"): Row(Money.NOT_BACK, _REFUNDS),
    ("refund.updated", None): Row(None, _REFUNDS),
    ("refund.failed", None): Row(Money.NOT_BACK, _FAILED_REFUNDS),
    ("charge.dispute.created", None): Row(Money.DISPUTED, _DISPUTES),
    ("charge.dispute.funds_withdrawn", None): Row(Money.DISPUTED, _DISPUTES),
    ("charge.dispute.funds_reinstated", None): Row(Money.DISPUTED, _DISPUTES),
    ("charge.dispute.closed", None): Row(Money.DISPUTED, _DISPUTES),
    # Evidence was added or sent: nothing was decided.
    ("charge.dispute.updated", None): Row(None, _DISPUTES),
}
_TYPES_KNOWN: Final = frozenset(kind for kind, _ in EVENTS)

#: Where an attempt stands whose session is complete and not paid, by the status of its PaymentIntent.
_UNPAID_INTENTS: Final[Mapping[str | None, AttemptStatus]] = {
    "processing": _PENDING,
    "requires_action": _PENDING,
    "requires_capture": _AUTHORIZED,
    "requires_payment_method": _FAILED,
    "canceled": _CANCELLED,
}

#: A word of Stripe's that may be shown and stored. No digits: nobody's card number or key can look like one.
_WORD: Final = re.compile(r"[a-z][a-z_]{0,63}")


def read_event(document: Document) -> Notice:
    """Return what an event says, or raise `Malformed`."""
    kind = documents.text(document, "type")
    if kind not in _TYPES_KNOWN:
        return Notice(kind)
    subject = documents.mapping(documents.mapping(document, "data"), "object")
    at = documents.unix_time(document, "created")
    state = _state(kind, subject)
    row = EVENTS.get((kind, state)) or EVENTS[kind, None]
    native = f"{kind} ({state})" if state else kind
    match row.meaning:
        case AttemptStatus() as status:
            return _read_status(native, status, kind, subject, at)
        case Money.BACK | Money.NOT_BACK:
            return _read_refund_notice(native, subject, at, failed=row.meaning is Money.NOT_BACK)
        case Money.DISPUTED:
            return _read_dispute(native, subject, at)
        case None:
            return Notice(native, attempt_id=attempt_of(subject), occurred_at=at)
        case unreachable:
            assert_never(unreachable)


def _state(kind: str, subject: Document) -> str | None:
    """Return what the object says beyond the type of its event."""
    if kind.startswith("checkout.session."):
        return word(subject, "payment_status")
    if kind == "payment_intent.canceled":
        return word(subject, "cancellation_reason")
    if kind == "payment_intent.payment_failed":
        error = subject.get("last_payment_error")
        return word(error, "decline_code") or word(error, "code")
    return None if kind.startswith("payment_intent.") else word(subject, "status")


def _read_status(native: str, status: AttemptStatus, kind: str, subject: Document, at: datetime) -> Notice:
    is_session = kind.startswith("checkout.session.")
    money = "amount_total" if is_session else "amount_received"
    paid, currency = _money(subject, money) if status is _SUCCEEDED else (None, None)
    if status is _EXPIRED and is_session:
        status = _end(subject, at)
    return Notice(
        native_status=native,
        status=status,
        attempt_id=attempt_of(subject),
        transaction_id=documents.text(subject, "id") if is_session else None,
        amount_minor=paid,
        currency=currency,
        occurred_at=at,
        is_final=status is _CANCELLED,
    )


def _end(session: Document, at: datetime) -> AttemptStatus:
    """Say how a session ended that was gone at some time: by itself, or because it was called back before."""
    return _CANCELLED if at < documents.unix_time(session, "expires_at") else _EXPIRED


def _read_refund_notice(native: str, subject: Document, at: datetime, *, failed: bool) -> Notice:
    amount, currency = _money(subject, "amount")
    own_id = documents.identity(_metadata(subject), REFUND_ID)
    # Every refund that we ask for has our metadata; one that somebody made by hand has none.
    refund = RefundNotice(
        amount, currency, documents.text(subject, "id"), own_id, failed, is_foreign=own_id is None
    )
    return Notice(native, occurred_at=at, refund=refund, **_whose(subject))


def _read_dispute(native: str, subject: Document, at: datetime) -> Notice:
    amount, currency = _money(subject, "amount")
    why = word(subject, "reason") or "no reason given"
    return Notice(
        native,
        occurred_at=at,
        dispute=f"{why}: {word(subject, 'status') or 'open'}, {amount} {currency}",
        **_whose(subject),
    )


def _whose(subject: Document) -> dict[str, Any]:
    """Return our attempt, or else the intent, which only Stripe can say whose it is."""
    attempt_id = attempt_of(subject)
    return {"attempt_id": attempt_id} if attempt_id else {"alias": reference(subject, "payment_intent")}


# --- objects in answers ---------------------------------------------------------------------------------------------


def read_session(session: Document, at: datetime) -> Notice:
    """Return where an attempt stands at some time, by its Checkout Session with or without its PaymentIntent."""
    intent = session.get("payment_intent")
    status = _session_status(session, word(intent, "status"), at)
    paid, currency = _money(session, "amount_total") if status is _SUCCEEDED else (None, None)
    return Notice(
        native_status="/".join(word(session, name) or "unknown" for name in ("status", "payment_status")),
        status=status,
        attempt_id=attempt_of(session),
        transaction_id=documents.text(session, "id"),
        amount_minor=paid,
        currency=currency,
        is_final=status is _CANCELLED,
    )


def _session_status(session: Document, intent: str | None, at: datetime) -> AttemptStatus | None:
    payment = word(session, "payment_status")
    if payment == "paid":
        return _SUCCEEDED
    match word(session, "status"):
        case "open":
            return _PENDING
        case "expired":
            return _end(session, at)
        case "complete" if payment == "unpaid":
            return _UNPAID_INTENTS.get(intent, _PENDING)
        case _:
            return None


def read_refund(refund: Document) -> Refunded | RefundPending | Declined:
    """Return how far a refund has come; what failed is declined, for a reason of the customer's bank."""
    refund_id = documents.text(refund, "id")
    match word(refund, "status"):
        case "succeeded":
            return Refunded(refund_id)
        case "failed" | "canceled" as status:
            return Declined(f"{refund_id} {status}: {word(refund, 'failure_reason') or 'no reason given'}")
        case _:
            return RefundPending(refund_id)


def attempt_of(subject: Document) -> UUID | None:
    """Return our attempt id as an object of Stripe's carries it."""
    return documents.identity(_metadata(subject), ATTEMPT_ID) or documents.identity(
        subject, "client_reference_id"
    )


def refund_of(refund: Document) -> UUID | None:
    """Return our refund id as a refund carries it."""
    return documents.identity(_metadata(refund), REFUND_ID)


def reference(subject: Document, name: str) -> str | None:
    """Return the id of another object, whether it is only named or given in full."""
    other = subject.get(name)
    if other is None:
        return None
    return documents.text(other, "id") if isinstance(other, dict) else documents.text(subject, name)


def word(subject: Any, name: str) -> str | None:
    """Return a word of Stripe's vocabulary, or None for whatever is none."""
    value = subject.get(name) if isinstance(subject, dict) else None
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _metadata(subject: Document) -> Document:
    metadata = subject.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _money(subject: Document, name: str) -> tuple[int, str]:
    currency = documents.currency(subject, "currency").upper()
    return amount_minor(documents.amount(subject, name), currency), currency
