"""Which events and commands do the services exchange, and what does each carry?

Events are facts in the past tense, commands imperatives. Every event carries where its producer stands (its state),
whatever its type; consumers join that state by rank, so a late or repeated delivery adds nothing wrong.
Money is in integer minor units of an ISO 4217 currency; times are RFC 3339 in UTC.
"""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

COMMANDS_TOPIC = "order.commands"
ORDER_TOPIC = "order.events"
INVENTORY_TOPIC = "inventory.events"
PAYMENT_TOPIC = "payment.events"

#: The largest integer that every JSON reader keeps exactly (RFC 8259, section 6).
INTEGER_MAX = 2**53 - 1

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
Sku = Identifier
LineQuantity = Annotated[int, Field(ge=1, le=1_000_000)]
Quantity = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
Minor = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
#: How a customer means to pay: a word of the shop's own, such as `card` or `bank_transfer`.
PaymentMethod = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
HoldSeconds = Annotated[int, Field(ge=10, le=86_400)]
# Without NUL, which Postgres stores in no text.
Text = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]


class OrderStatus(StrEnum):
    """Where an order stands, as its customer sees it."""

    REQUESTED = "REQUESTED"
    AWAITING_PAYMENT = "AWAITING_PAYMENT"
    PROCESSING = "PROCESSING"
    REJECTED = "REJECTED"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"
    REFUND_DUE = "REFUND_DUE"
    REFUNDED = "REFUNDED"


class ReservationStatus(StrEnum):
    """Where the units of an order stand."""

    HELD = "HELD"
    REJECTED = "REJECTED"
    CONFIRMED = "CONFIRMED"
    RELEASED = "RELEASED"
    RETURNED = "RETURNED"


class PaymentStatus(StrEnum):
    """Where the money of an order stands."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    REFUNDED = "REFUNDED"
    QUARANTINED = "QUARANTINED"


RejectionReason = Literal[
    "insufficient_stock", "unknown_sku", "inactive_product", "currency", "total_changed", "empty_cart"
]
ReleaseReason = Literal["payment_failed", "expired", "cancelled", "refunded"]
ReturnReason = Literal["cancelled", "refunded"]
UnavailableReason = Literal["sold_since", "cancelled", "rejected"]
PaymentReason = Literal["declined", "expired", "cancelled"]
RefundReason = Literal["unavailable", "cancelled", "overpayment", "operator"]


class Wire(BaseModel):
    """What crosses a process boundary: strict JSON types, unknown fields passed over, never changed once made."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    type: ClassVar[str]
    topic: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Give every message its name on the wire: the class name and its version."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.type = f"{cls.__name__}.v1"


class Line(BaseModel):
    """Some units of one SKU."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    sku: Sku
    quantity: Quantity


class PricedLine(Line):
    """Some units of one SKU at the price they were ordered for."""

    unit_price_minor: Minor


class OrderedLine(Line):
    """Some units of one SKU as a storefront asks for them."""

    quantity: LineQuantity


class Shortage(BaseModel):
    """A SKU of which there are fewer units than asked for."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    sku: Sku
    requested: Quantity
    available: Minor


# --- commands -------------------------------------------------------------------------------------------------------


class Command(Wire):
    """What a storefront wants done to one order."""

    topic = COMMANDS_TOPIC

    order_id: UUID


class PlaceOrder(Command):
    """Place an order: either its lines, or the cart that holds them."""

    customer_id: Identifier
    lines: Annotated[tuple[OrderedLine, ...], Field(min_length=1, max_length=500, strict=False)] | None = None
    cart_id: Identifier | None = None
    currency: Currency
    expected_total_minor: Minor | None = None
    hold_seconds: HoldSeconds | None = None
    #: Without `hold_seconds` the units are held as long as this needs, where the order service knows it.
    payment_method: PaymentMethod | None = None

    @model_validator(mode="after")
    def _lines_or_cart(self) -> "PlaceOrder":
        if (self.lines is None) == (self.cart_id is None):
            message = "exactly one of lines and cart_id is needed"
            raise ValueError(message)
        return self


class CancelOrder(Command):
    """Cancel an order."""

    reason: Text | None = None


# --- order.events ---------------------------------------------------------------------------------------------------


class OrderFact(Wire):
    """What every event of the order service says: where the order stands."""

    topic = ORDER_TOPIC

    order_id: UUID
    order_status: OrderStatus
    cancelled: bool


class OrderRequested(OrderFact):
    """An order was accepted, priced and stored: its stock may be reserved."""

    customer_id: Identifier
    lines: tuple[PricedLine, ...] = Field(strict=False)
    total_minor: Minor
    currency: Currency
    hold_seconds: HoldSeconds | None


class OrderAwaitingPayment(OrderFact):
    """The stock of an order is held: it may be paid until `pay_by`."""

    customer_id: Identifier
    total_minor: Minor
    currency: Currency
    pay_by: AwareDatetime


class OrderConfirmed(OrderFact):
    """An order is paid and its goods are sold: it may be shipped."""

    customer_id: Identifier
    lines: tuple[PricedLine, ...] = Field(strict=False)
    total_minor: Minor
    currency: Currency
    paid_at: AwareDatetime


class OrderRejected(OrderFact):
    """An order could not be accepted."""

    reason: RejectionReason
    details: dict[str, Any]


class OrderPaymentFailed(OrderFact):
    """An order ended because its payment failed."""

    reason: str


class OrderExpired(OrderFact):
    """An order ended because it was not paid in time."""

    reason: str


class OrderCancelled(OrderFact):
    """An order was cancelled."""

    reason: str | None
    requested_by: str


class OrderRefundRequested(OrderFact):
    """The money of an order must go back."""

    amount_minor: Minor
    currency: Currency
    reason: RefundReason


class OrderRefunded(OrderFact):
    """The money of an order went back."""

    amount_minor: Minor
    currency: Currency


# --- inventory.events -----------------------------------------------------------------------------------------------


class StockFact(Wire):
    """What every event of the inventory service about an order says: where its reservation stands."""

    topic = INVENTORY_TOPIC

    order_id: UUID
    reservation_status: ReservationStatus
    reservation_reason: str | None
    unavailable: bool


class StockReserved(StockFact):
    """All lines of an order are held until `expires_at`."""

    lines: tuple[Line, ...] = Field(strict=False)
    expires_at: AwareDatetime


class StockRejected(StockFact):
    """Some line of an order could not be held, so none is."""

    shortages: tuple[Shortage, ...] = Field(strict=False)


class StockConfirmed(StockFact):
    """The hold of an order became a sale; `late` if it had been given back and was taken again."""

    lines: tuple[Line, ...] = Field(strict=False)
    late: bool


class StockReleased(StockFact):
    """The hold of an order was given back."""

    lines: tuple[Line, ...] = Field(strict=False)
    reason: ReleaseReason


class StockReturned(StockFact):
    """The sold units of an order were given back."""

    lines: tuple[Line, ...] = Field(strict=False)
    reason: ReturnReason


class StockUnavailable(StockFact):
    """An order was paid, but there is nothing to confirm: its money must go back."""

    reason: UnavailableReason


class SkuFact(Wire):
    """What every event about a SKU alone says; the newest by sequence wins."""

    topic = INVENTORY_TOPIC

    sku: Sku


class StockDepleted(SkuFact):
    """No unit of the SKU is available any more."""


class StockReplenished(SkuFact):
    """Units of the SKU are available again."""


# --- payment.events -------------------------------------------------------------------------------------------------


class PaymentFact(Wire):
    """What every event of the payment service says: where the payment stands."""

    topic = PAYMENT_TOPIC

    order_id: UUID
    payment_status: PaymentStatus
    payment_reason: PaymentReason | None
    settled_attempt_id: UUID | None
    settled_amount_minor: Minor | None
    settled_currency: Currency | None
    refunded_minor: Minor
    paid_at: AwareDatetime | None


class PaymentInitiated(PaymentFact):
    """A gateway is ready to take the money of an attempt."""

    attempt_id: UUID
    gateway: str
    gateway_transaction_id: str | None
    payment_url: str | None
    amount_minor: Minor
    currency: Currency
    expires_at: AwareDatetime | None


class PaymentAttemptFailed(PaymentFact):
    """An attempt failed, and others are still allowed."""

    attempt_id: UUID
    gateway: str
    reason: str
    attempts_left: Minor


class PaymentSucceeded(PaymentFact):
    """An order is paid: the first success settles its payment for ever."""

    attempt_id: UUID
    gateway: str
    gateway_transaction_id: str | None
    amount_minor: Minor
    currency: Currency
    paid_at: AwareDatetime


class PaymentFailed(PaymentFact):
    """An order will not be paid."""

    reason: PaymentReason
    attempts: Minor


class PaymentRefunded(PaymentFact):
    """A gateway gave money back."""

    attempt_id: UUID
    amount_minor: Minor
    currency: Currency
    reason: RefundReason


class PaymentRefundFailed(PaymentFact):
    """A gateway refused to give money back; it is asked again."""

    attempt_id: UUID
    amount_minor: Minor
    currency: Currency
    reason: RefundReason


class PaymentQuarantined(PaymentFact):
    """A success does not match what was asked for: an operator decides."""

    attempt_id: UUID
    reason: str
    expected_amount_minor: Minor
    expected_currency: Currency
    received_amount_minor: Minor | None
    received_currency: str | None


Event = OrderFact | StockFact | SkuFact | PaymentFact


def _leaves(base: type[Wire]) -> list[type[Wire]]:
    """Return the concrete messages below a base, in the order they are written above."""
    below = base.__subclasses__()
    return [leaf for child in below for leaf in _leaves(child)] if below else [base]


#: Every command and event by topic, then by its name on the wire.
CATALOGUE: dict[str, dict[str, type[Wire]]] = {}
for _message in _leaves(Wire):
    CATALOGUE.setdefault(_message.topic, {})[_message.type] = _message

#: The CloudEvents source of each topic's events.
SOURCES: dict[str, str] = {
    ORDER_TOPIC: "/holdfast/order-service",
    INVENTORY_TOPIC: "/holdfast/inventory-service",
    PAYMENT_TOPIC: "/holdfast/payment-service",
}
