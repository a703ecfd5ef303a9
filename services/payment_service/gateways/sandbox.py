"""How does the sandbox gateway speak? HTTP with JSON, and webhooks signed by Standard Webhooks (CONTRACT, section 4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import UUID

import aiohttp
import orjson

from services.payment_service.domain.answers import Created, Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice, RefundNotice
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways.standard_webhooks import SIGNATURE_HEADERS, StandardWebhooks
from shared.errors import Malformed
from shared.events import INTEGER_MAX

_ANSWER_BYTES_MAX: Final = 262_144
_DETAIL_CHARACTERS_MAX: Final = 500
_NAME_CHARACTERS_MAX: Final = 255
_URL_CHARACTERS_MAX: Final = 2_000
_CURRENCY_CHARACTERS: Final = 3

_STATUSES: Final[Mapping[str, AttemptStatus]] = {
    "pending": AttemptStatus.PENDING,
    "succeeded": AttemptStatus.SUCCEEDED,
    "failed": AttemptStatus.FAILED,
    "expired": AttemptStatus.EXPIRED,
    "cancelled": AttemptStatus.CANCELLED,
}
_WEBHOOKS: Final[Mapping[str, AttemptStatus]] = {
    "payment.succeeded": AttemptStatus.SUCCEEDED,
    "payment.failed": AttemptStatus.FAILED,
    "payment.expired": AttemptStatus.EXPIRED,
}
#: Answers that mean that the very same request will never be accepted; all others leave the outcome open.
_DECLINES: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """Where the sandbox is, the secrets its webhooks may be signed with, and the limits of calls to it."""

    url: str
    webhook_secrets: Sequence[str]
    timeout_seconds: float = 10.0
    connections_max: int = 64


class Sandbox:
    """The sandbox gateway: its payment id is our `gateway_transaction_id`, our attempt id its `reference`."""

    name: str = "sandbox"
    signature_headers: tuple[str, ...] = SIGNATURE_HEADERS

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options
        self._url = options.url.rstrip("/")
        self._signatures = StandardWebhooks(options.webhook_secrets)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._options.connections_max),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._options.timeout_seconds),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # --- asking -------------------------------------------------------------------------------------------------

    async def create(self, attempt: Attempt) -> Created | Declined | Unanswered:
        """`POST /payments`, idempotent by reference."""
        body: dict[str, Any] = {
            "reference": str(attempt.attempt_id),
            "amount_minor": attempt.amount_minor,
            "currency": attempt.currency,
        }
        if attempt.return_url is not None:
            body["return_url"] = attempt.return_url
        if attempt.expires_at is not None:
            body["expires_at"] = attempt.expires_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        answer = await self._call("POST", "/payments", body)
        return answer if isinstance(answer, Declined | Unanswered) else _understand(answer, _read_created)

    async def ask(self, attempt: Attempt) -> Notice | Unanswered | None:
        """`GET /payments/{id}`, or by reference as long as the id is not known."""
        identity = attempt.gateway_transaction_id
        path = f"/payments/{identity}" if identity else f"/payments?reference={attempt.attempt_id}"
        answer = await self._call("GET", path)
        if isinstance(answer, Declined):
            return None if answer.not_found else Unanswered(answer.detail)
        if isinstance(answer, Unanswered):
            return answer
        return _understand(answer, _read_state if identity else _read_first_state)

    async def cancel(self, attempt: Attempt) -> Notice | Unanswered:
        """`POST /payments/{id}/cancel`; what it does not know is as good as cancelled."""
        now = await self.ask(attempt)
        if now is None:
            return Notice("not_found", AttemptStatus.CANCELLED)
        if isinstance(now, Unanswered) or now.status is not AttemptStatus.PENDING:
            return now
        answer = await self._call("POST", f"/payments/{now.transaction_id}/cancel")
        if isinstance(answer, Declined):
            # It was settled between our two questions: its webhook says how.
            return now
        return answer if isinstance(answer, Unanswered) else _understand(answer, _read_state)

    async def refund(
        self, refund: Refund, attempt: Attempt
    ) -> Refunded | RefundPending | Declined | Unanswered:
        """`POST /payments/{id}/refunds`, idempotent by the refund's id."""
        body = {"amount_minor": refund.amount_minor, "currency": refund.currency}
        path = f"/payments/{attempt.gateway_transaction_id}/refunds"
        answer = await self._call("POST", path, body, key=str(refund.refund_id))
        return answer if isinstance(answer, Declined | Unanswered) else _understand(answer, _read_refunded)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> Mapping[str, Any] | Declined | Unanswered:
        """Send one request; only an answer that is certain is more than `Unanswered`."""
        if self._session is None:
            return Unanswered("the gateway is closed")
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        data = None if body is None else orjson.dumps(body)
        try:
            async with self._session.request(
                method, self._url + path, data=data, headers=headers, allow_redirects=False
            ) as response:
                raw = await _read_answer(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Unanswered(f"no answer: {error!r}"[:_DETAIL_CHARACTERS_MAX])
        return _judge_answer(response.status, raw)

    # --- webhooks -----------------------------------------------------------------------------------------------

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """Return the event id of a delivery, or raise `Malformed`."""
        return self._signatures.verify(headers, body)

    def read(self, body: bytes) -> Notice:
        """Return what a webhook says, or raise `Malformed`."""
        document = _parse(body)
        kind = _text(document, "type")
        data = _mapping(document, "data")
        status = _WEBHOOKS.get(kind)
        if status is None and kind != "payment.refunded":
            return Notice(kind[:_DETAIL_CHARACTERS_MAX])
        amount_minor, currency = _amount(data, "amount_minor"), _currency(data, "currency")
        refund: RefundNotice | None = None
        if status is None:
            refund_id = _text(data, "refund_id") if "refund_id" in data else None
            refund = RefundNotice(amount_minor, currency, refund_id)
        return Notice(
            native_status=kind,
            status=status,
            attempt_id=_reference(data),
            transaction_id=_text(data, "payment_id"),
            amount_minor=amount_minor,
            currency=currency,
            occurred_at=_time(data, "occurred_at") if data.get("occurred_at") is not None else None,
            refund=refund,
        )


async def _read_answer(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer, or raise ValueError if it is longer than any answer can be."""
    raw = bytearray()
    async for chunk in response.content.iter_chunked(_ANSWER_BYTES_MAX):
        raw += chunk
        if len(raw) > _ANSWER_BYTES_MAX:
            detail = f"more than {_ANSWER_BYTES_MAX} bytes"
            raise ValueError(detail)
    return bytes(raw)


def _judge_answer(status: int, raw: bytes) -> Mapping[str, Any] | Declined | Unanswered:
    if status in _DECLINES:
        return Declined(
            f"{status}: {raw.decode(errors='replace')}"[:_DETAIL_CHARACTERS_MAX].replace("\0", "")
        )
    if status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
        return Unanswered(f"answered with {status}")
    try:
        return _parse(raw)
    except Malformed as error:
        return Unanswered(f"answered with {status}, but: {error.detail}")


def _understand(document: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T | Unanswered:
    """Read an answer; what is not as documented says nothing."""
    try:
        return read(document)
    except Malformed as error:
        return Unanswered(f"not understood: {error.detail}")


def _read_created(document: Mapping[str, Any]) -> Created:
    url = document.get("payment_url")
    if url is not None and not (
        isinstance(url, str) and len(url) <= _URL_CHARACTERS_MAX and url.isprintable()
    ):
        raise Malformed("payment_url is unusable")
    expires_at = _time(document, "expires_at") if document.get("expires_at") is not None else None
    return Created(_text(document, "payment_id"), url, _text(document, "status"), expires_at)


def _read_first_state(document: Mapping[str, Any]) -> Notice | None:
    items = document.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Malformed("items is not a list of objects")
    return _read_state(items[0]) if items else None


def _read_state(document: Mapping[str, Any]) -> Notice:
    native = _text(document, "status")
    is_paid = native == "succeeded"
    return Notice(
        native_status=native,
        status=_STATUSES.get(native),
        attempt_id=_reference(document),
        transaction_id=_text(document, "payment_id"),
        amount_minor=_amount(document, "captured_minor") if is_paid else None,
        currency=_currency(document, "captured_currency") if is_paid else None,
    )


def _read_refunded(document: Mapping[str, Any]) -> Refunded | RefundPending:
    gateway_refund_id = _text(document, "refund_id")
    is_done = _text(document, "status") == "succeeded"
    return Refunded(gateway_refund_id) if is_done else RefundPending(gateway_refund_id)


# --- reading JSON that others wrote ---------------------------------------------------------------------------------


def _parse(raw: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(raw)
    except ValueError as error:
        raise Malformed("The body is not JSON.") from error
    if not isinstance(document, dict):
        raise Malformed("The body is not a JSON object.")
    return document


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_CHARACTERS_MAX or not value.isprintable():
        raise Malformed(f"{name} is not a printable text of 1 to {_NAME_CHARACTERS_MAX} characters.")
    return value


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise Malformed(f"{name} is not an object.")
    return value


def _amount(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= INTEGER_MAX:
        raise Malformed(f"{name} is not an amount in minor units.")
    return value


def _currency(document: Mapping[str, Any], name: str) -> str:
    value = _text(document, name)
    if len(value) != _CURRENCY_CHARACTERS or not value.isascii():
        raise Malformed(f"{name} is not an ISO 4217 code.")
    return value


def _reference(document: Mapping[str, Any]) -> UUID | None:
    """Return our attempt id; any other reference is none of ours."""
    reference = document.get("reference")
    try:
        return UUID(reference) if isinstance(reference, str) else None
    except ValueError:
        return None


def _time(document: Mapping[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(document, name))
        if moment.tzinfo is None:
            raise Malformed(f"{name} has no time zone.")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{name} is not a time.") from error
