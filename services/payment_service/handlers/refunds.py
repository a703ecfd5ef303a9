"""How are refunds asked for, and what is done with what gateways answer about them?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.payment_service import store
from services.payment_service.domain import refunding
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunding import RefundAnswer
from services.payment_service.domain.refunds import Refund
from services.payment_service.handlers.saving import save
from shared.database import Connection
from shared.errors import Conflict, HoldfastError, Invalid, NotFound


@dataclass(frozen=True, slots=True)
class RequestRefund:
    """An operator gives back the settled money of an order, or a part of it."""

    order_id: UUID
    refund_id: UUID
    amount_minor: int | None
    note: str
    request_key: str
    cause: str


@dataclass(frozen=True, slots=True)
class Requested:
    """The refund that a request leads to; `replayed` if the same key had asked for it before."""

    refund: Refund
    replayed: bool


async def request_refunds(
    tx: Connection, requests: Sequence[RequestRefund]
) -> Sequence[Requested | HoldfastError]:
    """Store operators' refunds as due."""
    at = await store.get_now(tx)
    payments = await store.lock(tx, {request.order_id for request in requests})
    results = [_request_refund(payments.get(request.order_id), request, at) for request in requests]
    await save(tx, payments, at)
    return results


def _request_refund(
    payment: Payment | None, request: RequestRefund, at: datetime
) -> Requested | HoldfastError:
    if payment is None:
        return NotFound("The payment service has not heard of this order.")
    known = payment.refund_of_key(request.request_key)
    if known is not None:
        if (known.requested_minor, known.note) != (request.amount_minor, request.note):
            return Invalid("This Idempotency-Key came with another body.")
        return Requested(known, replayed=True)
    made = refunding.request_refund(
        payment,
        request.refund_id,
        request.amount_minor,
        note=request.note,
        request_key=request.request_key,
        cause=request.cause,
        at=at,
    )
    return made if isinstance(made, Conflict) else Requested(made, replayed=False)


@dataclass(frozen=True, slots=True)
class RefundAnswered:
    """What a gateway answered about a refund; unless the money is back it is asked again after `retry_seconds`."""

    order_id: UUID
    refund_id: UUID
    answer: RefundAnswer
    retry_seconds: float
    cause: str


async def save_refund_answers(tx: Connection, answers: Sequence[RefundAnswered]) -> Sequence[None]:
    """Take in what gateways answered."""
    at = await store.get_now(tx)
    payments = await store.lock(tx, {item.order_id for item in answers})
    for item in answers:
        payment = payments[item.order_id]
        retry_at = at + timedelta(seconds=item.retry_seconds)
        refund = payment.refunds[item.refund_id]
        refunding.learn_refund(payment, refund, item.answer, cause=item.cause, retry_at=retry_at)
    await save(tx, payments, at)
    # Webhooks about a refund may have come before it was known under the gateway's own id.
    await store.release_webhooks(tx, [a for p in payments.values() for a in p.attempts], [])
    return [None] * len(answers)
