"""How do tests run Midtrans's double? With the gateway beside it, and an endpoint for its notifications, over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from deploy.local.doubles.midtrans import MidtransDouble
from services.payment_service.domain.answers import Created
from services.payment_service.domain.attempts import Attempt
from services.payment_service.gateways.midtrans import Midtrans, MidtransOptions
from tests.midtrans_building import SERVER_KEY, a_rupiah_attempt

DEADLINE_SECONDS = 20


@dataclass
class Endpoint:
    """Where notifications arrive; `answer` decides the status by how many came before."""

    bodies: list[bytes] = field(default_factory=list)
    answer: Callable[[int], int] = lambda _before: 200
    url: str = ""
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def receive(self, request: web.Request) -> web.Response:
        """Take one notification."""
        body = await request.read()
        async with self.arrived:
            status = self.answer(len(self.bodies))
            self.bodies.append(body)
            self.arrived.notify_all()
        return web.Response(status=status)

    async def received(self, count: int) -> list[bytes]:
        """Return what came, once there is so much."""
        async with asyncio.timeout(DEADLINE_SECONDS), self.arrived:
            await self.arrived.wait_for(lambda: len(self.bodies) >= count)
        return list(self.bodies)


@asynccontextmanager
async def listening() -> AsyncIterator[Endpoint]:
    """Run an endpoint for notifications."""
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/webhooks/midtrans", endpoint.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/midtrans"
        yield endpoint
    finally:
        await runner.cleanup()


@asynccontextmanager
async def midtrans(
    *server_keys: str, notification_url: str | None = None, **options: Any
) -> AsyncIterator[tuple[MidtransDouble, Midtrans]]:
    """Run the double, and the gateway that calls it."""
    async with MidtransDouble([SERVER_KEY], notification_url=notification_url) as double:
        known = MidtransOptions(server_keys or [SERVER_KEY], double.url, double.url, **options)
        async with Midtrans(known) as gateway:
            yield double, gateway


async def opened(gateway: Midtrans, **changes: Any) -> Attempt:
    """Return an attempt whose page is open."""
    attempt = a_rupiah_attempt(**changes)
    answer = await gateway.create(attempt)
    assert isinstance(answer, Created), answer
    attempt.gateway_transaction_id, attempt.payment_url = answer.transaction_id, answer.payment_url
    attempt.received_amount_minor = attempt.amount_minor
    return attempt
