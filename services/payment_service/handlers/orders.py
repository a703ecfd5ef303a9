"""What does the payment service do with what it hears of orders?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, assert_never, get_args
from uuid import UUID

from services.payment_service import store
from services.payment_service.domain import paying, refunding, telling
from services.payment_service.domain.payments import Payment
from services.payment_service.handlers.saving import save
from shared.database import Connection
from shared.envelope import Message, Refusal
from shared.errors import Conflict
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
    await save(tx, payments, at)
    return refusals


async def tell_again(tx: Connection, lost: Mapping[UUID, Sequence[int]], *, cause: str) -> int:
    """Tell once more where payments stand, and return how many events that takes; what they are stays as it is.

    Args:
        tx: the caller's transaction.
        lost: by order, the numbers of its events that no topic holds any more; none: it is told under a new one.
        cause: what the events name as their cause.
    """
    at = await store.get_now(tx)
    payments = await store.lock(tx, lost.keys())
    for order_id, payment in payments.items():
        telling.tell_again(payment, lost[order_id], cause)
    await save(tx, payments, at)
    return sum(len(payment.emitted) for payment in payments.values())


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
    if payment.customer_id is None:
        payment.customer_id = event.customer_id
        payment.is_changed = True
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
