"""Does telling again what was not heard settle every order, whatever was lost on its way?

The three domains in one process, without databases and Kafka. Any delivery may be lost, as a dead letter that nobody
redrives or with a topic; then whoever was not heard tells again, as a repair has it do, until nobody has to.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops.audit.agreement import RULES, Case, OrderRow, PaymentRow, ReservationRow
from ops.repair.standing import (
    OrderStand,
    PaymentStand,
    ReservationStand,
    Stands,
    find_unheard,
    is_to_be_swept,
)
from services.inventory_service import handlers as inventory
from services.inventory_service.domain.ledger import Ledger
from services.inventory_service.domain.stock import Level
from services.order_service.domain.order import Order
from services.payment_service import handlers as payment_service
from services.payment_service.domain import paying, refunding, telling
from services.payment_service.domain.answers import Refunded
from services.payment_service.domain.attempts import AttemptStatus
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunds import RefundStatus
from services.payment_service.handlers import orders
from shared.envelope import Emitted
from shared.events import OrderFact, OrderRequested, PaymentFact, PaymentStatus, StockFact
from tests import payment_building
from tests.feeding import message
from tests.order_moving import ORDER_ID, cancel, new_order

AT = payment_building.AT
LATER = AT + timedelta(days=1)
ENDS = {"PROCESSING", "REJECTED", "PAYMENT_FAILED", "EXPIRED", "CANCELLED", "REFUNDED"}
_ROUNDS_MAX = 6


@dataclass
class Saga:
    """One order, its reservation and its payment, and what is on its way between them."""

    units: int
    order: Order = field(default_factory=new_order)
    payment: Payment | None = None
    is_hold_over: bool = False
    on_their_way: deque[Emitted] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.ledger = Ledger(AT, levels=[Level("APPLE", available=self.units, stored=True)])
        self.collect()

    def collect(self) -> None:
        """Take what the three have told since."""
        for told in (self.order.emitted, self.ledger.events, self.payment.emitted if self.payment else []):
            self.on_their_way.extend(told)
            told.clear()

    # --- what happens -----------------------------------------------------------------------------------------------

    def deliver(self, *, to_first: bool = True, to_second: bool = True) -> None:
        """Deliver the next event; each of its readers may miss it."""
        if not self.on_their_way:
            return
        item = self.on_their_way.popleft()
        match item.event:
            case OrderFact() as fact:
                if to_first and isinstance(fact, inventory.CONSUMED):
                    self._to_inventory(fact)
                if to_second and isinstance(fact, payment_service.CONSUMED):
                    self._to_payment(fact, item.sequence)
            case StockFact() as fact:
                if to_first:
                    self.order.join_stock(fact, sequence=item.sequence, cause="c", at=AT)
            case PaymentFact() as fact:
                if to_first:
                    self.order.join_payment(fact, sequence=item.sequence, cause="c", at=AT)
                if to_second and isinstance(fact, inventory.CONSUMED):
                    self.ledger.join_payment(fact, "c")
            case _:
                pass  # whether a SKU has run out concerns nobody here
        self.collect()

    def _to_inventory(self, fact: OrderFact) -> None:
        if isinstance(fact, OrderRequested):
            self.ledger.open(fact, "c", 900)
        else:
            self.ledger.join_order(fact, "c")

    def _to_payment(self, fact: OrderFact, sequence: int) -> None:
        payment = self.payment or Payment(order_id=ORDER_ID, attempts_max=1, is_new=True)
        refusal = orders._hear_order(payment, message(fact, sequence=sequence), orders.Policy(), AT)
        if refusal is None:
            self.payment = payment

    def gateway(self, status: AttemptStatus) -> None:
        """Have the customer's attempt end so, as far as there can be one."""
        payment = self.payment
        if payment is None or payment.amount_minor is None:
            return
        if not payment.attempts and paying.refuse_attempt(payment) is None:
            payment_building.an_attempt_of(payment)
        for attempt in payment.attempts.values():
            payment_building.hear(payment, payment_building.a_notice(attempt, status))
        self.collect()

    def cancel(self) -> None:
        """Have the customer cancel."""
        cancel(self.order)
        self.collect()

    def sweep(self) -> None:
        """Let the hold end and be swept."""
        if ORDER_ID in self.ledger.reservations:
            self.ledger.expire(ORDER_ID, LATER, "timer:sweep")
        self.collect()

    def sell_elsewhere(self) -> None:
        """Sell what is available to somebody else."""
        self.ledger.levels["APPLE"].available = 0

    def give_back(self) -> None:
        """Have the gateway make every refund that is due."""
        if self.payment is not None:
            for refund in [*self.payment.refunds.values()]:
                if refund.status is not RefundStatus.SUCCEEDED:
                    refunding.learn_refund(self.payment, refund, Refunded("r"), cause="c", retry_at=AT)
        self.collect()

    # --- the operator -----------------------------------------------------------------------------------------------

    def settle(self) -> int:
        """Deliver everything, then have whoever was not heard tell again, until nobody has to; return how often."""
        for repairs in range(_ROUNDS_MAX):
            while self.on_their_way:
                self.deliver()
            stands = self.stands()
            tellers = {news.teller for news in find_unheard(stands)}
            if is_to_be_swept(stands):
                self.sweep()
            elif not tellers:
                return repairs
            if "order" in tellers:
                self.order.tell_again([], "operator:1", AT)
            if "inventory" in tellers:
                self.ledger.tell_again(ORDER_ID, [], "operator:1")
            if "payment" in tellers and self.payment is not None:
                telling.tell_again(self.payment, [], "operator:1")
            self.collect()
        raise AssertionError(f"still not settled: {find_unheard(self.stands())}")

    def stands(self) -> Stands:
        """Return where the three stand, as a repair reads it from their databases a day later."""
        order, row, payment = self.order, self.ledger.reservations.get(ORDER_ID), self.payment
        return Stands(
            OrderStand(ORDER_ID, order.status, order.is_cancelled, order.stock.facet, order.payment.status),
            None
            if row is None
            else ReservationStand(
                ORDER_ID,
                row.status,
                row.unavailable,
                row.cancelled,
                row.payment_status,
                row.status == "HELD",
                row.sequence > 0,
            ),
            None
            if payment is None
            else PaymentStand(
                ORDER_ID,
                payment.status,
                payment.amount_minor is not None,
                payment.closed,
                any(refund.is_full for refund in payment.refunds.values()),
                payment.sequence > 0,
            ),
        )

    def faults(self) -> list[str]:
        """Return what the audit's rules find (A6 to A9)."""
        return [fault for rule in RULES.values() for fault in rule(self._case())]

    def _case(self) -> Case:
        order, row, payment = self.order, self.ledger.reservations.get(ORDER_ID), self.payment
        return Case(
            OrderRow(ORDER_ID, order.status, order.is_cancelled, order.total_minor, "EUR", None, False),
            None
            if row is None
            else ReservationRow(ORDER_ID, row.status, row.reason, row.unavailable, None, False),
            None if payment is None else _payment_row(payment),
        )


def _payment_row(payment: Payment) -> PaymentRow:
    full = {refund.attempt_id for refund in payment.refunds.values() if refund.is_full}
    settled = [
        attempt
        for attempt in payment.attempts.values()
        if attempt.status is AttemptStatus.SUCCEEDED and attempt.attempt_id not in full
    ]
    first = settled[0] if settled else None
    return PaymentRow(
        ORDER_ID,
        payment.status,
        payment.amount_minor,
        payment.currency,
        len(settled),
        None if first is None else first.amount_minor,
        None if first is None else first.currency,
        None if first is None else first.received_amount_minor,
        None if first is None else first.received_currency,
        None,
        len(settled),
        0,
        0,
        young=False,
    )


#: Most deliveries arrive, so that orders get somewhere before something is lost.
LOSSES = st.sampled_from([*[(True, True)] * 2, (False, True), (True, False), (False, False)])
STEPS = st.lists(
    st.one_of(
        LOSSES,
        LOSSES,
        LOSSES,
        st.sampled_from(["pay", "decline", "expire", "cancel", "sweep", "sell elsewhere", "give back"]),
    ),
    max_size=15,
)


ARRIVES = (True, True)
#: How an order may have got along before anything was lost.
BEGINNINGS: list[list[tuple[bool, bool] | str]] = [
    [],
    [ARRIVES] * 3,
    [*[ARRIVES] * 3, "pay"],
    [*[ARRIVES] * 3, "pay", ARRIVES],
    [*[ARRIVES] * 3, "pay", *[ARRIVES] * 3],
    [*[ARRIVES] * 3, "pay", *[ARRIVES] * 3, "cancel"],
    [*[ARRIVES] * 3, "sweep"],
    [*[ARRIVES] * 3, "sweep", "sell elsewhere", "pay"],
    [*[ARRIVES] * 3, "sweep", *[ARRIVES] * 3, "pay"],
]


@settings(max_examples=400, deadline=None)
# The order alone misses that it is paid.
@example(beginning=BEGINNINGS[3], losses=[(False, True)], units=10)
@given(beginning=st.sampled_from(BEGINNINGS), losses=STEPS, units=st.sampled_from([0, 2, 10]))
def test_whatever_was_lost_telling_again_settles_the_order(
    beginning: list[tuple[bool, bool] | str], losses: list[tuple[bool, bool] | str], units: int
) -> None:
    """Every order ends, the audit's rules find nothing, and a second repair finds nothing to do."""
    saga = Saga(units)
    for step in [*beginning, *losses]:
        match step:
            case (to_first, to_second):
                saga.deliver(to_first=to_first, to_second=to_second)
            case "pay":
                saga.gateway(AttemptStatus.SUCCEEDED)
            case "decline":
                saga.gateway(AttemptStatus.FAILED)
            case "expire":
                saga.gateway(AttemptStatus.EXPIRED)
            case "cancel":
                saga.cancel()
            case "sweep":
                saga.sweep()
            case "sell elsewhere":
                saga.sell_elsewhere()
            case _:
                saga.give_back()
    # Everything that is still on its way is lost, too.
    saga.on_their_way.clear()

    saga.settle()
    while_held = saga.faults()
    saga.is_hold_over = True
    saga.settle()
    saga.give_back()
    saga.settle()

    assert while_held == []
    assert saga.faults() == []
    assert saga.order.status in ENDS
    assert saga.settle() == 0
    moved = [str(movement.kind) for movement in saga.ledger.movements]
    assert moved.count("RESERVED") - moved.count("RELEASED") - moved.count("CONFIRMED") == 0
    paid = saga.payment is not None and saga.payment.status is PaymentStatus.SUCCEEDED
    assert (moved.count("CONFIRMED") > moved.count("RETURNED")) is (saga.order.status == "PROCESSING") is paid
