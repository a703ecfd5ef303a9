"""What does the order service make of what it hears? Load, decide, save, for a batch, in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

from services.order_service import store
from services.order_service.domain.book import Decided, OrderBook
from services.order_service.domain.order import Order
from services.order_service.domain.placing import skus_of
from services.order_service.domain.refusals import KeyMismatch, NotCancellable
from services.order_service.domain.status import Stock
from shared import outbox
from shared.database import Connection
from shared.envelope import Message, Refusal
from shared.errors import HoldfastError
from shared.events import (
    CancelOrder,
    PaymentAttemptFailed,
    PaymentFact,
    PaymentFailed,
    PaymentInitiated,
    PaymentQuarantined,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentStatus,
    PaymentSucceeded,
    PlaceOrder,
    ReservationStatus,
    SkuFact,
    StockConfirmed,
    StockDepleted,
    StockFact,
    StockRejected,
    StockReleased,
    StockReplenished,
    StockReserved,
    StockReturned,
    StockUnavailable,
    Wire,
)

CONSUMER = "order-service"

CONSUMED: tuple[type[Wire], ...] = (
    PlaceOrder,
    CancelOrder,
    StockReserved,
    StockRejected,
    StockConfirmed,
    StockReleased,
    StockReturned,
    StockUnavailable,
    StockDepleted,
    StockReplenished,
    PaymentInitiated,
    PaymentAttemptFailed,
    PaymentSucceeded,
    PaymentFailed,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentQuarantined,
)

Consumed = PlaceOrder | CancelOrder | StockFact | SkuFact | PaymentFact

#: Commands on Kafka are the storefront's.
_KAFKA_REQUESTER = "storefront"


@dataclass(frozen=True, slots=True)
class Request:
    """A command that came by HTTP: `cause` names the request, `requested_by` the scope of its caller."""

    command: PlaceOrder | CancelOrder
    cause: str
    requested_by: str


async def handle(tx: Connection, batch: Sequence[Message[Consumed]]) -> Sequence[Refusal]:
    """Decide a batch of commands and facts in order; return those that are refused."""
    events = [message.event for message in batch]
    book = await _load(tx, events)
    refusals = []
    for message in batch:
        refused = _decide(book, message)
        if refused is not None:
            refusals.append(Refusal(message, refused.reason, refused.detail))
    await _save(tx, book)
    return refusals


async def answer(tx: Connection, requests: Sequence[Request]) -> Sequence[Decided | HoldfastError]:
    """Decide commands that came by HTTP in order; what cannot be accepted is refused, and nothing of it stored."""
    book = await _load(tx, [request.command for request in requests])
    answers = [_answer(book, request) for request in requests]
    await _save(tx, book)
    return answers


def _answer(book: OrderBook, request: Request) -> Decided | HoldfastError:
    match request.command:
        case PlaceOrder() as command:
            return book.place(command, cause=request.cause, keep_rejected=False)
        case CancelOrder() as command:
            return book.cancel(command, cause=request.cause, requested_by=request.requested_by)
        case unreachable:
            assert_never(unreachable)


def _decide(book: OrderBook, message: Message[Consumed]) -> HoldfastError | None:
    """Decide one message; return why it is refused, or None."""
    match message.event:
        case PlaceOrder() as command:
            return _place(book, command, message)
        case CancelOrder() as command:
            return _cancel(book, command, message)
        case StockFact() | PaymentFact() as fact:
            return book.join(fact, sequence=message.sequence, cause=message.cause)
        case SkuFact() as fact:
            book.join_sku(fact, sequence=message.sequence)
            return None
        case unreachable:
            assert_never(unreachable)


def _place(book: OrderBook, command: PlaceOrder, message: Message[Consumed]) -> HoldfastError | None:
    if not _has_key(message, command.order_id):
        return KeyMismatch()
    decided = book.place(command, cause=message.cause, keep_rejected=True)
    return decided if isinstance(decided, HoldfastError) else None


def _cancel(book: OrderBook, command: CancelOrder, message: Message[Consumed]) -> HoldfastError | None:
    if not _has_key(message, command.order_id):
        return KeyMismatch()
    decided = book.cancel(command, cause=message.cause, requested_by=_KAFKA_REQUESTER)
    # Nobody waits for an answer: an order that has ended stays as it is.
    return decided if isinstance(decided, HoldfastError) and not isinstance(decided, NotCancellable) else None


def _has_key(message: Message[Consumed], order_id: UUID) -> bool:
    """Tell whether the message key is the order id, in whatever notation."""
    if message.key == str(order_id):
        return True
    try:
        return UUID(message.key) == order_id
    except ValueError:
        return False


async def _load(tx: Connection, events: Sequence[Consumed]) -> OrderBook:
    """Lock every order that the batch is about, and read the prices and lines that its decisions need."""
    order_ids = {event.order_id for event in events if not isinstance(event, SkuFact)}
    orders = await store.lock_orders(tx, order_ids) if order_ids else {}
    placements = [event for event in events if isinstance(event, PlaceOrder) and event.order_id not in orders]
    prices = await store.get_prices(tx, {sku for command in placements for sku in skus_of(command)})
    lines = await store.list_lines(tx, _confirming(events, orders))
    for order_id in lines:
        orders[order_id].lines = lines[order_id]
    return OrderBook(orders, prices, await store.get_time(tx))


def _confirming(events: Sequence[Consumed], orders: dict[UUID, Order]) -> set[UUID]:
    """Return the orders that the batch may confirm, whose lines `OrderConfirmed` tells."""
    confirmed = {
        event.order_id
        for event in events
        if isinstance(event, StockFact) and event.reservation_status is ReservationStatus.CONFIRMED
    }
    paid = {
        event.order_id
        for event in events
        if isinstance(event, PaymentFact) and event.payment_status is PaymentStatus.SUCCEEDED
    }
    waiting = {
        order_id for order_id in paid & orders.keys() if orders[order_id].stock.facet is Stock.CONFIRMED
    }
    return (confirmed & orders.keys()) | waiting


async def _save(tx: Connection, book: OrderBook) -> None:
    """Write what the batch decided: one statement a table, and the events that tell of it."""
    placed, touched = book.placed(), book.touched()
    await store.insert_orders(tx, placed)
    await store.update_orders(tx, book.moved())
    await store.insert_lines(tx, placed)
    await store.insert_history(tx, touched)
    await store.insert_availability(tx, book.availability())
    await outbox.add(tx, [item for order in touched for item in order.emitted], at=book.at)
