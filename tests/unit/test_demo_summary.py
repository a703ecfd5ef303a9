"""Does the summary say what was seen, and does it see what is wrong?"""

from dataclasses import replace
from io import StringIO

import orjson
import pytest
from rich.console import Console

from benchmarks.baskets import Basket, Line, RealInput, collect
from ops.audit import AuditReport, Finding
from ops.demo.day import Visit
from ops.demo.plan import Plan, PlannedOrder, Story
from ops.demo.shop import Money
from ops.demo.summary import DemoSummary, Observed, percentile, render_summary, summarize
from ops.demo.watch import OrderView
from shared.events import OrderStatus
from shared.ids import new_id

BASKETS = (
    Basket(1, "900", (Line("a", 2), Line("b", 1))),
    Basket(2, "901", (Line("a", 1),)),
)
ORDERS = (
    PlannedOrder(BASKETS[0], Story.PAYS, 500, may_be_short=False, same_command_again=True),
    PlannedOrder(BASKETS[1], Story.IS_DECLINED, 200, may_be_short=False),
)
CLEAN = AuditReport(ok=True, findings=[])


def visit(planned: PlannedOrder, status: OrderStatus | None, latency_seconds: float = 0.1) -> Visit:
    """An order that was placed at 10 s and seen in a status."""
    view = OrderView(placed_at=10.0, status=status, decided_at=10.0 + latency_seconds)
    return Visit(planned, new_id(), view)


def observed() -> Observed:
    """One order paid, one declined, all books right."""
    return Observed(
        visits=[visit(ORDERS[0], OrderStatus.PROCESSING), visit(ORDERS[1], OrderStatus.PAYMENT_FAILED, 0.5)],
        problems=[],
        units_sold=3,
        money=Money(taken_minor=700, given_back_minor=200),
        webhook_verdicts={"applied": 2, "duplicate": 4, "regressive": 1},
        ended_at=20.0,
        audit=CLEAN,
    )


def summary(seen: Observed) -> DemoSummary:
    """What is said of it."""
    real = RealInput(BASKETS, {}, collect([], 1)[2])
    return summarize(real, Plan(ORDERS, {}, frozenset()), seen)


def test_a_good_day_is_ok() -> None:
    """With every order ended as its story allows, every book in agreement and a clean audit, the demo passes."""
    said = summary(observed())

    assert said.ok
    assert said.by_status == {"PROCESSING": 1, "PAYMENT_FAILED": 1}
    assert said.as_dict()["duplicates_absorbed"] == 6
    assert said.timing.seconds == 10.0
    assert said.timing.orders_per_second == 4.0
    assert (said.timing.latency_ms_p50, said.timing.latency_ms_p99) == (100.0, 500.0)


def test_json_can_be_written() -> None:
    """What `--json` prints is one object of plain values."""
    said = orjson.loads(orjson.dumps(summary(observed()).as_dict()))

    assert said["money"] == {"currency": "USD", "taken_minor": 700, "given_back_minor": 200}
    assert said["audit"]["ok"] is True


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            {"visits": [visit(ORDERS[0], OrderStatus.PROCESSING), visit(ORDERS[1], OrderStatus.PROCESSING)]},
            "declined",
        ),
        ({"units_sold": 4}, "sold 4 units for confirmed orders of 3"),
        ({"money": Money(taken_minor=701, given_back_minor=200)}, "kept 501 cents"),
        ({"problems": ["a customer could not pay"]}, "could not pay"),
        ({"audit": AuditReport(ok=True, findings=[], counted={"dead_letters": 2})}, "2 messages became dead"),
    ],
    ids=["wrong end", "units", "money", "customer", "dead letters"],
)
def test_what_is_wrong_is_said(fault: dict[str, object], words: str) -> None:
    """An order that ends otherwise than planned, books that disagree and dead letters fail the demo."""
    said = summary(replace(observed(), **fault))  # type: ignore[arg-type] # the fields are named above

    assert not said.ok
    assert any(words in problem for problem in said.problems)


@pytest.mark.parametrize("status", [OrderStatus.AWAITING_PAYMENT, OrderStatus.REFUND_DUE, None])
def test_an_open_order_fails_the_demo(status: OrderStatus | None) -> None:
    """Nothing may be left hanging."""
    seen = observed()

    said = summary(replace(seen, visits=[seen.visits[0], visit(ORDERS[1], status)]))

    assert not said.ok
    assert len(said.open_orders) == 1


@pytest.mark.parametrize(("hold_seconds", "is_right"), [(10, True), (None, False)])
def test_who_comes_too_late_to_the_till_may_end_expired(hold_seconds: int | None, *, is_right: bool) -> None:
    """A short hold can run out while the system is away; a long one cannot, and then it is a fault."""
    planned = PlannedOrder(BASKETS[1], Story.PAYS_LATE, 200, may_be_short=False, hold_seconds=hold_seconds)
    late = visit(planned, OrderStatus.EXPIRED)
    late.turned_away = True
    seen = observed()

    said = summary(replace(seen, visits=[seen.visits[0], late]))

    assert said.ok == is_right


def test_a_finding_of_the_audit_fails_the_demo() -> None:
    """The audit has the last word, and a person reads it."""
    report = AuditReport(ok=False, findings=[Finding("A1", "a", "available -1")])
    said = summary(replace(observed(), audit=report))
    text = StringIO()

    render_summary(said, Console(file=text, width=160))

    assert not said.ok
    assert "available -1" in text.getvalue()


def test_a_percentile_is_a_value_that_was_seen() -> None:
    """The smallest value that so large a share of all values does not exceed; 0 when nothing was seen."""
    values = [float(value) for value in range(1, 101)]

    assert (
        percentile(values, 0.5),
        percentile(values, 0.99),
        percentile([7.0], 0.99),
        percentile([], 0.5),
    ) == (
        50.0,
        99.0,
        7.0,
        0.0,
    )
