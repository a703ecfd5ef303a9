"""What can be asked of the catalog by HTTP?"""

import asyncio
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, StringConstraints

from services.order_service import store
from services.order_service.api.bodies import Body
from services.order_service.store import Product
from shared.database import Database
from shared.errors import Fault, Invalid, Malformed, NotFound
from shared.events import Currency, Minor, Sku
from shared.web import (
    Page,
    customer,
    operator,
    page,
    parse_json,
    path_identifier,
    read_bytes,
    read_json,
    read_query,
    respond,
)

IMPORT_BYTES_MAX = 8 * 1024 * 1024
_IMPORT_CHUNK_LINES = 1_000
_IMPORT_FAULTS_MAX = 100

# Postgres keeps no NUL characters in text.
_WITHOUT_NUL = StringConstraints(pattern=r"^[^\x00]*$")


class ProductBody(Body):
    """What the catalog says of a product; `price_minor` is for one unit."""

    name: Annotated[str, _WITHOUT_NUL, Field(min_length=1, max_length=200)]
    price_minor: Minor
    currency: Currency
    active: bool = True


class ProductLine(ProductBody):
    """One line of an import."""

    sku: Sku


class CatalogApi:
    """The routes of the catalog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def routes(self) -> list[web.RouteDef]:
        """Return every route with the scope it needs."""
        return [
            web.put("/products/{sku}", operator(self.put_product)),
            web.get("/products/{sku}", customer(self.get_product)),
            web.get("/products", customer(self.list_products)),
            web.post("/products/import", operator(self.import_products)),
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


def _product(product: Product) -> dict[str, Any]:
    return {
        "sku": product.sku,
        "name": product.name,
        "price_minor": product.price_minor,
        "currency": product.currency,
        "active": product.active,
        "status": product.status,
    }
