"""Which gateway is fast enough not to be what is measured? One that pays every payment at once.

It speaks the sandbox's protocol: it answers the creation of a payment, and then sends the signed webhook of its
success over HTTP, as many at once as there are connections.
"""

import asyncio
from datetime import UTC, datetime
from typing import Self

import aiohttp
import orjson
from aiohttp import web
from standardwebhooks import Webhook

from shared.ids import new_id

_CONNECTIONS = 64


class InstantGateway:
    """A gateway on 127.0.0.1 that pays whatever it is asked for."""

    def __init__(self, webhook_url: str, secret: str) -> None:
        self.url = ""
        self.sent = 0
        self._webhook_url = webhook_url
        self._signer = Webhook(secret)
        self._payments: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.post("/payments", self._create)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_CONNECTIONS))
        self._senders = [asyncio.create_task(self._send()) for _ in range(_CONNECTIONS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for sender in self._senders:
            sender.cancel()
        await self._session.close()
        await self._runner.cleanup()

    async def _create(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        payment = {
            "payment_id": f"pay_{asked['reference']}",
            "reference": asked["reference"],
            "amount_minor": asked["amount_minor"],
            "currency": asked["currency"],
            "status": "pending",
            "payment_url": "http://127.0.0.1/pay",
        }
        self._payments.put_nowait(payment)
        return web.Response(body=orjson.dumps(payment), status=201, content_type="application/json")

    async def _send(self) -> None:
        while True:
            payment = await self._payments.get()
            now = datetime.now(UTC)
            data = {name: payment[name] for name in ("payment_id", "reference", "amount_minor", "currency")}
            body = orjson.dumps({"type": "payment.succeeded", "data": {**data, "occurred_at": now}})
            identity = f"msg_{new_id().hex}"
            headers = {
                "content-type": "application/json",
                "webhook-id": identity,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._signer.sign(identity, now, body.decode()),
            }
            delivered = False
            while not delivered:
                async with self._session.post(self._webhook_url, data=body, headers=headers) as answer:
                    delivered = answer.status == 200  # noqa: PLR2004 (OK)
                if not delivered:
                    await asyncio.sleep(0.1)
            self.sent += 1
