"""How do tests speak to the order service by HTTP?"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import orjson
from aiohttp import TCPConnector, web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from services.order_service import handlers, main
from services.order_service.api import Api, Edges, OrderEdges
from services.order_service.domain.order import Order
from services.order_service.handlers import Policy
from shared.access import Access
from shared.batcher import Batcher
from shared.database import Connection, Database
from shared.errors import HoldfastError
from shared.health import Health
from shared.ids import new_id
from shared.listener import Listener
from shared.runtime import Part
from shared.web import make_app

Item = TypeVar("Item")
Result = TypeVar("Result")

STOREFRONT = "storefront-token-0123456789"
OPERATOR = "operator-token-0123456789"
OPENAPI = Path(main.__file__).parent / "openapi.json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers and the body as JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Shop:
    """The order service on a real socket, and callers with a token."""

    def __init__(
        self,
        client: "TestClient[Any, Any]",
        database: Database,
        *,
        routes: Sequence[web.RouteDef],
        health: Health,
        listener: Listener,
        reads: "CountedReads",
    ) -> None:
        self._client = client
        self._health = health
        self.database = database
        self.listener = listener
        self.reads = reads
        #: The service's own.
        self.routes = [(route.method, route.path) for route in routes]

    def begin_to_stop(self) -> None:
        """Do what the service does first when it is told to stop."""
        self._health.stopping = True
        self.listener.wake_all()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = STOREFRONT,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request; a body of bytes goes as it is."""
        data = body if body is None else BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
        authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self._client.request(
            method, path, data=data, headers={**authorization, **(headers or {})}
        ) as response:
            raw = await response.read()
            return Answer(response.status, response.headers, orjson.loads(raw) if raw else None)

    async def get(self, path: str) -> Answer:
        """Read something as a storefront."""
        return await self.call("GET", path)

    async def place(self, body: Mapping[str, Any], key: str | None = None) -> Answer:
        """Place an order under an idempotency key, a new one unless given."""
        return await self.call("POST", "/orders", body, headers={"Idempotency-Key": key or str(new_id())})

    async def put_product(self, sku: str, **fields: Any) -> Answer:
        """Store a product."""
        body = {"name": sku.title(), "price_minor": 100, "currency": "EUR", **fields}
        return await self.call("PUT", f"/products/{sku}", body, token=OPERATOR)


class CountedReads:
    """Reads orders, and counts the batches and the requests in them."""

    def __init__(self) -> None:
        self.batches = 0
        self.requests = 0

    async def apply(self, tx: Connection, order_ids: Sequence[UUID]) -> Sequence[Order | HoldfastError]:
        """Read a batch."""
        self.batches += 1
        self.requests += len(order_ids)
        return await handlers.read_orders(tx, order_ids)


@asynccontextmanager
async def serving(database: Database, *, holds_per_customer_max: int = 0) -> AsyncIterator[Shop]:
    """Run the service's HTTP side on a free port."""
    health, reads = Health(), CountedReads()
    listener = Listener(database.dsn, handlers.CHANNEL, health=health)
    place = partial(handlers.place, policy=Policy(holds_per_customer_max))
    orders = OrderEdges(
        placements=_batcher("orders", database, place),
        later_answers=_batcher("order_answers", database, handlers.keep_later_answers),
        withdrawals=_batcher("cancellations", database, handlers.cancel),
    )
    edges = Edges(
        orders=orders,
        reads=_batcher("order_reads", database, reads.apply),
        carts=_batcher("carts", database, handlers.change_carts),
    )
    routes = Api(database, edges, listener).routes()
    app = make_app(
        routes,
        access=Access(storefront=SecretStr(STOREFRONT), operator=SecretStr(OPERATOR)),
        health=health,
        database=database,
        openapi=orjson.loads(OPENAPI.read_bytes()),
        body_bytes_max=65_536,
    )
    parts: list[Part] = [
        *(orders.placements, orders.later_answers, orders.withdrawals, edges.reads, edges.carts, listener)
    ]
    stopping = asyncio.Event()
    running = [asyncio.create_task(part.run(stopping)) for part in parts]
    async with TestClient(TestServer(app), connector=TCPConnector(limit=0)) as client:
        yield Shop(client, database, routes=routes, health=health, listener=listener, reads=reads)
    stopping.set()
    await asyncio.gather(*running)


def _batcher(
    name: str,
    database: Database,
    apply: Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result | HoldfastError]]],
) -> Batcher[Item, Result]:
    return Batcher(name, database, apply, size_max=500, queue_max=2_000)


def basket(*lines: tuple[str, int], **fields: Any) -> dict[str, Any]:
    """Return the body of an order: two apples unless told otherwise."""
    return {
        "customer_id": "customer-1",
        "currency": "EUR",
        "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines or [("APPLE", 2)]],
        **fields,
    }


def pointers(answer: Answer) -> list[str]:
    """Return where a problem found its faults."""
    return [fault["pointer"] for fault in answer.body["errors"]]
