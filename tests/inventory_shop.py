"""What would the inventory service do, if its tables were dictionaries?"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from services.inventory_service.domain.ledger import Change, Ledger
from services.inventory_service.domain.reservation import Reservation
from services.inventory_service.domain.stock import Level, Movement
from shared.envelope import Emitted
from shared.errors import Conflict
from shared.events import OrderFact, OrderRequested, PaymentFact
from tests.inventory_building import NOW, Fact

HOLD_SECONDS = 900
CAUSE = "cause"


class Shop:
    """Stock and reservations in memory; every call is a batch, loaded and saved as `store` does it."""

    def __init__(self, **available: int) -> None:
        self.now = NOW
        self.levels = {sku: Level(sku, available=units, stored=True) for sku, units in available.items()}
        self.reservations: dict[UUID, Reservation] = {}
        self.changes: list[Change] = []
        self.movements: list[Movement] = []
        self.events: list[Emitted] = []
        self._lines: dict[UUID, dict[str, int]] = {}

    def hear(self, *facts: Fact) -> None:
        """Handle facts as one batch."""
        ledger = self._load()
        for fact in facts:
            match fact:
                case OrderRequested():
                    ledger.open(fact, CAUSE, HOLD_SECONDS)
                case OrderFact():
                    ledger.join_order(fact, CAUSE)
                case PaymentFact():
                    ledger.join_payment(fact, CAUSE)
        self._save(ledger)

    def sweep(self, after: timedelta = timedelta(seconds=HOLD_SECONDS)) -> None:
        """Let time pass, and release what is due."""
        self.now += after
        ledger = self._load()
        for order_id in list(ledger.reservations):
            ledger.expire(order_id, self.now, "timer:sweep")
        self._save(ledger)

    def book(self, *changes: Change) -> list[bool | Conflict]:
        """Apply receipts and adjustments as one batch."""
        ledger = self._load()
        results = [ledger.change(change) for change in changes]
        self._save(ledger)
        return results

    def told_of(self, key: UUID | str) -> list[str]:
        """Return the types of the events about an order or a SKU, in order."""
        return [type(item.event).__name__ for item in self.events if item.key == str(key)]

    def moved_for(self, order_id: UUID) -> list[tuple[str, int | None]]:
        """Return kind and round of an order's movements, in order."""
        return [(item.kind.value, item.round) for item in self.movements if item.order_id == order_id]

    def counters(self, sku: str) -> tuple[int, int, int]:
        """Return what is available, reserved and sold of a SKU."""
        level = self.levels[sku]
        return level.available, level.reserved, level.sold

    def _load(self) -> Ledger:
        reservations = [
            replace(item, lines=dict(self._lines[item.order_id]) if item.may_move else {})
            for item in self.reservations.values()
        ]
        levels = [replace(level) for level in self.levels.values()]
        return Ledger(self.now, reservations=reservations, levels=levels, changes=self.changes)

    def _save(self, ledger: Ledger) -> None:
        for item in ledger.reservations.values():
            if item.changed:
                if item.opened and not item.stored_sequence:
                    self._lines[item.order_id] = item.lines
                self.reservations[item.order_id] = replace(
                    item, stored_sequence=item.sequence, expired_by=None, changed=False
                )
        for level in ledger.levels.values():
            if level.changed:
                self.levels[level.sku] = Level(
                    level.sku, level.available, level.reserved, level.sold, level.sequence, stored=True
                )
        self.changes += ledger.new_changes
        self.movements += ledger.movements
        self.events += ledger.events


def types_of(events: Sequence[Emitted]) -> list[str]:
    """Return the types of events, in order."""
    return [type(item.event).__name__ for item in events]
