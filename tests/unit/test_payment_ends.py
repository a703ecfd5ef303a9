"""Does every schedule of gateways, losses and cancellations end with goods or with the money back, never with both?

A small world around the payment: a gateway that knows what became of each attempt, tells it once, often, late or never,
and answers when it is asked; an order that may be cancelled or run out; operators who decide about the quarantine.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from services.payment_service.domain import paying, refunding, resolving
from services.payment_service.domain.answers import Created, Refunded, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice, Task
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.reconciling import reconcile
from services.payment_service.domain.refunds import RefundStatus
from services.payment_service.domain.resolving import Action, Decision
from services.payment_service.domain.schedule import DEFAULT_SCHEDULE
from shared.events import PaymentStatus
from shared.ids import new_id
from tests.payment_building import AT, a_notice, an_open_payment, told

Fate = Literal["success", "failure", "expiry", "mismatch", "nothing"]
_SAID = {
    "success": AttemptStatus.SUCCEEDED,
    "mismatch": AttemptStatus.SUCCEEDED,
    "failure": AttemptStatus.FAILED,
    "expiry": AttemptStatus.EXPIRED,
    "nothing": AttemptStatus.PENDING,
}
#: What happens in between: `0` and `1` are deliveries about an attempt; the rest speaks for itself.
STEPS = ("start", "start", "create", "0", "0", "1", "1", "cancel", "hold end", "ask", "silence", "call back")


@dataclass
class World:
    """A payment of up to two attempts, and what its gateway knows of them."""

    fates: tuple[Fate, Fate]
    payment: Payment = field(default_factory=lambda: an_open_payment(attempts_max=2))
    attempts: list[Attempt] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    order_cancelled: bool = False
    held: bool = True
    at: datetime = AT

    def do(self, step: str) -> None:
        """Have one thing happen, as far as it can."""
        match step:
            case "start":
                if len(self.attempts) < 2 and paying.refuse_attempt(self.payment) is None:
                    attempt = paying.start_attempt(
                        self.payment, new_id(), "sandbox", task_at=self.at, at=self.at
                    )
                    self.attempts.append(attempt)
            case "create":
                self.work(Task.CREATE)
            case "call back":
                self.work(Task.CANCEL)
            case "cancel":
                self.order_cancelled = True
                paying.close_payment(self.payment, cause="test", at=self.at)
            case "hold end":
                self.held = False
                self.at = max(self.at, AT + timedelta(minutes=16))
                paying.close_payment(self.payment, cause="test", at=self.at)
            case "ask":
                self.ask(answers=True)
            case "silence":
                self.ask(answers=False)
            case place:
                if int(place) < len(self.attempts):
                    self.hear(int(place))

    def said(self, place: int) -> Notice:
        """Return where the gateway says that an attempt stands."""
        attempt, fate = self.attempts[place], self.fates[place]
        if place in self.cancelled:
            return a_notice(attempt, AttemptStatus.CANCELLED)
        changes = {"amount_minor": 1} if fate == "mismatch" else {}
        return a_notice(attempt, _SAID[fate], transaction_id=f"t-{place}", **changes)

    def hear(self, place: int) -> None:
        """Deliver a webhook, before the answer to the creation, twice, or long after."""
        paying.hear(self.payment, self.attempts[place], self.said(place), cause="webhook:1", at=self.at)

    def work(self, task: Task) -> None:
        """Do what is to be asked of the gateway; what it has not settled yet it cancels at our wish."""
        for place, attempt in enumerate(self.attempts):
            if attempt.task is task:
                answer: Created | Notice = Created(f"t-{place}", None, "pending")
                if task is Task.CANCEL:
                    if self.fates[place] == "nothing":
                        self.cancelled.add(place)
                    answer = self.said(place)
                paying.learn(
                    self.payment, attempt, answer, cause="test", at=self.at, retry_at=self.at + timedelta(1)
                )

    def ask(self, *, answers: bool) -> None:
        """Reconcile all attempts that are ever to be asked about, when their time has come."""
        for place, attempt in enumerate(self.attempts):
            if attempt.ask_at is not None:
                self.at = max(self.at, attempt.ask_at)
                answer = self.said(place) if answers else Unanswered("no answer")
                reconcile(
                    self.payment,
                    attempt,
                    answer,
                    schedule=DEFAULT_SCHEDULE,
                    cause="timer:reconcile",
                    at=self.at,
                    retry_at=self.at + timedelta(minutes=1),
                )

    def finish(self, action: Action, *, units_left: bool) -> bool:
        """Let workers, operators, inventory and the order service do their part; return whether goods were given."""
        for _ in range(20):
            self.work(Task.CREATE)
            self.ask(answers=True)
            self.work(Task.CANCEL)
        for attempt in self.attempts:
            if attempt.review_at is not None:
                decision = Decision(new_id(), action, "decided", "ann", None, "http:1")
                assert not isinstance(
                    resolving.resolve(self.payment, attempt, decision, at=self.at), Exception
                )
        gives = self.payment.status is PaymentStatus.SUCCEEDED and not self.order_cancelled
        gives = gives and (self.held or units_left)
        if self.payment.status is PaymentStatus.SUCCEEDED and not gives:
            refunding.refund_settled(self.payment, "unavailable", cause="test", at=self.at)
        for refund in list(self.payment.refunds.values()):
            refunding.learn_refund(self.payment, refund, Refunded(None), cause="test", retry_at=self.at)
        return gives


fates = st.sampled_from(["success", "failure", "expiry", "mismatch", "nothing"])


@settings(max_examples=500, deadline=None)
@given(
    known=st.tuples(fates, fates),
    schedule=st.lists(st.sampled_from(STEPS), max_size=20),
    action=st.sampled_from(list(Action)),
    units_left=st.booleans(),
)
@example(
    known=("success", "success"),
    schedule=["start", "create", "start", "create", "1", "0"],
    action=Action.ACCEPT,
    units_left=True,
)
@example(
    known=("success", "nothing"), schedule=["create", "hold end"], action=Action.ACCEPT, units_left=False
)
def test_every_schedule_ends_with_goods_or_with_the_money_back(
    known: tuple[Fate, Fate], schedule: list[str], action: Action, *, units_left: bool
) -> None:
    """Each amount that a gateway took is either the one that goods are given for, or is given back in full."""
    world = World(known)
    for step in ["start", *schedule]:
        world.do(step)

    gives = world.finish(action, units_left=units_left)

    payment = world.payment
    event(f"{payment.status}, {'goods' if gives else 'no goods'}")
    for place, attempt in enumerate(world.attempts):
        assert not attempt.is_live
        assert (attempt.task, attempt.ask_at, attempt.review_at) == (None, None, None)
        is_money = known[place] in {"success", "mismatch"}
        assert (attempt.received_amount_minor is not None) is is_money
        given_back = sum(refund.amount_minor for refund in payment.refunds_of(attempt))
        is_paid_for = gives and attempt.attempt_id == payment.settled_attempt_id
        assert given_back == (0 if is_paid_for or not is_money else attempt.received_amount_minor)
    assert all(refund.status is RefundStatus.SUCCEEDED for refund in payment.refunds.values())
    assert gives is (payment.status is PaymentStatus.SUCCEEDED)
    assert told(payment).count("PaymentSucceeded") <= 1
    assert told(payment).count("PaymentRefunded") == len(payment.refunds)
