"""What do the three databases and the topics say of one order? The rows as they are read, without any judgement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class OrderRow(NamedTuple):
    """An order; `stock` and `payment` are what it has heard of the two others."""

    status: str
    reason: str | None
    version: int
    customer_id: str
    total_minor: int
    currency: str
    pay_by: datetime | None
    stock: str
    payment: str | None
    cancelled: bool
    cancel_reason: str | None
    cancel_requested_by: str | None
    created_at: datetime
    updated_at: datetime


class HistoryRow(NamedTuple):
    """A step of an order."""

    version: int
    status: str
    reason: str | None
    cause: str
    at: datetime


class ReservationRow(NamedTuple):
    """A reservation; `status` is None where it only remembers what it heard before the order."""

    status: str | None
    reason: str | None
    expires_at: datetime | None
    unavailable: bool
    cancelled: bool
    payment_status: str
    updated_at: datetime


class MovementRow(NamedTuple):
    """Units of one SKU that moved for an order."""

    sku: str
    kind: str
    round: int
    quantity: int
    cause: str
    at: datetime


class PaymentRow(NamedTuple):
    """A payment; `amount_minor` is None where only the order's end was heard of."""

    status: str
    reason: str | None
    amount_minor: int | None
    currency: str | None
    pay_by: datetime | None
    attempts_max: int
    settled_attempt_id: UUID | None
    settled_amount_minor: int | None
    settled_currency: str | None
    refunded_minor: int
    paid_at: datetime | None
    created_at: datetime


class AttemptRow(NamedTuple):
    """An attempt to pay; `native_status` is the gateway's own word.

    `review_at` says since when an operator must look at it, `review_reason` why, `dispute` how its money is contested.
    """

    attempt_id: UUID
    gateway: str
    gateway_transaction_id: str | None
    status: str
    amount_minor: int
    currency: str
    received_amount_minor: int | None
    received_currency: str | None
    accepted_amount_minor: int | None
    native_status: str | None
    expires_at: datetime | None
    dispute: str | None
    review_at: datetime | None
    review_reason: str | None
    created_at: datetime
    updated_at: datetime


class WebhookRow(NamedTuple):
    """A delivery as it came; `judge_at` is None when its verdict is final."""

    webhook_id: int
    gateway: str
    event_id: str
    verdict: str | None
    reason: str | None
    received_at: datetime
    judge_at: datetime | None
    body: bytes


class RefundRow(NamedTuple):
    """Money of an attempt that goes back; `next_try_at` is None when it has gone back."""

    refund_id: UUID
    attempt_id: UUID
    gateway: str
    amount_minor: int
    currency: str
    reason: str
    status: str
    note: str | None
    error: str | None
    tries: int
    next_try_at: datetime | None
    created_at: datetime
    updated_at: datetime


class ResolutionRow(NamedTuple):
    """What an operator decided about an attempt: `accept` or `refund`, and why."""

    attempt_id: UUID
    action: str
    reason: str
    review_reason: str
    decided_by: str
    created_at: datetime


class WaitingRow(NamedTuple):
    """A message that waits in an outbox; `headers` by name."""

    event_id: UUID
    topic: str
    type: str
    sequence: int
    headers: Mapping[str, str]
    created_at: datetime


class InboxRow(NamedTuple):
    """What a service has done with a message: `handled` or `dead`."""

    event_id: UUID
    outcome: str
    handled_at: datetime


class Letter(NamedTuple):
    """Why a group refused a message: one word and a sentence, and where it had read it."""

    group: str
    reason: str
    detail: str
    read_at: str


class Position(NamedTuple):
    """A message about the order in a topic; `letter` if it lies among dead letters."""

    topic: str
    partition: int
    offset: int
    type: str
    event_id: str | None
    sequence: int | None
    at: datetime
    cause: str | None
    redriven_to: str | None
    letter: Letter | None

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.topic}[{self.partition}] offset {self.offset}"


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """What the order service's database holds of an order."""

    order: OrderRow | None = None
    history: Sequence[HistoryRow] = ()
    waiting: Sequence[WaitingRow] = ()


@dataclass(frozen=True, slots=True)
class StockFacts:
    """What inventory's database holds of an order."""

    reservation: ReservationRow | None = None
    movements: Sequence[MovementRow] = ()
    waiting: Sequence[WaitingRow] = ()


@dataclass(frozen=True, slots=True)
class PaymentFacts:
    """What the payment service's database holds of an order."""

    payment: PaymentRow | None = None
    attempts: Sequence[AttemptRow] = ()
    webhooks: Sequence[WebhookRow] = ()
    refunds: Sequence[RefundRow] = ()
    resolutions: Sequence[ResolutionRow] = ()
    waiting: Sequence[WaitingRow] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of an order. A database that did not answer is None; `inboxes` are by service.

    `positions` is None where Kafka was not asked, or did not answer.
    """

    order: OrderFacts | None
    stock: StockFacts | None
    payment: PaymentFacts | None
    positions: Sequence[Position] | None = None
    inboxes: Mapping[str, Sequence[InboxRow]] | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything at all is known of the order."""
        rows = (
            self.order and self.order.order,
            self.stock and self.stock.reservation,
            self.payment and (self.payment.payment or self.payment.webhooks),
            self.positions,
            self.waiting,
        )
        return any(rows)

    @property
    def began_at(self) -> datetime | None:
        """When the first of the databases heard of the order, as far as is known."""
        times = (
            self.order and self.order.order and self.order.order.created_at,
            self.payment and self.payment.payment and self.payment.payment.created_at,
        )
        return min((at for at in times if at), default=None)

    @property
    def waiting(self) -> list[WaitingRow]:
        """What waits in the three outboxes."""
        return [row for facts in (self.order, self.stock, self.payment) if facts for row in facts.waiting]

    @property
    def letters(self) -> list[Position]:
        """The dead letters about the order, in the order of their topics."""
        return [position for position in self.positions or () if position.letter is not None]
