"""What is Holdfast compared with? The textbook design, as good as it gets: one process, one transaction an order.

An order is one transaction that locks each line's stock row in the order of SKUs; an attempt and a webhook are one
transaction each. It has the features of the flow that is measured and none of Holdfast's batching: no inbox, no outbox,
no other service. Run it with `python -m benchmarks.textbook`.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import uvloop
from aiohttp import web
from standardwebhooks import Webhook

from shared.database import Connection, Database, DatabaseOptions
from shared.ids import new_id

SCHEMA = """
CREATE TABLE products (sku text PRIMARY KEY, price_minor bigint NOT NULL, currency text NOT NULL);
CREATE TABLE stock (
    sku text PRIMARY KEY,
    stock bigint NOT NULL CHECK (stock >= 0),
    reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    sold bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE orders (
    order_id uuid PRIMARY KEY,
    customer_id text NOT NULL,
    status text NOT NULL,
    total_minor bigint NOT NULL,
    currency text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
CREATE TABLE order_lines (
    order_id uuid NOT NULL,
    sku text NOT NULL,
    quantity bigint NOT NULL,
    unit_price_minor bigint NOT NULL,
    PRIMARY KEY (order_id, sku)
);
CREATE TABLE payments (
    attempt_id uuid PRIMARY KEY,
    order_id uuid NOT NULL,
    status text NOT NULL,
    amount_minor bigint NOT NULL,
    transaction_id text
) WITH (fillfactor = 80);
CREATE TABLE webhooks (event_id text PRIMARY KEY, body bytea NOT NULL, received_at timestamptz NOT NULL DEFAULT now());
"""
_POOL_SIZE = 12
_DATABASE = web.AppKey("database", Database)
_SESSION = web.AppKey("session", aiohttp.ClientSession)
_SIGNATURES = web.AppKey("signatures", Webhook)
_GATEWAY_URL = web.AppKey("gateway_url", str)


async def place(request: web.Request) -> web.Response:
    """Store an order and its reservation in one transaction, then ask the gateway for a payment."""
    body = orjson.loads(await request.read())
    order_id, attempt_id = UUID(body["order_id"]), new_id()
    lines = sorted((line["sku"], line["quantity"]) for line in body["lines"])
    async with request.app[_DATABASE].transaction() as tx:
        total_minor = await _store_order(tx, order_id, body, lines)
        if total_minor is None:
            return web.json_response({"status": "REJECTED"}, status=HTTPStatus.CREATED)
        await tx.execute(
            "INSERT INTO payments (attempt_id, order_id, status, amount_minor) VALUES ($1, $2, 'PENDING', $3)",
            attempt_id,
            order_id,
            total_minor,
        )
    asked = {"reference": str(attempt_id), "amount_minor": total_minor, "currency": body["currency"]}
    async with request.app[_SESSION].post(f"{request.app[_GATEWAY_URL]}/payments", json=asked) as answer:
        payment = orjson.loads(await answer.read())
    async with request.app[_DATABASE].transaction() as tx:
        await tx.execute(
            "UPDATE payments SET transaction_id = $2 WHERE attempt_id = $1", attempt_id, payment["payment_id"]
        )
    return web.json_response({"status": "AWAITING_PAYMENT"}, status=HTTPStatus.CREATED)


async def _store_order(
    tx: Connection, order_id: UUID, body: dict[str, Any], lines: Sequence[tuple[str, int]]
) -> int | None:
    """Reserve line by line; return the total, or None if a line is short."""
    prices = {
        row["sku"]: row["price_minor"]
        for row in await tx.fetch(
            "SELECT sku, price_minor FROM products WHERE sku = ANY($1::text[])", [sku for sku, _ in lines]
        )
    }
    for sku, quantity in lines:
        available = await tx.fetchval("SELECT stock - reserved FROM stock WHERE sku = $1 FOR UPDATE", sku)
        if available is None or available < quantity:
            return None
        await tx.execute("UPDATE stock SET reserved = reserved + $2 WHERE sku = $1", sku, quantity)
    total_minor: int = sum(prices[sku] * quantity for sku, quantity in lines)
    await tx.execute(
        """
        INSERT INTO orders (order_id, customer_id, status, total_minor, currency)
        VALUES ($1, $2, 'AWAITING_PAYMENT', $3, $4)
        """,
        order_id,
        body["customer_id"],
        total_minor,
        body["currency"],
    )
    await tx.executemany(
        "INSERT INTO order_lines (order_id, sku, quantity, unit_price_minor) VALUES ($1, $2, $3, $4)",
        [(order_id, sku, quantity, prices[sku]) for sku, quantity in lines],
    )
    return total_minor


async def take_webhook(request: web.Request) -> web.Response:
    """Settle a payment and confirm its stock in one transaction."""
    raw = await request.read()
    request.app[_SIGNATURES].verify(raw, dict(request.headers), json_parse=False)
    data = orjson.loads(raw)["data"]
    async with request.app[_DATABASE].transaction() as tx:
        known = await tx.execute(
            "INSERT INTO webhooks (event_id, body) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            request.headers["webhook-id"],
            raw,
        )
        if known.endswith("1"):
            await _confirm(tx, UUID(data["reference"]))
    return web.Response()


async def _confirm(tx: Connection, attempt_id: UUID) -> None:
    order_id = await tx.fetchval(
        "UPDATE payments SET status = 'SUCCEEDED' WHERE attempt_id = $1 AND status = 'PENDING' RETURNING order_id",
        attempt_id,
    )
    if order_id is None:
        return
    await tx.execute("UPDATE orders SET status = 'PROCESSING' WHERE order_id = $1", order_id)
    lines = await tx.fetch("SELECT sku, quantity FROM order_lines WHERE order_id = $1 ORDER BY sku", order_id)
    for line in lines:
        await tx.fetchval("SELECT sold FROM stock WHERE sku = $1 FOR UPDATE", line["sku"])
        await tx.execute(
            "UPDATE stock SET reserved = reserved - $2, stock = stock - $2, sold = sold + $2 WHERE sku = $1",
            line["sku"],
            line["quantity"],
        )


@asynccontextmanager
async def _resources(app: web.Application) -> AsyncIterator[None]:
    database = Database(
        DatabaseOptions(dsn=os.environ["TEXTBOOK_DSN"], pool_size_max=_POOL_SIZE, acquire_timeout_seconds=60)
    )
    await database.open()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
        app[_DATABASE], app[_SESSION] = database, session
        yield
    await database.close()


async def _context(app: web.Application) -> AsyncIterator[None]:
    async with _resources(app):
        yield


def main() -> None:
    """Serve on 127.0.0.1 as the environment says: TEXTBOOK_DSN, _PORT, _GATEWAY_URL, _SECRET."""
    app = web.Application()
    app[_SIGNATURES] = Webhook(os.environ["TEXTBOOK_SECRET"])
    app[_GATEWAY_URL] = os.environ["TEXTBOOK_GATEWAY_URL"]
    app.cleanup_ctx.append(_context)
    app.add_routes(
        [web.post("/orders", place), web.post("/webhooks/sandbox", take_webhook), web.get("/readyz", _ready)]
    )
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(os.environ["TEXTBOOK_PORT"]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


async def _ready(_request: web.Request) -> web.Response:
    return web.Response()


if __name__ == "__main__":
    main()
