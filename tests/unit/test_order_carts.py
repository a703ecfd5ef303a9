"""What becomes of a cart, and when is that decided?"""

from collections.abc import Callable
from uuid import UUID

import pytest

from services.order_service.domain.book import Decided, Holds, OrderBook
from services.order_service.domain.cart import CART_ITEMS_MAX, Cart, CartOutcome, show_cart
from services.order_service.domain.order import Order
from services.order_service.domain.placing import Price
from services.order_service.domain.refusals import CartCheckedOut, CartFull, TooManyHolds
from shared.errors import HoldfastError, Invalid
from shared.events import OrderStatus, PaymentFact, PlaceOrder, PricedLine, StockFact
from shared.ids import new_id
from tests.order_building import (
    NOW,
    cancel_order,
    confirmed,
    place_order,
    released,
    reserved,
    returned,
    stock_rejected,
    succeeded,
    unavailable,
)

PRICES = {"APPLE": Price(100, "EUR", active=True), "BREAD": Price(250, "EUR", active=True)}


def cart_of(**items: int) -> Cart:
    """Return an open cart as it is loaded."""
    return Cart("cart-1", dict(items), is_new=False)


def from_cart(order_id: UUID | None = None, **fields: object) -> PlaceOrder:
    """Return a command to order what is in the cart."""
    return place_order(order_id, lines=None, cart_id="cart-1", **fields)


def book_of(cart: Cart, *orders: Order, holds: Holds | None = None) -> OrderBook:
    """Return a book with a cart and orders."""
    known = {order.order_id: order for order in orders}
    return OrderBook(known, PRICES, NOW, carts={cart.cart_id: cart}, holds=holds)


def place(book: OrderBook, command: PlaceOrder, *, keep_rejected: bool = True) -> Decided | HoldfastError:
    """Decide a command to place an order."""
    return book.place(command, cause="test", keep_rejected=keep_rejected)


def placed(book: OrderBook, command: PlaceOrder) -> Order:
    """Return the order that a command opens."""
    decided = place(book, command)
    assert isinstance(decided, Decided)
    return decided.order


def hear(book: OrderBook, *facts: StockFact | PaymentFact) -> None:
    """Have the book join facts, numbered from 1."""
    for number, fact in enumerate(facts, 1):
        assert book.join(fact, sequence=number, cause="test") is None


def test_items_are_set_changed_and_taken() -> None:
    """A quantity is set, not added; what is taken is gone, also if it never was there; only the difference is saved."""
    cart = cart_of(APPLE=1, CORN=9)

    answers = [
        cart.put_item("BREAD", 2),
        cart.put_item("APPLE", 5),
        cart.take_item("CORN"),
        cart.take_item("X"),
    ]

    assert answers == [True, False, None, None]
    assert show_cart(cart) == {
        "cart_id": "cart-1",
        "items": [{"sku": "APPLE", "quantity": 5}, {"sku": "BREAD", "quantity": 2}],
        "status": "OPEN",
    }
    assert (cart.put, cart.taken) == ({"APPLE", "BREAD"}, {"CORN"})


def test_an_item_put_and_taken_in_one_batch_is_taken() -> None:
    """The last word counts, either way round."""
    cart = cart_of(APPLE=1)

    cart.put_item("BREAD", 1)
    cart.take_item("BREAD")
    cart.take_item("APPLE")
    cart.put_item("APPLE", 3)

    assert cart.items == {"APPLE": 3}
    assert (cart.put, cart.taken) == ({"APPLE"}, {"BREAD"})


def test_a_cart_holds_no_more_than_an_order_can() -> None:
    """One SKU too many is refused; the quantity of one that is there can still be changed."""
    cart = Cart("cart-1", {f"SKU-{number}": 1 for number in range(CART_ITEMS_MAX)})

    answers = [cart.put_item("MORE", 1), cart.put_item("SKU-0", 7)]

    assert isinstance(answers[0], CartFull)
    assert answers[1] is False
    assert len(cart.items) == CART_ITEMS_MAX


def test_an_order_from_a_cart_has_its_items_as_lines() -> None:
    """They are priced like any lines, and the cart is checked out by the order."""
    cart = cart_of(BREAD=1, APPLE=3)
    book = book_of(cart)

    order = placed(book, from_cart())

    assert order.lines == (
        PricedLine(sku="APPLE", quantity=3, unit_price_minor=100),
        PricedLine(sku="BREAD", quantity=1, unit_price_minor=250),
    )
    assert (order.status, order.total_minor, order.cart_id) == (OrderStatus.REQUESTED, 550, "cart-1")
    assert cart.order_id == order.order_id
    assert book.carts() == [cart]


def test_a_checked_out_cart_takes_no_changes_and_no_second_order() -> None:
    """Both are refused as conflicts, also for an order that would be rejected; the same order again is no second one."""
    cart = cart_of(APPLE=1)
    book = book_of(cart)
    command = from_cart()
    placed(book, command)

    refusals = [
        cart.put_item("BREAD", 1),
        cart.take_item("APPLE"),
        place(book, from_cart()),
        place(book, from_cart(expected_total_minor=1)),
    ]
    again = place(book, command)

    assert all(isinstance(refused, CartCheckedOut) for refused in refusals)
    assert isinstance(again, Decided)
    assert cart.items == {"APPLE": 1}


@pytest.mark.parametrize("cart", [Cart("cart-1"), cart_of()], ids=["unknown", "emptied"])
def test_an_empty_cart_is_rejected_or_refused(cart: Cart) -> None:
    """By Kafka it becomes a REJECTED order, by HTTP a refusal that names the cart; the cart stays open."""
    book = book_of(cart)

    refused = place(book, from_cart(), keep_rejected=False)
    order = placed(book, from_cart())

    assert isinstance(refused, Invalid)
    assert [fault.pointer for fault in refused.faults] == ["/cart_id"]
    assert (order.status, order.reason) == (OrderStatus.REJECTED, "empty_cart")
    assert not cart.is_checked_out
    assert book.carts() == []


def test_an_order_that_is_rejected_at_once_leaves_its_cart_open() -> None:
    """The cart is given back in the same step, and names in a refusal point to the cart."""
    cart = cart_of(APPLE=1, NONE=1)
    book = book_of(cart)

    order = placed(book, from_cart())
    refused = place(book, from_cart(), keep_rejected=False)

    assert (order.status, order.reason, order.details) == ("REJECTED", "unknown_sku", {"skus": ["NONE"]})
    assert order.cart_outcome is CartOutcome.GIVEN_BACK
    assert not cart.is_checked_out
    assert isinstance(refused, Invalid)
    assert [(fault.pointer, fault.detail) for fault in refused.faults] == [("/cart_id", "unknown_sku: NONE")]


@pytest.mark.parametrize("fact", [reserved, released, confirmed, returned, unavailable])
def test_any_stock_but_a_rejection_clears_the_cart(fact: Callable[[UUID], StockFact]) -> None:
    """Whatever is heard first: the cart is open and empty."""
    cart = cart_of(APPLE=1)
    book = book_of(cart)
    order = placed(book, from_cart())

    hear(book, fact(order.order_id))

    assert order.cart_outcome is CartOutcome.CLEARED
    assert show_cart(cart) == {"cart_id": "cart-1", "items": [], "status": "OPEN"}
    assert cart.emptied


def test_a_rejection_gives_the_cart_back() -> None:
    """The cart is open with its items, though the order was paid already."""
    cart = cart_of(APPLE=1)
    book = book_of(cart)
    order = placed(book, from_cart())

    hear(book, succeeded(order.order_id), stock_rejected(order.order_id))

    assert order.status is OrderStatus.REFUND_DUE
    assert order.cart_outcome is CartOutcome.GIVEN_BACK
    assert (cart.items, cart.is_checked_out, cart.emptied) == ({"APPLE": 1}, False, False)


def test_a_cancellation_while_requested_gives_the_cart_back_for_good() -> None:
    """What inventory tells afterwards changes nothing: the cart is decided once."""
    cart = cart_of(APPLE=1)
    book = book_of(cart)
    order = placed(book, from_cart())

    book.cancel(cancel_order(order.order_id), requested_by="storefront", cause="test")
    second = placed(book, from_cart())
    hear(book, released(order.order_id, "cancelled"))

    assert order.cart_outcome is CartOutcome.GIVEN_BACK
    assert (cart.order_id, cart.items) == (second.order_id, {"APPLE": 1})


def test_a_cancellation_after_the_stock_is_held_changes_nothing_for_the_cart() -> None:
    """A cleared cart stays empty."""
    cart = cart_of(APPLE=1)
    book = book_of(cart)
    order = placed(book, from_cart())

    hear(book, reserved(order.order_id))
    book.cancel(cancel_order(order.order_id), requested_by="storefront", cause="test")
    hear(book, reserved(order.order_id), released(order.order_id, "cancelled"))

    assert order.cart_outcome is CartOutcome.CLEARED
    assert cart.items == {}


def test_a_cart_that_was_cleared_and_filled_again_is_not_cleared_twice() -> None:
    """Later facts about the first order do not touch what the second one has checked out."""
    cart = cart_of(APPLE=1)
    book = book_of(cart)
    first = placed(book, from_cart())
    hear(book, reserved(first.order_id))
    cart.put_item("BREAD", 2)

    second = placed(book, from_cart())
    hear(book, reserved(first.order_id), confirmed(first.order_id))

    assert (cart.order_id, cart.items) == (second.order_id, {"BREAD": 2})


# --- how many open orders a customer may have -----------------------------------------------------------------------


def test_a_customer_has_no_more_open_orders_than_allowed() -> None:
    """Orders elsewhere and of this batch count; other customers, and orders that are rejected at once, do not."""
    book = book_of(Cart("cart-1"), holds=Holds(3, {"customer-1": 1}))

    answers = [place(book, place_order()) for _ in range(3)]
    rejected = placed(book, place_order(None, ("NONE", 1)))
    other = place(book, place_order(customer_id="customer-2"))

    assert [isinstance(answer, TooManyHolds) for answer in answers] == [False, False, True]
    assert rejected.status is OrderStatus.REJECTED
    assert isinstance(other, Decided)


def test_an_order_that_has_ended_or_is_paid_for_makes_room() -> None:
    """What is cancelled, rejected or processed earlier in the batch counts no more."""
    book = book_of(Cart("cart-1"), holds=Holds(1))
    first = placed(book, place_order())
    second_refused = place(book, place_order())

    book.cancel(cancel_order(first.order_id), requested_by="storefront", cause="test")
    second = placed(book, place_order())
    hear(book, succeeded(second.order_id), confirmed(second.order_id))
    third = place(book, place_order())

    assert isinstance(second_refused, TooManyHolds)
    assert isinstance(third, Decided)


def test_the_same_order_again_is_no_further_hold() -> None:
    """A repeated command finds its order, whatever the limit."""
    book = book_of(Cart("cart-1"), holds=Holds(1))
    command = place_order(new_id())
    placed(book, command)

    again = place(book, command)

    assert isinstance(again, Decided)
    assert not again.changed


def test_a_refused_hold_leaves_the_cart_open() -> None:
    """Nothing is checked out by an order that is not stored."""
    cart = cart_of(APPLE=1)
    book = book_of(cart, holds=Holds(1, {"customer-1": 1}))

    refused = place(book, from_cart())

    assert isinstance(refused, TooManyHolds)
    assert not cart.is_checked_out
