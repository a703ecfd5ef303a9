"""How many units of a SKU are there, and what moves them?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from shared.events import Line


class Kind(StrEnum):
    """Why units moved."""

    RECEIVED = "RECEIVED"
    ADJUSTED = "ADJUSTED"
    RESERVED = "RESERVED"
    CONFIRMED = "CONFIRMED"
    RELEASED = "RELEASED"
    RETURNED = "RETURNED"


#: What each unit adds to (available, reserved, sold).
_EFFECTS = {
    Kind.RECEIVED: (+1, 0, 0),
    Kind.ADJUSTED: (+1, 0, 0),
    Kind.RESERVED: (-1, +1, 0),
    Kind.CONFIRMED: (0, -1, +1),
    Kind.RELEASED: (+1, -1, 0),
    Kind.RETURNED: (+1, 0, -1),
}


class Movement(NamedTuple):
    """Units of one SKU that moved, for the `round`-th hold of an order or for none; fields as in `stock_movements`."""

    sku: str
    order_id: UUID | None
    kind: Kind
    round: int | None
    available_delta: int
    reserved_delta: int
    sold_delta: int
    cause: str

    @classmethod
    def of(
        cls,
        kind: Kind,
        sku: str,
        quantity: int,
        cause: str,
        *,
        order_id: UUID | None = None,
        in_round: int | None = None,
    ) -> "Movement":
        """Return what moving so many units means for each counter."""
        available, reserved, sold = _EFFECTS[kind]
        return cls(
            sku, order_id, kind, in_round, available * quantity, reserved * quantity, sold * quantity, cause
        )


@dataclass(slots=True)
class Level:
    """The units of one SKU, how far they are from the stored row, and how many events have told of the SKU."""

    sku: str
    available: int = 0
    reserved: int = 0
    sold: int = 0
    sequence: int = 0
    available_delta: int = 0
    reserved_delta: int = 0
    sold_delta: int = 0
    stored: bool = False
    changed: bool = False

    def add(self, movement: Movement) -> None:
        """Count a movement; whether the counters stay above zero is for the caller to know and the database to check."""
        self.available += movement.available_delta
        self.reserved += movement.reserved_delta
        self.sold += movement.sold_delta
        self.available_delta += movement.available_delta
        self.reserved_delta += movement.reserved_delta
        self.sold_delta += movement.sold_delta
        self.changed = True

    def set_to(self, available: int, reserved: int, sold: int) -> None:
        """Correct counters that went wrong; nothing moves."""
        self.available_delta += available - self.available
        self.reserved_delta += reserved - self.reserved
        self.sold_delta += sold - self.sold
        self.available, self.reserved, self.sold = available, reserved, sold
        self.changed = True


@dataclass(frozen=True, slots=True)
class Receipt:
    """Units that arrived; two with the same id and lines are the same receipt."""

    receipt_id: str
    lines: Mapping[str, int]
    cause: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Available units that were found, or found missing."""

    adjustment_id: str
    sku: str
    quantity_delta: int
    reason: str
    cause: str = field(compare=False)


def add_up(lines: Iterable[Line]) -> dict[str, int]:
    """Return the units of each SKU, in the order of SKUs."""
    units: dict[str, int] = {}
    for line in lines:
        units[line.sku] = units.get(line.sku, 0) + line.quantity
    return dict(sorted(units.items()))
