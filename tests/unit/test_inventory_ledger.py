"""Does the ledger count units rightly, all lines of an order or none, and tell when a SKU runs out?"""

from collections.abc import Sequence

import pytest

from services.inventory_service.domain.stock import Adjustment, Receipt
from shared.errors import Conflict
from shared.events import Line, Shortage, StockRejected, StockReserved
from shared.ids import new_id
from tests.inventory_building import NOW, ordered, paid, payment_failed, refunded
from tests.inventory_shop import Shop


def receipt(receipt_id: str, cause: str = "http:1", **lines: int) -> Receipt:
    """Return units that arrived."""
    return Receipt(receipt_id, lines, cause)


def adjustment(quantity_delta: int, *, adjustment_id: str = "a-1", reason: str = "counted") -> Adjustment:
    """Return apples that were found, or found missing."""
    return Adjustment(adjustment_id, "APPLE", quantity_delta, reason, "http:1")


def test_the_same_sku_on_two_lines_is_added_up() -> None:
    """Two lines of one SKU are one hold of their sum: one movement, one line in the event."""
    shop, order_id = Shop(APPLE=5, PEAR=5), new_id()

    shop.hear(ordered(order_id, ("PEAR", 1), ("APPLE", 2), ("APPLE", 3)))

    reserved = shop.events[-1].event
    assert isinstance(reserved, StockReserved)
    assert reserved.lines == (Line(sku="APPLE", quantity=5), Line(sku="PEAR", quantity=1))
    assert shop.counters("APPLE") == (0, 5, 0)
    assert shop.moved_for(order_id) == [("RESERVED", 1), ("RESERVED", 1)]


def test_the_sum_of_two_lines_must_be_available() -> None:
    """Two lines that could each be held alone are rejected together if their sum cannot be."""
    shop, order_id = Shop(APPLE=4), new_id()

    shop.hear(ordered(order_id, ("APPLE", 2), ("APPLE", 3)))

    assert shop.reservations[order_id].status == "REJECTED"
    assert shop.counters("APPLE") == (4, 0, 0)


def test_all_lines_are_reserved_or_none() -> None:
    """One short line rejects the order, and the event names each shortage and nothing else."""
    shop, order_id = Shop(APPLE=5, PEAR=1, PLUM=0), new_id()

    shop.hear(ordered(order_id, ("APPLE", 5), ("PEAR", 2), ("PLUM", 1)))

    rejected = shop.events[-1].event
    assert isinstance(rejected, StockRejected)
    assert rejected.shortages == (
        Shortage(sku="PEAR", requested=2, available=1),
        Shortage(sku="PLUM", requested=1, available=0),
    )
    assert [shop.counters(sku) for sku in ("APPLE", "PEAR", "PLUM")] == [(5, 0, 0), (1, 0, 0), (0, 0, 0)]


def test_an_unknown_sku_is_a_shortage() -> None:
    """A SKU that never arrived has no units, and does not come into being by being asked for."""
    shop, order_id = Shop(), new_id()

    shop.hear(ordered(order_id, ("GHOST", 1)))

    rejected = shop.events[-1].event
    assert isinstance(rejected, StockRejected)
    assert rejected.shortages == (Shortage(sku="GHOST", requested=1, available=0),)
    assert shop.levels == {}


def test_of_two_orders_for_the_last_unit_in_one_batch_the_first_gets_it() -> None:
    """Messages of one batch see what their predecessors did."""
    shop, first, second = Shop(APPLE=1), new_id(), new_id()

    shop.hear(ordered(first), ordered(second))

    assert [shop.reservations[order_id].status for order_id in (first, second)] == ["HELD", "REJECTED"]
    assert shop.counters("APPLE") == (0, 1, 0)


@pytest.mark.parametrize(("asked", "seconds"), [(None, 900), (30, 30)])
def test_a_hold_lasts_as_long_as_the_order_asks(asked: int | None, seconds: int) -> None:
    """`expires_at` is the time of the reservation and the order's hold, or the service's where it has none."""
    shop, order_id = Shop(APPLE=1), new_id()

    shop.hear(ordered(order_id, hold_seconds=asked))

    reserved = shop.events[-1].event
    assert isinstance(reserved, StockReserved)
    assert (reserved.expires_at - NOW).total_seconds() == seconds
    assert shop.reservations[order_id].expires_at == reserved.expires_at


def test_a_sku_tells_when_it_runs_out_and_when_it_is_there_again() -> None:
    """`StockDepleted` at zero, `StockReplenished` when zero is left, each once, numbered per SKU."""
    shop, first, second = Shop(APPLE=2), new_id(), new_id()

    shop.hear(ordered(first), ordered(second))
    shop.hear(payment_failed(first))
    shop.hear(payment_failed(second))

    told = [item for item in shop.events if item.key == "APPLE"]
    assert shop.told_of("APPLE") == ["StockDepleted", "StockReplenished"]
    assert [(item.sequence, item.correlation_id) for item in told] == [(1, None), (2, None)]


def test_a_returned_unit_replenishes_its_sku() -> None:
    """Goods of a refunded sale can be bought again, and the catalog hears of it."""
    shop, order_id = Shop(APPLE=1), new_id()
    shop.hear(ordered(order_id), paid(order_id))

    shop.hear(refunded(order_id))

    assert shop.counters("APPLE") == (1, 0, 0)
    assert shop.told_of("APPLE") == ["StockDepleted", "StockReplenished"]


def test_a_first_arrival_replenishes_nothing() -> None:
    """A SKU that was never there was never told to be depleted; one that ran out was."""
    shop, order_id = Shop(), new_id()

    shop.book(receipt("r-1", APPLE=1), receipt("r-2", APPLE=1))
    shop.hear(ordered(order_id, ("APPLE", 2)))
    shop.book(receipt("r-3", APPLE=1))

    assert shop.told_of("APPLE") == ["StockDepleted", "StockReplenished"]


def test_the_same_receipt_again_changes_nothing() -> None:
    """A receipt is known by its id and lines, whoever sends it, in the same batch or a later one."""
    shop = Shop()

    first = shop.book(receipt("r-1", APPLE=2), receipt("r-1", "http:2", APPLE=2))
    again = shop.book(receipt("r-1", "http:3", APPLE=2))

    assert (first, again) == ([True, False], [False])
    assert shop.counters("APPLE") == (2, 0, 0)


def test_a_known_receipt_id_with_other_lines_is_refused() -> None:
    """An id names one delivery for ever; a receipt and an adjustment may share one."""
    shop = Shop()
    shop.book(receipt("x-1", APPLE=2))

    refused, adjusted = shop.book(receipt("x-1", APPLE=3), adjustment(1, adjustment_id="x-1"))

    assert isinstance(refused, Conflict)
    assert adjusted is True
    assert shop.counters("APPLE") == (3, 0, 0)


@pytest.mark.parametrize(
    ("delta", "expected"), [(-5, (0, 0, 0)), (-4, (1, 0, 0)), (1, (6, 0, 0))], ids=["to zero", "down", "up"]
)
def test_an_adjustment_moves_the_available_units(delta: int, expected: tuple[int, int, int]) -> None:
    """Found or missing units are corrected down to zero, and no further."""
    shop = Shop(APPLE=5)

    results = shop.book(adjustment(delta))

    assert results == [True]
    assert shop.counters("APPLE") == expected


def test_an_adjustment_below_zero_is_refused_and_its_id_not_burnt() -> None:
    """Held units are not available: what is refused leaves no trace, and may be sent again."""
    shop, order_id = Shop(APPLE=2), new_id()
    shop.hear(ordered(order_id))

    (refused,) = shop.book(adjustment(-2))
    shop.hear(payment_failed(order_id))
    (applied,) = shop.book(adjustment(-2))

    assert isinstance(refused, Conflict)
    assert applied is True
    assert shop.counters("APPLE") == (0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "results"),
    [
        ([adjustment(1), adjustment(1)], [True, False]),
        ([adjustment(1), adjustment(2)], [True, Conflict]),
        ([adjustment(1), adjustment(1, reason="stolen")], [True, Conflict]),
        ([adjustment(-6), adjustment(5)], [Conflict, True]),
    ],
    ids=["same", "other quantity", "other reason", "a refused one first"],
)
def test_an_adjustment_counts_once(changes: Sequence[Adjustment], results: Sequence[object]) -> None:
    """An adjustment is known by its id and content."""
    shop = Shop(APPLE=5)

    applied = shop.book(*changes)

    assert [item if isinstance(item, bool) else type(item) for item in applied] == results


def test_an_adjustment_of_an_unknown_sku_below_zero_is_refused() -> None:
    """What never arrived cannot go missing."""
    shop = Shop()

    (refused,) = shop.book(adjustment(-1))

    assert isinstance(refused, Conflict)
    assert shop.levels == {}


def test_an_event_names_its_cause_and_its_order() -> None:
    """Events about an order are correlated by its id; the SKU's event names the same cause and no order."""
    shop, order_id = Shop(APPLE=1), new_id()

    shop.hear(ordered(order_id))

    depleted, reserved = shop.events
    assert (depleted.cause, depleted.key, depleted.correlation_id) == ("cause", "APPLE", None)
    assert (reserved.cause, reserved.key, reserved.correlation_id) == ("cause", str(order_id), str(order_id))
