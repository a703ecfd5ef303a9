"""What is the smallest service? One route, one batcher, one consumer, one relay, and a part that dies when told to."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from shared import outbox
from shared.database import Connection
from shared.envelope import Emitted, Message, Refusal
from shared.errors import HoldfastError
from shared.events import StockDepleted, StockReplenished
from shared.runtime import Service, run
from shared.settings import ServiceSettings
from shared.web import operator, path_identifier, respond


async def deplete(tx: Connection, skus: Sequence[str]) -> Sequence[str | HoldfastError]:
    """Write an effect and tell an event for each SKU."""
    await tx.execute("INSERT INTO effects (number) SELECT length(sku) FROM unnest($1::text[]) AS sku", skus)
    events = [Emitted(StockDepleted(sku=sku), sku, 1, "test", None) for sku in skus]
    await outbox.add(tx, events, at=datetime.now(UTC))
    return skus


async def hear(tx: Connection, batch: Sequence[Message[Any]]) -> Sequence[Refusal]:
    """Write an effect for each event."""
    await tx.execute(
        "INSERT INTO effects (number) SELECT unnest($1::int[])", [message.sequence for message in batch]
    )
    return []


class Bomb:
    """A part that dies at once."""

    name = "bomb"

    async def run(self, stopping: asyncio.Event) -> None:  # noqa: ARG002 (the signature is a part's)
        """Die."""
        raise ZeroDivisionError("this part is broken")


async def wire(service: Service[ServiceSettings]) -> None:
    """Wire the service."""
    batcher = service.batch("effects", deplete)

    async def post(request: web.Request) -> web.Response:
        return respond({"sku": await batcher.submit(path_identifier(request, "sku"))}, status=201)

    service.consume("tiny-service", [StockReplenished], hear)
    service.relay()
    if "die" in sys.argv:
        service.add(Bomb())
    service.serve([web.post("/depleted/{sku}", operator(post))], openapi={"openapi": "3.1.0"})


if __name__ == "__main__":
    run("tiny-service", ServiceSettings, wire)
