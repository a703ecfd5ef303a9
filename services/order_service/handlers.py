"""What does the order service make of what it hears? Load, decide, save, for a batch, in the caller's transaction.

`handle` is for what comes by Kafka, `place`, `cancel` and `change_carts` for what comes by HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, assert_never
from uuid import UUID

from services.order_service import store
from services.order_service.domain.answers import show_order
from services.order_service.domain.book import Decided, Holds, OrderBook
from services.order_service.domain.cart import Cart, show_cart
from services.order_service.domain.order import Order
from services.order_service.domain.placing import ordered_by
from services.order_service.domain.refusals import (
    KeyMismatch,
    NotCancellable,
    OtherRequest,
    UnknownCart,
    UnknownOrder,
)
from services.order_service.domain.status import Stock
from services.order_service.store import KeptAnswer, ScopedKey
from shared import outbox
from shared.database import Connection
from shared.envelope import Message, Refusal
from shared.errors import HoldfastError
from shared.events import (
    CancelOrder,
    OrderStatus,
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
from shared.listener import notify
from shared.web import dump

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


#: On which a commit tells which orders have moved; keys are order ids.
CHANNEL = "orders"


@dataclass(frozen=True, slots=True)
class Policy:
    """How many open orders a customer may have at once (0: as many as wanted), and how long each method may take to pay."""

    holds_per_customer_max: int = 0
    hold_seconds_by_method: Mapping[str, int] = field(default_factory=dict)


_DEFAULT_POLICY = Policy()


# --- by Kafka -------------------------------------------------------------------------------------------------------


async def handle(
    tx: Connection, batch: Sequence[Message[Consumed]], *, policy: Policy = _DEFAULT_POLICY
) -> Sequence[Refusal]:
    """Decide a batch of commands and facts in order; return those that are refused."""
    events = [message.event for message in batch]
    book = await _load(tx, events, policy)
    refusals = []
    for message in batch:
        refused = _decide(book, message)
        if refused is not None:
            refusals.append(Refusal(message, refused.reason, refused.detail))
    await _save(tx, book)
    return refusals


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


# --- by HTTP --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placement:
    """A request to place an order under its caller's key; `cause` names the request, `fingerprint` is that of its body.

    `by_customer`: whoever asks may know of this customer's carts alone.
    """

    command: PlaceOrder
    cause: str
    key: ScopedKey
    fingerprint: bytes
    by_customer: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """What a placement is answered; `replayed` if the same request was answered so before."""

    answer: KeptAnswer
    replayed: bool


async def place(
    tx: Connection, placements: Sequence[Placement], *, policy: Policy = _DEFAULT_POLICY
) -> Sequence[Answered | HoldfastError]:
    """Place orders, each key once; what cannot be accepted is refused, and nothing of it stored, nor its key."""
    book = await _load(tx, [item.command for item in placements], policy, shows_known=True)
    # Under the locks: what another process answered under one of the keys meanwhile is committed by now.
    kept = await store.find_answers(tx, {item.key for item in placements})
    new: dict[ScopedKey, KeptAnswer] = {}
    answers = [_place_once(book, kept, new, item) for item in placements]
    await _save(tx, book)
    await store.insert_answers(tx, new)
    return answers


def _place_once(
    book: OrderBook,
    kept: dict[ScopedKey, KeptAnswer],
    new: dict[ScopedKey, KeptAnswer],
    placement: Placement,
) -> Answered | HoldfastError:
    before = kept.get(placement.key)
    if before is not None:
        if before.fingerprint != placement.fingerprint:
            return OtherRequest()
        return Answered(before, replayed=True)
    decided = book.place(
        placement.command, cause=placement.cause, keep_rejected=False, by_customer=placement.by_customer
    )
    if isinstance(decided, HoldfastError):
        return decided
    order = decided.order
    status = HTTPStatus.ACCEPTED if order.status is OrderStatus.REQUESTED else HTTPStatus.OK
    answer = KeptAnswer(placement.fingerprint, order.order_id, status, dump(show_order(order)))
    kept[placement.key] = new[placement.key] = answer
    return Answered(answer, replayed=False)


@dataclass(frozen=True, slots=True)
class LaterAnswer:
    """What a placement is answered that has waited for its stock."""

    key: ScopedKey
    answer: KeptAnswer


async def keep_later_answers(tx: Connection, items: Sequence[LaterAnswer]) -> Sequence[KeptAnswer]:
    """Have later answers take the place of ACCEPTED; return for each what its key is answered from now on."""
    later = {item.key: item.answer for item in reversed(items)}
    await store.update_answers(tx, later, only_status=HTTPStatus.ACCEPTED)
    kept = await store.find_answers(tx, later)
    return [kept.get(item.key, item.answer) for item in items]


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A request to cancel an order: `cause` names the request, `requested_by` its caller.

    With a `customer_id` there are no orders but that customer's.
    """

    command: CancelOrder
    cause: str
    requested_by: str
    customer_id: str | None = None


async def cancel(tx: Connection, requests: Sequence[Withdrawal]) -> Sequence[Decided | HoldfastError]:
    """Cancel orders; one that can no longer be cancelled is refused."""
    book = await _load(tx, [request.command for request in requests], _DEFAULT_POLICY)
    answers = [
        book.cancel(
            request.command,
            cause=request.cause,
            requested_by=request.requested_by,
            customer_id=request.customer_id,
        )
        for request in requests
    ]
    await _save(tx, book)
    return answers


@dataclass(frozen=True, slots=True)
class CartChange:
    """A request to have so many units of a SKU in a cart; None: no more of it.

    `by_customer` is the customer who asks, where it is one, and `given_to` the one to whom the storefront gives the cart.
    """

    cart_id: str
    sku: str
    quantity: int | None
    by_customer: str | None = None
    given_to: str | None = None


@dataclass(frozen=True, slots=True)
class CartChanged:
    """The cart as it is after a change, and whether the change brought a new item."""

    cart: dict[str, Any]
    is_new_item: bool


async def change_carts(
    tx: Connection, changes: Sequence[CartChange]
) -> Sequence[CartChanged | HoldfastError]:
    """Change what is in carts; one that is checked out takes no changes."""
    carts = await store.lock_carts(tx, {change.cart_id for change in changes})
    await store.load_items(tx, carts.values())
    answers = [_change_cart(carts[change.cart_id], change) for change in changes]
    await store.save_carts(tx, carts.values(), await store.get_time(tx))
    return answers


def _change_cart(cart: Cart, change: CartChange) -> CartChanged | HoldfastError:
    is_claimed = change.quantity is not None and cart.is_untouched
    if not (cart.is_for(change.by_customer) or is_claimed):
        return UnknownCart()
    done = (
        cart.take_item(change.sku)
        if change.quantity is None
        else cart.put_item(change.sku, change.quantity, owner=change.by_customer or change.given_to)
    )
    if isinstance(done, HoldfastError):
        return done
    return CartChanged(show_cart(cart), is_new_item=bool(done))


async def tell_again(tx: Connection, lost: Mapping[UUID, Sequence[int]], *, cause: str) -> int:
    """Tell once more where orders stand, and return how many events that takes; what they are stays as it is.

    Args:
        tx: the caller's transaction.
        lost: by order, the numbers of its events that no topic holds any more; none: it is told under new ones.
        cause: what the events name as their cause.
    """
    orders = await store.lock_orders(tx, lost.keys())
    lines = await store.list_lines(tx, set(orders))
    at = await store.get_time(tx)
    for order_id, order in orders.items():
        order.lines = lines.get(order_id, ())
        order.tell_again(lost[order_id], cause, at)
    await store.update_orders(tx, [order for order in orders.values() if order.changed])
    told = [item for order in orders.values() for item in order.emitted]
    await outbox.add(tx, told, at=at)
    return len(told)


async def read_orders(tx: Connection, order_ids: Sequence[UUID]) -> Sequence[Order | HoldfastError]:
    """Return orders with their lines, as far as there are any."""
    orders = await store.find_orders(tx, set(order_ids))
    return [orders.get(order_id) or UnknownOrder() for order_id in order_ids]


# --- load and save --------------------------------------------------------------------------------------------------


async def _load(
    tx: Connection, events: Sequence[Consumed], policy: Policy, *, shows_known: bool = False
) -> OrderBook:
    """Lock every order and cart that the batch is about, and read the prices and lines that its decisions need.

    `shows_known` also loads the lines of known orders that are placed again.
    """
    order_ids = {event.order_id for event in events if not isinstance(event, SkuFact)}
    orders = await store.lock_orders(tx, order_ids) if order_ids else {}
    commands = [event for event in events if isinstance(event, PlaceOrder)]
    placements = [command for command in commands if command.order_id not in orders]
    carts = await _load_carts(tx, placements, orders)
    holds = await _load_holds(tx, placements, orders, policy)
    ordered = (ordered_by(command, carts.get(command.cart_id or "")) for command in placements)
    prices = await store.get_prices(tx, {line.sku for lines in ordered for line in lines})
    shown = {command.order_id for command in commands} & orders.keys() if shows_known else set()
    lines = await store.list_lines(tx, _confirming(events, orders) | shown)
    for order_id in shown:
        orders[order_id].lines = ()
    for order_id in lines:
        orders[order_id].lines = lines[order_id]
    return OrderBook(
        orders,
        prices,
        await store.get_time(tx),
        carts=carts,
        holds=holds,
        hold_seconds_by_method=policy.hold_seconds_by_method,
    )


async def _load_carts(
    tx: Connection, placements: Sequence[PlaceOrder], orders: dict[UUID, Order]
) -> dict[str, Cart]:
    """Lock the carts that orders are placed from, with their items, and those that wait for an order of the batch."""
    placed_from = {command.cart_id for command in placements if command.cart_id is not None}
    held = {order.cart_id for order in orders.values() if order.cart_id is not None and order.holds_cart}
    carts = await store.lock_carts(tx, placed_from | held)
    await store.load_items(tx, [carts[cart_id] for cart_id in placed_from])
    return carts


async def _load_holds(
    tx: Connection, placements: Sequence[PlaceOrder], orders: dict[UUID, Order], policy: Policy
) -> Holds:
    """Count the open orders of customers who place more, letting nobody else do so meanwhile; if there is a limit."""
    if not policy.holds_per_customer_max or not placements:
        return Holds()
    customer_ids = {command.customer_id for command in placements}
    await store.lock_customers(tx, customer_ids)
    elsewhere = await store.count_open_orders(tx, customer_ids, besides=orders.keys())
    return Holds(policy.holds_per_customer_max, elsewhere)


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
    """Write what the batch decided: one statement a table, the events that tell of it, and word to who waits."""
    placed, moved, touched = book.placed(), book.moved(), book.touched()
    await store.insert_orders(tx, placed)
    await store.update_orders(tx, moved)
    await store.insert_lines(tx, placed)
    await store.insert_history(tx, touched)
    await store.insert_availability(tx, book.availability())
    await store.save_carts(tx, book.carts(), book.at)
    await notify(tx, CHANNEL, [str(order.order_id) for order in moved])
    await outbox.add(tx, [item for order in touched for item in order.emitted], at=book.at)
