"""Where does every order of the demo stand? Told by the events on Kafka alone, as any other system would learn it."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

from shared.envelope import Record, decode, header
from shared.events import (
    CATALOGUE,
    ORDER_TOPIC,
    PAYMENT_TOPIC,
    OrderFact,
    OrderStatus,
    PaymentAttemptFailed,
    PaymentQuarantined,
    PaymentRefunded,
)
from shared.kafka import TopicReader

TOPICS = (ORDER_TOPIC, PAYMENT_TOPIC)

_OF_A_PAYMENT = PaymentAttemptFailed | PaymentQuarantined | PaymentRefunded

OPEN = frozenset({OrderStatus.REQUESTED, OrderStatus.AWAITING_PAYMENT, OrderStatus.REFUND_DUE})

_POLL_SECONDS = 0.25


@dataclass(slots=True)
class OrderView:
    """What the events have said so far about one order; times are those of `time.perf_counter`."""

    placed_at: float
    decided_at: float | None = None
    status: OrderStatus | None = None
    sequence: int = 0
    failed_attempts: set[UUID] = field(default_factory=set)
    refunded_attempts: set[UUID] = field(default_factory=set)
    quarantined_attempts: set[UUID] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_open(self) -> bool:
        """Whether something is still to happen to the order."""
        return self.status is None or self.status in OPEN

    @property
    def is_decided(self) -> bool:
        """Whether the order is past the question if there is stock for it."""
        return self.decided_at is not None

    async def until(self, condition: Callable[["OrderView"], bool]) -> None:
        """Wait until the order is as the condition wants it."""
        while not condition(self):
            await self._news.wait()

    async def until_in(self, *statuses: OrderStatus) -> None:
        """Wait until the order stands in one of these."""
        await self.until(lambda order: order.status in statuses)

    def take(
        self,
        fact: OrderFact | PaymentAttemptFailed | PaymentQuarantined | PaymentRefunded,
        sequence: int,
        at: float,
    ) -> None:
        """Learn from one event, which may be repeated or late."""
        match fact:
            case OrderFact():
                if sequence <= self.sequence:
                    return
                self.sequence, self.status = sequence, fact.order_status
                if self.decided_at is None and self.status is not OrderStatus.REQUESTED:
                    self.decided_at = at
            case PaymentAttemptFailed():
                self.failed_attempts.add(fact.attempt_id)
            case PaymentQuarantined():
                self.quarantined_attempts.add(fact.attempt_id)
            case PaymentRefunded():
                self.refunded_attempts.add(fact.attempt_id)
        self._news.set()
        self._news = asyncio.Event()


class Watch:
    """Every order of the demo, and what the events say about it; `undecided` still wait for their stock."""

    def __init__(self) -> None:
        self.orders: dict[UUID, OrderView] = {}
        self._news_at = time.perf_counter()
        self.undecided = 0

    @property
    def silent_seconds(self) -> float:
        """How long ago anything was heard of an order of the demo."""
        return time.perf_counter() - self._news_at

    def expect(self, order_id: UUID) -> OrderView:
        """Begin to watch an order, which is placed now."""
        order = self.orders[order_id] = OrderView(time.perf_counter())
        self.undecided += 1
        return order

    async def run(self, reader: TopicReader) -> None:
        """Read events for ever."""
        while True:
            self.take(await reader.poll(_POLL_SECONDS))

    def take(self, records: Iterable[Record]) -> None:
        """Learn from what has arrived; events about other orders do not matter."""
        at = time.perf_counter()
        for record in records:
            model = CATALOGUE[record.topic].get((header(record.headers, "ce_type") or b"").decode())
            if model is None or not issubclass(model, OrderFact | _OF_A_PAYMENT):
                continue
            message = decode(record, model, group="")
            fact = message.event
            assert isinstance(fact, OrderFact | _OF_A_PAYMENT)  # noqa: S101 (as asked)
            order = self.orders.get(fact.order_id)
            if order is None:
                continue
            was_decided = order.is_decided
            order.take(fact, message.sequence, at)
            self.undecided -= order.is_decided and not was_decided
            self._news_at = at
