"""Which parts make up the order service? Start reading here."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from services.order_service import handlers
from services.order_service.api import Api, Edges, OrderEdges
from services.order_service.handlers import Policy
from services.order_service.settings import Settings
from services.order_service.worker import Housekeeper
from shared.batcher import Batcher
from shared.database import Connection
from shared.errors import HoldfastError
from shared.runtime import Service, run
from shared.worker import Worker

Item = TypeVar("Item")
Result = TypeVar("Result")

_OPENAPI = Path(__file__).parent / "openapi.json"


async def wire(service: Service[Settings]) -> None:
    """Put the parts together: commands in by Kafka and HTTP, facts in by Kafka, events out by the relay."""
    settings, database = service.settings, service.database
    policy = Policy(holds_per_customer_max=settings.holds_per_customer_max)
    edges = Edges(
        orders=OrderEdges(
            placements=_batcher(service, "orders", partial(handlers.place, policy=policy)),
            later_answers=_batcher(service, "order_answers", handlers.keep_later_answers),
            withdrawals=_batcher(service, "cancellations", handlers.cancel),
        ),
        reads=_batcher(service, "order_reads", handlers.read_orders),
        carts=_batcher(service, "carts", handlers.change_carts),
    )
    service.consume(handlers.CONSUMER, handlers.CONSUMED, partial(handlers.handle, policy=policy))
    service.relay()
    housekeeper = Housekeeper(
        database,
        answer_hours=settings.idempotency_retention_hours,
        cart_hours=settings.cart_retention_hours,
    )
    service.add(
        Worker("housekeeper", housekeeper.tick, interval_seconds=settings.housekeeping_interval_seconds)
    )
    api = Api(database, edges, service.listen(handlers.CHANNEL))
    service.serve(api.routes(), openapi=orjson.loads(_OPENAPI.read_bytes()))


def _batcher(
    service: Service[Settings],
    name: str,
    apply: Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result | HoldfastError]]],
) -> Batcher[Item, Result]:
    """Add an edge where requests that come together share a transaction."""
    settings = service.settings
    return service.add(
        Batcher(
            name, service.database, apply, size_max=settings.batch_records_max, queue_max=settings.queue_max
        )
    )


def main() -> None:
    """Run the order service until it is told to stop."""
    run("order-service", Settings, wire)
