"""What can be asked of the payment service by HTTP? Attempts, payments, refunds, the quarantine, and webhooks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, StringConstraints

from services.payment_service import store
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Task, Verdict, as_first_shown
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunds import Refund
from services.payment_service.domain.resolving import Action, Decision, Resolution
from services.payment_service.gateways import Gateways
from services.payment_service.handlers import (
    AttemptAnswered,
    Requested,
    RequestRefund,
    Resolve,
    Resolved,
    StartAttempt,
    Started,
)
from services.payment_service.store import NewWebhook
from shared.batcher import Batcher
from shared.database import Database
from shared.errors import Fault, Invalid, Malformed, NotFound
from shared.events import INTEGER_MAX
from shared.ids import new_id
from shared.web import (
    Page,
    caller_of,
    customer,
    customer_of,
    idempotency_key,
    operator,
    page,
    path_uuid,
    public,
    read_bytes,
    read_json,
    read_query,
    request_cause,
    respond,
)

RETURN_URL_CHARACTERS_MAX = 2_000
OPERATOR_CHARACTERS_MAX = 100
_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_REPLAYED = {"Idempotency-Replayed": "true"}


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class AttemptBody(_Body):
    """How somebody wants to pay; without a gateway by the default one."""

    gateway: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")] | None = None
    return_url: AnyHttpUrl | None = None


class RefundBody(_Body):
    """How much an operator gives back, and why; without an amount all that is left."""

    amount_minor: Annotated[int, Field(ge=1, le=INTEGER_MAX)] | None = None
    # Postgres keeps no NUL characters in text.
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


class ResolutionBody(_Body):
    """What an operator decides about a quarantined or disputed attempt, and why."""

    action: Action
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


class QuarantineQuery(Page):
    """Which part of the quarantine."""

    after: Annotated[str, StringConstraints(pattern=_UUID)] | None = None


class WebhookQuery(Page):
    """Which deliveries: those with one verdict, or all."""

    after: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")] = "0"
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Edges:
    """Where requests become transactions, and whom to wake when there is something to do (refunds: by gateway)."""

    attempts: Batcher[StartAttempt, Started]
    answers: Batcher[AttemptAnswered, Attempt]
    refunds: Batcher[RequestRefund, Requested]
    webhooks: Batcher[NewWebhook, None]
    resolutions: Batcher[Resolve, Resolved]
    wake_judge: Callable[[], None]
    wake_refunds: Mapping[str, Callable[[], None]]


class Api:
    """The routes.

    For `grace_seconds` the worker leaves a new attempt to the request that started it; once the gateway has not
    answered that request, the worker asks it after `retry_seconds`.
    """

    def __init__(
        self,
        database: Database,
        gateways: Gateways,
        edges: Edges,
        *,
        default_gateway: str,
        grace_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._database = database
        self._gateways = gateways
        self._edges = edges
        self._default_gateway = default_gateway
        self._grace_seconds = grace_seconds
        self._retry_seconds = retry_seconds

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [
            web.post("/webhooks/{gateway}", public(self.receive_webhook)),
            web.get("/webhooks", operator(self.list_webhooks)),
            web.get("/payments/{order_id}", customer(self.get_payment)),
            web.post("/payments/{order_id}/attempts", customer(self.start_attempt)),
            web.post("/payments/{order_id}/refunds", operator(self.request_refund)),
            web.get("/quarantine", operator(self.list_quarantine)),
            web.post("/payments/{order_id}/attempts/{attempt_id}/resolve", operator(self.resolve)),
        ]

    async def receive_webhook(self, request: web.Request) -> web.Response:
        """`POST /webhooks/{gateway}`: 200 as soon as the delivery, as it came, is durable."""
        gateway = self._gateways.get(request.match_info["gateway"])
        body = await read_bytes(request)
        event_id = gateway.verify(request.headers, body)
        gateway.read(body)
        signature = {name: _ascii(request.headers.get(name, "")) for name in gateway.signature_headers}
        headers = orjson.dumps(signature).decode()
        await self._edges.webhooks.submit(NewWebhook(gateway.name, event_id, headers, body))
        self._edges.wake_judge()
        return web.Response()

    async def list_webhooks(self, request: web.Request) -> web.Response:
        """`GET /webhooks`."""
        query = read_query(request, WebhookQuery)
        async with self._database.connection() as connection:
            rows = await store.list_webhooks(connection, query.verdict, int(query.after), query.limit)
        following = str(rows[-1]["id"]) if len(rows) == query.limit else None
        return page([dict(row) for row in rows], following)

    async def get_payment(self, request: web.Request) -> web.Response:
        """`GET /payments/{order_id}`."""
        async with self._database.connection() as connection:
            payment = await store.get(connection, path_uuid(request, "order_id"))
        own = customer_of(request)
        if payment is None or not payment.is_for(own):
            raise NotFound("The payment service has not heard of this order.")
        return respond(_show_payment(payment, to_customer=own is not None))

    async def start_attempt(self, request: web.Request) -> web.Response:
        """`POST /payments/{order_id}/attempts`: store the attempt, ask the gateway, store its answer.

        The same key of the same caller gets the same answer if the first one was about an attempt that had ended. Else
        it is answered with its attempt as it stands: who repeats a request because the answer was lost, or was UNKNOWN,
        learns what has become of it, and nobody is sent to a page that is closed.
        """
        order_id, key = path_uuid(request, "order_id"), idempotency_key(request)
        body = await read_json(request, AttemptBody)
        started = await self._edges.attempts.submit(
            StartAttempt(
                order_id=order_id,
                attempt_id=new_id(),
                gateway=self._gateway_name(body),
                requested_gateway=body.gateway,
                return_url=_return_url(body),
                idempotency_key=f"{caller_of(request).name}:{key}",
                grace_seconds=self._grace_seconds,
                customer_id=customer_of(request),
            )
        )
        attempt = started.attempt
        if attempt.task is Task.CREATE:
            answer = await self._gateways.get(attempt.gateway).create(attempt)
            attempt = await self._edges.answers.submit(
                AttemptAnswered(
                    order_id,
                    attempt.attempt_id,
                    answer,
                    self._retry_seconds,
                    request_cause(request),
                    is_shown=True,
                )
            )
        attempt = as_first_shown(attempt)
        unknown = attempt.status is AttemptStatus.UNKNOWN
        return respond(
            _show_attempt(attempt, to_customer=customer_of(request) is not None),
            status=HTTPStatus.ACCEPTED if unknown else HTTPStatus.CREATED,
            headers=_REPLAYED if started.replayed else None,
        )

    async def request_refund(self, request: web.Request) -> web.Response:
        """`POST /payments/{order_id}/refunds`: the refund is stored, and asked of the gateway by the worker."""
        order_id, key = path_uuid(request, "order_id"), _operators_key(request)
        body = await read_json(request, RefundBody)
        requested = await self._edges.refunds.submit(
            RequestRefund(order_id, new_id(), body.amount_minor, body.reason, key, request_cause(request))
        )
        self._wake_refunds(requested.refund.gateway)
        headers = _REPLAYED if requested.replayed else None
        return respond(_show_refund(requested.refund), status=HTTPStatus.ACCEPTED, headers=headers)

    async def list_quarantine(self, request: web.Request) -> web.Response:
        """`GET /quarantine`: quarantined and disputed attempts about which nobody has decided yet."""
        query = read_query(request, QuarantineQuery)
        async with self._database.connection() as connection:
            rows = await store.list_attempts_to_review(
                connection, UUID(query.after) if query.after else None, query.limit
            )
        following = str(rows[-1]["attempt_id"]) if len(rows) == query.limit else None
        return page([dict(row) for row in rows], following)

    async def resolve(self, request: web.Request) -> web.Response:
        """`POST /payments/{order_id}/attempts/{attempt_id}/resolve`: the same decision again changes nothing."""
        order_id, attempt_id = path_uuid(request, "order_id"), path_uuid(request, "attempt_id")
        key = _operators_key(request) if "Idempotency-Key" in request.headers else None
        decided_by = _operator_of(request)
        body = await read_json(request, ResolutionBody)
        decision = Decision(new_id(), body.action, body.reason, decided_by, key, request_cause(request))
        resolved = await self._edges.resolutions.submit(Resolve(order_id, attempt_id, decision))
        if resolved.resolution.refund_id is not None:
            self._wake_refunds(resolved.gateway)
        headers = _REPLAYED if resolved.replayed else None
        return respond(_show_resolution(resolved.resolution), headers=headers)

    def _wake_refunds(self, gateway: str) -> None:
        if gateway in self._edges.wake_refunds:
            self._edges.wake_refunds[gateway]()

    def _gateway_name(self, body: AttemptBody) -> str:
        name = body.gateway or self._default_gateway
        if self._gateways.find(name) is None:
            detail = "The gateway is not switched on."
            raise Invalid(detail, faults=[Fault("/gateway", f"one of {', '.join(self._gateways.names)}")])
        return name


def _return_url(body: AttemptBody) -> str | None:
    url = None if body.return_url is None else str(body.return_url)
    if url is not None and len(url) > RETURN_URL_CHARACTERS_MAX:
        faults = [Fault("/return_url", f"has more than {RETURN_URL_CHARACTERS_MAX} characters")]
        raise Invalid("The body does not fit.", faults=faults)
    return url


def _operator_of(request: web.Request) -> str:
    """Return who decides: the caller's own name, and beside it the name in X-Operator; raise `Malformed`.

    The operators' token is in many hands: there the header alone says who it is.
    """
    name = request.headers.get("X-Operator", "").strip()
    if len(name) > OPERATOR_CHARACTERS_MAX or not name.isprintable():
        raise Malformed(f"The header X-Operator is up to {OPERATOR_CHARACTERS_MAX} printable characters.")
    caller = caller_of(request)
    if caller.is_anonymous or not name:
        return _ascii(name) or caller.name
    return f"{_ascii(name)} by {caller.name}"


def _operators_key(request: web.Request) -> str:
    """Return the Idempotency-Key of an operator, beside its name where it has one of its own; raise `Malformed`."""
    caller, key = caller_of(request), idempotency_key(request)
    return key if caller.is_anonymous else f"{caller.name}:{key}"


def _ascii(text: str) -> str:
    """Return a header as text that can be stored, whatever bytes it came in."""
    return text.encode("ascii", "backslashreplace").decode()


def _show_attempt(attempt: Attempt, *, to_customer: bool = False) -> dict[str, Any]:
    """Return an attempt; what operators have still to look at is not for customers."""
    return {
        "attempt_id": attempt.attempt_id,
        "order_id": attempt.order_id,
        "gateway": attempt.gateway,
        "gateway_transaction_id": attempt.gateway_transaction_id,
        "payment_url": attempt.payment_url,
        "status": attempt.status,
        "amount_minor": attempt.amount_minor,
        "currency": attempt.currency,
        "accepted_amount_minor": attempt.accepted_amount_minor,
        "received_amount_minor": attempt.received_amount_minor,
        "received_currency": attempt.received_currency,
        "review_reason": None if to_customer else attempt.review_reason,
        "dispute": None if to_customer else attempt.dispute,
        "expires_at": attempt.expires_at,
        "created_at": attempt.created_at,
    }


def _show_resolution(resolution: Resolution) -> dict[str, Any]:
    return {
        "resolution_id": resolution.resolution_id,
        "order_id": resolution.order_id,
        "attempt_id": resolution.attempt_id,
        "action": resolution.action,
        "reason": resolution.reason,
        "review_reason": resolution.review_reason,
        "decided_by": resolution.decided_by,
        "refund_id": resolution.refund_id,
        "created_at": resolution.created_at,
    }


def _show_refund(refund: Refund, *, to_customer: bool = False) -> dict[str, Any]:
    """Return a refund; what operators and gateways wrote about it is not for customers."""
    return {
        "refund_id": refund.refund_id,
        "order_id": refund.order_id,
        "attempt_id": refund.attempt_id,
        "amount_minor": refund.amount_minor,
        "currency": refund.currency,
        "reason": refund.reason,
        "note": None if to_customer else refund.note,
        "status": refund.status,
        "gateway_refund_id": refund.gateway_refund_id,
        "error": None if to_customer else refund.error,
        "tries": refund.tries,
        "created_at": refund.created_at,
    }


def _show_payment(payment: Payment, *, to_customer: bool) -> dict[str, Any]:
    attempts: Sequence[Attempt] = list(payment.attempts.values())
    return {
        "order_id": payment.order_id,
        "status": payment.status,
        "reason": payment.reason,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "pay_by": payment.pay_by,
        "settled_attempt_id": payment.settled_attempt_id,
        "settled_amount_minor": payment.settled_amount_minor,
        "settled_currency": payment.settled_currency,
        "refunded_minor": payment.refunded_minor,
        "paid_at": payment.paid_at,
        "attempts_left": max(0, payment.attempts_max - len(attempts)),
        "attempts": [_show_attempt(attempt, to_customer=to_customer) for attempt in attempts],
        "refunds": [_show_refund(refund, to_customer=to_customer) for refund in payment.refunds.values()],
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
    }
