"""Does what is told again bring a reader who heard nothing to where its teller stands, and change nothing for the others?"""

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from services.inventory_service.domain.ledger import Ledger
from services.inventory_service.domain.stock import Level
from services.order_service.domain.order import Order
from services.order_service.domain.placing import fingerprint_of, quote
from services.order_service.domain.status import PaymentState, StockState
from services.payment_service.domain import paying, refunding, telling
from services.payment_service.domain.answers import Refunded
from services.payment_service.domain.attempts import AttemptStatus
from services.payment_service.domain.payments import Payment
from shared.envelope import Emitted
from shared.events import OrderFact, OrderRejected, OrderRequested, PaymentFact, StockFact, StockReserved
from shared.ids import new_id
from tests import inventory_building, order_building, payment_building
from tests.order_moving import cancel, hear, new_order

NOW = order_building.NOW
ID = new_id()


def facts(emitted: Sequence[Emitted], kind: type) -> list[tuple[int, object]]:
    """Return numbers and events."""
    return [(item.sequence, item.event) for item in emitted if isinstance(item.event, kind)]


# --- orders ---------------------------------------------------------------------------------------------------------


def refused() -> Order:
    """An order that the catalog refuses as it is placed."""
    command = order_building.place_order(ID, ("UNKNOWN", 1))
    return Order.placed(
        command,
        quote(command, {}),
        hold_seconds=None,
        fingerprint=fingerprint_of(command),
        cause="c",
        at=NOW,
    )


def cancelled(*before: StockFact | PaymentFact) -> Order:
    """An order that is cancelled after it has heard some facts."""
    order = hear(new_order(), *before)
    cancel(order)
    return order


def of_order(make: Callable[[], Order]) -> Order:
    """Return an order with its lines, as it is loaded to tell."""
    order = make()
    order.emitted.clear()
    order.changed = False
    return order


ORDERS: dict[str, Callable[[], Order]] = {
    "requested": new_order,
    "refused": refused,
    "awaiting": lambda: hear(new_order(), order_building.reserved(new_order().order_id)),
    "rejected": lambda: hear(new_order(), order_building.stock_rejected(new_order().order_id)),
    "expired": lambda: hear(
        new_order(),
        order_building.reserved(new_order().order_id),
        order_building.released(new_order().order_id, "expired"),
    ),
    "sold": lambda: hear(
        new_order(),
        order_building.reserved(new_order().order_id),
        order_building.succeeded(new_order().order_id),
        order_building.confirmed(new_order().order_id),
    ),
    "cancelled": cancelled,
    "to be refunded": lambda: cancelled(order_building.succeeded(new_order().order_id)),
}


@pytest.mark.parametrize("make", ORDERS.values(), ids=ORDERS)
def test_an_order_tells_lost_events_under_their_numbers(make: Callable[[], Order]) -> None:
    """One event a lost number, with the state of now; no new number is given out and nothing is to be saved."""
    order = of_order(make)
    numbers = list(range(1, order.sequence + 1))
    before = order.sequence

    order.tell_again(numbers, "operator:1", NOW)

    told = facts(order.emitted, OrderFact)
    assert [number for number, _ in told] == numbers
    assert {event.order_status for _, event in told if isinstance(event, OrderFact)} == {order.status}
    assert {event.cancelled for _, event in told if isinstance(event, OrderFact)} == {order.is_cancelled}
    assert isinstance(told[0][1], OrderRejected if make is refused else OrderRequested)
    assert (order.sequence, order.changed) == (before, False)


@pytest.mark.parametrize("make", ORDERS.values(), ids=ORDERS)
def test_an_order_tells_where_it_stands_under_new_numbers(make: Callable[[], Order]) -> None:
    """The numbers go on without a hole, and inventory is asked for the goods as long as it has not answered."""
    order = of_order(make)
    before = order.sequence

    order.tell_again([], "operator:1", NOW)

    told = facts(order.emitted, OrderFact)
    assert [number for number, _ in told] == list(range(before + 1, order.sequence + 1))
    assert told
    asks = any(isinstance(event, OrderRequested) for _, event in told)
    assert asks is (make is not refused and order.stock.facet == "NONE")
    assert order.transitions == make().transitions


# --- reservations ---------------------------------------------------------------------------------------------------


def a_ledger() -> Ledger:
    """Ten apples."""
    return Ledger(NOW, levels=[Level("APPLE", available=10, stored=True)])


def held() -> Ledger:
    """A held reservation."""
    ledger = a_ledger()
    ledger.open(inventory_building.ordered(ID), "c", 900)
    return ledger


def then(*facts_heard: OrderFact | PaymentFact) -> Callable[[], Ledger]:
    """A reservation that is held and then hears some facts."""

    def make() -> Ledger:
        ledger = held()
        for fact in facts_heard:
            if isinstance(fact, OrderFact):
                ledger.join_order(fact, "c")
            else:
                ledger.join_payment(fact, "c")
        return ledger

    return make


def expired() -> Ledger:
    """A reservation whose hold was swept."""
    ledger = held()
    ledger.expire(ID, NOW + timedelta(days=1), "timer:sweep")
    return ledger


def too_late() -> Ledger:
    """A reservation that was swept and paid when the apples were gone."""
    ledger = expired()
    ledger.levels["APPLE"].available = 0
    ledger.join_payment(inventory_building.paid(ID), "c")
    return ledger


def short() -> Ledger:
    """A reservation that could not be made."""
    ledger = a_ledger()
    ledger.open(inventory_building.ordered(ID, ("APPLE", 11)), "c", 900)
    return ledger


RESERVATIONS: dict[str, Callable[[], Ledger]] = {
    "held": held,
    "short": short,
    "sold": then(inventory_building.paid(ID)),
    "expired": expired,
    "too late": too_late,
    "cancelled": then(inventory_building.order_cancelled(ID)),
    "returned": then(inventory_building.paid(ID), inventory_building.order_cancelled(ID)),
}


def stock_heard(emitted: Sequence[Emitted]) -> StockState:
    """Return what an order knows that has heard these events."""
    state = StockState()
    for item in emitted:
        if isinstance(item.event, StockFact):
            state = state.joined(StockState.carried_by(item.event, item.sequence))
    return state


@pytest.mark.parametrize("make", RESERVATIONS.values(), ids=RESERVATIONS)
@pytest.mark.parametrize("loses", ["numbers", "nothing"])
def test_a_reservation_told_again_is_the_same_to_its_order(make: Callable[[], Ledger], loses: str) -> None:
    """Whoever hears only what is told again knows what whoever heard everything knows; nothing moves."""
    ledger = make()
    everything = stock_heard(ledger.events)
    reservation = ledger.reservations[ID]
    numbers = list(range(1, reservation.sequence + 1)) if loses == "numbers" else []
    moved, last = len(ledger.movements), reservation.sequence
    ledger.events.clear()

    ledger.tell_again(ID, numbers, "operator:1")

    again = stock_heard(ledger.events)
    assert (again.facet, again.reason) == (everything.facet, everything.reason)
    assert everything.joined(again).facet is everything.facet
    assert len(ledger.movements) == moved
    assert [number for number, _ in facts(ledger.events, StockFact)] == (numbers or [last + 1])
    if numbers and make is not short:
        # Until when the units were held is told by the first event alone.
        assert isinstance(ledger.events[0].event, StockReserved)


def test_a_sku_is_told_again_as_it_is_now() -> None:
    """Under the numbers that were lost: whoever has heard a later one passes them over."""
    ledger = a_ledger()

    ledger.tell_sku_again("APPLE", [2, 3], "operator:1")

    assert [(item.sequence, item.event.type) for item in ledger.events] == [
        (2, "StockReplenished.v1"),
        (3, "StockReplenished.v1"),
    ]


def test_a_recounted_sku_tells_if_it_has_run_out() -> None:
    """Counters that were wrong may have let the catalog believe that there is something to sell."""
    ledger = a_ledger()

    changed = ledger.recount("APPLE", (0, 0, 10), "operator:1")

    assert changed
    assert [(item.sequence, item.event.type) for item in ledger.events] == [(1, "StockDepleted.v1")]
    assert not ledger.recount("APPLE", (0, 0, 10), "operator:1")
    assert ledger.movements == []


# --- payments -------------------------------------------------------------------------------------------------------


def initiated() -> Payment:
    """A payment whose gateway waits for the money."""
    payment = payment_building.an_open_payment()
    payment_building.an_attempt_of(payment)
    return payment


def ended(status: AttemptStatus, *, attempts_max: int = 1, **changes: object) -> Payment:
    """A payment whose first attempt has ended so."""
    payment = payment_building.an_open_payment(attempts_max=attempts_max)
    attempt = payment_building.an_attempt_of(payment)
    payment_building.hear(payment, payment_building.a_notice(attempt, status, **changes))
    return payment


def closed() -> Payment:
    """A payment that nobody wants any more."""
    payment = payment_building.an_open_payment()
    paying.close_payment(payment, cause="c", at=NOW)
    return payment


def given_back() -> Payment:
    """A payment whose money went back."""
    payment = payment_building.a_paid_payment()
    refunding.refund_settled(payment, "cancelled", cause="c", at=NOW)
    (refund,) = payment.refunds.values()
    refunding.learn_refund(payment, refund, Refunded("gateway-refund"), cause="c", retry_at=NOW)
    return payment


PAYMENTS: dict[str, Callable[[], Payment]] = {
    "initiated": initiated,
    "declined with another attempt left": lambda: ended(AttemptStatus.FAILED, attempts_max=2),
    "declined": lambda: ended(AttemptStatus.FAILED),
    "closed": closed,
    "mismatch": lambda: ended(AttemptStatus.SUCCEEDED, amount_minor=1),
    "paid": payment_building.a_paid_payment,
    "given back": given_back,
}


def payment_heard(emitted: Sequence[Emitted]) -> PaymentState:
    """Return what an order knows that has heard these events."""
    state = PaymentState()
    for item in emitted:
        if isinstance(item.event, PaymentFact):
            state = state.joined(PaymentState.carried_by(item.event, item.sequence))
    return state


@pytest.mark.parametrize("make", PAYMENTS.values(), ids=PAYMENTS)
@pytest.mark.parametrize("loses", ["numbers", "nothing"])
def test_a_payment_told_again_is_the_same_to_its_order(make: Callable[[], Payment], loses: str) -> None:
    """Whoever hears only what is told again knows what whoever heard everything knows, money included."""
    payment = make()
    everything = payment_heard(payment.emitted)
    numbers = list(range(1, payment.sequence + 1)) if loses == "numbers" else []
    last = payment.sequence
    payment.emitted.clear()

    telling.tell_again(payment, numbers, "operator:1")

    again = payment_heard(payment.emitted)
    names = ("status", "reason", "settled_attempt_id", "settled_amount_minor", "refunded_minor", "paid_at")
    assert [getattr(again, name) for name in names] == [getattr(everything, name) for name in names]
    assert everything.joined(again).status is everything.status
    assert [number for number, _ in facts(payment.emitted, PaymentFact)] == (numbers or [last + 1])


def test_of_a_payment_that_was_never_told_of_nothing_is_told() -> None:
    """What only waits for its first attempt is no news to anybody."""
    payment = payment_building.an_open_payment()

    telling.tell_again(payment, [], "operator:1")

    assert (payment.emitted, payment.sequence) == ([], 0)
