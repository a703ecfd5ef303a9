"""How do tests run the payment service? All of it but Kafka, over real HTTP, with a real gateway that can misbehave."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import standardwebhooks
from aiohttp import web

from services.payment_service import handlers
from services.payment_service.domain.attempts import Attempt
from services.payment_service.domain.payments import Payment
from services.payment_service.gateways import Gateways
from services.payment_service.gateways.sandbox import Sandbox, SandboxOptions
from services.payment_service.main import wire
from services.payment_service.settings import Settings
from services.payment_service.store import NewWebhook, get
from services.payment_service.worker import CallLimits, GatewayCaller, Judge
from shared.backoff import Backoff
from shared.batcher import Batcher
from shared.database import Database
from shared.ids import new_id
from shared.runtime import Service
from tests.feeding import feed, message
from tests.payment_building import awaiting_payment

SECRET = "whsec_" + base64.b64encode(b"a key that guards nothing").decode()
STOREFRONT_TOKEN = "storefront-token-of-tests"
OPERATOR_TOKEN = "operator-token-of-tests"

Behaviour = Callable[[], Awaitable[web.Response | None]]


# --- a gateway ------------------------------------------------------------------------------------------------------


@dataclass
class FakeGateway:
    """A gateway's HTTP on a free port: as the sandbox's, but each next call can be told to go wrong.

    `misbehaviour` is taken from the front, one entry a call: a response instead of the right one, or None for right.
    """

    misbehaviour: list[Behaviour] = field(default_factory=list)
    calls: list[tuple[str, str, str | None]] = field(default_factory=list)
    payments: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    url: str = ""

    async def start(self) -> "FakeGateway":
        """Listen."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    def calls_of(self, ending: str) -> list[tuple[str, str, str | None]]:
        """Return the calls (method, path, idempotency key) whose path ends so."""
        return [call for call in self.calls if call[1].endswith(ending)]

    async def _serve(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read() or b"{}")
        key = request.headers.get("Idempotency-Key")
        self.calls.append((request.method, request.path, key))
        answer = await self.misbehaviour.pop(0)() if self.misbehaviour else None
        if answer is not None:
            return answer
        return web.json_response(self._answer(request, body, key))

    def _answer(self, request: web.Request, body: Mapping[str, Any], key: str | None) -> dict[str, Any]:
        if request.path == "/payments" and request.method == "POST":
            return self._create(body)
        if request.path == "/payments":
            found = [p for p in self.payments.values() if p["reference"] == request.query["reference"]]
            return {"items": found, "next": None}
        identity, _, action = request.path.removeprefix("/payments/").partition("/")
        if action == "refunds":
            assert key is not None
            return self.refunds.setdefault(key, {"refund_id": f"refund-{key}", "status": "succeeded", **body})
        payment = self.payments[identity]
        if action == "cancel":
            payment["status"] = "cancelled"
        return payment

    def _create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        identity = f"gateway-{body['reference']}"
        return self.payments.setdefault(
            identity,
            {
                **body,
                "payment_id": identity,
                "status": "pending",
                "payment_url": f"{self.url}/pay/{identity}",
            },
        )


async def answer_500() -> web.Response | None:
    """Fail without saying whether anything was done."""
    return web.json_response({"detail": "out of order"}, status=500)


async def answer_404() -> web.Response | None:
    """Know nothing of it."""
    return web.json_response({"detail": "no such payment"}, status=404)


async def answer_409() -> web.Response | None:
    """Refuse for certain."""
    return web.json_response({"detail": "nothing to give back"}, status=409)


async def answer_nonsense() -> web.Response | None:
    """Say nothing that can be understood."""
    return web.Response(body=b"\xff\xfe<html>", content_type="application/json")


async def stay_silent() -> web.Response | None:
    """Answer too late for anybody."""
    await asyncio.sleep(3_600)
    return None


@asynccontextmanager
async def fake_gateway() -> AsyncIterator[FakeGateway]:
    """A gateway on a free port."""
    gateway = await FakeGateway().start()
    try:
        yield gateway
    finally:
        await gateway.stop()


# --- its webhooks ---------------------------------------------------------------------------------------------------


def webhook_body(attempt: Attempt, kind: str = "succeeded", **changes: Any) -> bytes:
    """Return the body of a webhook about an attempt."""
    data = {
        "payment_id": attempt.gateway_transaction_id or f"gateway-{attempt.attempt_id}",
        "reference": str(attempt.attempt_id),
        "amount_minor": attempt.amount_minor,
        "currency": attempt.currency,
        "occurred_at": "2026-03-01T12:00:00.000Z",
        **changes,
    }
    return orjson.dumps({"type": f"payment.{kind}", "data": data})


def signed(body: bytes, event_id: str, *, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    """Return the headers of a delivery."""
    now = at or datetime.now(UTC)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign(event_id, now, body.decode()),
    }


# --- parts of the service -------------------------------------------------------------------------------------------


async def open_payment(database: Database, **changes: Any) -> UUID:
    """Have an order await payment, and return its id."""
    order_id = new_id()
    refused = await feed(database, handlers, [message(awaiting_payment(order_id, **changes))])
    assert not refused
    return order_id


async def start_attempt(database: Database, order_id: UUID, key: str = "key-1") -> Attempt:
    """Start an attempt by the sandbox as the HTTP edge does, without asking the gateway."""
    request = handlers.StartAttempt(order_id, new_id(), "sandbox", None, None, key, grace_seconds=0)
    async with database.transaction() as tx:
        (started,) = await handlers.start_attempts(tx, [request])
    assert isinstance(started, handlers.Started), started
    return started.attempt


async def payment_of(database: Database, order_id: UUID) -> Payment:
    """Return a payment as it is stored."""
    async with database.connection() as connection:
        payment = await get(connection, order_id)
    assert payment is not None
    return payment


async def keep(database: Database, *deliveries: tuple[str, bytes]) -> None:
    """Store deliveries (event id, body) as the HTTP edge does."""
    webhooks = [NewWebhook("sandbox", event_id, "{}", body) for event_id, body in deliveries]
    async with database.transaction() as tx:
        await handlers.keep_webhooks(tx, webhooks)


def a_judge(database: Database, *, size_max: int = 500, unmatched_seconds_max: float = 60.0) -> Judge:
    """Return the judge of a service that knows the sandbox."""
    return Judge(
        database,
        Gateways(Sandbox(SandboxOptions("http://127.0.0.1:1", [SECRET]))),
        size_max=size_max,
        pause_seconds=0.0,
        unmatched_seconds_max=unmatched_seconds_max,
    )


async def verdicts(database: Database) -> list[str | None]:
    """Return the verdicts of all deliveries in the order in which they came."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT verdict FROM webhooks ORDER BY id")
    return [row["verdict"] for row in rows]


async def hurry(database: Database) -> None:
    """Make everything due that waits for its time."""
    async with database.connection() as connection:
        await connection.execute("UPDATE webhooks SET judge_at = now() WHERE judge_at IS NOT NULL")
        await connection.execute("UPDATE attempts SET ask_at = now() WHERE ask_at IS NOT NULL")
        await connection.execute("UPDATE refunds SET next_try_at = now() WHERE next_try_at IS NOT NULL")
        await connection.execute(
            "UPDATE attempts SET task_at = now(), leased_until = NULL WHERE task_at IS NOT NULL"
        )


@asynccontextmanager
async def a_caller(
    database: Database, gateway_url: str, *, timeout_seconds: float = 5.0, calls_max: int = 8
) -> AsyncIterator[GatewayCaller]:
    """What asks the gateway, as one process of the service has it."""
    attempts = Batcher("a", database, handlers.save_attempt_answers, size_max=100, queue_max=1_000)
    refunds = Batcher("r", database, handlers.save_refund_answers, size_max=100, queue_max=1_000)
    asked = Batcher("q", database, handlers.reconcile, size_max=100, queue_max=1_000)
    options = SandboxOptions(gateway_url, [SECRET], timeout_seconds=timeout_seconds)
    limits = CallLimits(calls_max, 60.0, Backoff(seconds_min=60.0, seconds_max=60.0))
    async with AsyncExitStack() as stack:
        gateways = await stack.enter_async_context(Gateways(Sandbox(options)))
        await stack.enter_async_context(_running([attempts, refunds, asked]))
        caller: GatewayCaller = GatewayCaller(
            gateways.get("sandbox"), database, limits, attempts=attempts, refunds=refunds, asked=asked
        )
        yield caller


@asynccontextmanager
async def _running(parts: Sequence[Any]) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    tasks = [asyncio.create_task(part.run(stopping)) for part in parts]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


# --- the whole service ----------------------------------------------------------------------------------------------


class WithoutKafka(Service[Settings]):
    """The payment service as it is wired, but fed by hand and with an outbox that nobody empties."""

    def consume(self, *_arguments: Any) -> Any:
        """Leave the consumer out."""

    def relay(self) -> Any:
        """Leave the relay out."""


@dataclass(frozen=True)
class Client:
    """A storefront's, an operator's and a gateway's side of the service's HTTP."""

    url: str
    session: aiohttp.ClientSession

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = STOREFRONT_TOKEN,
        **headers: str,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Return status, JSON document and headers of an answer; header names are written with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            raw = await response.read()
            return response.status, orjson.loads(raw) if raw else None, response.headers

    async def deliver(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Deliver a webhook, and return the status."""
        async with self.session.post(self.url + "/webhooks/sandbox", data=body, headers=headers) as response:
            await response.read()
            return response.status


@asynccontextmanager
async def service(database: Database, gateway_url: str, **settings: Any) -> AsyncIterator[Client]:
    """The payment service on a free port, and a client for it."""
    given = Settings.model_validate(
        {
            "database_dsn": database.dsn,
            "http_port": 0,
            "storefront_token": STOREFRONT_TOKEN,
            "operator_token": OPERATOR_TOKEN,
            "sandbox_url": gateway_url,
            "sandbox_webhook_secrets": SECRET,
            "gateway_interval_seconds": 0.05,
            "gateway_retry_seconds_min": 0.02,
            "gateway_retry_seconds_max": 0.1,
            **settings,
        }
    )
    async with AsyncExitStack() as stack:
        made = WithoutKafka("payment-service", given, database, stack)
        await wire(made)
        assert made.app is not None
        await stack.enter_async_context(_running(made.parts))
        runner = web.AppRunner(made.app, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Client(f"http://127.0.0.1:{runner.addresses[0][1]}", session)
