"""What does a command to place an order come to: which lines, at what price, and can it be accepted?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from services.order_service.domain.cart import Cart
from services.order_service.domain.refusals import (
    EmptyCart,
    InactiveProduct,
    OtherCurrency,
    TotalChanged,
    UnknownSku,
)
from shared.errors import Fault, Invalid
from shared.events import OrderedLine, PlaceOrder, PricedLine, RejectionReason


@dataclass(frozen=True, slots=True)
class Price:
    """What the catalog asks for one unit of a SKU, in minor units of its currency."""

    unit_price_minor: int
    currency: str
    active: bool


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a well-formed order cannot be accepted."""

    reason: RejectionReason
    details: Mapping[str, Any]
    faults: tuple[Fault, ...] = ()

    def refusal(self) -> Invalid:
        """Return the same as the answer to a caller of whom nothing is stored."""
        return _REFUSALS[self.reason](faults=self.faults)


_REFUSALS: dict[RejectionReason, type[Invalid]] = {
    "unknown_sku": UnknownSku,
    "inactive_product": InactiveProduct,
    "currency": OtherCurrency,
    "total_changed": TotalChanged,
    "empty_cart": EmptyCart,
}


@dataclass(frozen=True, slots=True)
class Quote:
    """The lines of an order that have a price, one a SKU and sorted by it, their total, and what speaks against it."""

    lines: tuple[PricedLine, ...]
    total_minor: int
    rejection: Rejection | None = None


def fingerprint_of(command: PlaceOrder) -> bytes:
    """Return a digest of the command as it was sent: two commands about one order are the same if it is the same."""
    lines = None if command.lines is None else [(line.sku, line.quantity) for line in command.lines]
    # A method that is not named adds nothing: commands from before there were any keep their digest.
    method = () if command.payment_method is None else (command.payment_method,)
    content = (
        command.customer_id,
        lines,
        command.cart_id,
        command.currency,
        command.expected_total_minor,
        command.hold_seconds,
        *method,
    )
    return sha256(orjson.dumps(content)).digest()


def ordered_by(command: PlaceOrder, cart: Cart | None) -> Sequence[OrderedLine]:
    """Return what a command asks for: its lines, or what is in its cart, by SKU."""
    if command.lines is not None:
        return command.lines
    items = {} if cart is None else cart.items
    return [OrderedLine(sku=sku, quantity=items[sku]) for sku in sorted(items)]


def quote(command: PlaceOrder, prices: Mapping[str, Price], cart: Cart | None = None) -> Quote:
    """Price a command from the catalog; the same SKU on several lines is added up."""
    ordered = ordered_by(command, cart)
    quantities: dict[str, int] = {}
    for line in ordered:
        quantities[line.sku] = quantities.get(line.sku, 0) + line.quantity
    lines = tuple(
        PricedLine(sku=sku, quantity=quantities[sku], unit_price_minor=price.unit_price_minor)
        for sku in sorted(quantities)
        if (price := prices.get(sku)) is not None and price.currency == command.currency
    )
    total_minor = sum(line.quantity * line.unit_price_minor for line in lines)
    return Quote(lines, total_minor, _rejection(command, ordered, prices, total_minor))


def _rejection(
    command: PlaceOrder, ordered: Sequence[OrderedLine], prices: Mapping[str, Price], total_minor: int
) -> Rejection | None:
    if not ordered:
        return Rejection(
            "empty_cart", {"cart_id": command.cart_id}, (Fault("/cart_id", "the cart is empty"),)
        )
    if unknown := [at for at, line in enumerate(ordered) if line.sku not in prices]:
        return _of_lines("unknown_sku", command, ordered, unknown)
    if inactive := [at for at, line in enumerate(ordered) if not prices[line.sku].active]:
        return _of_lines("inactive_product", command, ordered, inactive)
    if foreign := [at for at, line in enumerate(ordered) if prices[line.sku].currency != command.currency]:
        return _of_lines("currency", command, ordered, foreign)
    expected = command.expected_total_minor
    if expected is not None and expected != total_minor:
        details = {"expected_total_minor": expected, "total_minor": total_minor}
        return Rejection(
            "total_changed", details, (Fault("/expected_total_minor", f"the total is {total_minor}"),)
        )
    return None


def _of_lines(
    reason: RejectionReason, command: PlaceOrder, ordered: Sequence[OrderedLine], positions: Sequence[int]
) -> Rejection:
    """Return a rejection that names the lines it is about; in the body of a cart's order that is its cart."""
    if command.lines is None:
        faults = tuple(Fault("/cart_id", f"{reason}: {ordered[at].sku}") for at in positions)
    else:
        faults = tuple(Fault(f"/lines/{at}/sku", reason) for at in positions)
    return Rejection(reason, {"skus": sorted({ordered[at].sku for at in positions})}, faults)
