"""What is measured against what? Holdfast, and the textbook design, each taking the same orders to PROCESSING."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
import orjson

from benchmarks import textbook
from benchmarks.gateway import InstantGateway
from benchmarks.lean_http import LeanClient
from benchmarks.machine import TOKEN, WEBHOOK_SECRET, Parts, ServiceProcess, service, until_ready
from deploy.local.migrations import SERVICES, migrate_all
from deploy.local.ports import free_port
from deploy.local.postgres import role_of
from deploy.local.topics import ensure_topics
from shared.commands import command, send
from shared.database import connect
from shared.errors import HoldfastError
from shared.events import PlaceOrder
from shared.ids import new_id

_REQUESTS_AT_ONCE = 64
_IMPORT_LINES = 10_000
_UNITS = 1_000_000

Place = Callable[[Sequence[PlaceOrder]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class System:
    """Something that takes orders: how they are placed, who works on them, and where they are counted."""

    place: Mapping[str, Place]
    stock_up: Callable[[Sequence[str]], Awaitable[None]]
    pids: Mapping[str, int]
    orders_dsn: str
    gateway: InstantGateway

    async def count_done(self) -> int:
        """Return how many orders are paid and confirmed."""
        connection = await connect(self.orders_dsn)
        try:
            count: int = await connection.fetchval("SELECT count(*) FROM orders WHERE status = 'PROCESSING'")
        finally:
            await connection.close()
        return count


@asynccontextmanager
async def holdfast(parts: Parts) -> AsyncIterator[System]:
    """Run the three services, paying every order at once."""
    async with AsyncExitStack() as stack:
        await migrate_all({name: parts.postgres.dsn(name) for name in SERVICES})
        await ensure_topics(parts.kafka_settings)
        port = free_port()
        gateway = await stack.enter_async_context(_gateway(port))
        payment_settings = {
            "HOLDFAST_GATEWAYS": "sandbox",
            "HOLDFAST_SANDBOX_URL": gateway.url,
            "HOLDFAST_SANDBOX_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "HOLDFAST_PAYMENT_AUTO_INITIATE": "true",
        }
        services = {
            "order": await stack.enter_async_context(service("order", parts, {})),
            "inventory": await stack.enter_async_context(service("inventory", parts, {})),
            "payment": await stack.enter_async_context(service("payment", parts, payment_settings, port)),
        }
        session = await stack.enter_async_context(
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}, raise_for_status=True)
        )

        client = await stack.enter_async_context(
            LeanClient(
                f"{services['order'].url}/orders",
                connections_max=_REQUESTS_AT_ONCE,
                headers={"Authorization": f"Bearer {TOKEN}"},
            )
        )

        async def by_kafka(orders: Sequence[PlaceOrder]) -> None:
            await send(parts.kafka_settings, [command(order) for order in orders])

        async def by_http(orders: Sequence[PlaceOrder]) -> None:
            await _post_all(client, orders)

        async def stock_up(skus: Sequence[str]) -> None:
            await _stock_up(session, services, skus)

        pids = {name: running.pid for name, running in services.items()} | _pids_of(parts, kafka=True)
        yield System(
            {"Kafka": by_kafka, "HTTP": by_http}, stock_up, pids, parts.postgres.dsn("order"), gateway
        )


@asynccontextmanager
async def textbook_peer(parts: Parts) -> AsyncIterator[System]:
    """Run the textbook design in a database of its own."""
    async with AsyncExitStack() as stack:
        dsn = await parts.postgres.create_database("textbook", role_of("order"))
        connection = await connect(dsn)
        stack.push_async_callback(connection.close)
        await connection.execute(textbook.SCHEMA)
        port = free_port()
        gateway = await stack.enter_async_context(_gateway(port))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.textbook"),
            env={
                **os.environ,
                "TEXTBOOK_DSN": dsn,
                "TEXTBOOK_PORT": str(port),
                "TEXTBOOK_GATEWAY_URL": gateway.url,
                "TEXTBOOK_SECRET": WEBHOOK_SECRET,
            },
        )
        running = ServiceProcess("textbook", f"http://127.0.0.1:{port}", process)
        stack.push_async_callback(running.stop)
        await until_ready(running)
        client = await stack.enter_async_context(
            LeanClient(f"{running.url}/orders", connections_max=_REQUESTS_AT_ONCE)
        )

        async def by_http(orders: Sequence[PlaceOrder]) -> None:
            await _post_all(client, orders)

        async def stock_up(skus: Sequence[str]) -> None:
            await connection.execute(
                "INSERT INTO products SELECT sku, 1000, 'EUR' FROM unnest($1::text[]) AS sku", skus
            )
            await connection.execute(
                "INSERT INTO stock (sku, stock) SELECT sku, $2 FROM unnest($1::text[]) AS sku", skus, _UNITS
            )
            await connection.execute("ANALYZE")

        pids = {"textbook": running.pid} | _pids_of(parts, kafka=False)
        yield System({"HTTP": by_http}, stock_up, pids, dsn, gateway)


def _gateway(port: int) -> InstantGateway:
    return InstantGateway(f"http://127.0.0.1:{port}/webhooks/sandbox", WEBHOOK_SECRET)


def _pids_of(parts: Parts, *, kafka: bool) -> dict[str, int]:
    return {"postgres": parts.postgres.pid or 0} | ({"kafka": parts.kafka.pid or 0} if kafka else {})


async def _post_all(client: LeanClient, orders: Sequence[PlaceOrder]) -> None:
    """Post every order, as many at once as there are connections."""

    async def post(order: PlaceOrder) -> None:
        body = order.model_dump_json(exclude_none=True).encode()
        status = await client.post(body, {"Idempotency-Key": str(order.order_id)})
        if status >= HTTPStatus.BAD_REQUEST:
            detail = f"an order was answered with {status}"
            raise HoldfastError(detail)

    await asyncio.gather(*(post(order) for order in orders))


async def _stock_up(
    session: aiohttp.ClientSession, services: Mapping[str, ServiceProcess], skus: Sequence[str]
) -> None:
    """Put SKUs on sale with more units than any run takes."""
    products = [{"sku": sku, "name": sku, "price_minor": 1_000, "currency": "EUR"} for sku in skus]
    body = b"\n".join(orjson.dumps(product) for product in products)
    async with session.post(f"{services['order'].url}/products/import", data=body) as answer:
        await answer.read()
    for start in range(0, len(skus), _IMPORT_LINES):
        lines = [{"sku": sku, "quantity": _UNITS} for sku in skus[start : start + _IMPORT_LINES]]
        receipt = {"receipt_id": f"bench-{new_id().hex}", "lines": lines}
        async with session.post(f"{services['inventory'].url}/stock/receipts", json=receipt) as answer:
            await answer.read()
