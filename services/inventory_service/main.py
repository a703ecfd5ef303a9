"""Which parts make up the inventory service? Start reading here."""

from functools import partial
from pathlib import Path

import orjson

from services.inventory_service import handlers, worker
from services.inventory_service.api import Api
from services.inventory_service.settings import Settings
from shared.runtime import Service, run
from shared.worker import Worker

_OPENAPI = Path(__file__).parent / "openapi.json"


async def wire(service: Service[Settings]) -> None:
    """Put the parts together: orders and payments in by Kafka, stock in by HTTP, events out by the relay."""
    settings, database = service.settings, service.database
    changes = service.batch("stock", handlers.change_stock, size_max=settings.receipts_batch_max)
    handle = partial(handlers.handle, hold_seconds=settings.hold_seconds)
    service.consume(handlers.CONSUMER, handlers.CONSUMED, handle)
    sweeper = worker.Sweeper(
        database, grace_seconds=settings.hold_grace_seconds, batch_max=settings.sweep_batch_max
    )
    service.add(Worker(worker.NAME, sweeper.tick, interval_seconds=settings.sweep_interval_seconds))
    service.relay()
    api = Api(database, changes, receipt_bytes_max=settings.receipt_bytes_max)
    service.serve(api.routes(), openapi=orjson.loads(_OPENAPI.read_bytes()))


def main() -> None:
    """Run the inventory service until it is told to stop."""
    run("inventory-service", Settings, wire)
