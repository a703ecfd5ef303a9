"""Which parts make up the order service? Start reading here."""

from pathlib import Path

import orjson

from services.order_service import handlers
from services.order_service.api import Api
from services.order_service.settings import Settings
from shared.batcher import Batcher
from shared.runtime import Service, run

_OPENAPI = Path(__file__).parent / "openapi.json"


async def wire(service: Service[Settings]) -> None:
    """Put the parts together: commands in by Kafka and HTTP, facts in by Kafka, events out by the relay."""
    settings, database = service.settings, service.database
    requests = service.add(
        Batcher(
            "orders",
            database,
            handlers.answer,
            size_max=settings.batch_records_max,
            queue_max=settings.queue_max,
        )
    )
    service.consume(handlers.CONSUMER, handlers.CONSUMED, handlers.handle)
    service.relay()
    service.serve(Api(database, requests).routes(), openapi=orjson.loads(_OPENAPI.read_bytes()))


def main() -> None:
    """Run the order service until it is told to stop."""
    run("order-service", Settings, wire)
