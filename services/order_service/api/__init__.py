"""What can be asked of the order service by HTTP? The catalog, carts, and orders."""

from dataclasses import dataclass
from uuid import UUID

from aiohttp import web

from services.order_service.api.carts import CartApi
from services.order_service.api.catalog import CatalogApi
from services.order_service.api.orders import OrderApi, OrderEdges
from services.order_service.api.waiting import Waiting
from services.order_service.domain.order import Order
from services.order_service.handlers import CartChange, CartChanged
from shared.batcher import Batcher
from shared.database import Database
from shared.listener import Listener

__all__ = ["Api", "Edges", "OrderEdges"]


@dataclass(frozen=True, slots=True)
class Edges:
    """Where requests become transactions; `reads` serves orders to requests that come, or are woken, together."""

    orders: OrderEdges
    reads: Batcher[UUID, Order]
    carts: Batcher[CartChange, CartChanged]


class Api:
    """The routes of the order service."""

    def __init__(self, database: Database, edges: Edges, listener: Listener) -> None:
        self._apis = (
            CatalogApi(database),
            CartApi(database, edges.carts),
            OrderApi(database, edges.orders, Waiting(edges.reads, listener)),
        )

    def routes(self) -> list[web.RouteDef]:
        """Return every route with the scope it needs."""
        return [route for api in self._apis for route in api.routes()]
