"""Is a cart checked out once, decided once, and closed to changes in between, on a real Postgres?"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from services.order_service import handlers
from services.order_service.handlers import CartChange, CartChanged
from shared.database import Database
from shared.errors import ConcurrentWrite
from shared.events import PlaceOrder, Wire
from tests.feeding import feed, message
from tests.order_building import cancel_order, place_order, released, reserved, stock_rejected
from tests.order_database import reasons, rows, status_of
from tests.order_shop import Answer, Shop, basket, pointers, serving
from tests.waiting import eventually

CART = "/carts/cart-1"
ITEMS = [{"sku": "APPLE", "quantity": 2}, {"sku": "BREAD", "quantity": 1}]


@pytest.fixture
async def shop(order_db: Database) -> AsyncIterator[Shop]:
    """The order service with an apple and a loaf of bread."""
    async with serving(order_db) as shop:
        await shop.put_product("APPLE")
        await shop.put_product("BREAD", price_minor=250)
        yield shop


async def put(shop: Shop, sku: str, quantity: Any, cart: str = CART) -> Answer:
    """Put units of a SKU in a cart."""
    return await shop.call("PUT", f"{cart}/items/{sku}", {"quantity": quantity})


async def fill(shop: Shop, cart: str = CART) -> None:
    """Put two apples and a loaf in a cart."""
    await put(shop, "BREAD", 1, cart)
    await put(shop, "APPLE", 2, cart)


def from_cart(**fields: Any) -> dict[str, Any]:
    """Return the body of an order from the cart."""
    return basket(**{"lines": None, "cart_id": "cart-1", **fields})


def command_from_cart(**fields: Any) -> PlaceOrder:
    """Return the same as a command on Kafka."""
    return place_order(**{"lines": None, "cart_id": "cart-1", **fields})


async def shown(shop: Shop, cart: str = CART) -> tuple[list[dict[str, Any]], str]:
    """Return the items and the status of a cart."""
    answer = await shop.get(cart)
    assert answer.status == 200
    return answer.body["items"], answer.body["status"]


async def check_out(shop: Shop) -> UUID:
    """Place an order from the cart."""
    placed = await shop.place(from_cart())
    assert placed.status == 202
    return UUID(placed.body["order_id"])


async def test_a_cart_is_filled_changed_and_emptied(shop: Shop) -> None:
    """201 for a new item, 200 for a changed or deleted one, each with the cart; an unknown cart is open and empty."""
    before = await shop.get(CART)

    answers = [
        await put(shop, "BREAD", 1),
        await put(shop, "APPLE", 9),
        await put(shop, "APPLE", 2),
    ]
    after = await shop.get(CART)
    deleted = [await shop.call("DELETE", f"{CART}/items/{sku}") for sku in ("APPLE", "BREAD", "CORN")]

    assert (before.status, before.body) == (200, {"cart_id": "cart-1", "items": [], "status": "OPEN"})
    assert [answer.status for answer in answers] == [201, 201, 200]
    assert after.body == answers[-1].body == {"cart_id": "cart-1", "items": ITEMS, "status": "OPEN"}
    assert [(answer.status, len(answer.body["items"])) for answer in deleted] == [
        (200, 1),
        (200, 0),
        (200, 0),
    ]
    assert await shown(shop) == ([], "OPEN")


async def test_deleting_from_an_unknown_cart_stores_nothing(shop: Shop) -> None:
    """The answer is the empty cart; no row is made for it."""
    deleted = await shop.call("DELETE", f"{CART}/items/APPLE")

    assert (deleted.status, deleted.body["items"]) == (200, [])
    assert await rows(shop.database, "SELECT * FROM carts") == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{CART}/items/APPLE", {"quantity": 0}, 422),
        (f"{CART}/items/APPLE", {"quantity": 1_000_001}, 422),
        (f"{CART}/items/APPLE", {"quantity": "1"}, 422),
        (f"{CART}/items/APPLE", {}, 422),
        (f"{CART}/items/APPLE", b"{", 400),
        (f"{CART}/items/APPLE", b" " * 70_000, 413),
        (f"{CART}/items/b%20c", {"quantity": 1}, 422),
        (f"/carts/{'c' * 65}/items/APPLE", {"quantity": 1}, 422),
    ],
)
async def test_an_item_that_does_not_fit_is_refused(shop: Shop, path: str, body: Any, status: int) -> None:
    """Quantities are whole numbers from 1 to 1,000,000; names are identifiers; nothing is stored."""
    refused = await shop.call("PUT", path, body)

    assert refused.status == status
    assert await rows(shop.database, "SELECT * FROM cart_items") == []


async def test_a_cart_holds_500_different_skus(shop: Shop) -> None:
    """The 501st is refused, whoever puts it; those that are there can still be changed."""
    async with shop.database.transaction() as tx:
        await handlers.change_carts(tx, [CartChange("cart-1", f"SKU-{number}", 1) for number in range(500)])

    refused, changed = await put(shop, "MORE", 1), await put(shop, "SKU-7", 3)

    assert (refused.status, refused.body["type"]) == (422, "urn:holdfast:problem:cart_full")
    assert changed.status == 200


async def test_an_order_from_a_cart_checks_it_out(shop: Shop) -> None:
    """The order has the cart's items as priced lines; the cart shows them, and takes no changes: 409."""
    await fill(shop)

    placed = await shop.place(from_cart(expected_total_minor=450))

    assert placed.status == 202
    assert [(line["sku"], line["quantity"]) for line in placed.body["lines"]] == [("APPLE", 2), ("BREAD", 1)]
    assert await shown(shop) == (ITEMS, "CHECKED_OUT")
    refusals = [
        await put(shop, "APPLE", 3),
        await put(shop, "CORN", 1),
        await shop.call("DELETE", f"{CART}/items/APPLE"),
        await shop.call("DELETE", f"{CART}/items/CORN"),
    ]
    assert [refused.status for refused in refusals] == [409] * 4
    assert await shown(shop) == (ITEMS, "CHECKED_OUT")


async def test_a_checked_out_cart_takes_no_second_order(shop: Shop) -> None:
    """409 by HTTP and a dead letter as conflict by Kafka, in another batch or the same one; nothing is stored."""
    await fill(shop)
    first = command_from_cart()

    refusals = [
        *await feed(shop.database, handlers, [message(first), message(command_from_cart())]),
        *await feed(shop.database, handlers, [message(command_from_cart())]),
    ]
    by_http = await shop.place(from_cart())

    assert reasons(refusals) == ["conflict", "conflict"]
    assert by_http.status == 409
    assert await rows(shop.database, "SELECT order_id FROM orders") == [(first.order_id,)]


async def test_one_of_many_orders_at_once_gets_the_cart(shop: Shop) -> None:
    """Twenty requests under keys of their own: one order, and nineteen conflicts."""
    await fill(shop)

    answers = await asyncio.gather(*(shop.place(from_cart()) for _ in range(20)))

    assert sorted(answer.status for answer in answers) == [202, *[409] * 19]
    assert await rows(shop.database, "SELECT count(*) FROM orders") == [(1,)]


async def test_the_same_request_again_is_no_second_order(shop: Shop) -> None:
    """The same key, and the same order id with the same content, find the order though its cart is checked out."""
    await fill(shop)
    body = from_cart(order_id="0190f5a0-0000-7000-8000-00000000000a")

    placed = await shop.place(body, "key-1")
    again = [await shop.place(body, key) for key in ("key-1", "key-2")]

    assert [answer.status for answer in again] == [202, 202]
    assert all(answer.body == placed.body for answer in again)


@pytest.mark.parametrize("decided_in", ["the same batch", "a later batch"])
@pytest.mark.parametrize(
    ("ending", "after"),
    [
        ("rejected", (ITEMS, "OPEN")),
        ("cancelled while requested", (ITEMS, "OPEN")),
        ("held", ([], "OPEN")),
        ("released, the hold overtaken", ([], "OPEN")),
    ],
)
async def test_the_stock_decides_the_cart(
    shop: Shop, ending: str, after: tuple[list[dict[str, Any]], str], decided_in: str
) -> None:
    """Given back with its items by a rejection or a cancellation before the stock is decided, else open and empty."""
    await fill(shop)
    command = command_from_cart()
    endings: dict[str, list[Wire]] = {
        "rejected": [stock_rejected(command.order_id)],
        "cancelled while requested": [cancel_order(command.order_id)],
        "held": [reserved(command.order_id), cancel_order(command.order_id)],
        "released, the hold overtaken": [released(command.order_id)],
    }
    messages = [message(command), *(message(event) for event in endings[ending])]

    for batch in [messages] if decided_in == "the same batch" else [messages[:1], messages[1:]]:
        assert await feed(shop.database, handlers, batch) == []

    assert await shown(shop) == after
    assert (await put(shop, "CORN", 1)).status == 201
    stored = {row[0] for row in await rows(shop.database, "SELECT sku FROM cart_items")}
    assert stored == {item["sku"] for item in after[0]} | {"CORN"}


async def test_a_cart_is_decided_once(shop: Shop) -> None:
    """After it was given back, what is still heard of the first order does not touch its second one."""
    await fill(shop)
    first = await check_out(shop)
    await shop.call("POST", f"/orders/{first}/cancel", {})
    second = await check_out(shop)

    await feed(shop.database, handlers, [message(released(first, "cancelled"))])
    while_open = await shown(shop)
    await feed(shop.database, handlers, [message(reserved(second))])

    assert while_open == (ITEMS, "CHECKED_OUT")
    assert await shown(shop) == ([], "OPEN")
    assert dict(await rows(shop.database, "SELECT order_id, cart_outcome FROM orders")) == {
        first: "GIVEN_BACK",
        second: "CLEARED",
    }


async def test_a_cleared_cart_serves_again(shop: Shop) -> None:
    """It is filled and ordered from once more."""
    await fill(shop)
    await feed(shop.database, handlers, [message(reserved(await check_out(shop)))])
    emptied = await shop.place(from_cart())
    await put(shop, "BREAD", 4)

    placed = await shop.place(from_cart())

    assert (emptied.status, pointers(emptied)) == (422, ["/cart_id"])
    assert placed.body["total_minor"] == 1_000


async def test_an_order_that_is_refused_leaves_the_cart_open(shop: Shop) -> None:
    """422 by HTTP stores nothing; by Kafka the order is REJECTED and its cart given back at once."""
    await put(shop, "NONE", 1)
    await put(shop, "APPLE", 1)

    refused = await shop.place(from_cart())
    command = command_from_cart()
    await feed(shop.database, handlers, [message(command)])

    assert (refused.status, refused.body["errors"]) == (
        422,
        [{"pointer": "/cart_id", "detail": "unknown_sku: NONE"}],
    )
    assert await status_of(shop.database, command.order_id) == ("REJECTED", "unknown_sku")
    assert (await shown(shop))[1] == "OPEN"


async def test_changes_and_orders_of_one_cart_at_once_do_not_mix(shop: Shop) -> None:
    """Whatever comes first: the order has what was in the cart, and later changes are refused, not lost."""
    await asyncio.gather(*(shop.put_product(f"SKU-{number}") for number in range(10)))
    await put(shop, "APPLE", 1)
    changes = [put(shop, f"SKU-{number}", 1) for number in range(10)]

    *changed, placed, second = await asyncio.gather(
        *changes, shop.place(from_cart()), shop.place(from_cart())
    )

    accepted = {f"SKU-{number}" for number in range(10) if changed[number].status == 201}
    in_cart = {item["sku"] for item in (await shown(shop))[0]}
    assert {answer.status for answer in changed} <= {201, 409}
    assert sorted([placed.status, second.status]) == [202, 409]
    ordered = placed if placed.status == 202 else second
    assert {line["sku"] for line in ordered.body["lines"]} == in_cart == accepted | {"APPLE"}


async def test_two_processes_create_carts_at_once(order_db: Database) -> None:
    """New carts in two transactions, in opposite orders: done again where they collide, and no change is lost."""
    names = [f"cart-{number}" for number in range(20)]

    async def change(sku: str, carts: Sequence[str]) -> Sequence[Any]:
        for _ in range(10):
            try:
                async with order_db.transaction() as tx:
                    return await handlers.change_carts(tx, [CartChange(cart, sku, 1) for cart in carts])
            except ConcurrentWrite:
                continue
        raise AssertionError("still colliding")

    answers = await asyncio.gather(change("APPLE", names), change("BREAD", names[::-1]))

    assert all(isinstance(answer, CartChanged) for some in answers for answer in some)
    assert await rows(order_db, "SELECT count(*), count(DISTINCT cart_id) FROM cart_items") == [(40, 20)]


async def test_a_change_waits_for_an_order_that_is_being_placed(shop: Shop) -> None:
    """While another process checks the cart out, a change waits; then it is refused, and the order has what it saw."""
    await fill(shop)
    command = command_from_cart()
    placed, may_commit = asyncio.Event(), asyncio.Event()

    async def order() -> None:
        async with shop.database.transaction() as tx:
            await handlers.handle(tx, [message(command)])
            placed.set()
            await may_commit.wait()

    async def a_lock_is_waited_for() -> bool:
        return bool(await rows(shop.database, "SELECT 1 FROM pg_locks WHERE NOT granted"))

    ordering = asyncio.create_task(order())
    await placed.wait()
    changing = asyncio.create_task(put(shop, "APPLE", 99))
    await eventually(a_lock_is_waited_for)
    may_commit.set()
    await ordering
    changed = await changing

    assert changed.status == 409
    assert await shown(shop) == (ITEMS, "CHECKED_OUT")
