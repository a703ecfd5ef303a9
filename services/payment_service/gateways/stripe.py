"""How does Stripe speak? Checkout Sessions by form-encoded HTTP, and webhooks under a signature of its own.

The package `stripe` (extra `stripe`) verifies signatures; calls go through aiohttp, so that nothing blocks. Stripe
forgets an Idempotency-Key after a day, but a refund may be asked for longer: what it has is looked up first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from services.payment_service.domain.answers import Created, Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways import documents, stripe_events
from services.payment_service.gateways.documents import Document, understand
from services.payment_service.gateways.stripe_calls import StripeCalls
from services.payment_service.gateways.stripe_currencies import stripe_amount
from services.payment_service.gateways.stripe_events import ATTEMPT_ID, ORDER_ID, REFUND_ID
from shared.errors import Malformed, Misconfigured

if TYPE_CHECKING:
    from stripe import WebhookSignature

SIGNATURE_HEADER: Final = "stripe-signature"
#: How old a delivery may be: what Stripe's own libraries allow (page "Receive Stripe events in your webhook endpoint").
TOLERANCE_SECONDS: Final = 300

#: A session may be open from 30 minutes to 24 hours after its creation (page "API reference, Create a Checkout
#: Session", expires_at). Ours is some minutes within, for clocks that differ and for repeated calls: these must say
#: exactly the same as the first, so the time is reckoned from the attempt, never from now.
_OPEN_MIN: Final = timedelta(minutes=30)
_OPEN_MAX: Final = timedelta(hours=24)
_REPEAT_FOR: Final = timedelta(minutes=10)
_CLOCK_MARGIN: Final = timedelta(minutes=5)

#: How soon a refund that failed may be asked for anew: as soon as Stripe forgets an Idempotency-Key.
_REFUND_AGAIN_AFTER: Final = timedelta(hours=24)

_URL_CHARACTERS_MAX: Final = 5_000
_LIVE: Final = {AttemptStatus.PENDING, AttemptStatus.AUTHORIZED}


@dataclass(frozen=True, slots=True)
class StripeOptions:
    """The keys of a Stripe account, where its API is, and the limits of calls to it.

    `return_url` is where customers go, having paid or not, whose attempt names no other place.
    """

    secret_key: str = field(repr=False)
    webhook_secrets: Sequence[str] = field(repr=False)
    return_url: str | None = None
    base_url: str = "https://api.stripe.com"
    timeout_seconds: float = 10.0
    connections_max: int = 64


class Stripe:
    """Stripe: the id of the Checkout Session is our `gateway_transaction_id`, our attempt id its metadata."""

    name: str = "stripe"
    signature_headers: tuple[str, ...] = (SIGNATURE_HEADER,)

    def __init__(self, options: StripeOptions) -> None:
        self._return_url = options.return_url
        self._webhook_secrets = tuple(options.webhook_secrets)
        self._signature = _load_signature()
        self._is_live = "_live_" in options.secret_key
        self._calls = StripeCalls(
            options.secret_key,
            options.base_url,
            timeout_seconds=options.timeout_seconds,
            connections_max=options.connections_max,
        )

    async def __aenter__(self) -> Self:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, error, trace)

    # --- attempts -----------------------------------------------------------------------------------------------

    async def create(self, attempt: Attempt) -> Created | Declined | Unanswered:
        """`POST /v1/checkout/sessions`, idempotent by the attempt's id."""
        amount = stripe_amount(attempt.amount_minor, attempt.currency)
        if amount is None:
            return Declined(
                f"Stripe cannot be asked for {attempt.amount_minor} minor units of {attempt.currency}"
            )
        return_url = attempt.return_url or self._return_url
        if return_url is None:
            return Declined("Stripe needs a return_url, of the attempt or of the settings")
        form = _session_form(attempt, amount, return_url)
        answer = await self._calls.post("/v1/checkout/sessions", form, key=str(attempt.attempt_id))
        if isinstance(answer, Declined | Unanswered):
            return answer
        return understand(answer, _read_created)

    async def ask(self, attempt: Attempt) -> Notice | Unanswered | None:
        """Read the attempt's session; as long as its id is not known, look through those of that time."""
        session = await self._find_session(attempt)
        if session is None or isinstance(session, Unanswered):
            return session
        return understand(session, partial(stripe_events.read_session, at=datetime.now(UTC)))

    async def cancel(self, attempt: Attempt) -> Notice | Unanswered:
        """Expire the session, or cancel the intent of one that is complete; what Stripe does not know is cancelled."""
        session = await self._find_session(attempt)
        if session is None:
            return Notice("not_found", AttemptStatus.CANCELLED)
        if isinstance(session, Unanswered):
            return session
        now = understand(session, partial(stripe_events.read_session, at=datetime.now(UTC)))
        if isinstance(now, Unanswered) or now.status not in _LIVE:
            return now
        path = understand(session, _path_of_cancelling)
        answer = path if isinstance(path, Unanswered) else await self._calls.post(path, {})
        if isinstance(answer, Unanswered):
            return answer
        # It may have been paid between our questions, and then cannot be cancelled: what counts is how it stands.
        return await self.ask(attempt) or now

    async def _find_session(self, attempt: Attempt) -> Document | Unanswered | None:
        """Return the attempt's session with its PaymentIntent."""
        session_id: str | Unanswered | None = attempt.gateway_transaction_id
        if session_id is None:
            session_id = await self._find_session_id(attempt)
        if session_id is None or isinstance(session_id, Unanswered):
            return session_id
        return await self._calls.get(_session_path(session_id), {"expand[]": "payment_intent"})

    async def _find_session_id(self, attempt: Attempt) -> str | Unanswered | None:
        """Look for the attempt among the sessions that were created when its own can have been.

        Sessions cannot be searched for by metadata, and intents not before somebody has paid.
        """
        query = {
            "created[gte]": _seconds(attempt.created_at - _CLOCK_MARGIN),
            "created[lte]": _seconds(_session_end(attempt) - _OPEN_MIN + _CLOCK_MARGIN),
        }
        found = await self._calls.find(
            "/v1/checkout/sessions",
            query,
            lambda session: stripe_events.attempt_of(session) == attempt.attempt_id,
        )
        if found is None or isinstance(found, Unanswered):
            return found
        return understand(found, lambda session: documents.text(session, "id"))

    # --- refunds ------------------------------------------------------------------------------------------------

    async def refund(
        self, refund: Refund, attempt: Attempt
    ) -> Refunded | RefundPending | Declined | Unanswered:
        """`POST /v1/refunds`, idempotent by the refund's id, unless Stripe has the refund already.

        One that failed is declined for a day, and then asked for under a key of its own.
        """
        amount = stripe_amount(refund.amount_minor, refund.currency)
        if amount is None:
            return Declined(f"Stripe cannot give back {refund.amount_minor} minor units of {refund.currency}")
        intent_id = await self._find_intent_id(attempt)
        if isinstance(intent_id, Declined | Unanswered):
            return intent_id
        return await self._have_refunded(refund, _refund_form(refund, intent_id, amount))

    async def _have_refunded(
        self, refund: Refund, form: Mapping[str, str]
    ) -> Refunded | RefundPending | Declined | Unanswered:
        known = await self._calls.find(
            "/v1/refunds",
            {"payment_intent": form["payment_intent"]},
            lambda item: stripe_events.refund_of(item) == refund.refund_id,
        )
        if isinstance(known, Unanswered):
            return known
        key = str(refund.refund_id)
        if known is not None:
            again = understand(known, partial(_key_of_another_try, refund=refund, at=datetime.now(UTC)))
            if again is None:
                return understand(known, stripe_events.read_refund)
            if isinstance(again, Unanswered):
                return again
            key = again
        answer = await self._calls.post("/v1/refunds", form, key=key)
        if isinstance(answer, Declined | Unanswered):
            return answer
        return understand(answer, stripe_events.read_refund)

    async def _find_intent_id(self, attempt: Attempt) -> str | Declined | Unanswered:
        session = await self._find_session(attempt)
        if session is None:
            return Declined("Stripe knows no such payment", not_found=True)
        if isinstance(session, Unanswered):
            return session
        intent_id = understand(session, lambda document: stripe_events.reference(document, "payment_intent"))
        return Declined("nothing was paid at Stripe") if intent_id is None else intent_id

    # --- webhooks -----------------------------------------------------------------------------------------------

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """Return the event id of a delivery, or raise `Malformed`; any of the secrets may have signed it."""
        header = headers.get(SIGNATURE_HEADER, "")
        if not any(self._is_signed(body, header, secret) for secret in self._webhook_secrets):
            raise Malformed("The signature or the time-stamp of this delivery is not valid.")
        return documents.text(documents.parse(body), "id")

    def _is_signed(self, body: bytes, header: str, secret: str) -> bool:
        try:
            self._signature.verify_header(body, header, secret, TOLERANCE_SECONDS)
        except Exception:  # hostile input makes the verifier raise whatever its parts raise
            return False
        return True

    def read(self, body: bytes) -> Notice:
        """Return what a webhook says, or raise `Malformed`. With a live key, what Stripe's test mode says is no money."""
        document = documents.parse(body)
        if self._is_live and document.get("livemode") is False:
            return Notice(f"{documents.text(document, 'type')} in test mode")
        return stripe_events.read_event(document)

    async def identify(self, notice: Notice) -> Notice | Unanswered | None:
        """Return a notice with the attempt it is about, where it names only a PaymentIntent; None: none of ours.

        Disputes, and refunds that somebody made by hand, carry no metadata of ours: the intent does.
        """
        if notice.alias is None:
            return notice
        intent = await self._calls.get(f"/v1/payment_intents/{quote(notice.alias, safe='')}")
        if intent is None or isinstance(intent, Unanswered):
            return intent
        attempt_id = stripe_events.attempt_of(intent)
        return None if attempt_id is None else replace(notice, attempt_id=attempt_id, alias=None)


def _load_signature() -> "type[WebhookSignature]":
    """Return Stripe's own verifier, or raise `Misconfigured`: the service runs without it while Stripe is off."""
    try:
        from stripe import WebhookSignature  # noqa: PLC0415 (an optional part)
    except ImportError as error:
        detail = "The gateway stripe is switched on, but its package is missing: install holdfast[stripe]."
        raise Misconfigured(detail) from error
    return WebhookSignature


def _session_path(session_id: str) -> str:
    return f"/v1/checkout/sessions/{quote(session_id, safe='')}"


def _session_form(attempt: Attempt, amount: int, return_url: str) -> dict[str, str]:
    metadata = {ATTEMPT_ID: str(attempt.attempt_id), ORDER_ID: str(attempt.order_id)}
    item = "line_items[0]"
    return {
        "mode": "payment",
        f"{item}[quantity]": "1",
        f"{item}[price_data][currency]": attempt.currency.lower(),
        f"{item}[price_data][unit_amount]": str(amount),
        f"{item}[price_data][product_data][name]": f"Order {attempt.order_id}",
        # The customer pays what the order costs, in its currency.
        "adaptive_pricing[enabled]": "false",
        "client_reference_id": str(attempt.attempt_id),
        **{f"metadata[{name}]": value for name, value in metadata.items()},
        **{f"payment_intent_data[metadata][{name}]": value for name, value in metadata.items()},
        "success_url": return_url,
        "cancel_url": return_url,
        "expires_at": _seconds(_session_end(attempt)),
    }


def _session_end(attempt: Attempt) -> datetime:
    """Return until when a session is open: as long as the attempt, as far as Stripe permits."""
    earliest = attempt.created_at + _OPEN_MIN + _REPEAT_FOR
    latest = attempt.created_at + _OPEN_MAX - _CLOCK_MARGIN
    return latest if attempt.expires_at is None else min(max(attempt.expires_at, earliest), latest)


def _read_created(session: Document) -> Created:
    return Created(
        documents.text(session, "id"),
        documents.link(session, "url", characters_max=_URL_CHARACTERS_MAX),
        documents.text(session, "status"),
        documents.unix_time(session, "expires_at"),
    )


def _path_of_cancelling(session: Document) -> str:
    """Return what keeps a session from being paid: an intent cannot be cancelled while its session is open."""
    if stripe_events.word(session, "status") == "open":
        return f"{_session_path(documents.text(session, 'id'))}/expire"
    intent_id = stripe_events.reference(session, "payment_intent")
    if intent_id is None:
        raise Malformed("payment_intent is missing")
    return f"/v1/payment_intents/{quote(intent_id, safe='')}/cancel"


def _refund_form(refund: Refund, intent_id: str, amount: int) -> dict[str, str]:
    return {
        "payment_intent": intent_id,
        "amount": str(amount),
        f"metadata[{REFUND_ID}]": str(refund.refund_id),
        f"metadata[{ATTEMPT_ID}]": str(refund.attempt_id),
    }


def _key_of_another_try(known: Document, refund: Refund, at: datetime) -> str | None:
    """Return the key for asking anew once a refund failed and some time has passed; None: what there is stands."""
    is_failed = isinstance(stripe_events.read_refund(known), Declined)
    is_old = at >= documents.unix_time(known, "created") + _REFUND_AGAIN_AFTER
    return f"{refund.refund_id}:{documents.text(known, 'id')}" if is_failed and is_old else None


def _seconds(moment: datetime) -> str:
    return str(int(moment.timestamp()))
