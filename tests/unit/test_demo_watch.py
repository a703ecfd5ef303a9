"""Does the demo learn from events, repeated and late ones too, where its orders stand?"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from ops.demo.watch import Watch
from shared.envelope import Emitted, Headers, encode
from shared.events import OrderAwaitingPayment, OrderConfirmed, OrderFact, OrderRequested, OrderStatus
from shared.ids import new_id

ORDER_ID = new_id()
AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Read:
    """A record as it is read from Kafka."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = 0
    offset: int = 0


def read(event: OrderFact, sequence: int) -> Read:
    """The record of an event."""
    value, headers = encode(Emitted(event, str(event.order_id), sequence, "test", None), new_id(), AT)
    return Read(
        event.topic, str(event.order_id).encode(), value, [(name, text.encode()) for name, text in headers]
    )


def requested(order_id: UUID = ORDER_ID) -> Read:
    """The first event of an order."""
    return read(
        OrderRequested(
            order_id=order_id,
            order_status=OrderStatus.REQUESTED,
            cancelled=False,
            customer_id="900",
            lines=(),
            total_minor=100,
            currency="USD",
            hold_seconds=None,
        ),
        1,
    )


def awaiting_payment() -> Read:
    """The second event of an order."""
    return read(
        OrderAwaitingPayment(
            order_id=ORDER_ID,
            order_status=OrderStatus.AWAITING_PAYMENT,
            cancelled=False,
            customer_id="900",
            total_minor=100,
            currency="USD",
            pay_by=AT,
        ),
        2,
    )


def confirmed() -> Read:
    """The third event of an order."""
    return read(
        OrderConfirmed(
            order_id=ORDER_ID,
            order_status=OrderStatus.PROCESSING,
            cancelled=False,
            customer_id="900",
            lines=(),
            total_minor=100,
            currency="USD",
            paid_at=AT,
        ),
        3,
    )


async def test_an_order_is_open_until_its_last_event_says_otherwise() -> None:
    """It is open from the moment it is placed, decided with its stock, and ended when it is confirmed."""
    watch = Watch()
    order = watch.expect(ORDER_ID)

    seen = [(order.is_open, order.is_decided)]
    for record in (requested(), awaiting_payment(), confirmed()):
        watch.take([record])
        seen.append((order.is_open, order.is_decided))

    assert seen == [(True, False), (True, False), (True, True), (False, True)]


async def test_a_late_event_changes_nothing() -> None:
    """What was told again after a newer event does not open the order again."""
    watch = Watch()
    order = watch.expect(ORDER_ID)

    watch.take([requested(), confirmed(), awaiting_payment(), confirmed()])

    assert order.status is OrderStatus.PROCESSING


async def test_orders_of_others_do_not_matter() -> None:
    """An order that the demo did not place is passed over."""
    watch = Watch()

    watch.take([requested(new_id())])

    assert watch.orders == {}


async def test_who_waits_for_an_order_is_woken() -> None:
    """A customer goes on as soon as the order is where the story wants it, and not before."""
    watch = Watch()
    order = watch.expect(ORDER_ID)
    waiting = asyncio.create_task(order.until_in(OrderStatus.PROCESSING))

    watch.take([awaiting_payment()])
    await asyncio.sleep(0)
    was_done = waiting.done()
    watch.take([confirmed()])
    await asyncio.wait_for(waiting, 5)

    assert not was_done


async def test_the_orders_that_wait_for_their_stock_are_counted() -> None:
    """Each counts once from being placed until it was decided, whatever is told again."""
    watch = Watch()
    watch.expect(ORDER_ID)
    watch.expect(new_id())

    watch.take([requested(), awaiting_payment(), awaiting_payment(), confirmed()])

    assert watch.undecided == 1
