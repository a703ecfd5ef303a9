"""How does Midtrans speak? Snap pages by HTTP with JSON, and notifications whose signature covers only half of them.

The order id at Midtrans is our attempt id, and so is our `gateway_transaction_id`: Midtrans's own transaction id does not
exist until the customer has chosen a method, and changes when an expired order id is used again.

**Amounts.** Midtrans takes rupiah alone, as whole numbers. Ours are minor units of ISO 4217, where the rupiah has two
decimals: 1,000,000 minor units are Rp 10,000. Other currencies and fractions of a rupiah are declined without a call.

**Methods.** A payment by DANA is found only by Midtrans's own id (page "Get Transaction Status"), so it could never be
confirmed: `payments_enabled` names the methods of the page "Request Body (JSON Parameter)", which are all others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from services.payment_service.domain.answers import Created, Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways.documents import Document, link, parse, text, understand
from services.payment_service.gateways.midtrans_calls import MidtransCalls
from services.payment_service.gateways.midtrans_notices import (
    MINOR_UNITS_PER_RUPIAH,
    RUPIAH,
    WESTERN_INDONESIA,
    amount_minor,
    event_id,
    find_refund,
    is_signed,
    optional_text,
    read_notice,
    refund_name,
)
from shared.errors import Malformed, Misconfigured

_URL_CHARACTERS_MAX: Final = 2_000
#: Page "Expire a Snap Session": no page is open for less or for longer than this.
_PAGE_OPEN_MIN: Final = timedelta(minutes=5)
_PAGE_OPEN_MAX: Final = timedelta(days=7)
#: How long after its end a page may still have brought forth a payment, by their clock or ours.
_PAGE_END_MARGIN: Final = timedelta(minutes=2)

_CARDS_AND_WALLETS: Final = ("credit_card", "gopay", "shopeepay", "other_qris", "akulaku", "kredivo")
_TRANSFERS: Final = ("bca_va", "bni_va", "bri_va", "cimb_va", "permata_va", "other_va", "echannel")
_DEBITS: Final = ("bca_klikbca", "bca_klikpay", "bri_epay", "cimb_clicks", "danamon_online", "uob_ezpay")
_STORES: Final = ("indomaret", "alfamart")
#: Page "Code 4xx": the very same request will never be accepted. 401 is our key's fault, 406 says it was done before.
_REFUSALS: Final = frozenset({400, 402, 407, 410, 411, 412, 413, 414})
#: Page "Direct Refund Transaction": the bank has denied it.
_DENIED: Final = 202
#: What is charged and not settled, or was called back before it was.
_UNSETTLED: Final = frozenset({"capture", "cancel"})
#: Where a payment may still be called back.
_OPEN: Final = frozenset({AttemptStatus.PENDING, AttemptStatus.AUTHORIZED})


@dataclass(frozen=True, slots=True)
class MidtransOptions:
    """Where Midtrans is, the server keys that may sign (the first is also used to call), and the limits of calls."""

    server_keys: Sequence[str] = field(repr=False)
    base_url: str = "https://api.midtrans.com"
    snap_base_url: str = "https://app.midtrans.com"
    payments_enabled: Sequence[str] = (*_CARDS_AND_WALLETS, *_TRANSFERS, *_DEBITS, *_STORES)
    timeout_seconds: float = 10.0
    connections_max: int = 64


class Midtrans:
    """The Midtrans gateway: its order id is our attempt id.

    Raises:
        Misconfigured: there is no server key, or one that cannot be a key. With an empty one anybody could sign.
    """

    name: str = "midtrans"
    #: The signature is in the body.
    signature_headers: tuple[str, ...] = ()

    def __init__(self, options: MidtransOptions) -> None:
        keys = options.server_keys
        if not keys or not all(
            key and key.isascii() and key.isprintable() and ":" not in key for key in keys
        ):
            raise Misconfigured("Midtrans needs one or more server keys of printable ASCII.")
        self._options = options
        self._core_url = options.base_url.rstrip("/")
        self._snap_url = options.snap_base_url.rstrip("/")
        self._calls = MidtransCalls(
            keys, timeout_seconds=options.timeout_seconds, connections_max=options.connections_max
        )

    async def __aenter__(self) -> Self:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, error, trace)

    # --- asking -------------------------------------------------------------------------------------------------

    async def create(self, attempt: Attempt) -> Created | Declined | Unanswered:
        """`POST /snap/v1/transactions`: open a page until the attempt ends, though no shorter than Midtrans allows.

        That its order id is taken refuses nothing: an earlier, unanswered call went through.
        """
        reason = _refuse(attempt)
        if reason is not None:
            return Declined(reason)
        answer = await self._calls.send("POST", f"{self._snap_url}/snap/v1/transactions", self._page(attempt))
        if isinstance(answer, Unanswered):
            return answer
        if answer.code in {HTTPStatus.OK, HTTPStatus.CREATED}:
            return understand(answer.document, lambda made: self._read_created(attempt, made))
        is_refused = answer.code in _REFUSALS and "order_id" not in answer.said
        return Declined(answer.said) if is_refused else Unanswered(answer.said)

    async def ask(self, attempt: Attempt) -> Notice | Unanswered | None:
        """`GET /v2/{order_id}/status`, whose answers are confirmed.

        Midtrans answers 404 until the customer has chosen a method, and sends nothing when a page ends. So 404 is
        EXPIRED once the page's end is past, PENDING if we know that the page was opened, and else None: for all that
        can be told there is no page, nobody was given its address, and it does no harm to ask for it again.
        """
        found = await self._status(attempt)
        return _unchosen(attempt) if found is None else found

    async def cancel(self, attempt: Attempt) -> Notice | Unanswered:
        """Close the page, or cancel the payment that it has become, and return where it stands then.

        CANCELLED is only said when nothing can be paid any more: no page's address was ever given to us, the page is
        closed before a method was chosen, or the payment is cancelled.
        """
        found = await self._status(attempt)
        if found is None:
            return await self._close_page(attempt)
        if isinstance(found, Unanswered) or found.status not in _OPEN:
            return found
        return await self._call_back(attempt, found)

    async def refund(
        self, refund: Refund, attempt: Attempt
    ) -> Refunded | RefundPending | Declined | Unanswered:
        """`POST /v2/{order_id}/refund` with our refund's id as its key, unless the status lists it already.

        It is pending until the bank has confirmed it. A charged card that is not settled yet cannot be refunded, only
        cancelled, and only as a whole (page "Refund Transactions").
        """
        if refund.currency != RUPIAH or refund.amount_minor % MINOR_UNITS_PER_RUPIAH:
            return Declined("Midtrans gives back whole rupiah only")
        seen = await self._look(attempt)
        if seen is None:
            return Declined("404: Midtrans knows no such payment", not_found=True)
        if isinstance(seen, Unanswered):
            return seen
        now, document = seen
        known = understand(document, lambda listed: _known_refund(listed, refund))
        if known is not None:
            return known
        if now.native_status in _UNSETTLED:
            return await self._void(attempt, refund, now)
        return await self._refund(attempt, refund)

    # --- webhooks -----------------------------------------------------------------------------------------------

    async def identify(self, notice: Notice) -> Notice | Unanswered | None:
        """Return the notice as it is: every one names its payment."""
        return notice

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:  # noqa: ARG002 (the signature is in the body)
        """Return the event id of a notification, or raise `Malformed`."""
        document = parse(body)
        if not is_signed(document, self._options.server_keys):
            raise Malformed("The signature of this notification is not valid.")
        return event_id(document)

    def read(self, body: bytes) -> Notice:
        """Return what a notification says, or raise `Malformed`; whatever it moves is not confirmed."""
        return read_notice(parse(body), is_confirmed=False)

    # --- steps --------------------------------------------------------------------------------------------------

    def _page(self, attempt: Attempt) -> Mapping[str, Any]:
        body: dict[str, Any] = {
            "transaction_details": {
                "order_id": str(attempt.attempt_id),
                "gross_amount": attempt.amount_minor // MINOR_UNITS_PER_RUPIAH,
            },
            "enabled_payments": list(self._options.payments_enabled),
        }
        end = _end_of_page(attempt)
        if end is not None:
            # Counted back from the end, so that it is the same end however often and late it is asked for.
            minutes = -(-(end - attempt.created_at) // timedelta(minutes=1))
            start = (end - timedelta(minutes=minutes)).astimezone(WESTERN_INDONESIA)
            body["expiry"] = {
                "start_time": f"{start:%Y-%m-%d %H:%M:%S} +0700",
                "unit": "minutes",
                "duration": minutes,
            }
        if attempt.return_url is not None:
            body["callbacks"] = {"finish": attempt.return_url}
        return body

    def _read_created(self, attempt: Attempt, document: Document) -> Created:
        url = link(document, "redirect_url", characters_max=_URL_CHARACTERS_MAX)
        if url is None or not url.startswith(("https://", f"{self._snap_url}/")):
            raise Malformed("redirect_url is unusable")
        return Created(str(attempt.attempt_id), url, "created", _end_of_page(attempt))

    async def _status(self, attempt: Attempt) -> Notice | Unanswered | None:
        """Ask where a payment stands; None: no method was chosen yet."""
        seen = await self._look(attempt)
        return seen[0] if isinstance(seen, tuple) else seen

    async def _look(self, attempt: Attempt) -> tuple[Notice, Document] | Unanswered | None:
        answer = await self._calls.send("GET", self._payment_url(attempt, "status"))
        if isinstance(answer, Unanswered):
            return answer
        if not answer.is_about_a_payment:
            return None if answer.code == HTTPStatus.NOT_FOUND else Unanswered(answer.said)
        now = self._read_state(attempt, answer.document)
        return now if isinstance(now, Unanswered) else (now, answer.document)

    def _read_state(self, attempt: Attempt, document: Document) -> Notice | Unanswered:
        """Read what Midtrans answered about a payment: it must be this one, and signed if it is signed at all."""
        try:
            if text(document, "order_id") != str(attempt.attempt_id):
                return Unanswered("answered about another payment")
            if document.get("signature_key") is not None and not is_signed(
                document, self._options.server_keys
            ):
                return Unanswered("answered with a signature that is not valid")
            return read_notice(document, is_confirmed=True)
        except Malformed as error:
            return Unanswered(f"not understood: {error.detail}")

    async def _close_page(self, attempt: Attempt) -> Notice | Unanswered:
        """Page "Cancel a Snap Session"; if a method was chosen meanwhile, cancel the payment."""
        if attempt.payment_url is None:
            return _notice(attempt, "never opened", AttemptStatus.CANCELLED)
        token = attempt.payment_url.partition("?")[0].rstrip("/").rpartition("/")[2]
        answer = await self._calls.send(
            "POST", f"{self._snap_url}/snap/v1/transactions/{quote(token, safe='')}/cancel"
        )
        if isinstance(answer, Unanswered):
            return answer
        if "canceled_at" in answer.document or "already canceled" in answer.said:
            return replace(_notice(attempt, "page cancelled", AttemptStatus.CANCELLED), is_final=True)
        found = await self._status(attempt)
        if found is None:
            return _unchosen(attempt) or _notice(attempt, "not chosen", AttemptStatus.PENDING)
        if isinstance(found, Unanswered) or found.status not in _OPEN:
            return found
        return await self._call_back(attempt, found)

    async def _call_back(self, attempt: Attempt, found: Notice) -> Notice | Unanswered:
        """`POST /v2/{order_id}/cancel`, and `/expire` for what cannot be cancelled: both end it at our wish."""
        actions = ("cancel", "expire") if found.status is AttemptStatus.PENDING else ("cancel",)
        for action in actions:
            answer = await self._calls.send("POST", self._payment_url(attempt, action))
            if isinstance(answer, Unanswered):
                return answer
            if not answer.is_about_a_payment:
                continue
            ended = self._read_state(attempt, answer.document)
            if isinstance(ended, Unanswered):
                return ended
            if ended.status is AttemptStatus.EXPIRED:
                return replace(ended, status=AttemptStatus.CANCELLED)
            if ended.status not in _OPEN:
                return ended
        # It was settled, or ended, between our questions: its status says how.
        latest = await self._status(attempt)
        return found if latest is None else latest

    async def _void(self, attempt: Attempt, refund: Refund, now: Notice) -> Refunded | Declined | Unanswered:
        """Give a charged card's money back before it is settled, or find that this was done."""
        if refund.amount_minor != (attempt.received_amount_minor or attempt.amount_minor):
            return Declined(
                f"the payment is {now.native_status}: only settled money can be given back in part"
            )
        if now.status is AttemptStatus.CANCELLED:
            return Refunded(None)
        answer = await self._calls.send("POST", self._payment_url(attempt, "cancel"))
        if isinstance(answer, Unanswered):
            return answer
        if answer.is_about_a_payment:
            after = self._read_state(attempt, answer.document)
            if isinstance(after, Notice) and after.status is AttemptStatus.CANCELLED:
                return Refunded(None)
        return Declined(answer.said) if answer.code in _REFUSALS else Unanswered(answer.said)

    async def _refund(self, attempt: Attempt, refund: Refund) -> RefundPending | Declined | Unanswered:
        body = {
            "refund_key": str(refund.refund_id),
            "amount": refund.amount_minor // MINOR_UNITS_PER_RUPIAH,
            "reason": refund.reason,
        }
        answer = await self._calls.send("POST", self._payment_url(attempt, "refund"), body)
        if isinstance(answer, Unanswered):
            return answer
        if answer.code == HTTPStatus.OK:
            return understand(answer.document, lambda taken: RefundPending(refund_name(taken)))
        is_refused = answer.code in {*_REFUSALS, _DENIED, HTTPStatus.NOT_FOUND}
        return Declined(answer.said) if is_refused else Unanswered(answer.said)

    def _payment_url(self, attempt: Attempt, action: str) -> str:
        return f"{self._core_url}/v2/{attempt.attempt_id}/{action}"


def _refuse(attempt: Attempt) -> str | None:
    """Return why Midtrans cannot take the money of an attempt, or None."""
    if attempt.currency != RUPIAH:
        return f"Midtrans takes {RUPIAH} only, not {attempt.currency}"
    if attempt.amount_minor <= 0 or attempt.amount_minor % MINOR_UNITS_PER_RUPIAH:
        return f"Midtrans takes whole rupiah only: {attempt.amount_minor} is no multiple of 100 minor units"
    return None


def _end_of_page(attempt: Attempt) -> datetime | None:
    """Return when the page of an attempt ends: with the attempt, within what Midtrans allows."""
    if attempt.expires_at is None:
        return None
    is_open_for = min(max(attempt.expires_at - attempt.created_at, _PAGE_OPEN_MIN), _PAGE_OPEN_MAX)
    return (attempt.created_at + is_open_for).replace(microsecond=0)


def _unchosen(attempt: Attempt) -> Notice | None:
    """Say where an attempt stands for which no method was chosen."""
    end = _end_of_page(attempt)
    if end is not None and datetime.now(UTC) > end + _PAGE_END_MARGIN:
        called_back = AttemptStatus.CANCELLED if attempt.withdrawn else AttemptStatus.EXPIRED
        return _notice(attempt, "not chosen", called_back)
    return _notice(attempt, "not chosen", AttemptStatus.PENDING) if attempt.initiated else None


def _notice(attempt: Attempt, native_status: str, status: AttemptStatus) -> Notice:
    return Notice(native_status, status, attempt.attempt_id, str(attempt.attempt_id))


def _known_refund(document: Document, refund: Refund) -> Refunded | RefundPending | Unanswered | None:
    """Return what became of a refund that Midtrans lists under our key, or None. Raises `Malformed`."""
    entry = find_refund(document, refund.refund_id)
    if entry is None:
        return None
    if amount_minor(entry, "refund_amount") != refund.amount_minor:
        return Unanswered("Midtrans knows this refund with another amount")
    is_confirmed = optional_text(entry, "bank_confirmed_at") is not None
    return Refunded(refund_name(entry)) if is_confirmed else RefundPending(refund_name(entry))
