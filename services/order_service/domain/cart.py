"""What is in a cart, who may change it, and what becomes of it when an order was placed from it?

An order checks its cart out; the order's stock decides the cart once. Until then it takes no changes and no second order.

A cart belongs to the customer who was first to put something into it, or to whom the storefront gave it. Customers see
no other carts, not even those that belong to nobody: only the storefront knows whose these are.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from services.order_service.domain.refusals import CartCheckedOut, CartFull, CartOfAnother

#: As many different SKUs as an order may have lines.
CART_ITEMS_MAX = 500


class CartOutcome(StrEnum):
    """What an order decided about the cart it was placed from: open with its items again, or open and empty."""

    GIVEN_BACK = "GIVEN_BACK"
    CLEARED = "CLEARED"


@dataclass(slots=True)
class Cart:
    """One cart: quantities by SKU, its owner, and the order that has checked it out; a new one has no row yet.

    `put` and `taken` are the SKUs whose rows differ from what was loaded; what was checked out and decided in the same
    batch may have been `emptied` in between.
    """

    cart_id: str
    items: dict[str, int] = field(default_factory=dict)
    order_id: UUID | None = None
    customer_id: str | None = None
    is_new: bool = True
    changed: bool = False
    emptied: bool = False
    put: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)

    @property
    def is_checked_out(self) -> bool:
        """Tell whether an order has taken the cart and not yet decided it."""
        return self.order_id is not None

    @property
    def is_untouched(self) -> bool:
        """Tell whether nobody has ever used the cart."""
        return self.is_new and not self.changed

    def is_for(self, customer_id: str | None) -> bool:
        """Tell whether a caller may know of the cart: a customer of its own, anybody else (None) of every one."""
        return customer_id is None or customer_id == self.customer_id

    def may_be_ordered_for(self, customer_id: str, *, by_customer: bool) -> bool:
        """Tell whether a customer's order may be placed from the cart, by itself or by the storefront."""
        return customer_id == self.customer_id or (self.customer_id is None and not by_customer)

    def put_item(
        self, sku: str, quantity: int, *, owner: str | None = None
    ) -> bool | CartOfAnother | CartCheckedOut | CartFull:
        """Set how many units of a SKU are in the cart; return whether it is a new item.

        With an `owner` the cart is that customer's from now on.
        """
        if owner is not None and self.customer_id not in {None, owner}:
            return CartOfAnother()
        if self.is_checked_out:
            return CartCheckedOut()
        is_new = sku not in self.items
        if is_new and len(self.items) >= CART_ITEMS_MAX:
            return CartFull(f"A cart holds at most {CART_ITEMS_MAX} different SKUs.")
        self.customer_id = owner or self.customer_id
        self.items[sku] = quantity
        self.put.add(sku)
        self.taken.discard(sku)
        self.changed = True
        return is_new

    def take_item(self, sku: str) -> CartCheckedOut | None:
        """Have a SKU in the cart no more; one that is not there is no fault."""
        if self.is_checked_out:
            return CartCheckedOut()
        if self.items.pop(sku, None) is not None:
            self.put.discard(sku)
            self.taken.add(sku)
            self.changed = True
        return None

    def check_out(self, order_id: UUID) -> None:
        """Keep the cart as it is until the order decides it."""
        self.order_id = order_id
        self.changed = True

    def decide(self, outcome: CartOutcome) -> None:
        """Open the cart again, with its items or without."""
        self.order_id = None
        self.changed = True
        if outcome is CartOutcome.CLEARED:
            self.items = {}
            self.put, self.taken = set(), set()
            self.emptied = True


def show_cart(cart: Cart) -> dict[str, Any]:
    """Return a cart as its customer sees it, its items by SKU."""
    return {
        "cart_id": cart.cart_id,
        "items": [{"sku": sku, "quantity": cart.items[sku]} for sku in sorted(cart.items)],
        "status": "CHECKED_OUT" if cart.is_checked_out else "OPEN",
    }
