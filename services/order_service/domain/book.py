"""What becomes of a batch of commands and facts, each decided in turn on the orders it is about?"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never
from uuid import UUID

from services.order_service.domain.order import Order
from services.order_service.domain.placing import Price, fingerprint_of, quote
from services.order_service.domain.refusals import (
    ContentConflict,
    NotCancellable,
    TotalTooLarge,
    UnknownOrder,
)
from shared.errors import HoldfastError
from shared.events import (
    INTEGER_MAX,
    CancelOrder,
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


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a SKU has run out, as of an inventory event's sequence."""

    sku: str
    depleted: bool
    sequence: int


class OrderBook:
    """The orders that one batch touches, and what the batch makes of them by `at`."""

    def __init__(self, orders: Mapping[UUID, Order], prices: Mapping[str, Price], at: datetime) -> None:
        self.at = at
        self._known = dict(orders)
        self._prices = prices
        self._placed: list[Order] = []
        self._availability: dict[str, Availability] = {}

    def place(self, command: PlaceOrder, *, cause: str, keep_rejected: bool) -> Decided | HoldfastError:
        """Open the order, or return the one that the same command opened before.

        An order that cannot be accepted is opened as REJECTED if `keep_rejected`, else refused.
        """
        fingerprint = fingerprint_of(command)
        known = self._known.get(command.order_id)
        if known is not None:
            return Decided(known, changed=False) if known.fingerprint == fingerprint else ContentConflict()
        quoted = quote(command, self._prices)
        if quoted.total_minor > INTEGER_MAX:
            return TotalTooLarge()
        if quoted.rejection is not None and not keep_rejected:
            return quoted.rejection.refusal()
        order = Order.placed(command, quoted, fingerprint=fingerprint, cause=cause, at=self.at)
        self._known[order.order_id] = order
        self._placed.append(order)
        return Decided(order, changed=True)

    def cancel(self, command: CancelOrder, *, requested_by: str, cause: str) -> Decided | HoldfastError:
        """Cancel the order; one that is cancelled already stays as it is."""
        order = self._known.get(command.order_id)
        if order is None:
            return UnknownOrder()
        if order.is_cancelled:
            return Decided(order, changed=False)
        if order.cancel(command.reason, requested_by=requested_by, cause=cause, at=self.at):
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

    def placed(self) -> list[Order]:
        """Return the orders that this batch opened."""
        return self._placed

    def moved(self) -> list[Order]:
        """Return the orders that this batch changed, those that it had just opened included."""
        return [order for order in self._known.values() if order.changed]

    def touched(self) -> list[Order]:
        """Return every order with something to save, once: the new ones, then the changed ones."""
        return list({order.order_id: order for order in (*self._placed, *self.moved())}.values())

    def availability(self) -> list[Availability]:
        """Return the newest about each SKU that this batch told of, sorted by SKU."""
        return [self._availability[sku] for sku in sorted(self._availability)]
