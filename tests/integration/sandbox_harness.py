"""How do tests run the sandbox gateway? Over real HTTP, with a real receiver for its webhooks."""

import asyncio
import base64
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
import standardwebhooks
from aiohttp import web

from deploy.local.sandbox.main import start
from deploy.local.sandbox.settings import Settings

SECRET = "whsec_" + base64.b64encode(b"a key that guards nothing").decode()
DEADLINE_SECONDS = 20


@dataclass
class Receiver:
    """A merchant's webhook endpoint that checks every signature; `answer` decides the status from what came."""

    deliveries: list[dict[str, Any]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], int] = lambda _delivery: 204
    port: int = 0
    # Answers are held back until so many deliveries are there together.
    together: int = 1

    @property
    def url(self) -> str:
        """Where webhooks go."""
        return f"http://127.0.0.1:{self.port}/webhooks/sandbox"

    async def start(self) -> Self:
        """Listen; on the same port as before if there was one."""
        self._arrived = asyncio.Condition()
        app = web.Application()
        app.router.add_post("/webhooks/sandbox", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def received(self, count: int) -> list[dict[str, Any]]:
        """The deliveries, once there are so many."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._arrived:
            await self._arrived.wait_for(lambda: len(self.deliveries) >= count)
        return self.deliveries

    async def _receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        document = standardwebhooks.Webhook(SECRET).verify(raw, dict(request.headers))
        delivery = {
            "id": request.headers["webhook-id"],
            "timestamp": request.headers["webhook-timestamp"],
            "raw": raw,
            **document,
        }
        async with self._arrived:
            self.deliveries.append(delivery)
            self._arrived.notify_all()
            await self._arrived.wait_for(lambda: len(self.deliveries) >= self.together)
        return web.Response(status=self.answer(delivery))


@dataclass
class Client:
    """A merchant's side of the sandbox's HTTP."""

    url: str
    session: aiohttp.ClientSession
    receiver: Receiver

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON document of the answer; a body of bytes is sent as it is."""
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        async with self.session.request(method, self.url + path, data=data, headers=headers) as response:
            return response.status, orjson.loads(await response.read())

    async def create(self, reference: str = "attempt-1", **more: Any) -> dict[str, Any]:
        """A new payment, of 12.50 EUR unless told otherwise."""
        body = {"reference": reference, "amount_minor": 1250, "currency": "EUR", **more}
        status, document = await self.call("POST", "/payments", body)
        assert status == 201, document
        payment: dict[str, Any] = document
        return payment

    async def settle(
        self, payment: dict[str, Any], outcome: str = "succeeded", **more: Any
    ) -> dict[str, Any]:
        """Tell the sandbox to settle."""
        path = f"/payments/{payment['payment_id']}/settle"
        status, document = await self.call("POST", path, {"outcome": outcome, **more})
        assert status == 202, document
        settled: dict[str, Any] = document
        return settled

    async def refund(self, payment: dict[str, Any], key: str, **body: Any) -> tuple[int, Any]:
        """Ask for a refund."""
        path = f"/payments/{payment['payment_id']}/refunds"
        return await self.call("POST", path, body, **{"Idempotency-Key": key})

    async def get(self, payment: dict[str, Any]) -> dict[str, Any]:
        """The payment as it stands."""
        status, document = await self.call("GET", f"/payments/{payment['payment_id']}")
        assert status == 200, document
        found: dict[str, Any] = document
        return found

    async def control(self, **knobs: Any) -> dict[str, Any]:
        """Turn knobs; the knobs and counts afterwards."""
        status, document = await self.call("POST", "/control", knobs)
        assert status == 200, document
        control: dict[str, Any] = document
        return control

    async def everything_delivered(self) -> None:
        """Wait until no webhook is owed."""

        async def nothing_is_owed() -> bool:
            return bool((await self.control())["deliveries_pending"] == 0)

        await eventually(nothing_is_owed)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the condition holds, or fail at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


def settings(data_dir: Path, receiver: Receiver) -> Settings:
    """Settings for a sandbox in this process, on a free port."""
    return Settings.model_validate(
        {"http_port": 0, "data_dir": data_dir, "webhook_url": receiver.url, "webhook_secrets": SECRET},
        by_name=True,
    )


@asynccontextmanager
async def sandbox(data_dir: Path, receiver: Receiver) -> AsyncIterator[Client]:
    """A sandbox in this process, and a client for it."""
    running = await start(settings(data_dir, receiver))
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(running.url, session, receiver)
    finally:
        await running.stop()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    receiver = await Receiver().start()
    try:
        yield receiver
    finally:
        await receiver.stop()


async def spawn(**environment: str) -> asyncio.subprocess.Process:
    """The sandbox as a process of its own, with this environment added."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.local.sandbox",
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.PIPE,
    )
