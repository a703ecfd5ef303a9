"""How are attempts started, and what is done with what gateways answer about them?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.payment_service import store
from services.payment_service.domain import paying
from services.payment_service.domain.attempts import Attempt
from services.payment_service.domain.paying import AttemptAnswer
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.schedule import DEFAULT_SCHEDULE, Schedule
from services.payment_service.handlers.saving import save
from shared.database import Connection
from shared.errors import HoldfastError, Invalid, NotFound


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Somebody wants to pay. The worker asks the gateway after `grace_seconds`, if the caller has not.

    With a `customer_id` there are no payments but that customer's.
    """

    order_id: UUID
    attempt_id: UUID
    gateway: str
    requested_gateway: str | None
    return_url: str | None
    idempotency_key: str
    grace_seconds: float
    customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The attempt that a request leads to; `replayed` if the same key had started it before."""

    attempt: Attempt
    replayed: bool


async def start_attempts(
    tx: Connection, requests: Sequence[StartAttempt]
) -> Sequence[Started | HoldfastError]:
    """Store attempts before any gateway hears of them."""
    at = await store.get_now(tx)
    payments = await store.lock(tx, {request.order_id for request in requests})
    results = [_start_attempt(payments.get(request.order_id), request, at) for request in requests]
    await save(tx, payments, at)
    return results


def _start_attempt(payment: Payment | None, request: StartAttempt, at: datetime) -> Started | HoldfastError:
    if payment is None or not payment.is_for(request.customer_id):
        return NotFound("The payment service has not heard of this order.")
    known = payment.attempt_of_key(request.idempotency_key)
    if known is not None:
        if (known.requested_gateway, known.return_url) != (request.requested_gateway, request.return_url):
            return Invalid("This Idempotency-Key came with another body.")
        return Started(known, replayed=True)
    refusal = paying.refuse_attempt(payment)
    if refusal is not None:
        return refusal
    task_at = at + timedelta(seconds=request.grace_seconds)
    attempt = paying.start_attempt(payment, request.attempt_id, request.gateway, task_at=task_at, at=at)
    attempt.requested_gateway = request.requested_gateway
    attempt.return_url = request.return_url
    attempt.idempotency_key = request.idempotency_key
    return Started(attempt, replayed=False)


@dataclass(frozen=True, slots=True)
class AttemptAnswered:
    """What a gateway answered about an attempt; it is asked again after `retry_seconds` if that settles nothing.

    `is_shown` says that whoever started the attempt is told what comes of it.
    """

    order_id: UUID
    attempt_id: UUID
    answer: AttemptAnswer
    retry_seconds: float
    cause: str
    is_shown: bool = False


async def save_attempt_answers(
    tx: Connection, answers: Sequence[AttemptAnswered], *, schedule: Schedule = DEFAULT_SCHEDULE
) -> Sequence[Attempt]:
    """Take in what gateways answered, and return the attempts as they stand then."""
    at = await store.get_now(tx)
    payments = await store.lock(tx, {item.order_id for item in answers})
    attempts = []
    for item in answers:
        payment = payments[item.order_id]
        attempt = payment.attempts[item.attempt_id]
        retry_at = at + timedelta(seconds=item.retry_seconds)
        paying.learn(
            payment, attempt, item.answer, cause=item.cause, at=at, retry_at=retry_at, schedule=schedule
        )
        if item.is_shown:
            attempt.note_shown()
        attempts.append(attempt)
    await save(tx, payments, at)
    transactions = [a.gateway_transaction_id for a in attempts if a.gateway_transaction_id is not None]
    await store.release_webhooks(tx, [], transactions)
    return attempts
