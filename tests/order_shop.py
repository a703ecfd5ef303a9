"""How do tests speak to the order service by HTTP?"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from services.order_service import api, handlers
from services.order_service.api import Api
from services.order_service.domain.book import Decided
from services.order_service.handlers import Request
from shared.batcher import Batcher
from shared.database import Database
from shared.health import Health
from shared.ids import new_id
from shared.web import Access, make_app

STOREFRONT = "storefront-token-0123456789"
OPERATOR = "operator-token-0123456789"
OPENAPI = Path(api.__file__).parent / "openapi.json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers and the body as JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Shop:
    """The order service on a real socket, and callers with a token."""

    def __init__(self, client: "TestClient[Any, Any]", database: Database) -> None:
        self._client = client
        self.database = database

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


@asynccontextmanager
async def serving(database: Database) -> AsyncIterator[Shop]:
    """Run the service's HTTP side on a free port."""
    requests: Batcher[Request, Decided] = Batcher(
        "orders", database, handlers.answer, size_max=500, queue_max=1_000
    )
    app = make_app(
        Api(database, requests).routes(),
        access=Access(storefront=SecretStr(STOREFRONT), operator=SecretStr(OPERATOR)),
        health=Health(),
        database=database,
        openapi=orjson.loads(OPENAPI.read_bytes()),
        body_bytes_max=65_536,
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(requests.run(stopping))
    async with TestClient(TestServer(app)) as client:
        yield Shop(client, database)
    stopping.set()
    await running


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
