"""Does a reservation move as the table "Reservation" of docs/protocol.md says, row by row?"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

import pytest

from shared.events import PaymentStatus, StockFact
from shared.ids import new_id
from tests.inventory_building import order_cancelled, ordered, paid, payment_failed, refunded
from tests.inventory_shop import Shop

ORDER_ID = new_id()
OTHER_ID = new_id()

Step = Callable[[Shop], None]


def requested(shop: Shop) -> None:
    """The order is placed, for three apples."""
    shop.hear(ordered(ORDER_ID, ("APPLE", 3)))


def cancelled(shop: Shop) -> None:
    """The order is cancelled."""
    shop.hear(order_cancelled(ORDER_ID))


def succeeded(shop: Shop) -> None:
    """The order is paid."""
    shop.hear(paid(ORDER_ID))


def declined(shop: Shop) -> None:
    """The payment failed."""
    shop.hear(payment_failed(ORDER_ID, "declined"))


def payment_expired(shop: Shop) -> None:
    """The payment failed, because its time was over."""
    shop.hear(payment_failed(ORDER_ID, "expired"))


def payment_cancelled(shop: Shop) -> None:
    """The payment was cancelled."""
    shop.hear(payment_failed(ORDER_ID, "cancelled"))


def given_back(shop: Shop) -> None:
    """The money went back."""
    shop.hear(refunded(ORDER_ID))


def swept(shop: Shop) -> None:
    """The sweeper comes when the hold has ended."""
    shop.sweep()


def swept_early(shop: Shop) -> None:
    """The sweeper comes one second before the hold ends."""
    shop.sweep(timedelta(seconds=899))


def bought_by_another(shop: Shop) -> None:
    """Somebody else buys the apples."""
    shop.hear(ordered(OTHER_ID, ("APPLE", 3)))


def left_by_another(shop: Shop) -> None:
    """Somebody else gives the apples back."""
    shop.hear(payment_failed(OTHER_ID))


class Row(NamedTuple):
    """What has happened, what is heard now, and what follows."""

    before: Sequence[Step]
    hears: Step
    status: str | None
    reason: str | None = None
    moves: Sequence[tuple[str, int]] = ()
    tells: str | None = None
    unavailable: bool = False


NONE: list[Step] = []
HELD: list[Step] = [requested]
REJECTED: list[Step] = [bought_by_another, requested]
RELEASED: list[Step] = [requested, declined]
GONE: list[Step] = [requested, declined, bought_by_another]
CONFIRMED: list[Step] = [requested, succeeded]
RETURNED: list[Step] = [requested, succeeded, given_back]
UNAVAILABLE: list[Step] = [*GONE, succeeded, left_by_another]
TOMBSTONE: list[Step] = [cancelled]

RELEASED_1 = [("RELEASED", 1)]
CONFIRMED_1 = [("CONFIRMED", 1)]
RETURNED_1 = [("RETURNED", 1)]
AGAIN = [("RESERVED", 2), ("CONFIRMED", 2)]

TABLE = [
    Row(NONE, requested, "HELD", moves=[("RESERVED", 1)], tells="StockReserved"),
    Row(NONE, cancelled, "RELEASED", "cancelled"),
    Row(NONE, succeeded, None),
    Row(NONE, declined, None),
    Row(NONE, given_back, None),
    Row(TOMBSTONE, requested, "RELEASED", "cancelled", tells="StockReleased"),
    Row([bought_by_another], requested, "REJECTED", "insufficient_stock", tells="StockRejected"),
    Row(HELD, requested, "HELD"),
    Row(HELD, cancelled, "RELEASED", "cancelled", RELEASED_1, "StockReleased"),
    Row(HELD, succeeded, "CONFIRMED", None, CONFIRMED_1, "StockConfirmed"),
    Row(HELD, declined, "RELEASED", "payment_failed", RELEASED_1, "StockReleased"),
    Row(HELD, payment_cancelled, "RELEASED", "payment_failed", RELEASED_1, "StockReleased"),
    Row(HELD, payment_expired, "RELEASED", "expired", RELEASED_1, "StockReleased"),
    Row(HELD, given_back, "RELEASED", "refunded", RELEASED_1, "StockReleased"),
    Row(HELD, swept, "RELEASED", "expired", RELEASED_1, "StockReleased"),
    Row(HELD, swept_early, "HELD"),
    Row(REJECTED, requested, "REJECTED", "insufficient_stock"),
    Row(REJECTED, cancelled, "REJECTED", "insufficient_stock"),
    Row(REJECTED, succeeded, "REJECTED", "insufficient_stock", tells="StockUnavailable", unavailable=True),
    Row(REJECTED, declined, "REJECTED", "insufficient_stock"),
    Row(REJECTED, given_back, "REJECTED", "insufficient_stock"),
    Row(REJECTED, swept, "REJECTED", "insufficient_stock"),
    Row(RELEASED, requested, "RELEASED", "payment_failed"),
    Row(RELEASED, cancelled, "RELEASED", "payment_failed"),
    Row(RELEASED, succeeded, "CONFIRMED", None, AGAIN, "StockConfirmed"),
    Row(GONE, succeeded, "RELEASED", "payment_failed", tells="StockUnavailable", unavailable=True),
    Row(
        [*RELEASED, cancelled],
        succeeded,
        "RELEASED",
        "payment_failed",
        tells="StockUnavailable",
        unavailable=True,
    ),
    Row(RELEASED, declined, "RELEASED", "payment_failed"),
    Row(RELEASED, given_back, "RELEASED", "payment_failed"),
    Row(RELEASED, swept, "RELEASED", "payment_failed"),
    Row([requested, swept], succeeded, "CONFIRMED", None, AGAIN, "StockConfirmed"),
    Row(CONFIRMED, requested, "CONFIRMED"),
    Row(CONFIRMED, cancelled, "RETURNED", "cancelled", RETURNED_1, "StockReturned"),
    Row(CONFIRMED, succeeded, "CONFIRMED"),
    Row(CONFIRMED, declined, "CONFIRMED"),
    Row(CONFIRMED, given_back, "RETURNED", "refunded", RETURNED_1, "StockReturned"),
    Row(CONFIRMED, swept, "CONFIRMED"),
    Row([*RELEASED, succeeded], cancelled, "RETURNED", "cancelled", [("RETURNED", 2)], "StockReturned"),
    Row(RETURNED, cancelled, "RETURNED", "refunded"),
    Row(RETURNED, succeeded, "RETURNED", "refunded"),
    Row(RETURNED, given_back, "RETURNED", "refunded"),
    Row(RETURNED, swept, "RETURNED", "refunded"),
    Row(UNAVAILABLE, succeeded, "RELEASED", "payment_failed", unavailable=True),
    Row(UNAVAILABLE, cancelled, "RELEASED", "payment_failed", unavailable=True),
    Row(UNAVAILABLE, given_back, "RELEASED", "payment_failed", unavailable=True),
]


def _names(steps: Sequence[Step]) -> str:
    return "+".join(step.__name__ for step in steps) or "nothing"


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{_names(row.before)} then {row.hears.__name__}")
def test_a_reservation_moves_as_the_protocol_says(row: Row) -> None:
    """What is heard leads to the table's status, moves exactly the table's units, and tells at most one thing."""
    shop = Shop(APPLE=3)
    for step in row.before:
        step(shop)
    moves_before, events_before = len(shop.moved_for(ORDER_ID)), len(shop.told_of(ORDER_ID))

    row.hears(shop)

    after = shop.reservations[ORDER_ID]
    assert (after.status, after.reason, after.unavailable) == (row.status, row.reason, row.unavailable)
    assert shop.moved_for(ORDER_ID)[moves_before:] == list(row.moves)
    assert shop.told_of(ORDER_ID)[events_before:] == ([row.tells] if row.tells else [])


@pytest.mark.parametrize(
    ("remembered", "status", "reason", "tells"),
    [
        ([succeeded], "CONFIRMED", None, ["StockReserved", "StockConfirmed"]),
        ([declined], "RELEASED", "payment_failed", ["StockReserved", "StockReleased"]),
        ([payment_expired], "RELEASED", "expired", ["StockReserved", "StockReleased"]),
        ([given_back], "RELEASED", "refunded", ["StockReserved", "StockReleased"]),
        ([declined, succeeded], "CONFIRMED", None, ["StockReserved", "StockConfirmed"]),
        ([succeeded, declined], "CONFIRMED", None, ["StockReserved", "StockConfirmed"]),
        ([cancelled], "RELEASED", "cancelled", ["StockReleased"]),
        ([cancelled, succeeded], "RELEASED", "cancelled", ["StockReleased", "StockUnavailable"]),
        ([succeeded, cancelled], "RELEASED", "cancelled", ["StockReleased", "StockUnavailable"]),
        (
            [bought_by_another, succeeded],
            "REJECTED",
            "insufficient_stock",
            ["StockRejected", "StockUnavailable"],
        ),
    ],
    ids=lambda value: _names(value) if isinstance(value, list) and callable(value[0]) else "",
)
def test_what_was_heard_before_the_order_is_decided_when_it_comes(
    remembered: Sequence[Step], status: str, reason: str | None, tells: Sequence[str]
) -> None:
    """Facts that overtook `OrderRequested` tell nothing, and count in its wake: cancellation first, then payment."""
    shop = Shop(APPLE=3)
    for step in remembered:
        step(shop)
    told_before = shop.told_of(ORDER_ID)

    requested(shop)

    after = shop.reservations[ORDER_ID]
    assert told_before == []
    assert (after.status, after.reason) == (status, reason)
    assert shop.told_of(ORDER_ID) == tells


def test_an_order_that_carries_its_cancellation_reserves_nothing() -> None:
    """`OrderRequested` with `cancelled` true counts as cancelled, though its `OrderCancelled` was never heard."""
    shop = Shop(APPLE=3)

    shop.hear(ordered(ORDER_ID, ("APPLE", 3), cancelled=True))

    assert shop.reservations[ORDER_ID].status == "RELEASED"
    assert (shop.told_of(ORDER_ID), shop.moved_for(ORDER_ID)) == (["StockReleased"], [])


def test_a_repeated_order_that_carries_its_cancellation_releases_the_hold() -> None:
    """Also of an order known already, what `OrderRequested` carries is taken."""
    shop = Shop(APPLE=3)
    requested(shop)

    shop.hear(ordered(ORDER_ID, ("APPLE", 3), cancelled=True))

    assert shop.reservations[ORDER_ID].status == "RELEASED"
    assert shop.counters("APPLE") == (3, 0, 0)


@pytest.mark.parametrize("carried", [PaymentStatus.PENDING, PaymentStatus.QUARANTINED])
def test_only_the_carried_state_of_a_payment_counts(carried: PaymentStatus) -> None:
    """A success whose payment stands at PENDING or QUARANTINED, whatever its type says, confirms nothing."""
    shop = Shop(APPLE=3)
    requested(shop)

    shop.hear(paid(ORDER_ID, carried))

    assert shop.reservations[ORDER_ID].status == "HELD"


def test_the_refund_of_an_overpayment_returns_no_goods() -> None:
    """`PaymentRefunded` that carries SUCCEEDED is money, not the order's: the sale stands."""
    shop = Shop(APPLE=3)
    requested(shop)
    succeeded(shop)

    shop.hear(refunded(ORDER_ID, PaymentStatus.SUCCEEDED))

    assert shop.reservations[ORDER_ID].status == "CONFIRMED"


@pytest.mark.parametrize(
    ("before", "reason"),
    [(GONE, "sold_since"), ([*RELEASED, cancelled], "cancelled"), (REJECTED, "rejected")],
)
def test_what_cannot_be_confirmed_says_why(before: Sequence[Step], reason: str) -> None:
    """`StockUnavailable` tells the reason that people and the refund need."""
    shop = Shop(APPLE=3)
    for step in before:
        step(shop)

    succeeded(shop)

    assert shop.events[-1].event.model_dump()["reason"] == reason


def test_a_late_confirmation_says_that_it_is_late() -> None:
    """`late` is false for a hold that was paid in time, and true for one that was taken again."""
    in_time, late = Shop(APPLE=3), Shop(APPLE=3)
    for step in (requested, succeeded):
        step(in_time)
    for step in (requested, swept, succeeded):
        step(late)

    assert in_time.events[-1].event.model_dump()["late"] is False
    confirmation = next(item.event for item in late.events if type(item.event).__name__ == "StockConfirmed")
    assert confirmation.model_dump()["late"] is True


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{_names(row.before)} then {row.hears.__name__}")
def test_every_event_carries_where_the_reservation_stands(row: Row) -> None:
    """The last event about an order says its present state, and sequences count from 1 without holes."""
    shop = Shop(APPLE=3)
    for step in (*row.before, row.hears):
        step(shop)

    told = [item for item in shop.events if item.key == str(ORDER_ID)]
    after = shop.reservations[ORDER_ID]
    assert [item.sequence for item in told] == list(range(1, after.sequence + 1))
    if told:
        last = told[-1].event
        assert isinstance(last, StockFact)
        assert (last.reservation_status, last.reservation_reason) == (after.status, after.reason)
        assert last.unavailable is after.unavailable
