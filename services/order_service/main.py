"""Which parts make up the order service? Start reading here."""

from functools import partial
from pathlib import Path

import orjson

from services.order_service import handlers
from services.order_service.api import Api, Edges, OrderEdges
from services.order_service.handlers import Policy
from services.order_service.settings import Settings
from services.order_service.worker import Housekeeper
from shared.runtime import Service, run
from shared.worker import Worker

_OPENAPI = Path(__file__).parent / "openapi.json"


async def wire(service: Service[Settings]) -> None:
    """Put the parts together: commands in by Kafka and HTTP, facts in by Kafka, events out by the relay."""
    settings, database = service.settings, service.database
    policy = Policy(settings.holds_per_customer_max, settings.hold_seconds_by_method)
    edges = Edges(
        orders=OrderEdges(
            placements=service.batch("orders", partial(handlers.place, policy=policy)),
            later_answers=service.batch("order_answers", handlers.keep_later_answers),
            withdrawals=service.batch("cancellations", handlers.cancel),
        ),
        reads=service.batch("order_reads", handlers.read_orders),
        carts=service.batch("carts", handlers.change_carts),
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


def main() -> None:
    """Run the order service until it is told to stop."""
    run("order-service", Settings, wire)
