"""How do tests move one order without a database?"""

from services.order_service.domain.order import Order
from services.order_service.domain.placing import Price, fingerprint_of, quote
from shared.events import (
    PaymentFact,
    StockFact,
)
from shared.ids import new_id
from tests.order_building import (
    NOW,
    place_order,
)

Fact = StockFact | PaymentFact
ORDER_ID = new_id()
PRICES = {"APPLE": Price(100, "EUR", active=True)}


def new_order() -> Order:
    """Return an order of two apples, just placed."""
    command = place_order(ORDER_ID)
    return Order.placed(
        command,
        quote(command, PRICES),
        hold_seconds=None,
        fingerprint=fingerprint_of(command),
        cause="c",
        at=NOW,
    )


def hear(order: Order, *facts: Fact, sequence: int | None = None) -> Order:
    """Have an order join facts, numbered from 1 a producer unless told otherwise."""
    numbers = {StockFact: 0, PaymentFact: 0}
    for fact in facts:
        producer: type[Fact] = StockFact if isinstance(fact, StockFact) else PaymentFact
        numbers[producer] += 1
        join(order, fact, sequence or numbers[producer])
    return order


def join(order: Order, fact: Fact, sequence: int) -> None:
    """Have an order join one fact."""
    if isinstance(fact, StockFact):
        order.join_stock(fact, sequence=sequence, cause="c", at=NOW)
    else:
        order.join_payment(fact, sequence=sequence, cause="c", at=NOW)


def cancel(order: Order) -> bool:
    """Have an order cancelled."""
    return order.cancel("changed my mind", requested_by="storefront", cause="c", at=NOW)


def told(order: Order) -> list[type]:
    """Return the types of what an order told, in order."""
    return [type(item.event) for item in order.emitted]


def path(order: Order) -> list[str]:
    """Return the statuses that an order went through."""
    return [step.status.value for step in order.transitions]
