"""Is a request that waits answered as soon as its order moves, wherever that was committed?"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession

from services.order_service import handlers
from services.order_service.main import wire
from services.order_service.settings import Settings
from shared.database import Database
from shared.events import OrderStatus
from shared.ids import new_id
from shared.runtime import Service, start
from shared.settings import load
from tests.conftest import MakeDatabase
from tests.feeding import feed, message
from tests.order_building import initiated, place_order, reserved, stock_rejected, succeeded
from tests.order_database import place, rows, stock_catalog
from tests.order_shop import OPERATOR, STOREFRONT, Answer, Shop, basket, pointers, serving
from tests.waiting import eventually


@pytest.fixture
async def shop(order_db: Database) -> AsyncIterator[Shop]:
    """The order service with a small catalog, listening: from now on only a change wakes who waits."""
    await stock_catalog(order_db)
    async with serving(order_db) as shop:
        await eventually(lambda: is_listening(order_db))
        yield shop


async def is_listening(database: Database) -> bool:
    """Tell whether the listener has begun."""
    found = await rows(
        database,
        """
        SELECT 1 FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'listener:orders' AND query = 'SELECT 1'
        """,
    )
    return bool(found)


async def until_waiting(shop: Shop, looks: int = 1) -> None:
    """Wait until so many who wait have had their first look, and found nothing new."""
    await eventually(lambda: shop.listener.watched and shop.reads.requests == looks)


async def place_and_wait(
    shop: Shop, prefer: str, body: Mapping[str, Any] | None = None, key: str | None = None
) -> Answer:
    """Place an order and prefer to wait."""
    headers = {"Idempotency-Key": key or str(new_id()), "Prefer": prefer}
    return await shop.call("POST", "/orders", body or basket(), headers=headers)


async def the_order(database: Database) -> UUID:
    """Return the only order, as soon as it is stored."""

    async def found() -> list[tuple[Any, ...]]:
        return await rows(database, "SELECT order_id FROM orders")

    order_id: UUID = (await eventually(found))[0][0]
    return order_id


async def elapsed(waiting: "asyncio.Task[Answer]") -> tuple[Answer, float]:
    """Return an answer and the seconds that it took from now."""
    clock = asyncio.get_running_loop().time
    before = clock()
    return await waiting, clock() - before


# --- placing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "status"), [(reserved, "AWAITING_PAYMENT"), (stock_rejected, "REJECTED")], ids=["held", "short"]
)
async def test_an_order_is_answered_as_soon_as_its_stock_is_decided(
    shop: Shop, fact: Any, status: str
) -> None:
    """201 with the decided order, also when it is REJECTED: then with its shortages."""
    waiting = asyncio.create_task(place_and_wait(shop, "wait=30"))
    order_id = await the_order(shop.database)
    await until_waiting(shop)

    await feed(shop.database, handlers, [message(fact(order_id))])
    answer, seconds = await elapsed(waiting)

    assert (answer.status, answer.body["status"]) == (201, status)
    assert (answer.headers["Location"], answer.headers["Preference-Applied"]) == (
        f"/orders/{order_id}",
        "wait=30",
    )
    assert ("shortages" in answer.body["details"]) == (status == "REJECTED")
    assert answer.body == (await shop.get(f"/orders/{order_id}")).body
    assert seconds < 10


async def test_an_order_whose_stock_is_not_decided_in_time_is_answered_as_accepted(shop: Shop) -> None:
    """202 and Location when the time is over."""
    answer = await place_and_wait(shop, "wait=1")

    assert (answer.status, answer.body["status"]) == (202, "REQUESTED")
    assert answer.headers["Location"] == f"/orders/{answer.body['order_id']}"
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=0", "wait=0"),
        ("respond-async, wait=0", "wait=0"),
        ('WAIT = "0"; x=y', "wait=0"),
        ("wait=0, wait=30", "wait=0"),
        ("wait=soon", None),
        ("wait=-1", None),
        ("return=minimal", None),
        ("", None),
    ],
)
async def test_a_preference_that_cannot_be_read_is_none(shop: Shop, prefer: str, applied: str | None) -> None:
    """The order is placed all the same, and the answer says whether a wait was preferred."""
    answer = await place_and_wait(shop, prefer)

    assert answer.status == 202
    assert answer.headers.get("Preference-Applied") == applied


async def test_nobody_waits_for_more_than_half_a_minute(shop: Shop) -> None:
    """A longer wait is cut to 30 seconds, and the answer says so."""
    waiting = asyncio.create_task(place_and_wait(shop, "wait=3600"))
    await feed(shop.database, handlers, [message(reserved(await the_order(shop.database)))])

    answer = await waiting

    assert answer.headers["Preference-Applied"] == "wait=30"


async def test_a_refused_order_is_refused_at_once(shop: Shop) -> None:
    """There is nothing to wait for."""
    refused = await place_and_wait(shop, "wait=30", basket(("NONE", 1)))

    assert refused.status == 422
    assert pointers(refused) == ["/lines/0/sku"]


async def test_all_who_wait_under_one_key_are_given_one_answer(shop: Shop) -> None:
    """Twenty first calls at once: one order, one 201 for all, and the same again when the order has moved on."""
    waiting = [asyncio.create_task(place_and_wait(shop, "wait=30", key="key-1")) for _ in range(20)]
    order_id = await the_order(shop.database)

    await feed(shop.database, handlers, [message(reserved(order_id))])
    answers = await asyncio.gather(*waiting)
    await feed(shop.database, handlers, [message(succeeded(order_id))])
    await shop.call("POST", f"/orders/{order_id}/cancel", {})
    later = [await place_and_wait(shop, "wait=30", key="key-1"), await shop.place(basket(), "key-1")]

    assert {answer.status for answer in [*answers, *later]} == {201}
    assert all(answer.body == answers[0].body for answer in [*answers, *later])
    assert [answer.headers["Idempotency-Replayed"] for answer in later] == ["true", "true"]
    assert await rows(shop.database, "SELECT count(*) FROM orders") == [(1,)]


async def test_who_lost_the_first_answer_may_wait_again(shop: Shop) -> None:
    """The same request under its key waits on for the same order, if that is still undecided."""
    first = await shop.place(basket(), "key-1")
    waiting = asyncio.create_task(place_and_wait(shop, "wait=30", key="key-1"))
    await feed(shop.database, handlers, [message(reserved(UUID(first.body["order_id"])))])

    answer = await waiting

    assert (answer.status, answer.body["status"]) == (201, "AWAITING_PAYMENT")
    assert answer.headers["Idempotency-Replayed"] == "true"


# --- reading --------------------------------------------------------------------------------------------------------


async def test_an_order_is_read_as_soon_as_it_has_passed_a_known_version(shop: Shop) -> None:
    """At once if it has already; else when it does. What moves no version wakes nobody for good."""
    order_id = (await shop.place(basket())).body["order_id"]

    at_once = await shop.get(f"/orders/{order_id}?after_version=0&wait=30")
    waiting = asyncio.create_task(shop.get(f"/orders/{order_id}?after_version=1&wait=30"))
    await until_waiting(shop, looks=2)
    await feed(shop.database, handlers, [message(initiated(UUID(order_id)))])
    await until_waiting(shop, looks=3)
    await feed(shop.database, handlers, [message(reserved(UUID(order_id)))])
    answer, seconds = await elapsed(waiting)

    assert at_once.body["version"] == 1
    assert (answer.status, answer.body["version"], answer.body["status"]) == (200, 2, "AWAITING_PAYMENT")
    assert seconds < 10


async def test_an_order_that_does_not_move_is_read_as_it_stands_when_the_time_is_over(shop: Shop) -> None:
    """200 with the known version; 304 for who has that already."""
    placed = await shop.place(basket())
    path = f"/orders/{placed.body['order_id']}?after_version=1&wait=1"

    answer = await shop.get(path)
    unchanged = await shop.call("GET", path, headers={"If-None-Match": answer.headers["ETag"]})

    assert (answer.status, answer.body) == (200, placed.body)
    assert unchanged.status == 304


async def test_without_a_time_nobody_waits(shop: Shop) -> None:
    """`after_version` alone answers at once."""
    placed = await shop.place(basket())

    answer = await shop.get(f"/orders/{placed.body['order_id']}?after_version=9")

    assert answer.body == placed.body


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("wait=5", ""),
        ("after_version=1&wait=31", "/wait"),
        ("after_version=1&wait=-1", "/wait"),
        ("after_version=1&wait=x", "/wait"),
        ("after_version=-1&wait=1", "/after_version"),
        ("version=1", "/version"),
    ],
)
async def test_a_wait_that_does_not_fit_is_refused(shop: Shop, query: str, where: str) -> None:
    """422 with a pointer."""
    order_id = (await shop.place(basket())).body["order_id"]

    refused = await shop.get(f"/orders/{order_id}?{query}")

    assert refused.status == 422
    assert pointers(refused) == [where]


async def test_an_unknown_order_is_not_waited_for(shop: Shop) -> None:
    """404 at once."""
    answer = await shop.get(f"/orders/{new_id()}?after_version=0&wait=30")

    assert answer.status == 404


@pytest.mark.parametrize("header", ["W/{}", '"x", {}', "*"])
async def test_a_tag_is_found_in_whatever_form_it_comes(shop: Shop, header: str) -> None:
    """A weak tag, one of a list, and any: 304 (RFC 9110, section 13.1.2)."""
    path = f"/orders/{(await shop.place(basket())).body['order_id']}"
    tag = (await shop.get(path)).headers["ETag"]

    answers = [
        await shop.call("GET", path, headers={"If-None-Match": header.format(tag)}),
        await shop.call("GET", path, headers={"If-None-Match": '"x"'}),
    ]

    assert [answer.status for answer in answers] == [304, 200]


async def test_a_thousand_who_wait_are_woken_by_few_statements(shop: Shop) -> None:
    """While they wait none asks the database; one batch of facts wakes them all, and they read together."""
    commands = [place_order() for _ in range(250)]
    await place(shop.database, *commands)
    waiting = [
        asyncio.create_task(shop.get(f"/orders/{command.order_id}?after_version=1&wait=30"))
        for command in commands
        for _ in range(4)
    ]
    await eventually(lambda: shop.listener.watched == 250, timeout_seconds=30)
    await eventually(lambda: shop.reads.requests == 1_000, timeout_seconds=30)
    before = shop.reads.batches

    await feed(shop.database, handlers, [message(reserved(command.order_id)) for command in commands])
    answers = await asyncio.gather(*waiting)

    assert {(answer.status, answer.body["version"]) for answer in answers} == {(200, 2)}
    assert shop.reads.requests == 2_000
    assert shop.reads.batches - before <= 20


async def test_who_waits_is_answered_when_the_service_stops(shop: Shop) -> None:
    """As it stands, well before the time is over."""
    placed = await shop.place(basket())
    reading = asyncio.create_task(shop.get(f"/orders/{placed.body['order_id']}?after_version=1&wait=30"))
    placing = asyncio.create_task(place_and_wait(shop, "wait=30"))
    await eventually(lambda: shop.listener.watched == 2)

    shop.begin_to_stop()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(reading, placing)

    assert [(answer.status, answer.body["status"]) for answer in answers] == [
        (200, "REQUESTED"),
        (202, "REQUESTED"),
    ]


# --- two copies of the service --------------------------------------------------------------------------------------


def settings_of(dsn: str) -> Settings:
    """Return the settings of a copy whose Kafka is away."""
    given = {
        "DATABASE_DSN": dsn,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "HTTP_PORT": "0",
        "STOREFRONT_TOKEN": STOREFRONT,
        "OPERATOR_TOKEN": OPERATOR,
    }
    return load(Settings, environment={f"HOLDFAST_{name}": value for name, value in given.items()})


async def call(
    session: ClientSession, service: Service[Settings], method: str, path: str, **options: Any
) -> tuple[int, Any]:
    """Ask a copy of the service."""
    headers = {"Authorization": f"Bearer {STOREFRONT}", **options.pop("headers", {})}
    url = f"http://127.0.0.1:{service.http_port}{path}"
    async with session.request(method, url, headers=headers, **options) as response:
        return response.status, await response.json()


async def test_one_copy_of_the_service_wakes_the_waiters_of_another(make_database: MakeDatabase) -> None:
    """Placed here, cancelled there: who waits here is answered, and a stop answers who still waits."""
    dsn = await make_database("order")
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(start("order-service", settings_of(dsn), wire))
        stopping = asyncio.Event()
        there_stack = await stack.enter_async_context(AsyncExitStack())
        there = await there_stack.enter_async_context(
            start("order-service", settings_of(dsn), wire, stopping=stopping)
        )
        session = await stack.enter_async_context(ClientSession())
        await stock_catalog(here.database)
        headers = {"Idempotency-Key": "key-1", "Prefer": "wait=30"}
        placing = asyncio.create_task(call(session, here, "POST", "/orders", json=basket(), headers=headers))
        order_id = await the_order(here.database)
        read = f"/orders/{order_id}?after_version={{}}&wait=30"
        watching = [asyncio.create_task(call(session, copy, "GET", read.format(1))) for copy in (here, there)]

        cancelled = await call(session, there, "POST", f"/orders/{order_id}/cancel", json={})
        answers = await asyncio.gather(placing, *watching)
        late = asyncio.create_task(call(session, there, "GET", read.format(2)))
        await eventually(lambda: _listener(there).watched)
        async with asyncio.timeout(8):
            await there_stack.aclose()
        stopped = await late

    assert cancelled[0] == 202
    assert [status for status, _ in answers] == [201, 200, 200]
    assert {body["status"] for _, body in answers} == {OrderStatus.CANCELLED}
    assert (stopped[0], stopped[1]["version"]) == (200, 2)


def _listener(service: Service[Settings]) -> Any:
    return next(part for part in service.parts if part.name == "listener:orders")
