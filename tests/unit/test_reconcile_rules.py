"""Do the rules tell agreement from disagreement about one order, and do the figures add up?"""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.reconcile import Period, ReconcileLimits
from ops.reconcile.figures import Figures
from ops.reconcile.reconciler import merge
from ops.reconcile.rules import AttemptRow, Case, OrderRow, PaymentRow, RefundRow, ReservationRow, judge
from shared.errors import Misconfigured
from shared.ids import new_id

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ID, ATTEMPT = new_id(), new_id()

ORDER = OrderRow(ID, "PROCESSING", "SUCCEEDED", ATTEMPT, 500, 500, "EUR", AT, young=False)
STOCK = ReservationRow(ID, "CONFIRMED", AT, young=False)
PAYMENT = PaymentRow(ID, "SUCCEEDED", ATTEMPT, 500, "EUR", AT, young=False)
PAID = AttemptRow(ATTEMPT, ID, "sandbox", "SUCCEEDED", 500, 500, "EUR", None, None, None, 60.0, young=False)
SOUND = Case(ID, ORDER, STOCK, PAYMENT, [PAID])


def case(**changes: Any) -> Case:
    """Return the sound order with other rows."""
    rows = {"order": ORDER, "reservation": STOCK, "payment": PAYMENT, "attempts": [PAID], "refunds": []}
    return Case(ID, **{**rows, **changes})


def refund(status: str, minor: int = 500, age_seconds: float = 60.0) -> RefundRow:
    """Return a refund of the attempt."""
    return RefundRow(ID, ATTEMPT, "sandbox", status, minor, "EUR", None, age_seconds)


def checks(subject: Case, **limits: Any) -> list[str]:
    """Return which rules an order breaks."""
    return sorted(suspect.finding.check for suspect in judge(subject, ReconcileLimits(**limits)))


@pytest.mark.parametrize(
    "sound",
    [
        SOUND,
        case(refunds=[refund("SUCCEEDED", 499)]),
        case(order=ORDER._replace(settled_minor=None)),
        case(order=None, reservation=None, payment=None, attempts=[]),
        case(
            order=ORDER._replace(status="REFUND_DUE"),
            reservation=STOCK._replace(status="RELEASED"),
            refunds=[refund("DUE")],
        ),
        case(
            order=ORDER._replace(status="REFUNDED", payment="REFUNDED"),
            reservation=STOCK._replace(status="RETURNED"),
            payment=PAYMENT._replace(status="REFUNDED"),
            attempts=[PAID._replace(status="REFUNDED")],
            refunds=[refund("SUCCEEDED", 100), refund("SUCCEEDED", 400)],
        ),
    ],
)
def test_what_agrees_breaks_no_rule(sound: Case) -> None:
    """Paid and sold, partly given back, on its way back, or back."""
    assert checks(sound) == []


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (case(order=None), ["R1"]),
        (case(order=ORDER._replace(payment=None)), ["R1"]),
        (case(reservation=None), ["R2"]),
        (case(attempts=[PAID, PAID._replace(attempt_id=new_id())]), ["R2"]),
        (case(reservation=STOCK._replace(status="RELEASED"), refunds=[refund("SUCCEEDED", 499)]), ["R2"]),
        (case(payment=None, attempts=[], order=ORDER._replace(payment="PENDING")), ["R3"]),
        (case(refunds=[refund("FAILED", 1)]), ["R4"]),
        (case(refunds=[refund("SENT", 1, 4_000)]), ["R4"]),
        (case(attempts=[PAID._replace(review_seconds=5, review_reason="x", dispute="x")]), ["R5"]),
        (
            case(attempts=[PAID, PAID._replace(attempt_id=new_id(), status="UNKNOWN", age_seconds=901)]),
            ["R6"],
        ),
        (case(payment=None, attempts=[]), ["R3", "R7"]),
    ],
)
def test_what_disagrees_breaks_its_rule(wrong: Case, expected: list[str]) -> None:
    """Each disagreement is told once, by its own rule."""
    assert checks(wrong) == expected


def test_only_what_heals_by_itself_is_young() -> None:
    """Missing news may be on its way; what has had its time is told although its order changes all the time."""
    busy = case(order=ORDER._replace(payment="PENDING", young=True), refunds=[refund("FAILED", 1)])

    young = {suspect.finding.check: suspect.young for suspect in judge(busy, ReconcileLimits())}

    assert young == {"R1": True, "R4": False}


def test_ages_are_told_in_short_units() -> None:
    """Seconds, minutes, hours, days."""
    told = {
        seconds: judge(case(refunds=[refund("FAILED", 1, seconds)]), ReconcileLimits())[0].finding.detail
        for seconds in (59, 600, 7_200, 200_000)
    }

    assert [detail.partition("after ")[2] for detail in told.values()] == ["59 s", "10 min", "2 h", "2 d"]


def test_the_figures_of_an_order_stand_under_its_gateway() -> None:
    """A second payment of another gateway under that one's own."""
    other = PAID._replace(attempt_id=new_id(), gateway="stripe", received_minor=7, currency="USD")
    figures = Figures()

    figures.add(case(attempts=[PAID, other], refunds=[refund("SUCCEEDED", 3), refund("DUE", 2)]))

    stripe, sandbox = sorted(figures, key=lambda figure: figure.orders)
    assert (stripe.gateway, stripe.settled.count, stripe.settled.minor, stripe.orders) == ("stripe", 1, 7, 0)
    assert (sandbox.settled.minor, sandbox.given_back.minor, sandbox.heard.minor, sandbox.goods.minor) == (
        *(500, 3),
        *(500, 500),
    )


def test_a_period_begins_at_its_first_moment_and_ends_before_its_last() -> None:
    """So that two periods that touch count every order once."""
    period = Period(AT, AT + timedelta(hours=1))

    assert period.holds(AT)
    assert not period.holds(AT + timedelta(hours=1))
    assert Period(AT).holds(AT + timedelta(days=999))
    assert not period.holds(None)


@pytest.mark.parametrize(
    "limits", [{"settle_seconds": -1}, {"second_look_seconds": 0}, {"findings_max": 0}, {"orders_at_once": 0}]
)
def test_limits_that_cannot_be_are_refused(limits: dict[str, Any]) -> None:
    """Under them nothing would ever end, or be seen."""
    with pytest.raises(Misconfigured):
        ReconcileLimits(**limits)


async def _stream(ids: set[int]) -> AsyncGenerator[UUID, None]:
    for number in sorted(ids):
        yield UUID(int=number)


@given(st.lists(st.sets(st.integers(0, 30)), min_size=3, max_size=3))
async def test_merged_streams_hold_every_id_once_and_in_order(sets: list[set[int]]) -> None:
    """Whichever of the databases name an order."""
    merged = [order_id.int async for order_id in merge([_stream(ids) for ids in sets])]

    assert merged == sorted(set[int]().union(*sets))
