"""Does the inventory stay right whatever is heard, in whatever order, and however often?"""

from collections import Counter
from datetime import timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.inventory_service.domain.stock import Kind, Receipt
from shared.events import OrderRequested, PaymentFact, PaymentStatus, ReservationStatus
from tests.inventory_building import Fact, order_cancelled, ordered, paid, payment_failed, refunded
from tests.inventory_shop import HOLD_SECONDS, Shop

BASKETS = {
    UUID(int=1): [("APPLE", 1)],
    UUID(int=2): [("APPLE", 2), ("PEAR", 1)],
    UUID(int=3): [("PEAR", 1), ("APPLE", 1)],
    UUID(int=4): [("PEAR", 1), ("PEAR", 1)],
}
RANKS = {"PENDING": 0, "QUARANTINED": 0, "FAILED": 1, "CANCELLED": 1, "SUCCEEDED": 2, "REFUNDED": 3}
HOLDING = (ReservationStatus.HELD, ReservationStatus.CONFIRMED)

#: What can be heard of each order: the same events, each time they are delivered.
HEARD: dict[UUID, list[Fact]] = {
    order_id: [
        ordered(order_id, *basket),
        order_cancelled(order_id),
        payment_failed(order_id),
        payment_failed(order_id, "expired"),
        payment_failed(order_id, "cancelled"),
        paid(order_id),
        paid(order_id, PaymentStatus.QUARANTINED),
        refunded(order_id),
    ]
    for order_id, basket in BASKETS.items()
}
FACTS = st.sampled_from([fact for facts in HEARD.values() for fact in facts])

_ONCE = ["RESERVED", "CONFIRMED", "RETURNED"]
_TWICE = ["RESERVED", "RELEASED", "RESERVED", "CONFIRMED", "RETURNED"]
#: Every path a line of an order may have moved along.
PATHS = [_ONCE[:steps] for steps in range(4)] + [_TWICE[:steps] for steps in (2, 4, 5)]


class Inventory(RuleBasedStateMachine):
    """Delivers anything to a shop, and compares it with what must hold after every history."""

    def __init__(self) -> None:
        super().__init__()
        self.shop = Shop(APPLE=2, PEAR=1)
        self.arrived = Counter(APPLE=2, PEAR=1)

    @rule(facts=st.lists(FACTS, min_size=1, max_size=6))
    def hear(self, facts: list[Fact]) -> None:
        """Hear a batch, new or old."""
        self.shop.hear(*facts)

    @rule(seconds=st.sampled_from([1, HOLD_SECONDS]))
    def sweep(self, seconds: int) -> None:
        """Let time pass."""
        self.shop.sweep(timedelta(seconds=seconds))

    @rule(sku=st.sampled_from(["APPLE", "PEAR"]), units=st.integers(1, 3))
    def arrive(self, sku: str, units: int) -> None:
        """Receive units."""
        self.shop.book(Receipt(f"r-{len(self.shop.changes)}", {sku: units}, "http:1"))
        self.arrived[sku] += units

    @invariant()
    def no_unit_is_sold_twice_or_lost(self) -> None:
        """No counter is negative, and what arrived is available, reserved or sold."""
        for sku, units in self.arrived.items():
            counters = self.shop.counters(sku)
            assert min(counters) >= 0
            assert sum(counters) == units

    @invariant()
    def reserved_is_what_is_held(self) -> None:
        """Each SKU's reserved and sold units are those of the reservations that hold and sold them."""
        for sku in self.arrived:
            held = [self._asked(sku, order_id) for order_id in BASKETS if self._stands(order_id, "HELD")]
            sold = [self._asked(sku, order_id) for order_id in BASKETS if self._stands(order_id, "CONFIRMED")]
            assert self.shop.counters(sku)[1:] == (sum(held), sum(sold))

    @invariant()
    def counters_are_the_sums_of_their_movements(self) -> None:
        """The ledger explains every unit."""
        for sku, units in Counter({"APPLE": 2, "PEAR": 1}).items():
            moved = [item for item in self.shop.movements if item.sku == sku]
            assert self.shop.counters(sku) == (
                units + sum(item.available_delta for item in moved),
                sum(item.reserved_delta for item in moved),
                sum(item.sold_delta for item in moved),
            )

    @invariant()
    def each_line_moved_along_an_allowed_path_once(self) -> None:
        """The database's UNIQUE over order, SKU, kind and round is never needed."""
        for order_id, basket in BASKETS.items():
            for sku in {sku for sku, _ in basket}:
                moves = [item for item in self.shop.movements if (item.order_id, item.sku) == (order_id, sku)]
                assert [item.kind.value for item in moves] in PATHS
                assert len({(item.kind, item.round) for item in moves}) == len(moves)

    @invariant()
    def what_is_told_is_what_is(self) -> None:
        """Each key's sequences have no holes, and its last event carries the present state."""
        last: dict[str, int] = {}
        for item in self.shop.events:
            last[item.key] = last.get(item.key, 0) + 1
            assert item.sequence == last[item.key]
        assert last == {
            **{str(key): item.sequence for key, item in self.shop.reservations.items() if item.opened},
            **{sku: level.sequence for sku, level in self.shop.levels.items() if level.sequence},
        }

    @invariant()
    def depletion_alternates(self) -> None:
        """A SKU is told to be depleted exactly while nothing of it is available."""
        for sku in self.arrived:
            told = self.shop.told_of(sku)
            assert told == ["StockDepleted", "StockReplenished"] * (len(told) // 2) + told[:1] * (
                len(told) % 2
            )
            assert (self.shop.counters(sku)[0] == 0) == (len(told) % 2 == 1)

    @invariant()
    def nobody_keeps_goods_of_a_cancelled_or_refunded_order(self) -> None:
        """What is known to be cancelled or refunded holds nothing."""
        for item in self.shop.reservations.values():
            if item.cancelled or item.payment_status is PaymentStatus.REFUNDED:
                assert item.status not in HOLDING

    @invariant()
    def every_payment_is_answered(self) -> None:
        """A paid order is confirmed, or told to be unavailable, or its goods were returned."""
        for item in self.shop.reservations.values():
            if item.opened and item.payment_status is PaymentStatus.SUCCEEDED:
                answered = item.status in (ReservationStatus.CONFIRMED, ReservationStatus.RETURNED)
                assert answered or item.unavailable

    def _stands(self, order_id: UUID, status: str) -> bool:
        item = self.shop.reservations.get(order_id)
        return item is not None and item.status == status

    @staticmethod
    def _asked(sku: str, order_id: UUID) -> int:
        return sum(quantity for line_sku, quantity in BASKETS[order_id] if line_sku == sku)


TestInventory = Inventory.TestCase

ORDER_ID = UUID(int=1)


@st.composite
def stories(draw: st.DrawFn) -> list[Fact]:
    """Return a placed order and any facts about it, in any order, some of them several times."""
    rest = draw(st.lists(st.sampled_from(HEARD[ORDER_ID][1:]), unique_by=id))
    repeated = draw(st.lists(st.sampled_from([HEARD[ORDER_ID][0], *rest]), max_size=6))
    return draw(st.permutations([HEARD[ORDER_ID][0], *rest, *repeated]))


def furthest(facts: list[Fact]) -> str:
    """Return the highest state that the payment facts carry."""
    carried = [fact.payment_status.value for fact in facts if isinstance(fact, PaymentFact)]
    return max(carried, key=RANKS.__getitem__, default="PENDING")


@given(facts=stories(), sweep_at=st.integers(0, 20))
def test_the_same_facts_in_any_order_lead_to_the_same_end(facts: list[Fact], sweep_at: int) -> None:
    """With enough stock, what is held at the end depends on what was heard, not on when or how often."""
    shop = Shop(APPLE=9)

    for position, fact in enumerate(facts):
        if position == sweep_at:
            shop.sweep()
        shop.hear(fact)

    end = shop.reservations[ORDER_ID]
    cancelled = any(not isinstance(fact, PaymentFact) and fact.cancelled for fact in facts)
    assert end.cancelled is cancelled
    assert RANKS[end.payment_status] == RANKS[furthest(facts)]
    match RANKS[furthest(facts)]:
        case 3:
            assert end.status in (ReservationStatus.RELEASED, ReservationStatus.RETURNED)
        case 2 if cancelled:
            assert end.status is ReservationStatus.RETURNED or end.unavailable
        case 2:
            assert (end.status, end.unavailable) == (ReservationStatus.CONFIRMED, False)
        case 1:
            assert end.status is ReservationStatus.RELEASED
        case _ if cancelled:
            assert end.status is ReservationStatus.RELEASED
        case _:
            held_before_the_sweep = any(isinstance(fact, OrderRequested) for fact in facts[:sweep_at])
            swept = held_before_the_sweep and sweep_at < len(facts)
            assert end.status is (ReservationStatus.RELEASED if swept else ReservationStatus.HELD)


@given(facts=stories(), again=st.data())
def test_replaying_a_story_changes_nothing(facts: list[Fact], again: st.DataObject) -> None:
    """Once everything was heard, any part of it may be heard again without effect: the inbox may be lost."""
    shop = Shop(APPLE=9)
    shop.hear(*facts)
    before = (dict(shop.reservations), shop.counters("APPLE"), len(shop.events), len(shop.movements))

    shop.hear(*again.draw(st.lists(st.sampled_from(facts), max_size=10)))

    assert (dict(shop.reservations), shop.counters("APPLE"), len(shop.events), len(shop.movements)) == before


@given(facts=st.lists(FACTS, max_size=25))
def test_a_batch_equals_its_messages_one_by_one(facts: list[Fact]) -> None:
    """The same end, the same movements and the same events in the same order, in one batch or in many."""
    together, alone = Shop(APPLE=2, PEAR=1), Shop(APPLE=2, PEAR=1)

    together.hear(*facts)
    for fact in facts:
        alone.hear(fact)

    assert together.events == alone.events
    assert together.movements == alone.movements
    assert together.levels == alone.levels
    assert together.reservations.keys() == alone.reservations.keys()
    for order_id, item in alone.reservations.items():
        there = together.reservations[order_id]
        assert (there.status, there.reason, there.sequence) == (item.status, item.reason, item.sequence)
        assert (there.cancelled, there.payment_status) == (item.cancelled, item.payment_status)


@given(facts=st.lists(FACTS, max_size=25))
def test_nothing_is_reserved_for_an_order_that_was_not_placed(facts: list[Fact]) -> None:
    """Only `OrderRequested` opens a reservation, and only an opened one tells or moves anything."""
    shop = Shop(APPLE=9, PEAR=9)

    shop.hear(*facts)

    placed = {fact.order_id for fact in facts if isinstance(fact, OrderRequested)}
    assert {item.order_id for item in shop.movements if item.kind is Kind.RESERVED} <= placed
    assert {key for key, item in shop.reservations.items() if item.opened} == placed
