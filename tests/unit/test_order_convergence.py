"""Does an order end the same, in whatever order and how often its facts are heard?"""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.order_service.domain.book import OrderBook
from services.order_service.domain.order import Order
from services.order_service.domain.status import (
    CANCELLABLE,
    PaymentState,
    StockState,
    status_of,
)
from shared.events import (
    OrderAwaitingPayment,
    OrderCancelled,
    OrderRefunded,
    OrderRequested,
    PaymentFact,
    PaymentReason,
    PaymentStatus,
    ReservationStatus,
    StockConfirmed,
    StockDepleted,
    StockFact,
    StockReplenished,
)
from tests.order_building import (
    LINES,
    NOW,
    initiated,
    money,
    stories,
)
from tests.order_moving import ORDER_ID, Fact, cancel, join, new_order, told


def _stock_fact(status: ReservationStatus, reason: str | None, *, marked: bool) -> StockFact:
    return StockConfirmed(
        order_id=ORDER_ID,
        lines=LINES,
        late=False,
        reservation_status=status,
        reservation_reason=reason,
        unavailable=marked,
    )


def _payment_fact(status: PaymentStatus, reason: PaymentReason | None) -> PaymentFact:
    amount = 200 if status in {PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDED} else None
    fields = money(status, reason, amount_minor=amount)
    return initiated(ORDER_ID).model_copy(update=fields)


# Not only what the neighbours do today: any states in any succession.
STOCK_FACTS = st.builds(
    _stock_fact,
    st.sampled_from(ReservationStatus),
    st.sampled_from([None, "expired", "payment_failed", "cancelled"]),
    marked=st.booleans(),
)
PAYMENT_FACTS = st.builds(
    _payment_fact, st.sampled_from(PaymentStatus), st.sampled_from([None, "declined", "expired"])
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Fact, int]]:
    """Return what both producers told, numbered a producer."""
    stock = draw(st.lists(STOCK_FACTS, max_size=4))
    payment = draw(st.lists(PAYMENT_FACTS, max_size=4))
    return [*zip(stock, range(1, 5), strict=False), *zip(payment, range(1, 5), strict=False)]


def deliver(history: Sequence[tuple[Fact, int]], *, cancelled_first: bool) -> Order:
    """Return an order after a history, in the order given."""
    order = new_order()
    if cancelled_first:
        cancel(order)
    for fact, sequence in history:
        join(order, fact, sequence)
    return order


def facets(order: Order) -> tuple[StockState, PaymentState, bool, str | None]:
    """Return what an order knows."""
    return order.stock, order.payment, order.is_cancelled, order.payment_url


@given(histories(), st.booleans(), st.data())
def test_any_order_and_repetition_of_facts_ends_the_same(
    history: list[tuple[Fact, int]],
    cancelled: bool,  # noqa: FBT001 (drawn by hypothesis)
    data: st.DataObject,
) -> None:
    """Shuffled and repeated deliveries lead to the same facets, and to the status they add up to."""
    again = data.draw(st.lists(st.sampled_from(history), max_size=6)) if history else []
    shuffled = data.draw(st.permutations([*history, *again]))

    straight = deliver(history, cancelled_first=cancelled)
    other = deliver(shuffled, cancelled_first=cancelled)

    assert facets(other) == facets(straight)
    assert other.status is straight.status
    assert other.status is status_of(other.stock, other.payment, cancelled=cancelled)


@given(histories(), st.integers(0, 8), st.data())
def test_every_step_is_numbered_without_holes(
    history: list[tuple[Fact, int]], cancelled_at: int, data: st.DataObject
) -> None:
    """Whatever is heard and whenever it is cancelled: versions and sequences count from 1, and nothing is told twice."""
    shuffled = data.draw(st.permutations(history))
    order = new_order()

    for position, (fact, sequence) in enumerate(shuffled):
        if position == cancelled_at:
            allowed = order.status in CANCELLABLE
            assert cancel(order) == allowed
        join(order, fact, sequence)

    assert [item.sequence for item in order.emitted] == list(range(1, order.sequence + 1))
    assert [step.version for step in order.transitions] == list(range(1, order.version + 1))
    assert all(
        earlier.status is not later.status
        for earlier, later in zip(order.transitions, order.transitions[1:], strict=False)
    )
    kinds = told(order)
    for once in (OrderRequested, OrderAwaitingPayment, OrderCancelled, OrderRefunded):
        assert kinds.count(once) <= 1
    assert (OrderCancelled in kinds) == order.is_cancelled


ENDS = {
    "nothing": "REQUESTED",
    "held": "AWAITING_PAYMENT",
    "short": "REJECTED",
    "paid": "PROCESSING",
    "free": "PROCESSING",
    "declined": "PAYMENT_FAILED",
    "expired": "EXPIRED",
    "late": "PROCESSING",
    "too late": "REFUNDED",
    "refunded by an operator": "REFUNDED",
}


def numbered(story: str) -> list[tuple[Fact, int]]:
    """Return what both producers tell of an order, numbered a producer."""
    stock, payment = stories(ORDER_ID)[story]
    return [
        *((fact, number) for number, fact in enumerate(stock, 1)),
        *((fact, number) for number, fact in enumerate(payment, 1)),
    ]


@pytest.mark.parametrize("story", ENDS)
@given(data=st.data())
def test_every_story_ends_as_it_must_in_any_order(story: str, data: st.DataObject) -> None:
    """What the neighbours really tell leads to its one end, however it is shuffled and repeated."""
    history = numbered(story)

    order = deliver(data.draw(st.permutations(history + history)), cancelled_first=False)

    assert order.status == ENDS[story]


@pytest.mark.parametrize("story", ENDS)
@given(cancelled_at=st.integers(0, 12), data=st.data())
def test_nothing_is_told_twice(story: str, cancelled_at: int, data: st.DataObject) -> None:
    """However a story is shuffled, repeated and cancelled, each kind of event is told at most once."""
    history = numbered(story)
    order = new_order()

    for position, (fact, sequence) in enumerate(data.draw(st.permutations(history + history))):
        if position == cancelled_at:
            cancel(order)
        join(order, fact, sequence)

    assert len(told(order)) == len(set(told(order)))
    assert (OrderCancelled in told(order)) == order.is_cancelled


def test_of_a_sku_the_newest_fact_holds() -> None:
    """A SKU may run out and come back: the highest sequence decides, whatever comes last."""
    book = OrderBook({}, {}, NOW)

    book.join_sku(StockReplenished(sku="APPLE"), sequence=2)
    book.join_sku(StockDepleted(sku="APPLE"), sequence=1)
    book.join_sku(StockDepleted(sku="BREAD"), sequence=7)

    assert [(row.sku, row.depleted, row.sequence) for row in book.availability()] == [
        ("APPLE", False, 2),
        ("BREAD", True, 7),
    ]
