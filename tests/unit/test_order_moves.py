"""How does one order move, and what does it tell?"""

from collections.abc import Sequence

import pytest

from shared.errors import LedgerViolation
from shared.events import (
    OrderAwaitingPayment,
    OrderCancelled,
    OrderConfirmed,
    OrderExpired,
    OrderFact,
    OrderPaymentFailed,
    OrderRefunded,
    OrderRefundRequested,
    OrderRejected,
    OrderRequested,
    OrderStatus,
    ReservationStatus,
    StockConfirmed,
)
from tests.order_building import (
    LINES,
    NOW,
    PAY_BY,
    confirmed,
    initiated,
    partly_refunded,
    payment_failed,
    refunded,
    released,
    reserved,
    returned,
    stock_rejected,
    succeeded,
    unavailable,
)
from tests.order_moving import ORDER_ID, Fact, cancel, hear, join, new_order, path, told


def test_a_paid_order_is_told_of_from_request_to_confirmation() -> None:
    """Placed, held, paid, sold: each step one event with the content it opens."""
    order = hear(
        new_order(), reserved(ORDER_ID), initiated(ORDER_ID), succeeded(ORDER_ID), confirmed(ORDER_ID)
    )

    assert path(order) == ["REQUESTED", "AWAITING_PAYMENT", "PROCESSING"]
    requested, awaiting, processing = [item.event for item in order.emitted]
    assert isinstance(requested, OrderRequested)
    assert isinstance(awaiting, OrderAwaitingPayment)
    assert (awaiting.pay_by, awaiting.total_minor, awaiting.currency) == (PAY_BY, 200, "EUR")
    assert isinstance(processing, OrderConfirmed)
    assert (processing.paid_at, processing.lines, processing.order_status) == (
        NOW,
        requested.lines,
        "PROCESSING",
    )
    assert order.payment_url == "https://pay.example/1"


def test_the_payment_may_overtake_the_hold() -> None:
    """Facts of two producers come in any order: the order is asked to be paid once, and confirmed once."""
    order = hear(new_order(), succeeded(ORDER_ID), confirmed(ORDER_ID), reserved(ORDER_ID))

    assert order.status is OrderStatus.PROCESSING
    assert told(order) == [OrderRequested, OrderAwaitingPayment, OrderConfirmed]
    assert order.pay_by == PAY_BY


def test_a_short_order_is_rejected_with_its_shortages() -> None:
    """The shortages are kept in the details and told."""
    order = hear(new_order(), stock_rejected(ORDER_ID))

    shortages = {"shortages": [{"sku": "APPLE", "requested": 2, "available": 1}]}
    assert (order.status, order.reason, order.details) == (
        OrderStatus.REJECTED,
        "insufficient_stock",
        shortages,
    )
    event = order.emitted[-1].event
    assert isinstance(event, OrderRejected)
    assert (event.reason, event.details) == ("insufficient_stock", shortages)


def test_a_failed_payment_alone_ends_nothing() -> None:
    """The order ends when inventory has let go, with the release's reason."""
    order = hear(new_order(), reserved(ORDER_ID), payment_failed(ORDER_ID))
    status_before_release = order.status

    hear(order, released(ORDER_ID, "payment_failed"), sequence=2)

    assert status_before_release is OrderStatus.AWAITING_PAYMENT
    assert (order.status, order.reason) == (OrderStatus.PAYMENT_FAILED, "payment_failed")
    assert told(order)[-1] is OrderPaymentFailed


def test_an_expired_hold_expires_the_order() -> None:
    """The release's reason decides between EXPIRED and PAYMENT_FAILED."""
    order = hear(new_order(), reserved(ORDER_ID), released(ORDER_ID, "expired"))

    assert (order.status, order.reason) == (OrderStatus.EXPIRED, "expired")
    assert told(order)[-1] is OrderExpired


def test_late_money_writes_history_without_an_event_until_inventory_has_decided() -> None:
    """EXPIRED goes back to AWAITING_PAYMENT in silence, and on to PROCESSING with its event."""
    order = hear(new_order(), reserved(ORDER_ID), released(ORDER_ID), succeeded(ORDER_ID))
    told_before = told(order)

    hear(order, confirmed(ORDER_ID, late=True), sequence=3)

    assert told_before == [OrderRequested, OrderAwaitingPayment, OrderExpired]
    assert told(order) == [*told_before, OrderConfirmed]
    assert path(order) == ["REQUESTED", "AWAITING_PAYMENT", "EXPIRED", "AWAITING_PAYMENT", "PROCESSING"]
    assert order.version == 5


def test_money_that_came_too_late_goes_back_as_unavailable() -> None:
    """The whole settled amount is asked back once, and REFUND_DUE stays until it is back."""
    order = hear(
        new_order(), reserved(ORDER_ID), released(ORDER_ID), succeeded(ORDER_ID), unavailable(ORDER_ID)
    )
    due_status, request = order.status, order.emitted[-1].event

    hear(order, refunded(ORDER_ID), sequence=2)

    assert due_status is OrderStatus.REFUND_DUE
    assert isinstance(request, OrderRefundRequested)
    assert (request.amount_minor, request.currency, request.reason) == (200, "EUR", "unavailable")
    last = order.emitted[-1].event
    assert isinstance(last, OrderRefunded)
    assert (last.amount_minor, last.currency, last.order_status) == (200, "EUR", "REFUNDED")
    assert order.reason == "unavailable"


def test_a_refund_asks_for_what_is_left_after_partial_ones() -> None:
    """What an operator gave back already is not asked for again."""
    order = hear(new_order(), reserved(ORDER_ID), confirmed(ORDER_ID), succeeded(ORDER_ID))
    hear(order, partly_refunded(ORDER_ID, 50), sequence=2)

    cancel(order)

    event = order.emitted[-1].event
    assert isinstance(event, OrderRefundRequested)
    assert (event.amount_minor, event.reason) == (150, "cancelled")


def test_an_order_that_cost_nothing_is_refunded_by_the_same_path() -> None:
    """A total of 0 becomes PROCESSING, and its refund is an amount of 0."""
    order = hear(new_order(), reserved(ORDER_ID), succeeded(ORDER_ID, 0), confirmed(ORDER_ID))

    cancel(order)

    event = order.emitted[-1].event
    assert isinstance(event, OrderRefundRequested)
    assert (order.status, event.amount_minor) == (OrderStatus.REFUND_DUE, 0)


def test_a_refund_by_an_operator_ends_a_confirmed_order() -> None:
    """PROCESSING and refunded in full is REFUNDED, with that reason."""
    order = hear(new_order(), reserved(ORDER_ID), confirmed(ORDER_ID), succeeded(ORDER_ID))

    hear(order, refunded(ORDER_ID), returned(ORDER_ID, "refunded"), sequence=3)

    assert (order.status, order.reason) == (OrderStatus.REFUNDED, "operator")
    assert OrderRefundRequested not in told(order)


@pytest.mark.parametrize("facts", [[], [reserved(ORDER_ID)]], ids=["requested", "awaiting payment"])
def test_cancelling_an_unpaid_order_tells_so(facts: Sequence[Fact]) -> None:
    """OrderCancelled carries the reason and who asked; nothing has to go back."""
    order = hear(new_order(), *facts)

    accepted = cancel(order)

    assert accepted
    assert (order.status, order.reason) == (OrderStatus.CANCELLED, "changed my mind")
    event = order.emitted[-1].event
    assert isinstance(event, OrderCancelled)
    assert (event.cancelled, event.order_status) == (True, "CANCELLED")
    assert (event.reason, event.requested_by) == ("changed my mind", "storefront")


def test_cancelling_a_paid_order_tells_of_the_cancellation_and_then_of_the_refund() -> None:
    """Two events, each with its own sequence, both carrying REFUND_DUE and cancelled."""
    order = hear(new_order(), reserved(ORDER_ID), succeeded(ORDER_ID), confirmed(ORDER_ID))

    cancel(order)

    last_two = [item.event for item in order.emitted[-2:]]
    assert [type(event) for event in last_two] == [OrderCancelled, OrderRefundRequested]
    carried = [(event.order_status, event.cancelled) for event in last_two if isinstance(event, OrderFact)]
    assert carried == [("REFUND_DUE", True)] * 2
    assert [item.sequence for item in order.emitted] == [1, 2, 3, 4, 5]
    assert order.version == 4


def test_money_that_reaches_a_cancelled_order_goes_back() -> None:
    """CANCELLED and then paid is REFUND_DUE, and the cancellation is told of once."""
    order = hear(new_order(), reserved(ORDER_ID))
    cancel(order)

    hear(order, succeeded(ORDER_ID))

    assert told(order) == [OrderRequested, OrderAwaitingPayment, OrderCancelled, OrderRefundRequested]
    assert order.reason == "cancelled"


@pytest.mark.parametrize(
    "facts",
    [
        [stock_rejected(ORDER_ID)],
        [reserved(ORDER_ID), released(ORDER_ID, "payment_failed")],
        [reserved(ORDER_ID), released(ORDER_ID, "expired")],
        [succeeded(ORDER_ID), unavailable(ORDER_ID)],
        [succeeded(ORDER_ID), refunded(ORDER_ID)],
    ],
    ids=["REJECTED", "PAYMENT_FAILED", "EXPIRED", "REFUND_DUE", "REFUNDED"],
)
def test_an_order_that_has_ended_is_not_cancelled(facts: Sequence[Fact]) -> None:
    """Outside REQUESTED, AWAITING_PAYMENT and PROCESSING nothing changes and nothing is told."""
    order = hear(new_order(), *facts)
    before = (order.status, order.version, told(order))

    accepted = cancel(order)

    assert not accepted
    assert not order.is_cancelled
    assert (order.status, order.version, told(order)) == before


def test_a_newer_attempt_replaces_the_payment_page() -> None:
    """The newest attempt's URL is shown, whichever is heard first."""
    in_order, overtaken = new_order(), new_order()

    join(in_order, initiated(ORDER_ID, "https://pay.example/1"), 1)
    join(in_order, initiated(ORDER_ID, "https://pay.example/2"), 3)
    join(overtaken, initiated(ORDER_ID, "https://pay.example/2"), 3)
    join(overtaken, initiated(ORDER_ID, "https://pay.example/1"), 1)

    assert in_order.payment_url == overtaken.payment_url == "https://pay.example/2"


def test_only_the_carried_state_of_a_fact_counts() -> None:
    """An event of any type moves the order to where its producer says that it stands."""
    fact = StockConfirmed(
        order_id=ORDER_ID,
        lines=LINES,
        late=False,
        reservation_status=ReservationStatus.RELEASED,
        reservation_reason="expired",
        unavailable=False,
    )

    order = hear(new_order(), fact)

    assert order.status is OrderStatus.EXPIRED


def test_a_confirmation_without_loaded_lines_is_never_told() -> None:
    """An event that would lack its lines stops the batch instead."""
    order = hear(new_order(), reserved(ORDER_ID), succeeded(ORDER_ID))
    order.lines = None

    with pytest.raises(LedgerViolation):
        hear(order, confirmed(ORDER_ID), sequence=2)
