"""What can be asked of the order service by HTTP? The catalog, and orders."""

import asyncio
import re
from typing import Annotated, Any
from uuid import UUID, uuid5

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.order_service import store
from services.order_service.domain.book import Decided
from services.order_service.domain.order import Order
from services.order_service.domain.refusals import ContentConflict, UnknownOrder
from services.order_service.handlers import Request
from services.order_service.store import Product
from shared.batcher import Batcher
from shared.database import Database
from shared.errors import Fault, Forbidden, Invalid, Malformed, NotFound
from shared.events import (
    CancelOrder,
    Currency,
    HoldSeconds,
    Identifier,
    Minor,
    OrderedLine,
    OrderStatus,
    PlaceOrder,
    Sku,
    Text,
)
from shared.web import (
    ACCESS,
    Page,
    operator,
    page,
    parse_json,
    path_identifier,
    path_uuid,
    read_bytes,
    read_json,
    read_query,
    request_cause,
    respond,
    storefront,
)

ORDER_BYTES_MAX = 256 * 1024
IMPORT_BYTES_MAX = 8 * 1024 * 1024
_IMPORT_CHUNK_LINES = 1_000
_IMPORT_FAULTS_MAX = 100

#: Orders whose callers gave no id get one made of the caller's scope and its Idempotency-Key.
_KEYED_ORDERS = UUID("b0b4f6de-51f1-5b0e-8a53-6a5d6a3b7c55")
_IDEMPOTENCY_KEY = re.compile(r"^[\x20-\x7e]{1,255}$")

# Postgres keeps no NUL characters in text.
_WITHOUT_NUL = StringConstraints(pattern=r"^[^\x00]*$")


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class ProductBody(_Body):
    """What the catalog says of a product; `price_minor` is for one unit."""

    name: Annotated[str, _WITHOUT_NUL, Field(min_length=1, max_length=200)]
    price_minor: Minor
    currency: Currency
    active: bool = True


class ProductLine(ProductBody):
    """One line of an import."""

    sku: Sku


class OrderBody(_Body):
    """`PlaceOrder.v1`, where the order id may be left out."""

    order_id: UUID | None = None
    customer_id: Identifier
    lines: Annotated[tuple[OrderedLine, ...], Field(min_length=1, max_length=500, strict=False)] | None = None
    cart_id: Identifier | None = None
    currency: Currency
    expected_total_minor: Minor | None = None
    hold_seconds: HoldSeconds | None = None

    @model_validator(mode="after")
    def _lines_or_cart(self) -> "OrderBody":
        if (self.lines is None) == (self.cart_id is None):
            message = "exactly one of lines and cart_id is needed"
            raise ValueError(message)
        return self

    def command(self, order_id: UUID) -> PlaceOrder:
        """Return the command to place this order under an id."""
        return PlaceOrder(
            order_id=order_id,
            customer_id=self.customer_id,
            lines=self.lines,
            cart_id=self.cart_id,
            currency=self.currency,
            expected_total_minor=self.expected_total_minor,
            hold_seconds=self.hold_seconds,
        )


class CancelBody(_Body):
    """Why an order is cancelled."""

    reason: Text | None = None


class OrdersQuery(Page):
    """Which orders to list."""

    customer_id: Identifier | None = None
    status: OrderStatus | None = None


class Api:
    """The routes of the order service."""

    def __init__(self, database: Database, requests: Batcher[Request, Decided]) -> None:
        self._database = database
        self._requests = requests

    def routes(self) -> list[web.RouteDef]:
        """Return every route with the scope it needs."""
        return [
            web.put("/products/{sku}", operator(self.put_product)),
            web.get("/products/{sku}", storefront(self.get_product)),
            web.get("/products", storefront(self.list_products)),
            web.post("/products/import", operator(self.import_products)),
            web.post("/orders", storefront(self.place_order)),
            web.get("/orders", storefront(self.list_orders)),
            web.get("/orders/{order_id}", storefront(self.get_order)),
            web.get("/orders/{order_id}/history", storefront(self.get_history)),
            web.post("/orders/{order_id}/cancel", storefront(self.cancel_order)),
        ]

    async def put_product(self, request: web.Request) -> web.Response:
        """Store a product: 201 if its SKU is new, else 200."""
        sku = path_identifier(request, "sku")
        body = await read_json(request, ProductBody)
        product = Product(sku, body.name, body.price_minor, body.currency, body.active)
        async with self._database.connection() as connection:
            created = await store.insert_products(connection, [product])
            stored = await store.find_product(connection, sku)
        return respond(_product(stored or product), status=201 if created else 200)

    async def get_product(self, request: web.Request) -> web.Response:
        """Return a product and whether it can be bought."""
        sku = path_identifier(request, "sku")
        async with self._database.connection() as connection:
            product = await store.find_product(connection, sku)
        if product is None:
            raise NotFound("There is no product with this SKU.")
        return respond(_product(product))

    async def list_products(self, request: web.Request) -> web.Response:
        """Return products by SKU."""
        query = read_query(request, Page)
        async with self._database.connection() as connection:
            found = await store.list_products(connection, after=query.after or "", limit=query.limit + 1)
        products = found[: query.limit]
        return page(
            [_product(product) for product in products],
            products[-1].sku if len(found) > query.limit else None,
        )

    async def import_products(self, request: web.Request) -> web.Response:
        """Store products given as JSON lines, all of them or none; of a SKU given twice the last line holds."""
        products = await _read_products(await read_bytes(request, IMPORT_BYTES_MAX))
        async with self._database.connection() as connection:
            created = await store.insert_products(connection, products.values())
        return respond({"imported": len(products), "created": created, "updated": len(products) - created})

    async def place_order(self, request: web.Request) -> web.Response:
        """Place an order: 202 while it waits for its stock; the same again returns it as it stands."""
        key = _idempotency_key(request)
        body = await read_json(request, OrderBody, ORDER_BYTES_MAX)
        scope = _scope(request)
        order_id = body.order_id or uuid5(_KEYED_ORDERS, f"{scope}:{key}")
        try:
            decided = await self._requests.submit(
                Request(body.command(order_id), request_cause(request), scope)
            )
        except ContentConflict as error:
            if body.order_id is not None:
                raise
            raise Invalid("This Idempotency-Key came with another body before.") from error
        order = decided.order if decided.changed else await self._find(order_id)
        status = 202 if order.status is OrderStatus.REQUESTED else 200
        return respond(_order(order), status=status, headers={"Location": f"/orders/{order_id}"})

    async def get_order(self, request: web.Request) -> web.Response:
        """Return an order as it stands."""
        order = await self._find(path_uuid(request, "order_id"))
        etag = f'"{order.version}-{order.updated_at.timestamp():.6f}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return respond(_order(order), headers={"ETag": etag})

    async def list_orders(self, request: web.Request) -> web.Response:
        """Return orders by id, of one customer or in one status if asked so."""
        query = read_query(request, OrdersQuery)
        async with self._database.connection() as connection:
            found = await store.list_orders(
                connection,
                customer_id=query.customer_id,
                status=query.status,
                after=_after(query),
                limit=query.limit + 1,
            )
        orders = found[: query.limit]
        return page(
            [_order(order) for order in orders],
            str(orders[-1].order_id) if len(found) > query.limit else None,
        )

    async def get_history(self, request: web.Request) -> web.Response:
        """Return every step of an order, the first one first."""
        order_id = path_uuid(request, "order_id")
        async with self._database.connection() as connection:
            steps = await store.list_history(connection, order_id)
        if not steps:
            raise UnknownOrder
        return page(steps, None)

    async def cancel_order(self, request: web.Request) -> web.Response:
        """Cancel an order: 202, and 200 when it was cancelled before."""
        order_id = path_uuid(request, "order_id")
        raw = await read_bytes(request)
        body = parse_json(raw, CancelBody) if raw else CancelBody()
        command = CancelOrder(order_id=order_id, reason=body.reason)
        decided = await self._requests.submit(Request(command, request_cause(request), _scope(request)))
        return respond(_order(await self._find(order_id)), status=202 if decided.changed else 200)

    async def _find(self, order_id: UUID) -> Order:
        async with self._database.connection() as connection:
            order = await store.find_order(connection, order_id)
        if order is None:
            raise UnknownOrder
        return order


async def _read_products(body: bytes) -> dict[str, Product]:
    """Return the products of an import by SKU.

    Raises:
        Malformed: a line is not JSON.
        Invalid: some lines do not fit; a fault's pointer begins with the number of its line, from 0.
    """
    products: dict[str, Product] = {}
    faults: list[Fault] = []
    for number, text in enumerate(body.splitlines()):
        if number % _IMPORT_CHUNK_LINES == 0:
            await asyncio.sleep(0)  # other requests are answered meanwhile
        if not text.strip():
            continue
        try:
            line = parse_json(text, ProductLine)
        except Malformed as error:
            raise Malformed(f"Line {number + 1} is not JSON.") from error
        except Invalid as error:
            faults += [Fault(f"/{number}{fault.pointer}", fault.detail) for fault in error.faults]
            if len(faults) >= _IMPORT_FAULTS_MAX:
                break
        else:
            products[line.sku] = Product(line.sku, line.name, line.price_minor, line.currency, line.active)
    if faults:
        raise Invalid("Some lines do not fit; nothing was stored.", faults=faults)
    return products


def _idempotency_key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not _IDEMPOTENCY_KEY.match(key):
        raise Malformed("The header Idempotency-Key is needed: 1 to 255 printable ASCII characters.")
    return key


def _scope(request: web.Request) -> str:
    """Return which scope the caller's token has."""
    try:
        request.app[ACCESS].require(request, "operator")
    except Forbidden:
        return "storefront"
    return "operator"


def _after(query: Page) -> UUID | None:
    if query.after is None:
        return None
    try:
        return UUID(query.after)
    except ValueError as error:
        raise Invalid("The query does not fit.", faults=[Fault("/after", "not an order id")]) from error


def _product(product: Product) -> dict[str, Any]:
    return {
        "sku": product.sku,
        "name": product.name,
        "price_minor": product.price_minor,
        "currency": product.currency,
        "active": product.active,
        "status": product.status,
    }


def _order(order: Order) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "customer_id": order.customer_id,
        "status": order.status,
        "reason": order.reason,
        "details": order.details,
        "version": order.version,
        "currency": order.currency,
        "total_minor": order.total_minor,
        "lines": order.lines,
        "pay_by": order.pay_by,
        "payment": {"status": order.payment.status, "payment_url": order.payment_url},
        "created_at": order.created_at,
        "updated_at": order.updated_at,
    }
