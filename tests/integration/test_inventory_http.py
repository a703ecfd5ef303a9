"""Does the inventory answer HTTP as the contract says, and never a 5xx for bad input?"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from services.inventory_service import handlers, main
from services.inventory_service.api import Api
from shared.access import Access
from shared.batcher import Batcher
from shared.database import Database
from shared.health import Health
from shared.ids import new_id
from shared.web import make_app
from tests.feeding import feed, message, outbox_events
from tests.inventory_building import (
    assert_sound,
    counters,
    order_cancelled,
    ordered,
    paid,
    receive,
    standing,
)

STOREFRONT = {"Authorization": "Bearer storefront-token-1"}
OPERATOR = {"Authorization": "Bearer operator-token-12"}

Client = TestClient[Any, Any]


@pytest.fixture
async def client(inventory_db: Database) -> AsyncIterator[Client]:
    """The service's HTTP side, on a real port."""
    changes = Batcher("stock", inventory_db, handlers.change_stock, size_max=50, queue_max=100)
    api = Api(inventory_db, changes, receipt_bytes_max=2_097_152)
    app = make_app(
        api.routes(),
        access=Access(storefront=SecretStr("storefront-token-1"), operator=SecretStr("operator-token-12")),
        health=Health(started=True),
        database=inventory_db,
        openapi=orjson.loads(Path(main.__file__).with_name("openapi.json").read_bytes()),
        body_bytes_max=65_536,
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(changes.run(stopping))
    async with TestClient(TestServer(app)) as client:
        yield client
    stopping.set()
    await running


async def post(
    client: Client, path: str, body: object, headers: Mapping[str, str] = OPERATOR
) -> ClientResponse:
    """Send JSON, as an operator unless told otherwise."""
    response: ClientResponse = await client.post(
        path, data=BytesIO(json.dumps(body).encode()), headers=headers
    )
    return response


async def get(client: Client, path: str) -> Any:
    """Return the JSON at a path, as a storefront reads it."""
    response = await client.get(path, headers=STOREFRONT)
    assert response.status == 200, await response.text()
    return await response.json()


def receipt(receipt_id: str = "r-1", *lines: tuple[str, int]) -> dict[str, Any]:
    """Return a receipt of five apples unless told otherwise."""
    return {
        "receipt_id": receipt_id,
        "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines or [("APPLE", 5)]],
    }


def adjustment(quantity_delta: int, adjustment_id: str = "a-1") -> dict[str, Any]:
    """Return a correction of the apples."""
    return {
        "adjustment_id": adjustment_id,
        "sku": "APPLE",
        "quantity_delta": quantity_delta,
        "reason": "counted",
    }


async def test_a_receipt_is_booked_once(client: Client, inventory_db: Database) -> None:
    """201 for a new receipt, 200 for the same one again, 409 for another content under its id; lines are added up."""
    lines = [("APPLE", 2), ("PEAR", 1), ("APPLE", 3)]

    answers = [
        await post(client, "/stock/receipts", receipt("r-1", *lines)),
        await post(client, "/stock/receipts", receipt("r-1", *reversed(lines))),
        await post(client, "/stock/receipts", receipt("r-1", ("APPLE", 6))),
    ]

    assert [answer.status for answer in answers] == [201, 200, 409]
    assert await answers[0].json() == await answers[1].json()
    assert (await answers[0].json())["lines"] == [
        {"sku": "APPLE", "quantity": 5},
        {"sku": "PEAR", "quantity": 1},
    ]
    assert answers[2].content_type == "application/problem+json"
    assert await get(client, "/stock/APPLE") == {"sku": "APPLE", "available": 5, "reserved": 0, "sold": 0}
    await assert_sound(inventory_db)


async def test_a_receipt_sent_many_times_at_once_is_booked_once(
    client: Client, inventory_db: Database
) -> None:
    """Twenty concurrent calls: one 201, the others 200."""
    answers = await asyncio.gather(*(post(client, "/stock/receipts", receipt()) for _ in range(20)))

    assert sorted(answer.status for answer in answers) == [200] * 19 + [201]
    assert await counters(inventory_db) == (5, 0, 0)


async def test_a_receipt_may_have_ten_thousand_lines_and_no_more(
    client: Client, inventory_db: Database
) -> None:
    """The largest is booked; one line more is 422, and a body beyond any receipt 413."""
    lines = [(f"{'X' * 50}-{number:06d}", 1_000_000) for number in range(10_001)]

    largest = await post(client, "/stock/receipts", receipt("r-1", *lines[:10_000]))
    too_many = await post(client, "/stock/receipts", receipt("r-2", *lines))
    too_large = await post(client, "/stock/receipts", receipt("r-3", *(lines * 3)))

    assert [largest.status, too_many.status, too_large.status] == [201, 422, 413]
    async with inventory_db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM stock_levels") == 10_000


async def test_an_adjustment_corrects_the_available_units(client: Client, inventory_db: Database) -> None:
    """201, the same again 200, another content 409; below zero 409, and then its id is still free."""
    await receive(inventory_db, APPLE=5)

    answers = [
        await post(client, "/stock/adjustments", adjustment(-2)),
        await post(client, "/stock/adjustments", adjustment(-2)),
        await post(client, "/stock/adjustments", adjustment(-1)),
        await post(client, "/stock/adjustments", adjustment(-4, "a-2")),
        await post(client, "/stock/adjustments", adjustment(1, "a-2")),
    ]

    assert [answer.status for answer in answers] == [201, 200, 409, 409, 201]
    assert await counters(inventory_db) == (4, 0, 0)
    await assert_sound(inventory_db)


@pytest.mark.parametrize("path", ["/stock/receipts", "/stock/adjustments"])
async def test_only_operators_change_stock(client: Client, path: str) -> None:
    """Without a token 401, with a storefront's 403, before the body is looked at."""
    answers = [
        await post(client, path, {}, headers={}),
        await post(client, path, {}, headers={"Authorization": "Bearer wrong"}),
        await post(client, path, {}, headers=STOREFRONT),
    ]

    assert [answer.status for answer in answers] == [401, 401, 403]


async def test_reading_needs_a_token(client: Client) -> None:
    """Stock is nobody's business but the shop's."""
    paths = ["/stock", "/stock/APPLE", "/stock/APPLE/movements", f"/reservations/{new_id()}"]

    answers = [await client.get(path) for path in paths]

    assert [answer.status for answer in answers] == [401] * 4


async def test_bad_bodies_are_refused_with_pointers(client: Client, inventory_db: Database) -> None:
    """Each impossible body is a 4xx problem that names the place, and nothing is booked."""
    bad: list[tuple[str, dict[str, Any], str]] = [
        ("/stock/receipts", receipt("r 1"), "/receipt_id"),
        ("/stock/receipts", receipt("r-1") | {"lines": []}, "/lines"),
        ("/stock/receipts", receipt("r-1", ("APPLE", 0)), "/lines/0/quantity"),
        ("/stock/receipts", receipt("r-1", ("APPLE", 1_000_001)), "/lines/0/quantity"),
        ("/stock/receipts", receipt("r-1", ("APPLE", 1), ("A" * 65, 1)), "/lines/1/sku"),
        (
            "/stock/receipts",
            {"receipt_id": "r-1", "lines": [{"sku": "APPLE", "quantity": "1"}]},
            "/lines/0/quantity",
        ),
        ("/stock/adjustments", adjustment(0), "/quantity_delta"),
        ("/stock/adjustments", adjustment(2**70), "/quantity_delta"),
        ("/stock/adjustments", adjustment(1) | {"quantity_delta": 1.5}, "/quantity_delta"),
        ("/stock/adjustments", adjustment(1) | {"reason": ""}, "/reason"),
        ("/stock/adjustments", adjustment(1) | {"reason": "a\x00b"}, "/reason"),
        ("/stock/adjustments", adjustment(1) | {"sku": "ÄPFEL"}, "/sku"),
    ]

    answers = [(await post(client, path, body), pointer) for path, body, pointer in bad]

    for answer, pointer in answers:
        problem = await answer.json()
        assert (answer.status, answer.content_type) == (422, "application/problem+json")
        assert pointer in [error["pointer"] for error in problem["errors"]]
    async with inventory_db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM stock_movements") == 0


async def test_what_is_not_json_is_malformed(client: Client) -> None:
    """400, whatever the bytes."""
    bodies = [b"", b"{", b"\xff\xfe", b"receipt"]

    answers = [await client.post("/stock/receipts", data=body, headers=OPERATOR) for body in bodies]

    assert [answer.status for answer in answers] == [400] * 4


async def test_levels_are_listed_page_by_page(client: Client, inventory_db: Database) -> None:
    """Sorted by SKU; `next` is the key to go on after, and null at the end."""
    await receive(inventory_db, B=2, A=1, a=4, C=3)

    first = await get(client, "/stock?limit=2")
    second = await get(client, f"/stock?limit=2&after={first['next']}")

    assert [level["sku"] for level in first["items"]] == ["A", "B"]
    assert second == {
        "items": [
            {"sku": "C", "available": 3, "reserved": 0, "sold": 0},
            {"sku": "a", "available": 4, "reserved": 0, "sold": 0},
        ],
        "next": None,
    }


async def test_movements_are_listed_page_by_page(client: Client, inventory_db: Database) -> None:
    """The oldest first, with kind, deltas, order, round, cause and time."""
    order_id = new_id()
    await receive(inventory_db, APPLE=5)
    heard = [message(ordered(order_id, ("APPLE", 2))), message(paid(order_id))]
    await feed(inventory_db, handlers, heard)

    first = await get(client, "/stock/APPLE/movements?limit=2")
    second = await get(client, f"/stock/APPLE/movements?limit=2&after={first['next']}")

    items = [*first["items"], *second["items"]]
    assert (len(first["items"]), second["next"]) == (2, None)
    assert [
        (item["kind"], item["available_delta"], item["reserved_delta"], item["sold_delta"]) for item in items
    ] == [("RECEIVED", 5, 0, 0), ("RESERVED", -2, 2, 0), ("CONFIRMED", 0, -2, 2)]
    assert [(item["order_id"], item["round"]) for item in items] == [
        (None, None),
        (str(order_id), 1),
        (str(order_id), 1),
    ]
    assert [item["cause"] for item in items[1:]] == [str(one.event_id) for one in heard]
    assert all(item["at"].endswith("Z") for item in items)


async def test_a_reservation_is_shown_with_its_lines(client: Client, inventory_db: Database) -> None:
    """Status, reason, end of the hold and the lines added up."""
    held, rejected = new_id(), new_id()
    await receive(inventory_db, APPLE=5, PEAR=1)
    await feed(
        inventory_db,
        handlers,
        [
            message(ordered(held, ("PEAR", 1), ("APPLE", 1), ("APPLE", 2))),
            message(ordered(rejected, ("PEAR", 1))),
        ],
    )

    shown, short = await get(client, f"/reservations/{held}"), await get(client, f"/reservations/{rejected}")

    assert (shown["order_id"], shown["status"], shown["reason"]) == (str(held), "HELD", None)
    assert shown["lines"] == [{"sku": "APPLE", "quantity": 3}, {"sku": "PEAR", "quantity": 1}]
    assert shown["expires_at"].endswith("Z")
    assert (short["status"], short["reason"], short["expires_at"]) == ("REJECTED", "insufficient_stock", None)


async def test_what_is_only_remembered_shows_nowhere(client: Client, inventory_db: Database) -> None:
    """A payment heard before its order is 404; the tombstone of a cancelled one shows as released."""
    remembered, buried = new_id(), new_id()
    await feed(inventory_db, handlers, [message(paid(remembered)), message(order_cancelled(buried))])

    answer = await client.get(f"/reservations/{remembered}", headers=STOREFRONT)
    tombstone = await get(client, f"/reservations/{buried}")

    assert await standing(inventory_db, remembered) == (None, None, False)
    assert answer.status == 404
    assert (tombstone["status"], tombstone["reason"], tombstone["lines"]) == ("RELEASED", "cancelled", [])


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    """Unknown SKUs and orders, and ids that can be none, are 404 or 422, never an error of ours."""
    paths = [
        "/stock/GHOST",
        "/stock/GHOST/movements",
        f"/reservations/{new_id()}",
        "/reservations/none",
        "/stock/%00",
        "/stock?limit=0",
        "/stock?limit=1001",
        "/stock?after=%00",
        "/stock?before=A",
        "/stock/APPLE/movements?after=A",
        "/stock/APPLE/movements?after=99999999999999999999",
        "/stock/APPLE/movements?after=-1",
    ]

    answers = [await client.get(path, headers=STOREFRONT) for path in paths]

    assert [answer.status for answer in answers] == [404, 404, 404, 404, *[422] * 8]


async def test_a_receipt_names_the_request_as_its_cause(client: Client, inventory_db: Database) -> None:
    """The movement and the SKU's event both point to the request that caused them."""
    order_id = new_id()
    await receive(inventory_db, APPLE=1)
    await feed(inventory_db, handlers, [message(ordered(order_id))])

    await post(client, "/stock/receipts", receipt(), headers=OPERATOR | {"X-Request-Id": "request-7"})

    (told,) = await outbox_events(inventory_db, types=["StockReplenished"])
    movements = await get(client, "/stock/APPLE/movements")
    assert told.headers["ce_causationid"] == "http:request-7"
    assert movements["items"][-1]["cause"] == "http:request-7"


async def test_the_openapi_document_lists_every_route(client: Client) -> None:
    """What is served at /openapi.json has exactly the routes that there are, and what it refers to is in it."""
    document = await get(client, "/openapi.json")

    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in client.server.app.router.routes()  # type: ignore[attr-defined]  # a TestServer has its app
        if route.resource is not None and route.method != "HEAD"
    }
    listed = {
        (method, path)
        for path, operations in document["paths"].items()
        for method in operations
        if method != "parameters"
    }
    assert listed == routes
    for reference in _references(document):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [reference for value in node.values() for reference in _references(value)]
    if isinstance(node, list):
        return [reference for value in node for reference in _references(value)]
    return []
