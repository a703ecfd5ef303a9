"""Which gateway is fast enough not to be what is measured? One that pays every payment at once.

It speaks the sandbox's protocol: it answers the creation of a payment, and then sends the signed webhook of its
success over HTTP, as many at once as there are connections.
"""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Self

import orjson
from standardwebhooks import Webhook

from benchmarks.lean_http import LeanClient, LeanServer
from shared.ids import new_id

_CONNECTIONS = 64
_AGAIN_SECONDS = 0.1


class InstantGateway:
    """A gateway on 127.0.0.1 that pays whatever it is asked for."""

    def __init__(self, webhook_url: str, secret: str) -> None:
        self.sent = 0
        self.webhook_url = webhook_url
        self._webhooks = LeanClient(webhook_url, connections_max=_CONNECTIONS)
        self._server = LeanServer(self._create)
        self._signer = Webhook(secret)
        self._payments: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        self._running = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where payments are created."""
        return self._server.url

    async def __aenter__(self) -> Self:
        await self._running.enter_async_context(self._webhooks)
        await self._running.enter_async_context(self._server)
        senders = [asyncio.create_task(self._send()) for _ in range(_CONNECTIONS)]
        for sender in senders:
            self._running.callback(sender.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    def _create(self, body: bytes) -> bytes:
        asked = orjson.loads(body)
        payment = {
            "payment_id": f"pay_{asked['reference']}",
            "reference": asked["reference"],
            "amount_minor": asked["amount_minor"],
            "currency": asked["currency"],
            "status": "pending",
            "payment_url": "http://127.0.0.1/pay",
        }
        self._payments.put_nowait(payment)
        return orjson.dumps(payment)

    async def _send(self) -> None:
        while True:
            payment = await self._payments.get()
            now = datetime.now(UTC)
            data = {name: payment[name] for name in ("payment_id", "reference", "amount_minor", "currency")}
            body = orjson.dumps({"type": "payment.succeeded", "data": {**data, "occurred_at": now}})
            identity = f"msg_{new_id().hex}"
            headers = {
                "webhook-id": identity,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": self._signer.sign(identity, now, body.decode()),
            }
            while await self._webhooks.post(body, headers) != HTTPStatus.OK:
                await asyncio.sleep(_AGAIN_SECONDS)
            self.sent += 1
