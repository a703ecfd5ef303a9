"""Does an order's status follow from its facets alone, as the protocol's table says?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.order_service.domain.status import PaymentState, Stock, StockState, status_of
from shared.events import OrderStatus, PaymentStatus
from shared.ids import new_id
from tests.order_building import released, returned, stock_rejected, unavailable

UNPAID = [None, *(set(PaymentStatus) - {PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDED})]

# stock: (not paid; not paid, cancelled; paid; paid, cancelled), word by word from the protocol.
TABLE = {
    StockState(Stock.NONE): ("REQUESTED", "CANCELLED", "AWAITING_PAYMENT", "REFUND_DUE"),
    StockState(Stock.HELD): ("AWAITING_PAYMENT", "CANCELLED", "AWAITING_PAYMENT", "REFUND_DUE"),
    StockState(Stock.REJECTED, "insufficient_stock"): ("REJECTED", "CANCELLED", "REFUND_DUE", "REFUND_DUE"),
    StockState(Stock.RELEASED, "expired"): ("EXPIRED", "CANCELLED", "AWAITING_PAYMENT", "REFUND_DUE"),
    StockState(Stock.RELEASED, "payment_failed"): (
        "PAYMENT_FAILED",
        "CANCELLED",
        "AWAITING_PAYMENT",
        "REFUND_DUE",
    ),
    StockState(Stock.CONFIRMED): ("AWAITING_PAYMENT", "CANCELLED", "PROCESSING", "REFUND_DUE"),
    StockState(Stock.UNAVAILABLE): ("AWAITING_PAYMENT", "CANCELLED", "REFUND_DUE", "REFUND_DUE"),
    StockState(Stock.RETURNED): ("AWAITING_PAYMENT", "CANCELLED", "REFUND_DUE", "REFUND_DUE"),
}

# Each facet's ranks, lowest first, word by word from the protocol.
STOCK_RANKS: list[set[Stock]] = [
    {Stock.NONE},
    {Stock.HELD, Stock.REJECTED},
    {Stock.RELEASED},
    {Stock.CONFIRMED, Stock.UNAVAILABLE},
    {Stock.RETURNED},
]
PAYMENT_RANKS: list[set[PaymentStatus | None]] = [
    {None},
    {PaymentStatus.PENDING, PaymentStatus.QUARANTINED},
    {PaymentStatus.FAILED, PaymentStatus.CANCELLED},
    {PaymentStatus.SUCCEEDED},
    {PaymentStatus.REFUNDED},
]


@pytest.mark.parametrize("stock", TABLE, ids=lambda state: f"{state.facet}-{state.reason}")
@pytest.mark.parametrize("payment", sorted(UNPAID, key=str))
def test_an_unpaid_order_stands_where_the_table_says(
    stock: StockState, payment: PaymentStatus | None
) -> None:
    """Whatever is not SUCCEEDED or REFUNDED counts as not paid, in every row."""
    open_status, cancelled_status, _, _ = TABLE[stock]

    statuses = [status_of(stock, PaymentState(payment), cancelled=cancelled) for cancelled in (False, True)]

    assert statuses == [open_status, cancelled_status]


@pytest.mark.parametrize("stock", TABLE, ids=lambda state: f"{state.facet}-{state.reason}")
def test_a_paid_order_stands_where_the_table_says(stock: StockState) -> None:
    """SUCCEEDED leads to goods or to a refund, in every row."""
    _, _, paid_status, both_status = TABLE[stock]
    payment = PaymentState(PaymentStatus.SUCCEEDED)

    statuses = [status_of(stock, payment, cancelled=cancelled) for cancelled in (False, True)]

    assert statuses == [paid_status, both_status]


@pytest.mark.parametrize("stock", TABLE, ids=lambda state: f"{state.facet}-{state.reason}")
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_refunded_payment_ends_the_order_in_every_row(stock: StockState, cancelled: bool) -> None:  # noqa: FBT001 (a column of the table)
    """REFUNDED is the last word, whatever the stock."""
    status = status_of(stock, PaymentState(PaymentStatus.REFUNDED), cancelled=cancelled)

    assert status is OrderStatus.REFUNDED


def test_the_table_has_a_row_for_every_stock_facet() -> None:
    """No facet is forgotten by the tests above."""
    assert {state.facet for state in TABLE} == set(Stock)
    assert set.union(*STOCK_RANKS) == set(Stock)
    assert set.union(*PAYMENT_RANKS) == {None, *PaymentStatus}


@given(st.data())
def test_a_stock_facet_never_goes_down(data: st.DataObject) -> None:
    """Of two states of different rank the higher one holds, whichever was heard first and whatever its sequence."""
    low, high = sorted(data.draw(st.lists(st.sampled_from(range(5)), min_size=2, max_size=2, unique=True)))
    sequence = st.integers(1, 5)
    lower = StockState(data.draw(st.sampled_from(sorted(STOCK_RANKS[low]))), None, data.draw(sequence))
    higher = StockState(data.draw(st.sampled_from(sorted(STOCK_RANKS[high]))), None, data.draw(sequence))

    assert lower.joined(higher) == higher
    assert higher.joined(lower) == higher


@given(st.data())
def test_a_payment_facet_never_goes_down(data: st.DataObject) -> None:
    """Of two states of different rank the higher one holds, whichever was heard first and whatever its sequence."""
    low, high = sorted(data.draw(st.lists(st.sampled_from(range(5)), min_size=2, max_size=2, unique=True)))
    sequence = st.integers(1, 5)
    lower = PaymentState(data.draw(st.sampled_from(list(PAYMENT_RANKS[low]))), None, data.draw(sequence))
    higher = PaymentState(data.draw(st.sampled_from(list(PAYMENT_RANKS[high]))), None, data.draw(sequence))

    assert lower.joined(higher) == higher
    assert higher.joined(lower) == higher


def test_of_one_rank_the_newer_state_holds() -> None:
    """A partial refund leaves SUCCEEDED as it is but adds to what was refunded; its older sibling does not undo that."""
    paid = PaymentState(PaymentStatus.SUCCEEDED, sequence=2, settled_amount_minor=200)
    partly = PaymentState(PaymentStatus.SUCCEEDED, sequence=3, settled_amount_minor=200, refunded_minor=50)

    assert paid.joined(partly) == partly
    assert partly.joined(paid) == partly


def test_unavailable_is_a_mark_on_a_released_reservation() -> None:
    """Released and marked is UNAVAILABLE; released alone is not, and no other reservation is, marked or not."""
    order_id = new_id()

    facets = [
        StockState.carried_by(fact, 1).facet
        for fact in (
            unavailable(order_id),
            released(order_id),
            stock_rejected(order_id).model_copy(update={"unavailable": True}),
            returned(order_id).model_copy(update={"unavailable": True}),
        )
    ]

    assert facets == [Stock.UNAVAILABLE, Stock.RELEASED, Stock.REJECTED, Stock.RETURNED]
