"""What does the order service answer about orders?"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from services.order_service import handlers
from shared.database import Database
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.order_building import (
    confirmed,
    initiated,
    place_order,
    released,
    reserved,
    stock_rejected,
    succeeded,
)
from tests.order_shop import OPERATOR, Shop, basket, pointers, serving


@pytest.fixture
async def shop(order_db: Database) -> AsyncIterator[Shop]:
    """The order service with an apple and a loaf of bread."""
    async with serving(order_db) as shop:
        await shop.put_product("APPLE")
        await shop.put_product("BREAD", price_minor=250)
        yield shop


async def test_a_placed_order_is_answered_with_where_it_can_be_read(shop: Shop) -> None:
    """202, Location, and the order in the contract's shape; the same as a GET of it."""
    placed = await shop.place(basket(("BREAD", 1), ("APPLE", 2), ("APPLE", 1)))

    read = await shop.get(placed.headers["Location"])
    assert placed.status == 202
    assert read.status == 200
    assert read.body == placed.body
    assert placed.body == {
        "order_id": placed.headers["Location"].removeprefix("/orders/"),
        "customer_id": "customer-1",
        "status": "REQUESTED",
        "reason": None,
        "details": {},
        "version": 1,
        "currency": "EUR",
        "total_minor": 550,
        "lines": [
            {"sku": "APPLE", "quantity": 3, "unit_price_minor": 100},
            {"sku": "BREAD", "quantity": 1, "unit_price_minor": 250},
        ],
        "pay_by": None,
        "payment": {"status": None, "payment_url": None},
        "created_at": placed.body["created_at"],
        "updated_at": placed.body["created_at"],
    }
    assert placed.body["created_at"].endswith("Z")


async def test_an_order_placed_by_http_is_told_with_the_request_as_its_cause(shop: Shop) -> None:
    """The event and the history name the request id that the caller sent."""
    placed = await shop.call(
        "POST", "/orders", basket(), headers={"Idempotency-Key": "k", "X-Request-Id": "request-7"}
    )

    [told] = await outbox_events(shop.database)
    history = await shop.get(f"/orders/{placed.body['order_id']}/history")
    assert told.headers["ce_causationid"] == "http:request-7"
    assert history.body == {
        "items": [
            {
                "version": 1,
                "status": "REQUESTED",
                "reason": None,
                "cause": "http:request-7",
                "at": placed.body["created_at"],
            }
        ],
        "next": None,
    }


async def test_an_order_is_read_as_it_moves_on(shop: Shop) -> None:
    """Status, version, time to pay and the payment page follow the facts; the history has every step."""
    placed = await shop.place(basket())
    order_id = UUID(placed.body["order_id"])

    await feed(shop.database, handlers, [message(reserved(order_id)), message(initiated(order_id))])
    awaiting = await shop.get(f"/orders/{order_id}")
    await feed(shop.database, handlers, [message(succeeded(order_id), sequence=2)])
    await feed(shop.database, handlers, [message(confirmed(order_id), sequence=2)])
    processing = await shop.get(f"/orders/{order_id}")
    history = await shop.get(f"/orders/{order_id}/history")

    assert (awaiting.body["status"], awaiting.body["version"]) == ("AWAITING_PAYMENT", 2)
    assert awaiting.body["pay_by"] == "2026-01-02T03:19:05Z"
    assert awaiting.body["payment"] == {"status": "PENDING", "payment_url": "https://pay.example/1"}
    assert (processing.body["status"], processing.body["version"]) == ("PROCESSING", 3)
    assert processing.body["payment"]["status"] == "SUCCEEDED"
    assert [step["status"] for step in history.body["items"]] == [
        "REQUESTED",
        "AWAITING_PAYMENT",
        "PROCESSING",
    ]
    assert awaiting.headers["ETag"] != processing.headers["ETag"]


async def test_an_order_that_has_not_changed_is_not_sent_again(shop: Shop) -> None:
    """If-None-Match with the current ETag is answered 304."""
    placed = await shop.place(basket())
    path = f"/orders/{placed.body['order_id']}"
    read = await shop.get(path)

    again = await shop.call("GET", path, headers={"If-None-Match": read.headers["ETag"]})

    assert (again.status, again.body) == (304, None)


async def test_a_rejection_shows_its_shortages(shop: Shop) -> None:
    """`details.shortages` says what was asked for and what was there."""
    placed = await shop.place(basket())
    order_id = UUID(placed.body["order_id"])

    await feed(shop.database, handlers, [message(stock_rejected(order_id))])
    read = await shop.get(f"/orders/{order_id}")

    assert (read.body["status"], read.body["reason"]) == ("REJECTED", "insufficient_stock")
    assert read.body["details"] == {"shortages": [{"sku": "APPLE", "requested": 2, "available": 1}]}


async def test_the_same_key_and_body_get_the_same_order(shop: Shop) -> None:
    """Concurrent and later repeats find the order of the first; it is stored and told once."""
    first = await asyncio.gather(*(shop.place(basket(), "key-1") for _ in range(20)))

    later = await shop.place(basket(), "key-1")

    assert {answer.status for answer in [*first, later]} == {202}
    assert len({answer.body["order_id"] for answer in [*first, later]}) == 1
    assert later.body == first[0].body
    assert len(await outbox_events(shop.database)) == 1


async def test_another_key_makes_another_order(shop: Shop) -> None:
    """Two keys, two orders, also with one body; and a key belongs to its caller's scope."""
    answers = [await shop.place(basket(), key) for key in ("key-1", "key-2")]
    by_operator = await shop.call(
        "POST", "/orders", basket(), token=OPERATOR, headers={"Idempotency-Key": "key-1"}
    )

    assert len({answer.body["order_id"] for answer in [*answers, by_operator]}) == 3


async def test_the_same_key_with_another_body_is_refused(shop: Shop) -> None:
    """422, and the first order stays as it is."""
    await shop.place(basket(), "key-1")

    other = await shop.place(basket(("APPLE", 9)), "key-1")

    assert other.status == 422
    assert len(await outbox_events(shop.database)) == 1


async def test_a_known_order_id_returns_its_order_or_is_a_conflict(shop: Shop) -> None:
    """With the same content 202 as long as it is REQUESTED and 200 afterwards; with another content 409."""
    order_id = new_id()
    placed = await shop.place(basket(order_id=str(order_id)))

    again = await shop.place(basket(order_id=str(order_id)))
    other = await shop.place(basket(("BREAD", 1), order_id=str(order_id)))
    await feed(shop.database, handlers, [message(reserved(order_id))])
    later = await shop.place(basket(order_id=str(order_id)))

    assert placed.body["order_id"] == str(order_id)
    assert (again.status, again.body) == (202, placed.body)
    assert other.status == 409
    assert (later.status, later.body["status"]) == (200, "AWAITING_PAYMENT")


async def test_http_and_kafka_place_the_same_order(shop: Shop) -> None:
    """A command that came by Kafka is found by the same request, and the other way round."""
    by_kafka = place_order(None, ("APPLE", 2))
    await feed(shop.database, handlers, [message(by_kafka)])
    answer = await shop.place(basket(order_id=str(by_kafka.order_id)))
    order_id = UUID((await shop.place(basket())).body["order_id"])

    refusals = await feed(shop.database, handlers, [message(place_order(order_id, ("APPLE", 2)))])

    assert answer.status == 202
    assert refusals == []


@pytest.mark.parametrize(
    ("body", "reason", "where"),
    [
        (basket(("APPLE", 1), ("NONE", 1)), "unknown_sku", ["/lines/1/sku"]),
        (basket(("GONE", 1)), "inactive_product", ["/lines/0/sku"]),
        (basket(currency="USD"), "currency", ["/lines/0/sku"]),
        (basket(expected_total_minor=1), "total_changed", ["/expected_total_minor"]),
        (basket(lines=None, cart_id="cart-1"), "empty_cart", ["/cart_id"]),
    ],
    ids=["unknown sku", "inactive product", "other currency", "changed total", "empty cart"],
)
async def test_what_cannot_be_accepted_is_refused_and_not_stored(
    shop: Shop, body: dict[str, Any], reason: str, where: list[str]
) -> None:
    """422 with the reason; the key is not burnt: once the cause is gone the same request is accepted."""
    await shop.put_product("GONE", active=False)

    refused = await shop.place(body, "key-1")
    accepted = await shop.place(basket(), "key-1")

    assert refused.status == 422
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.body["type"] == f"urn:holdfast:problem:{reason}"
    assert pointers(refused) == where
    assert accepted.status == 202


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        (b"{", 400, None),
        (b"\xff", 400, None),
        (b"", 400, None),
        (b"[]", 422, [""]),
        (basket(("APPLE", 0)), 422, ["/lines/0/quantity"]),
        (basket(("APPLE", 1_000_001)), 422, ["/lines/0/quantity"]),
        (basket(lines=[]), 422, ["/lines"]),
        (basket(lines=[{"sku": "A", "quantity": 1}] * 501), 422, ["/lines"]),
        (basket(lines=[{"sku": "A", "quantity": "1"}]), 422, ["/lines/0/quantity"]),
        (basket(lines=[{"sku": "A\u0000", "quantity": 1}]), 422, ["/lines/0/sku"]),
        (basket(lines=None), 422, [""]),
        (basket(cart_id="cart-1"), 422, [""]),
        (basket(currency="eur"), 422, ["/currency"]),
        (basket(hold_seconds=9), 422, ["/hold_seconds"]),
        (basket(payment_method="Bank Transfer"), 422, ["/payment_method"]),
        (basket(expected_total_minor=-1), 422, ["/expected_total_minor"]),
        (basket(expected_total_minor=2**53), 422, ["/expected_total_minor"]),
        (basket(customer_id=""), 422, ["/customer_id"]),
        (basket(order_id="7"), 422, ["/order_id"]),
        (b" " * (256 * 1024 + 1), 413, None),
    ],
)
async def test_a_body_that_does_not_fit_is_refused(
    shop: Shop, body: Any, status: int, where: list[str] | None
) -> None:
    """400 for what is no JSON, 422 with a pointer for what is no order, 413 beyond 256 KiB; never a 5xx."""
    refused = await shop.place(body)

    assert refused.status == status
    assert refused.headers["Content-Type"] == "application/problem+json"
    if where is not None:
        assert pointers(refused)[: len(where)] == where


@pytest.mark.parametrize("key", [None, "", "x" * 256, "caf\u00e9"])
async def test_an_idempotency_key_is_needed(shop: Shop, key: str | None) -> None:
    """Without one, or with one that is no printable ASCII of 1 to 255 characters, 400."""
    headers = {} if key is None else {"Idempotency-Key": key}

    refused = await shop.call("POST", "/orders", basket(), headers=headers)

    assert refused.status == 400


async def test_a_total_beyond_the_largest_exact_integer_is_refused(shop: Shop) -> None:
    """422, and nothing is stored."""
    await shop.put_product("GOLD", price_minor=2**53 - 1)

    refused = await shop.place(basket(("GOLD", 2)))

    assert refused.status == 422
    assert await outbox_events(shop.database) == []


async def test_an_order_is_cancelled_once(shop: Shop) -> None:
    """202 the first time, 200 again; the event carries the reason and whose token it was."""
    order_id = (await shop.place(basket())).body["order_id"]

    first = await shop.call("POST", f"/orders/{order_id}/cancel", {"reason": "too late"})
    again = await shop.call("POST", f"/orders/{order_id}/cancel", {"reason": "another"})

    assert (first.status, first.body["status"], first.body["reason"]) == (202, "CANCELLED", "too late")
    assert (again.status, again.body) == (200, first.body)
    [told] = await outbox_events(shop.database, types=["OrderCancelled"])
    assert (told.event.reason, told.event.requested_by) == ("too late", "storefront")


async def test_a_cancellation_needs_no_body(shop: Shop) -> None:
    """The reason is optional."""
    order_id = (await shop.place(basket())).body["order_id"]

    cancelled = await shop.call("POST", f"/orders/{order_id}/cancel", token=OPERATOR)

    assert (cancelled.status, cancelled.body["reason"]) == (202, None)


async def test_an_order_that_has_ended_cannot_be_cancelled(shop: Shop) -> None:
    """409 in any status but REQUESTED, AWAITING_PAYMENT and PROCESSING."""
    order_id = UUID((await shop.place(basket())).body["order_id"])
    await feed(
        shop.database,
        handlers,
        [message(reserved(order_id)), message(released(order_id), sequence=2)],
    )

    refused = await shop.call("POST", f"/orders/{order_id}/cancel", {})

    assert refused.status == 409
    assert "EXPIRED" in refused.body["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), ({"reason": 7}, 422), ({"reason": "x" * 501}, 422), ({"reason": "\u0000"}, 422)],
)
async def test_a_cancellation_that_does_not_fit_is_refused(shop: Shop, body: Any, status: int) -> None:
    """What is no JSON, no text, too long, or cannot be stored is refused; the order stays as it is."""
    order_id = (await shop.place(basket())).body["order_id"]

    refused = await shop.call("POST", f"/orders/{order_id}/cancel", body)

    assert refused.status == status
    assert (await shop.get(f"/orders/{order_id}")).body["status"] == "REQUESTED"


@pytest.mark.parametrize("order_id", [str(new_id()), "7"], ids=["unknown", "no UUID"])
async def test_what_is_not_there_is_not_found(shop: Shop, order_id: str) -> None:
    """404 for an unknown order, and for an id that is none."""
    answers = [
        await shop.get(f"/orders/{order_id}"),
        await shop.get(f"/orders/{order_id}/history"),
        await shop.call("POST", f"/orders/{order_id}/cancel", {}),
    ]

    assert [answer.status for answer in answers] == [404, 404, 404]


async def test_orders_are_listed_by_customer_and_status(shop: Shop) -> None:
    """Page by page, in the order of their ids."""
    mine = sorted([(await shop.place(basket())).body["order_id"] for _ in range(3)])
    await shop.place(basket(customer_id="customer-2"))
    await feed(shop.database, handlers, [message(reserved(UUID(mine[0])))])

    first = await shop.get("/orders?customer_id=customer-1&limit=2")
    rest = await shop.get(f"/orders?customer_id=customer-1&limit=2&after={first.body['next']}")
    requested = await shop.get("/orders?customer_id=customer-1&status=REQUESTED")

    assert [order["order_id"] for order in first.body["items"]] == mine[:2]
    assert [order["order_id"] for order in rest.body["items"]] == mine[2:]
    assert (first.body["next"], rest.body["next"]) == (mine[1], None)
    assert [order["order_id"] for order in requested.body["items"]] == mine[1:]
    assert requested.body["items"][0]["lines"] == [{"sku": "APPLE", "quantity": 2, "unit_price_minor": 100}]


@pytest.mark.parametrize(
    "query", ["after=7", "limit=0", "limit=1001", "limit=x", "status=OPEN", "colour=red"]
)
async def test_a_query_that_does_not_fit_is_refused(shop: Shop, query: str) -> None:
    """422 with a pointer."""
    refused = await shop.get(f"/orders?{query}")

    assert refused.status == 422
    assert pointers(refused) == [f"/{query.partition('=')[0]}"]
