"""Is a request under an Idempotency-Key done once, and answered the same ever after?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest

from services.order_service import handlers, store
from shared.database import Database
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.order_building import reserved
from tests.order_database import rows
from tests.order_shop import OPERATOR, Answer, Shop, basket, serving


@pytest.fixture
async def shop(order_db: Database) -> AsyncIterator[Shop]:
    """The order service with an apple and a loaf of bread."""
    async with serving(order_db) as shop:
        await shop.put_product("APPLE")
        yield shop


def is_replayed(answer: Answer) -> bool:
    """Tell whether an answer says that it was given before."""
    return answer.headers.get("Idempotency-Replayed") == "true"


async def test_the_same_request_is_given_the_same_answer(shop: Shop) -> None:
    """Status, body and Location are those of the first answer, although the order has moved on since."""
    first = await shop.place(basket(), "key-1")
    await feed(shop.database, handlers, [message(reserved(UUID(first.body["order_id"])))])

    again = await shop.place(basket(), "key-1")
    read = await shop.get(first.headers["Location"])

    assert (again.status, again.body) == (202, first.body)
    assert again.headers["Location"] == first.headers["Location"]
    assert [is_replayed(first), is_replayed(again)] == [False, True]
    assert read.body["status"] == "AWAITING_PAYMENT"
    assert len(await outbox_events(shop.database, types=["OrderRequested"])) == 1


@pytest.mark.parametrize(
    "body",
    [basket(), basket(lines=None, cart_id="cart-1"), basket(order_id=str(new_id()))],
    ids=["lines", "cart", "order id"],
)
async def test_many_first_calls_at_once_place_one_order(order_db: Database, body: dict[str, Any]) -> None:
    """Twenty calls at two copies of the service: one order, one answer for all; the limit and the cart count it once."""
    async with AsyncExitStack() as stack:
        copies = [
            await stack.enter_async_context(serving(order_db, holds_per_customer_max=1)) for _ in range(2)
        ]
        await copies[0].put_product("APPLE")
        await copies[0].call("PUT", "/carts/cart-1/items/APPLE", {"quantity": 2})

        answers = await asyncio.gather(*(copies[at % 2].place(body, "key-1") for at in range(20)))

    assert {answer.status for answer in answers} == {202}
    assert len({answer.body["order_id"] for answer in answers}) == 1
    assert sum(not is_replayed(answer) for answer in answers) == 1
    assert await rows(order_db, "SELECT count(*) FROM orders") == [(1,)]


@pytest.mark.parametrize(
    "other",
    [
        basket(("APPLE", 3)),
        basket(customer_id="customer-2"),
        basket(expected_total_minor=200),
        basket(hold_seconds=60),
        basket(payment_method="card"),
        basket(order_id="0190f5a0-0000-7000-8000-00000000000a"),
    ],
    ids=["lines", "customer", "total", "hold", "method", "order id"],
)
async def test_the_same_key_with_another_body_is_refused(shop: Shop, other: dict[str, Any]) -> None:
    """422, before anything else is looked at, and the first answer stays what it is."""
    first = await shop.place(basket(), "key-1")

    refused = await shop.place(other, "key-1")
    again = await shop.place(basket(), "key-1")

    assert (refused.status, refused.body["type"]) == (422, "urn:holdfast:problem:idempotency_key_reused")
    assert again.body == first.body
    assert await rows(shop.database, "SELECT count(*) FROM orders") == [(1,)]


async def test_another_body_at_the_same_time_is_refused(shop: Shop) -> None:
    """Of two requests in one batch the first one is done."""
    one, two = await asyncio.gather(shop.place(basket(), "k"), shop.place(basket(("APPLE", 9)), "k"))

    assert sorted([one.status, two.status]) == [202, 422]
    assert await rows(shop.database, "SELECT count(*) FROM orders") == [(1,)]


async def test_a_body_written_otherwise_is_the_same_body(shop: Shop) -> None:
    """What counts is what it says, not its white space, its order, or what nobody reads."""
    first = await shop.place(basket(), "key-1")

    spaced = (
        b'{ "lines": [{"quantity":2, "sku":"APPLE"}], "currency":"EUR","customer_id":"customer-1", "note":1 }'
    )
    again = await shop.call("POST", "/orders", spaced, headers={"Idempotency-Key": "key-1"})

    assert again.body == first.body
    assert is_replayed(again)


async def test_a_key_belongs_to_the_scope_of_its_caller(shop: Shop) -> None:
    """An operator's request under a storefront's key is a request of its own."""
    first = await shop.place(basket(), "key-1")

    other = await shop.call("POST", "/orders", basket(), token=OPERATOR, headers={"Idempotency-Key": "key-1"})

    assert other.status == 202
    assert other.body["order_id"] != first.body["order_id"]
    assert not is_replayed(other)


async def test_a_refused_request_does_not_burn_its_key(shop: Shop) -> None:
    """Whatever it was refused for: corrected, it may come again under the key."""
    refusals = [
        await shop.place(basket(("NONE", 1)), "key-1"),
        await shop.place(basket(lines=None, cart_id="cart-1"), "key-1"),
        await shop.place(basket(("APPLE", 0)), "key-1"),
        await shop.place(b"{", "key-1"),  # type: ignore[arg-type] # a body as it is
    ]

    accepted = await shop.place(basket(), "key-1")

    assert [refused.status for refused in refusals] == [422, 422, 422, 400]
    assert accepted.status == 202
    assert not is_replayed(accepted)


async def test_a_known_order_under_a_new_key_is_answered_as_it_stands_and_then_the_same(shop: Shop) -> None:
    """200 with its status now; the same key again is given that answer, whatever happens to the order."""
    body = basket(order_id="0190f5a0-0000-7000-8000-00000000000a")
    await shop.place(body, "key-1")
    await feed(shop.database, handlers, [message(reserved(UUID(body["order_id"])))])

    second = await shop.place(body, "key-2")
    await shop.call("POST", f"/orders/{body['order_id']}/cancel", {})
    again = await shop.place(body, "key-2")

    assert (second.status, second.body["status"]) == (200, "AWAITING_PAYMENT")
    assert second.body["lines"] == [{"sku": "APPLE", "quantity": 2, "unit_price_minor": 100}]
    assert not is_replayed(second)
    assert (again.status, again.body) == (200, second.body)
    assert is_replayed(again)


@pytest.mark.parametrize("key", ["x", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a b,c;d"])
async def test_a_key_is_taken_as_it_stands(shop: Shop, key: str) -> None:
    """1 to 255 printable characters, quoted as in the draft or not."""
    first = await shop.place(basket(), key)

    again = await shop.place(basket(), key)

    assert first.status == 202
    assert is_replayed(again)
    assert await rows(shop.database, "SELECT scope, key FROM idempotency_keys") == [("storefront", key)]


async def test_an_answer_and_its_order_are_stored_together_or_not_at_all(order_db: Database) -> None:
    """Where one fails, the other is not there, and the request may come again."""
    async with serving(order_db) as shop:
        await shop.put_product("APPLE")
        async with order_db.connection() as connection:
            await connection.execute("ALTER TABLE idempotency_keys RENAME TO hidden")
            failed = await shop.place(basket(), "key-1")
            await connection.execute("ALTER TABLE hidden RENAME TO idempotency_keys")
        stored = await rows(order_db, "SELECT count(*) FROM orders")

        accepted = await shop.place(basket(), "key-1")

    assert failed.status == 500
    assert stored == [(0,)]
    assert accepted.status == 202


async def test_answers_are_forgotten_after_their_time(shop: Shop) -> None:
    """Older ones go, so many at a time, the oldest first; after that the key is as good as new."""
    for number in range(5):
        await shop.place(basket(), f"key-{number}")
    async with shop.database.connection() as connection:
        await connection.execute(
            """
            UPDATE idempotency_keys SET created_at = now() - make_interval(hours => 30 - right(key, 1)::int)
            WHERE key < 'key-4'
            """
        )
        deleted = [await store.delete_old_answers(connection, hours=24, answers_max=3) for _ in range(3)]

    again = await shop.place(basket(("APPLE", 7)), "key-0")

    assert deleted == [3, 1, 0]
    assert again.status == 202
    assert sorted(await rows(shop.database, "SELECT key FROM idempotency_keys")) == [("key-0",), ("key-4",)]


async def test_the_first_later_answer_stays(shop: Shop) -> None:
    """Of two that waited, and saw the order at different times, the second is given what the first one was."""
    placed = await shop.place(basket(), "key-1")
    key = ("storefront", "key-1")

    async def keep(body: bytes) -> store.KeptAnswer:
        answer = store.KeptAnswer(b"", UUID(placed.body["order_id"]), 201, body)
        async with shop.database.transaction() as tx:
            [kept] = await handlers.keep_later_answers(tx, [handlers.LaterAnswer(key, answer)])
        return kept

    first, second = await keep(b"1"), await keep(b"2")

    assert (first.status, first.body) == (201, b"1")
    assert second == first


async def test_a_later_answer_whose_key_is_forgotten_is_given_all_the_same(shop: Shop) -> None:
    """Nothing is kept under a key that was never used, or whose time is over."""
    answer = store.KeptAnswer(b"", new_id(), 201, b"1")

    async with shop.database.transaction() as tx:
        kept = await handlers.keep_later_answers(tx, [handlers.LaterAnswer(("storefront", "k"), answer)])

    assert kept == [answer]
    assert await rows(shop.database, "SELECT * FROM idempotency_keys") == []
