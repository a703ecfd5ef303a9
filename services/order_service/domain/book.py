"""What becomes of a batch of commands and facts, each decided in turn on the orders it is about?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never
from uuid import UUID

from services.order_service.domain.cart import Cart
from services.order_service.domain.order import Order
from services.order_service.domain.placing import Price, fingerprint_of, quote
from services.order_service.domain.refusals import (
    CartCheckedOut,
    ContentConflict,
    NotCancellable,
    TooManyHolds,
    TotalTooLarge,
    UnknownOrder,
)
from shared.errors import HoldfastError
from shared.events import (
    INTEGER_MAX,
    CancelOrder,
    OrderStatus,
    PaymentFact,
    PlaceOrder,
    SkuFact,
    StockDepleted,
    StockFact,
)


@dataclass(frozen=True, slots=True)
class Decided:
    """The order a command is about, and whether this very command changed it."""

    order: Order
    changed: bool


#: The statuses in which an order keeps units from others and is not yet paid for.
OPEN = frozenset({OrderStatus.REQUESTED, OrderStatus.AWAITING_PAYMENT})


@dataclass(frozen=True, slots=True)
class Holds:
    """How many open orders a customer may have (0: as many as wanted), and how many there are besides the book's."""

    customer_max: int = 0
    elsewhere: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a SKU has run out, as of an inventory event's sequence."""

    sku: str
    depleted: bool
    sequence: int


class OrderBook:
    """The orders that one batch touches, and what the batch makes of them by `at`."""

    def __init__(
        self,
        orders: Mapping[UUID, Order],
        prices: Mapping[str, Price],
        at: datetime,
        *,
        carts: Mapping[str, Cart] | None = None,
        holds: Holds | None = None,
        hold_seconds_by_method: Mapping[str, int] | None = None,
    ) -> None:
        self.at = at
        self._known = dict(orders)
        self._prices = prices
        self._carts = carts or {}
        self._holds = holds or Holds()
        self._hold_seconds_by_method = hold_seconds_by_method or {}
        self._placed: list[Order] = []
        self._availability: dict[str, Availability] = {}

    def place(
        self, command: PlaceOrder, *, cause: str, keep_rejected: bool, by_customer: bool = False
    ) -> Decided | HoldfastError:
        """Open the order, or return the one that the same command opened before.

        An order that cannot be accepted is opened as REJECTED if `keep_rejected`, else refused. A cart that is not for
        this customer to order from is as good as empty.
        """
        fingerprint = fingerprint_of(command)
        known = self._known.get(command.order_id)
        if known is not None:
            return Decided(known, changed=False) if known.fingerprint == fingerprint else ContentConflict()
        cart = None if command.cart_id is None else self._carts.get(command.cart_id)
        if cart is not None and not cart.may_be_ordered_for(command.customer_id, by_customer=by_customer):
            cart = None
        if cart is not None and cart.is_checked_out:
            return CartCheckedOut()
        quoted = quote(command, self._prices, cart)
        if quoted.total_minor > INTEGER_MAX:
            return TotalTooLarge()
        if quoted.rejection is not None and not keep_rejected:
            return quoted.rejection.refusal()
        if quoted.rejection is None and self._has_too_many_holds(command.customer_id):
            return TooManyHolds()
        order = Order.placed(
            command,
            quoted,
            hold_seconds=self._hold_seconds(command),
            fingerprint=fingerprint,
            cause=cause,
            at=self.at,
        )
        self._known[order.order_id] = order
        self._placed.append(order)
        if cart is not None and order.holds_cart:
            cart.check_out(order.order_id)
        return Decided(order, changed=True)

    def cancel(
        self, command: CancelOrder, *, requested_by: str, cause: str, customer_id: str | None = None
    ) -> Decided | HoldfastError:
        """Cancel the order, if it is the customer's where one is given; one that is cancelled already stays as it is."""
        order = self._known.get(command.order_id)
        if order is None or not order.is_for(customer_id):
            return UnknownOrder()
        if order.is_cancelled:
            return Decided(order, changed=False)
        if order.cancel(command.reason, requested_by=requested_by, cause=cause, at=self.at):
            self._decide_cart(order)
            return Decided(order, changed=True)
        return NotCancellable(f"the order is {order.status} and can no longer be cancelled")

    def join(self, fact: StockFact | PaymentFact, *, sequence: int, cause: str) -> UnknownOrder | None:
        """Let the order join what inventory or the payment service says of it."""
        order = self._known.get(fact.order_id)
        if order is None:
            return UnknownOrder()
        match fact:
            case StockFact():
                order.join_stock(fact, sequence=sequence, cause=cause, at=self.at)
                self._decide_cart(order)
            case PaymentFact():
                order.join_payment(fact, sequence=sequence, cause=cause, at=self.at)
            case unreachable:
                assert_never(unreachable)
        return None

    def join_sku(self, fact: SkuFact, *, sequence: int) -> None:
        """Remember the newest that is said of a SKU, whether the catalog knows it or not."""
        newest = self._availability.get(fact.sku)
        if newest is None or sequence > newest.sequence:
            self._availability[fact.sku] = Availability(fact.sku, isinstance(fact, StockDepleted), sequence)

    def _decide_cart(self, order: Order) -> None:
        """Pass on what the order has decided about its cart, if the cart still waits for that."""
        if order.cart_id is None or order.cart_outcome is None:
            return
        cart = self._carts.get(order.cart_id)
        if cart is not None and cart.order_id == order.order_id:
            cart.decide(order.cart_outcome)

    def _hold_seconds(self, command: PlaceOrder) -> int | None:
        """Return how long the units are held: as the command says, as its method needs, or None."""
        if command.hold_seconds is not None or command.payment_method is None:
            return command.hold_seconds
        return self._hold_seconds_by_method.get(command.payment_method)

    def _has_too_many_holds(self, customer_id: str) -> bool:
        if not self._holds.customer_max:
            return False
        here = sum(order.status in OPEN for order in self._known.values() if order.customer_id == customer_id)
        return here + self._holds.elsewhere.get(customer_id, 0) >= self._holds.customer_max

    def placed(self) -> list[Order]:
        """Return the orders that this batch opened."""
        return self._placed

    def moved(self) -> list[Order]:
        """Return the orders that this batch changed, those that it had just opened included."""
        return [order for order in self._known.values() if order.changed]

    def touched(self) -> list[Order]:
        """Return every order with something to save, once: the new ones, then the changed ones."""
        return list({order.order_id: order for order in (*self._placed, *self.moved())}.values())

    def carts(self) -> list[Cart]:
        """Return the carts that this batch checked out or opened again."""
        return [cart for cart in self._carts.values() if cart.changed]

    def availability(self) -> list[Availability]:
        """Return the newest about each SKU that this batch told of, sorted by SKU."""
        return [self._availability[sku] for sku in sorted(self._availability)]
