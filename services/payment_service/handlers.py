"""What does the payment service do with what it hears: orders, requests, deliveries, and gateways' answers?

Load, decide, save, for a batch, in the caller's transaction. A gateway cannot be reached from here: whoever asks one
does so outside, and hands in what it answered.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never, get_args
from uuid import UUID

from services.payment_service import store
from services.payment_service.domain import paying, refunding
from services.payment_service.domain.attempts import Attempt, Judgement, Notice, Verdict
from services.payment_service.domain.paying import AttemptAnswer
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunding import RefundAnswer
from services.payment_service.domain.refunds import Refund
from services.payment_service.store import JudgedWebhook, NewWebhook, StoredWebhook
from shared import outbox
from shared.database import Connection
from shared.envelope import Message, Refusal
from shared.errors import Conflict, HoldfastError, Invalid, NotFound
from shared.events import (
    OrderAwaitingPayment,
    OrderCancelled,
    OrderExpired,
    OrderFact,
    OrderPaymentFailed,
    OrderRefundRequested,
    OrderRejected,
    OrderStatus,
    RefundReason,
    Wire,
)
from shared.ids import new_id

CONSUMER = "payment-service"

#: To which attempt and order a gateway's reference or transaction belongs.
_Known: TypeAlias = Mapping[tuple[str, UUID | str], tuple[UUID, UUID]]

Consumed: TypeAlias = (
    OrderAwaitingPayment
    | OrderCancelled
    | OrderRejected
    | OrderExpired
    | OrderPaymentFailed
    | OrderRefundRequested
)
CONSUMED: tuple[type[Wire], ...] = get_args(Consumed)

#: An order in one of these wants no money any more; what still arrives counts all the same.
_CLOSED = frozenset(
    {
        OrderStatus.REJECTED,
        OrderStatus.PAYMENT_FAILED,
        OrderStatus.EXPIRED,
        OrderStatus.CANCELLED,
        OrderStatus.REFUND_DUE,
        OrderStatus.REFUNDED,
    }
)


@dataclass(frozen=True, slots=True)
class Policy:
    """How payments are opened: attempts allowed for each, and the gateway of attempts that we start ourselves."""

    attempts_max: int = 1
    auto_gateway: str | None = None


_DEFAULT_POLICY = Policy()


# --- what the order service tells -----------------------------------------------------------------------------------


async def handle(
    tx: Connection, batch: Sequence[Message[Consumed]], *, policy: Policy = _DEFAULT_POLICY
) -> Sequence[Refusal]:
    """Apply messages in order; refuse another amount for a known order, and a refund of what was never paid."""
    at = await store.get_now(tx)
    payments = await store.lock(tx, {message.event.order_id for message in batch})
    refusals = []
    for message in batch:
        order_id = message.event.order_id
        payment = payments.get(order_id)
        if payment is None:
            payment = Payment(order_id=order_id, attempts_max=policy.attempts_max, is_new=True)
        refusal = _hear_order(payment, message, policy, at)
        if refusal is not None:
            refusals.append(refusal)
        else:
            payments[order_id] = payment
    await _save(tx, payments, at)
    return refusals


def _hear_order(payment: Payment, message: Message[Consumed], policy: Policy, at: datetime) -> Refusal | None:
    match message.event:
        case OrderAwaitingPayment() as event:
            if not payment.agrees_with(event.total_minor, event.currency):
                detail = f"the payment is of {payment.amount_minor} {payment.currency}"
                return Refusal(message, Conflict.reason, detail)
            _open(payment, event, message.cause, policy, at)
        case OrderRefundRequested() if payment.settled_attempt_id is None:
            return Refusal(message, "not_paid", "nothing was ever paid for this order")
        case OrderFact():
            pass  # of any other order event only what it carries counts
        case unreachable:
            assert_never(unreachable)
    _join_order(payment, message.event, message.cause, at)
    return None


def _open(payment: Payment, event: OrderAwaitingPayment, cause: str, policy: Policy, at: datetime) -> None:
    is_opened_now = payment.amount_minor is None
    paying.open_payment(
        payment,
        amount_minor=event.total_minor,
        currency=event.currency,
        pay_by=event.pay_by,
        cause=cause,
        at=at,
        zero_id=new_id(),
    )
    wants_attempt = is_opened_now and not event.cancelled and policy.auto_gateway is not None
    if wants_attempt and policy.auto_gateway is not None and paying.refuse_attempt(payment) is None:
        paying.start_attempt(payment, new_id(), policy.auto_gateway, task_at=at, at=at)


def _join_order(payment: Payment, event: OrderFact, cause: str, at: datetime) -> None:
    if event.cancelled or event.order_status in _CLOSED:
        paying.close_payment(payment, cause=cause, at=at)
    if event.order_status is OrderStatus.REFUND_DUE:
        reason: RefundReason = "cancelled" if event.cancelled else "unavailable"
        if isinstance(event, OrderRefundRequested):
            reason = event.reason
        refunding.refund_settled(payment, reason, cause=cause, at=at)


# --- attempts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Somebody wants to pay. The worker asks the gateway after `grace_seconds`, if the caller has not."""

    order_id: UUID
    attempt_id: UUID
    gateway: str
    requested_gateway: str | None
    return_url: str | None
    idempotency_key: str
    grace_seconds: float


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
    await _save(tx, payments, at)
    return results


def _start_attempt(payment: Payment | None, request: StartAttempt, at: datetime) -> Started | HoldfastError:
    if payment is None:
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
    """What a gateway answered about an attempt; it is asked again after `retry_seconds` if that settles nothing."""

    order_id: UUID
    attempt_id: UUID
    answer: AttemptAnswer
    retry_seconds: float
    cause: str


async def save_attempt_answers(tx: Connection, answers: Sequence[AttemptAnswered]) -> Sequence[Attempt]:
    """Take in what gateways answered, and return the attempts as they stand then."""
    at = await store.get_now(tx)
    payments = await store.lock(tx, {item.order_id for item in answers})
    attempts = []
    for item in answers:
        payment = payments[item.order_id]
        attempt = payment.attempts[item.attempt_id]
        retry_at = at + timedelta(seconds=item.retry_seconds)
        paying.learn(payment, attempt, item.answer, cause=item.cause, at=at, retry_at=retry_at)
        attempts.append(attempt)
    await _save(tx, payments, at)
    transactions = [a.gateway_transaction_id for a in attempts if a.gateway_transaction_id is not None]
    await store.release_webhooks(tx, [], transactions)
    return attempts


# --- refunds --------------------------------------------------------------------------------------------------------


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
    await _save(tx, payments, at)
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
    await _save(tx, payments, at)
    # Webhooks about a refund may have come before it was known under the gateway's own id.
    await store.release_webhooks(tx, [a for p in payments.values() for a in p.attempts], [])
    return [None] * len(answers)


# --- webhooks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stored delivery with what its gateway's reader made of it; `problem` says why there is nothing."""

    webhook: StoredWebhook
    notice: Notice | None
    problem: str | None
    retry_seconds: float | None

    @property
    def cause(self) -> str:
        """What the events that follow from it name as their cause."""
        return f"webhook:{self.webhook.webhook_id}"


async def keep_webhooks(tx: Connection, webhooks: Sequence[NewWebhook]) -> Sequence[None]:
    """Store deliveries as they came; they are judged afterwards."""
    await store.insert_webhooks(tx, webhooks)
    return [None] * len(webhooks)


async def judge(tx: Connection, deliveries: Sequence[Delivery]) -> None:
    """Give every delivery its verdict, in order, and let payments follow those that are news."""
    at = await store.get_now(tx)
    notices = [delivery.notice for delivery in deliveries if delivery.notice is not None]
    known = await _find_attempts(tx, notices, {delivery.webhook.gateway for delivery in deliveries})
    payments = await store.lock(tx, {order_id for _, order_id in known.values()})
    # Read under the locks: what another process judged meanwhile is committed by now.
    judged = await store.find_judged_events(tx, {delivery.webhook.event_id for delivery in deliveries})
    verdicts = []
    for delivery in deliveries:
        event = (delivery.webhook.gateway, delivery.webhook.event_id)
        verdict = _judge(delivery, known, payments, at, is_repeated=event in judged)
        if verdict.verdict in {Verdict.APPLIED, Verdict.REGRESSIVE, Verdict.MISMATCH}:
            judged.add(event)
        verdicts.append(verdict)
    await _save(tx, payments, at)
    await store.update_webhooks(tx, verdicts)


async def _find_attempts(tx: Connection, notices: Sequence[Notice], gateways: Collection[str]) -> _Known:
    known: dict[tuple[str, UUID | str], tuple[UUID, UUID]] = {}
    references = {notice.attempt_id for notice in notices if notice.attempt_id is not None}
    for row in await store.find_orders_of_attempts(tx, sorted(references)) if references else ():
        known[row["gateway"], row["attempt_id"]] = (row["attempt_id"], row["order_id"])
    transactions = {
        n.transaction_id for n in notices if n.attempt_id is None and n.transaction_id is not None
    }
    if transactions:
        for row in await store.find_orders_of_transactions(tx, sorted(gateways), sorted(transactions)):
            known[row["gateway"], row["gateway_transaction_id"]] = (row["attempt_id"], row["order_id"])
    return known


def _judge(
    delivery: Delivery, known: _Known, payments: Mapping[UUID, Payment], at: datetime, *, is_repeated: bool
) -> JudgedWebhook:
    webhook, notice = delivery.webhook, delivery.notice
    judged = JudgedWebhook(webhook.webhook_id, Verdict.IGNORED, delivery.problem)
    if notice is None:
        return judged
    judged.attempt_id, judged.transaction_id = notice.attempt_id, notice.transaction_id
    name = notice.attempt_id or notice.transaction_id
    attempt_id, judged.order_id = known.get((webhook.gateway, name), (None, None)) if name else (None, None)
    if notice.status is None and notice.refund is None:
        judgement = Judgement(Verdict.IGNORED, f"{notice.native_status} is of no interest")
    elif is_repeated:
        judgement = Judgement(Verdict.DUPLICATE, "this event was delivered before")
    elif attempt_id is None or judged.order_id is None:
        judgement = Judgement(Verdict.UNMATCHED, "no attempt of ours is known to be meant")
    else:
        payment = payments[judged.order_id]
        attempt = payment.attempts[attempt_id]
        judgement = paying.hear(payment, attempt, notice, cause=delivery.cause, at=at)
    judged.verdict, judged.reason = judgement.verdict, judgement.reason
    if judgement.verdict is Verdict.UNMATCHED and delivery.retry_seconds is not None:
        judged.judge_at = at + timedelta(seconds=delivery.retry_seconds)
    return judged


async def _save(tx: Connection, payments: Mapping[UUID, Payment], at: datetime) -> None:
    """Write what has changed and what is told of it, and have deliveries judged that came before their attempt."""
    await store.save(tx, payments.values(), at)
    await outbox.add(tx, [emitted for payment in payments.values() for emitted in payment.emitted], at=at)
    attempts = [attempt for payment in payments.values() for attempt in payment.attempts.values()]
    appeared = [attempt.attempt_id for attempt in attempts if attempt.is_new]
    if appeared:
        await store.release_webhooks(tx, appeared, [])
