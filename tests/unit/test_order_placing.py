"""What does a command to place an order come to?"""

from hashlib import sha256
from typing import Any

import orjson
import pytest

from services.order_service.domain.book import Decided, OrderBook
from services.order_service.domain.placing import Price, fingerprint_of, quote
from services.order_service.domain.refusals import ContentConflict, TotalTooLarge, UnknownOrder
from shared.errors import HoldfastError
from shared.events import INTEGER_MAX, OrderRejected, OrderRequested, OrderStatus, PlaceOrder, PricedLine
from shared.ids import new_id
from tests.order_building import NOW, cancel_order, place_order

PRICES = {
    "APPLE": Price(100, "EUR", active=True),
    "BREAD": Price(250, "EUR", active=True),
    "FREE": Price(0, "EUR", active=True),
    "GOLD": Price(INTEGER_MAX, "EUR", active=True),
    "GONE": Price(100, "EUR", active=False),
    "SAKE": Price(900, "JPY", active=True),
}


def place(book: OrderBook, command: PlaceOrder) -> Decided | HoldfastError:
    """Decide a command as it is decided on Kafka."""
    return book.place(command, cause="test", keep_rejected=True)


def new_book() -> OrderBook:
    """Return a book without orders."""
    return OrderBook({}, PRICES, NOW)


def test_lines_are_priced_from_the_catalog_and_sorted() -> None:
    """Each line gets the price of its product, and the total is their sum."""
    quoted = quote(place_order(None, ("BREAD", 1), ("APPLE", 3)), PRICES)

    assert quoted.lines == (
        PricedLine(sku="APPLE", quantity=3, unit_price_minor=100),
        PricedLine(sku="BREAD", quantity=1, unit_price_minor=250),
    )
    assert quoted.total_minor == 550
    assert quoted.rejection is None


def test_the_same_sku_on_two_lines_is_added_up() -> None:
    """Two lines of one SKU become one line of the sum."""
    quoted = quote(place_order(None, ("APPLE", 1), ("BREAD", 1), ("APPLE", 4)), PRICES)

    assert [(line.sku, line.quantity) for line in quoted.lines] == [("APPLE", 5), ("BREAD", 1)]
    assert quoted.total_minor == 750


def test_an_order_may_cost_nothing() -> None:
    """A total of 0 is accepted like any other."""
    order = place(new_book(), place_order(None, ("FREE", 3)))

    assert isinstance(order, Decided)
    assert order.order.status is OrderStatus.REQUESTED
    assert order.order.total_minor == 0


@pytest.mark.parametrize(
    ("command", "reason", "details", "skus"),
    [
        (place_order(None, ("APPLE", 1), ("NONE", 1)), "unknown_sku", {"skus": ["NONE"]}, ["APPLE"]),
        (place_order(None, ("GONE", 1)), "inactive_product", {"skus": ["GONE"]}, ["GONE"]),
        (place_order(None, ("APPLE", 1), ("SAKE", 1)), "currency", {"skus": ["SAKE"]}, ["APPLE"]),
        (
            place_order(None, ("APPLE", 1), expected_total_minor=99),
            "total_changed",
            {"expected_total_minor": 99, "total_minor": 100},
            ["APPLE"],
        ),
        (place_order(lines=None, cart_id="cart-1"), "empty_cart", {"cart_id": "cart-1"}, []),
    ],
    ids=["unknown sku", "inactive product", "other currency", "changed total", "empty cart"],
)
def test_what_cannot_be_accepted_becomes_a_rejected_order(
    command: PlaceOrder, reason: str, details: dict[str, object], skus: list[str]
) -> None:
    """The order is kept with its reason and the lines that have a price; it tells OrderRejected and nothing else."""
    decided = place(new_book(), command)

    assert isinstance(decided, Decided)
    order = decided.order
    assert (order.status, order.reason, order.details) == (OrderStatus.REJECTED, reason, details)
    assert [line.sku for line in order.lines or ()] == skus
    assert [(type(item.event), item.sequence) for item in order.emitted] == [(OrderRejected, 1)]
    assert [step.status for step in order.transitions] == [OrderStatus.REJECTED]


def test_what_cannot_be_accepted_by_http_is_not_kept() -> None:
    """The caller gets the reason with a pointer to the line, and the book has nothing to save."""
    book = new_book()

    refused = book.place(place_order(None, ("APPLE", 1), ("NONE", 1)), cause="http:1", keep_rejected=False)

    assert isinstance(refused, HoldfastError)
    assert (refused.status, refused.reason) == (422, "unknown_sku")
    assert [fault.pointer for fault in refused.faults] == ["/lines/1/sku"]
    assert book.touched() == []


@pytest.mark.parametrize("keep_rejected", [True, False])
def test_a_total_beyond_the_largest_exact_integer_is_refused(keep_rejected: bool) -> None:  # noqa: FBT001 (both ways in)
    """2^53 - 1 is accepted, one more is not, and nothing of it is kept."""
    book = new_book()

    largest = book.place(place_order(None, ("GOLD", 1)), cause="test", keep_rejected=keep_rejected)
    beyond = book.place(
        place_order(None, ("GOLD", 1), ("APPLE", 1)), cause="test", keep_rejected=keep_rejected
    )

    assert isinstance(largest, Decided)
    assert isinstance(beyond, TotalTooLarge)
    assert beyond.reason == "invalid"
    assert len(book.touched()) == 1


def test_the_same_command_again_changes_nothing() -> None:
    """The second one finds the order of the first, also within one batch."""
    book = new_book()
    command = place_order()

    first, again = place(book, command), place(book, command)

    assert isinstance(first, Decided)
    assert isinstance(again, Decided)
    assert (first.changed, again.changed) == (True, False)
    assert again.order is first.order
    assert [type(item.event) for item in first.order.emitted] == [OrderRequested]


@pytest.mark.parametrize(
    "other",
    [
        {"customer_id": "customer-2"},
        {"currency": "USD"},
        {"expected_total_minor": 200},
        {"hold_seconds": 60},
        {"payment_method": "card"},
        {"lines": None, "cart_id": "cart-1"},
    ],
    ids="-".join,
)
def test_another_content_under_a_known_id_is_a_conflict(other: dict[str, object]) -> None:
    """Every field of the command as sent counts; the first order stays as it is."""
    book = new_book()
    command = place_order()
    place(book, command)

    refused = place(book, place_order(command.order_id, **other))

    assert isinstance(refused, ContentConflict)
    assert refused.reason == "conflict"
    assert len(book.touched()) == 1


def test_other_lines_are_another_content() -> None:
    """Lines count as they were sent."""
    one = fingerprint_of(place_order(None, ("APPLE", 2)))

    assert one == fingerprint_of(place_order(None, ("APPLE", 2)))
    assert one != fingerprint_of(place_order(None, ("APPLE", 3)))
    assert one != fingerprint_of(place_order(None, ("APPLE", 1), ("APPLE", 1)))


def test_an_unknown_order_cannot_be_cancelled() -> None:
    """A cancellation needs an order, placed before it."""
    book = new_book()
    command = place_order()

    early = book.cancel(cancel_order(command.order_id), requested_by="storefront", cause="test")
    place(book, command)
    later = book.cancel(cancel_order(command.order_id), requested_by="storefront", cause="test")

    assert isinstance(early, UnknownOrder)
    assert isinstance(later, Decided)
    assert later.order.status is OrderStatus.CANCELLED


def test_a_command_for_an_order_of_another_id_opens_its_own() -> None:
    """Two orders with one content are two orders."""
    book = new_book()

    first, second = place(book, place_order(new_id())), place(book, place_order(new_id()))

    assert isinstance(first, Decided)
    assert isinstance(second, Decided)
    assert first.order.order_id != second.order.order_id
    assert len(book.placed()) == 2


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ({}, None),
        ({"payment_method": "bank_transfer"}, 86_400),
        ({"payment_method": "bank_transfer", "hold_seconds": 60}, 60),
        ({"payment_method": "barter"}, None),
    ],
    ids=["nothing", "a method", "both", "an unknown method"],
)
def test_units_are_held_as_long_as_the_method_needs(asked: dict[str, Any], held: int | None) -> None:
    """What the command itself says comes first; where neither says anything inventory decides."""
    book = OrderBook({}, PRICES, NOW, hold_seconds_by_method={"card": 600, "bank_transfer": 86_400})

    decided = place(book, place_order(**asked))

    assert isinstance(decided, Decided)
    assert decided.order.hold_seconds == held
    (requested,) = [item.event for item in decided.order.emitted]
    assert isinstance(requested, OrderRequested)
    assert requested.hold_seconds == held


def test_the_same_command_is_the_same_whatever_the_settings_say_by_now() -> None:
    """A hold that was changed since makes no conflict of a command that is sent again."""
    command = place_order(payment_method="card")
    before = OrderBook({}, PRICES, NOW, hold_seconds_by_method={"card": 600})
    placed = place(before, command)
    assert isinstance(placed, Decided)

    after = OrderBook({command.order_id: placed.order}, PRICES, NOW, hold_seconds_by_method={"card": 60})
    again = place(after, command)

    assert isinstance(again, Decided)
    assert (again.changed, again.order.hold_seconds) == (False, 600)


def test_a_command_without_a_method_has_the_digest_it_always_had() -> None:
    """Orders that were stored before there were methods still know their command."""
    content = ("customer-1", [("APPLE", 2)], None, "EUR", None, None)

    assert fingerprint_of(place_order()) == sha256(orjson.dumps(content)).digest()
