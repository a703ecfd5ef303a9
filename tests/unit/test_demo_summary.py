"""Does the summary say what was seen, and does it see what is wrong?"""

from dataclasses import replace
from io import StringIO

import orjson
import pytest
from rich.console import Console

from benchmarks.baskets import Basket, Line, RealInput, collect
from ops.audit import AuditReport, Finding
from ops.demo.banks import Money
from ops.demo.day import Visit
from ops.demo.market import GatewayName
from ops.demo.plan import Plan, PlannedOrder, Story
from ops.demo.rendering import render_summary
from ops.demo.summary import DemoSummary, Observed, percentile, summarize
from ops.demo.watch import OrderView
from shared.events import OrderStatus
from shared.ids import new_id

BASKETS = (
    Basket(1, "900", (Line("a", 2), Line("b", 1))),
    Basket(2, "901", (Line("a", 1),)),
)
ORDERS = (
    PlannedOrder(BASKETS[0], Story.PAYS, 500, same_command_again=True),
    PlannedOrder(BASKETS[1], Story.IS_DECLINED, 200),
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
        money={"sandbox": Money(taken_minor=700, given_back_minor=200)},
        webhook_verdicts={
            ("sandbox", "applied"): 2,
            ("sandbox", "duplicate"): 4,
            ("sandbox", "regressive"): 1,
        },
        found_by_asking={"sandbox": 1},
        ended_at=20.0,
        audit=CLEAN,
    )


def summary(seen: Observed) -> DemoSummary:
    """What is said of it."""
    real = RealInput(BASKETS, {}, collect([], 1)[2])
    return summarize(real, Plan(ORDERS, {}, frozenset()), seen, left_out={})


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
        ({"money": {"sandbox": Money(taken_minor=701, given_back_minor=200)}}, "sandbox kept 5.01 USD"),
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
    planned = PlannedOrder(BASKETS[1], Story.PAYS_LATE, 200, hold_seconds=hold_seconds)
    late = visit(planned, OrderStatus.EXPIRED)
    late.turned_away = True
    seen = observed()

    said = summary(replace(seen, visits=[seen.visits[0], late]))

    assert said.ok == is_right


def at_a_gateway(gateway: GatewayName, story: Story, status: OrderStatus, total_minor: int) -> Visit:
    """An order of one product paid in one way."""
    basket = Basket(9, "909", (Line("c", 1),))
    return visit(PlannedOrder(basket, story, total_minor, gateway), status)


def test_what_went_wrong_outside_is_told_by_gateway() -> None:
    """Lost webhooks, second payments, late money and an operator's decisions are counted, each currency for itself."""
    lost = at_a_gateway("stripe", Story.PAYS_UNHEARD, OrderStatus.PROCESSING, 300)
    twice = at_a_gateway("midtrans", Story.PAYS_TWICE, OrderStatus.PROCESSING, 1_000_000)
    late = at_a_gateway("midtrans", Story.PAYS_LATE, OrderStatus.REFUNDED, 2_000_000)
    for refunded in (twice, late):
        assert refunded.view is not None
        refunded.view.refunded_attempts.add(new_id())
    assert late.view is not None
    late.view.quarantined_attempts.add(new_id())
    seen = replace(
        observed(),
        visits=[*observed().visits, lost, twice, late],
        units_sold=5,
        money={
            "sandbox": Money(700, 200),
            "stripe": Money(300, 0),
            "midtrans": Money(4_000_000, 3_000_000),
        },
    )

    said = summary(seen).as_dict()

    assert not [problem for problem in said["problems"] if "kept" in problem or "sold" in problem]
    assert said["money"] == {"currency": "USD", "taken_minor": 1_000, "given_back_minor": 200}
    assert said["money_by_currency"]["IDR"] == {"taken_minor": 4_000_000, "given_back_minor": 3_000_000}
    assert [(name, at["orders"]) for name, at in said["gateways"].items()] == [
        ("sandbox", 2),
        ("stripe", 1),
        ("midtrans", 2),
    ]
    assert said["mended"] == {
        "webhooks_lost": 1,
        "found_by_reconciliation": 1,
        "paid_twice": 1,
        "second_payments_refunded": 1,
        "paid_late": 1,
        "late_with_goods": 0,
        "late_with_money_back": 1,
        "quarantined": 1,
        "accepted_by_operator": 1,
        "refunded_by_operator": 0,
    }


def test_a_gateway_that_could_not_take_part_is_named() -> None:
    """Where Stripe's package is missing the demo goes without, and says why."""
    real = RealInput(BASKETS, {}, collect([], 1)[2])
    text = StringIO()

    said = summarize(
        real, Plan(ORDERS, {}, frozenset()), observed(), left_out={"stripe": "install holdfast[stripe]"}
    )
    render_summary(said, Console(file=text, width=160))

    assert said.ok
    assert said.as_dict()["gateways_left_out"] == {"stripe": "install holdfast[stripe]"}
    assert "Without Stripe: install holdfast[stripe]." in text.getvalue()


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
