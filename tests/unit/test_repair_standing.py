"""Do the rules of a repair name who has not heard what, and nobody where all have heard?"""

from typing import Any

import pytest

from ops.repair.standing import (
    OrderStand,
    PaymentStand,
    ReservationStand,
    Stands,
    find_unheard,
    is_to_be_swept,
)
from shared.ids import new_id

ORDER = new_id()


def stands(
    order: tuple[str, str, str | None] | None,
    reservation: tuple[str | None, str] | None = None,
    payment: str | None = None,
    **more: Any,
) -> Stands:
    """Return where three stand: an order with what it heard, a reservation with what it heard, a payment."""
    cancelled = more.get("cancelled", False)
    closed = more.get("closed", False)
    return Stands(
        None if order is None else OrderStand(ORDER, order[0], cancelled, order[1], order[2]),
        None
        if reservation is None
        else ReservationStand(
            ORDER,
            reservation[0],
            more.get("unavailable", False),
            more.get("heard_cancelled", cancelled),
            reservation[1],
            more.get("is_due", False),
            more.get("opened", True),
        ),
        None
        if payment is None
        else PaymentStand(
            ORDER,
            payment,
            more.get("is_opened", True),
            closed,
            more.get("is_refunded", False),
            more.get("told", True),
        ),
    )


#: All have heard each other.
SETTLED = {
    "refused": stands(("REJECTED", "REJECTED", None)),
    "rejected": stands(
        ("REJECTED", "REJECTED", "CANCELLED"), ("REJECTED", "CANCELLED"), "CANCELLED", closed=True
    ),
    "awaiting": stands(("AWAITING_PAYMENT", "HELD", None), ("HELD", "PENDING"), "PENDING", told=False),
    "initiated": stands(("AWAITING_PAYMENT", "HELD", "PENDING"), ("HELD", "PENDING"), "PENDING"),
    "sold": stands(("PROCESSING", "CONFIRMED", "SUCCEEDED"), ("CONFIRMED", "SUCCEEDED"), "SUCCEEDED"),
    "expired": stands(
        ("EXPIRED", "RELEASED", "CANCELLED"), ("RELEASED", "CANCELLED"), "CANCELLED", closed=True
    ),
    "refunded by an operator": stands(
        ("REFUNDED", "RETURNED", "REFUNDED"), ("RETURNED", "REFUNDED"), "REFUNDED", is_refunded=True
    ),
    "refund under way": stands(
        ("REFUND_DUE", "UNAVAILABLE", "SUCCEEDED"),
        ("RELEASED", "SUCCEEDED"),
        "SUCCEEDED",
        unavailable=True,
        closed=True,
        is_refunded=True,
    ),
    "cancelled before inventory heard of it": stands(
        ("CANCELLED", "NONE", None), ("RELEASED", "PENDING"), cancelled=True, opened=False
    ),
    "cancelled": stands(
        ("CANCELLED", "RELEASED", "CANCELLED"),
        ("RELEASED", "CANCELLED"),
        "CANCELLED",
        cancelled=True,
        closed=True,
    ),
}


@pytest.mark.parametrize("known", SETTLED.values(), ids=SETTLED)
def test_who_has_heard_everything_need_not_be_told(known: Stands) -> None:
    """Where nothing is missing there is nothing to tell again."""
    assert find_unheard(known) == []


#: Something was not heard: who has to tell it again.
UNHEARD = {
    "the goods are wanted": (stands(("REQUESTED", "NONE", None)), {"order"}),
    "the goods are held": (
        stands(("REQUESTED", "NONE", None), ("HELD", "PENDING")),
        {"inventory"},
    ),
    "it is to be paid": (stands(("AWAITING_PAYMENT", "HELD", None), ("HELD", "PENDING")), {"order"}),
    "a closure was heard before it was to be paid": (
        stands(
            ("AWAITING_PAYMENT", "HELD", "CANCELLED"), ("HELD", "CANCELLED"), "CANCELLED", is_opened=False
        ),
        {"order"},
    ),
    "it is paid, says inventory's ignorance": (
        stands(("AWAITING_PAYMENT", "HELD", "SUCCEEDED"), ("HELD", "PENDING"), "SUCCEEDED"),
        {"payment"},
    ),
    "it is sold, says the order's ignorance": (
        stands(("AWAITING_PAYMENT", "HELD", "SUCCEEDED"), ("CONFIRMED", "SUCCEEDED"), "SUCCEEDED"),
        {"inventory"},
    ),
    "the goods are gone": (
        stands(
            ("AWAITING_PAYMENT", "RELEASED", "SUCCEEDED"),
            ("RELEASED", "SUCCEEDED"),
            "SUCCEEDED",
            unavailable=True,
        ),
        {"inventory"},
    ),
    "it is cancelled": (
        stands(
            ("CANCELLED", "HELD", "CANCELLED"),
            ("HELD", "CANCELLED"),
            "CANCELLED",
            cancelled=True,
            heard_cancelled=False,
            closed=True,
        ),
        {"order"},
    ),
    "it has expired": (
        stands(("EXPIRED", "RELEASED", None), ("RELEASED", "PENDING"), "PENDING", told=False),
        {"order"},
    ),
    "its money must go back": (
        stands(("REFUND_DUE", "RETURNED", "SUCCEEDED"), ("RETURNED", "SUCCEEDED"), "SUCCEEDED", closed=True),
        {"order"},
    ),
    "its money went back": (
        stands(
            ("REFUND_DUE", "RETURNED", "SUCCEEDED"),
            ("RETURNED", "REFUNDED"),
            "REFUNDED",
            closed=True,
            is_refunded=True,
        ),
        {"payment"},
    ),
}


@pytest.mark.parametrize(("known", "tellers"), UNHEARD.values(), ids=UNHEARD)
def test_whoever_was_not_heard_has_to_tell_again(known: Stands, tellers: set[str]) -> None:
    """The owner of the missing news is named, and nobody else."""
    assert {news.teller for news in find_unheard(known)} == tellers


def test_a_due_hold_is_swept_only_if_inventory_has_heard_everything() -> None:
    """Money that inventory has not heard of would turn the hold into a sale: it is told first."""
    due = stands(("AWAITING_PAYMENT", "HELD", None), ("HELD", "PENDING"), "PENDING", is_due=True)
    paid = stands(("AWAITING_PAYMENT", "HELD", "SUCCEEDED"), ("HELD", "PENDING"), "SUCCEEDED", is_due=True)

    assert is_to_be_swept(due)
    assert not is_to_be_swept(paid)
    assert not is_to_be_swept(stands(("REQUESTED", "NONE", None)))
