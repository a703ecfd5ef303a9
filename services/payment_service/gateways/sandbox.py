"""How does the sandbox gateway speak? HTTP with JSON, and webhooks signed by Standard Webhooks (CONTRACT, section 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import orjson

from services.payment_service.domain.answers import Created, Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice, RefundNotice
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways import documents
from services.payment_service.gateways.calls import Answer, Calls
from services.payment_service.gateways.documents import DETAIL_CHARACTERS_MAX, Document, understand
from services.payment_service.gateways.standard_webhooks import SIGNATURE_HEADERS, StandardWebhooks
from shared.errors import Malformed

_URL_CHARACTERS_MAX: Final = 2_000

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
        self._url = options.url.rstrip("/")
        self._signatures = StandardWebhooks(options.webhook_secrets)
        self._calls = Calls(timeout_seconds=options.timeout_seconds, connections_max=options.connections_max)

    async def __aenter__(self) -> Self:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, error, trace)

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
        return answer if isinstance(answer, Declined | Unanswered) else understand(answer, _read_created)

    async def ask(self, attempt: Attempt) -> Notice | Unanswered | None:
        """`GET /payments/{id}`, or by reference as long as the id is not known."""
        identity = attempt.gateway_transaction_id
        path = f"/payments/{identity}" if identity else f"/payments?reference={attempt.attempt_id}"
        answer = await self._call("GET", path)
        if isinstance(answer, Declined):
            return None if answer.not_found else Unanswered(answer.detail)
        if isinstance(answer, Unanswered):
            return answer
        return understand(answer, _read_state if identity else _read_first_state)

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
        return answer if isinstance(answer, Unanswered) else understand(answer, _read_state)

    async def refund(
        self, refund: Refund, attempt: Attempt
    ) -> Refunded | RefundPending | Declined | Unanswered:
        """`POST /payments/{id}/refunds`, idempotent by the refund's id."""
        body = {"amount_minor": refund.amount_minor, "currency": refund.currency}
        path = f"/payments/{attempt.gateway_transaction_id}/refunds"
        answer = await self._call("POST", path, body, key=str(refund.refund_id))
        return answer if isinstance(answer, Declined | Unanswered) else understand(answer, _read_refunded)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> Document | Declined | Unanswered:
        """Send one request; only an answer that is certain is more than `Unanswered`."""
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        data = None if body is None else orjson.dumps(body)
        answer = await self._calls.send(method, self._url + path, data=data, headers=headers)
        return answer if isinstance(answer, Unanswered) else _judge_answer(answer)

    # --- webhooks -----------------------------------------------------------------------------------------------

    async def identify(self, notice: Notice) -> Notice | Unanswered | None:
        """Return the notice as it is: every one names its payment."""
        return notice

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """Return the event id of a delivery, or raise `Malformed`."""
        return self._signatures.verify(headers, body)

    def read(self, body: bytes) -> Notice:
        """Return what a webhook says, or raise `Malformed`."""
        document = documents.parse(body)
        kind = documents.text(document, "type")
        data = documents.mapping(document, "data")
        status = _WEBHOOKS.get(kind)
        if status is None and kind != "payment.refunded":
            return Notice(kind[:DETAIL_CHARACTERS_MAX])
        amount_minor, currency = documents.amount(data, "amount_minor"), documents.currency(data, "currency")
        refund: RefundNotice | None = None
        if status is None:
            refund_id = documents.text(data, "refund_id") if "refund_id" in data else None
            refund = RefundNotice(amount_minor, currency, refund_id)
        return Notice(
            native_status=kind,
            status=status,
            attempt_id=documents.identity(data, "reference"),
            transaction_id=documents.text(data, "payment_id"),
            amount_minor=amount_minor,
            currency=currency,
            occurred_at=documents.time(data, "occurred_at") if data.get("occurred_at") is not None else None,
            refund=refund,
        )


def _judge_answer(answer: Answer) -> Document | Declined | Unanswered:
    if answer.status in _DECLINES:
        detail = f"{answer.status}: {answer.body.decode(errors='replace')}"
        return Declined(
            detail[:DETAIL_CHARACTERS_MAX].replace("\0", ""),
            not_found=answer.status == HTTPStatus.NOT_FOUND,
        )
    if answer.status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
        return Unanswered(f"answered with {answer.status}")
    try:
        return documents.parse(answer.body)
    except Malformed as error:
        return Unanswered(f"answered with {answer.status}, but: {error.detail}")


def _read_created(document: Document) -> Created:
    return Created(
        documents.text(document, "payment_id"),
        documents.link(document, "payment_url", characters_max=_URL_CHARACTERS_MAX),
        documents.text(document, "status"),
        documents.time(document, "expires_at") if document.get("expires_at") is not None else None,
    )


def _read_first_state(document: Document) -> Notice | None:
    items = documents.mappings(document, "items")
    return _read_state(items[0]) if items else None


def _read_state(document: Document) -> Notice:
    native = documents.text(document, "status")
    is_paid = native == "succeeded"
    return Notice(
        native_status=native,
        status=_STATUSES.get(native),
        attempt_id=documents.identity(document, "reference"),
        transaction_id=documents.text(document, "payment_id"),
        amount_minor=documents.amount(document, "captured_minor") if is_paid else None,
        currency=documents.currency(document, "captured_currency") if is_paid else None,
    )


def _read_refunded(document: Document) -> Refunded | RefundPending:
    gateway_refund_id = documents.text(document, "refund_id")
    is_done = documents.text(document, "status") == "succeeded"
    return Refunded(gateway_refund_id) if is_done else RefundPending(gateway_refund_id)
