"""What does the order service answer about the catalog, and to whom?"""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from services.order_service import handlers
from shared.database import Database
from shared.events import StockDepleted
from shared.ids import new_id
from tests.feeding import feed, message
from tests.order_shop import OPENAPI, OPERATOR, Shop, pointers, serving


@pytest.fixture
async def shop(order_db: Database) -> AsyncIterator[Shop]:
    """The order service with an apple and a loaf of bread."""
    async with serving(order_db) as shop:
        await shop.put_product("APPLE")
        await shop.put_product("BREAD", price_minor=250)
        yield shop


async def test_a_product_is_stored_and_changed(shop: Shop) -> None:
    """201 for a new SKU, 200 for a known one; an inactive product is INACTIVE."""
    created = await shop.put_product("CHEESE", price_minor=900)
    changed = await shop.put_product("CHEESE", price_minor=950, active=False)

    read = await shop.get("/products/CHEESE")

    assert (created.status, changed.status, read.status) == (201, 200, 200)
    assert created.body["status"] == "ACTIVE"
    assert read.body == changed.body
    assert read.body == {
        "sku": "CHEESE",
        "name": "Cheese",
        "price_minor": 950,
        "currency": "EUR",
        "active": False,
        "status": "INACTIVE",
    }


async def test_a_depleted_product_is_out_of_stock(shop: Shop) -> None:
    """What inventory says shows in the product and in the list."""
    await feed(shop.database, handlers, [message(StockDepleted(sku="APPLE"))])

    one, both = await shop.get("/products/APPLE"), await shop.get("/products")

    assert one.body["status"] == "OUT_OF_STOCK"
    assert [(item["sku"], item["status"]) for item in both.body["items"]] == [
        ("APPLE", "OUT_OF_STOCK"),
        ("BREAD", "ACTIVE"),
    ]


async def test_products_are_listed_page_by_page(shop: Shop) -> None:
    """`next` is the last SKU of the part, and null at the end."""
    first = await shop.get("/products?limit=1")
    second = await shop.get(f"/products?limit=1&after={first.body['next']}")

    assert [item["sku"] for item in first.body["items"]] == ["APPLE"]
    assert [item["sku"] for item in second.body["items"]] == ["BREAD"]
    assert second.body["next"] is None


async def test_a_catalog_is_imported_from_json_lines(shop: Shop) -> None:
    """Each line a product, blank lines passed over, the last line of a SKU holds; again it changes nothing more."""
    lines = [
        {"sku": "APPLE", "name": "Apple", "price_minor": 120, "currency": "EUR"},
        {"sku": "CHEESE", "name": "Cheese", "price_minor": 1, "currency": "EUR"},
        {"sku": "CHEESE", "name": "Cheese", "price_minor": 900, "currency": "EUR"},
    ]
    body = b"\n\n".join(orjson.dumps(line) for line in lines) + b"\r\n"

    first = await shop.call("POST", "/products/import", body, token=OPERATOR)
    again = await shop.call("POST", "/products/import", body, token=OPERATOR)

    assert first.body == {"imported": 2, "created": 1, "updated": 1}
    assert again.body == {"imported": 2, "created": 0, "updated": 2}
    assert (await shop.get("/products/CHEESE")).body["price_minor"] == 900


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"nonsense", 400),
        (b'{"sku": "BAD", "name": "Bad", "price_minor": -1, "currency": "EUR"}', 422),
        (b'{"sku": "BAD", "name": "\\u0000", "price_minor": 1, "currency": "EUR"}', 422),
        (b'{"name": "Bad", "price_minor": 1, "currency": "EUR"}', 422),
    ],
)
async def test_an_import_with_a_bad_line_stores_nothing(shop: Shop, line: bytes, status: int) -> None:
    """All or nothing; a fault points to its line."""
    good = b'{"sku": "GOOD", "name": "Good", "price_minor": 1, "currency": "EUR"}'

    refused = await shop.call("POST", "/products/import", good + b"\n" + line, token=OPERATOR)

    assert refused.status == status
    assert (await shop.get("/products/GOOD")).status == 404
    if status == 422:
        assert all(pointer.startswith("/1/") for pointer in pointers(refused))


async def test_a_large_catalog_is_imported_at_once(shop: Shop) -> None:
    """Tens of thousands of products fit in 8 MiB; more is 413."""
    line = b'{"sku": "SKU-%05d", "name": "A product of the large catalog", "price_minor": 100, "currency": "EUR"}'
    body = b"\n".join(line % number for number in range(30_000))

    imported = await shop.call("POST", "/products/import", body, token=OPERATOR)
    too_large = await shop.call("POST", "/products/import", b" " * (8 * 1024 * 1024 + 1), token=OPERATOR)

    assert imported.body == {"imported": 30_000, "created": 30_000, "updated": 0}
    assert too_large.status == 413


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"name": "\u0000"},
        {"price_minor": -1},
        {"price_minor": 1.5},
        {"price_minor": 2**53},
        {"currency": "Euro"},
        {"active": "yes"},
    ],
    ids=str,
)
async def test_a_product_that_does_not_fit_is_refused(shop: Shop, fields: dict[str, Any]) -> None:
    """422 with a pointer, and the product stays as it is."""
    refused = await shop.put_product("APPLE", **fields)

    assert refused.status == 422
    assert pointers(refused) == [f"/{name}" for name in fields]


async def test_every_route_needs_a_token(shop: Shop) -> None:
    """Without one, or with a wrong one, 401; never anything else."""
    for method, path in shop.routes:
        for token in (None, "wrong-token-0123456789"):
            answer = await shop.call(
                method, path.format(sku="APPLE", order_id=new_id(), cart_id="cart-1"), token=token
            )

            assert answer.status == 401, (method, path, token)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/products/APPLE"), ("POST", "/products/import")])
async def test_the_catalog_is_changed_by_operators_alone(shop: Shop, method: str, path: str) -> None:
    """A storefront's token does not reach that far: 403."""
    answer = await shop.call(method, path, {"name": "x", "price_minor": 1, "currency": "EUR"})

    assert answer.status == 403


async def test_every_route_is_documented(shop: Shop) -> None:
    """The OpenAPI document and the routes name the same methods and paths, and the document is served."""
    document = (await shop.call("GET", "/openapi.json", token=None)).body

    documented = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters" and path not in {"/livez", "/readyz", "/metrics", "/openapi.json"}
    }
    assert document == orjson.loads(OPENAPI.read_bytes())
    assert documented == set(shop.routes)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    """No `$ref` is broken, and no component is without use."""
    document = orjson.loads(OPENAPI.read_bytes())
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                found.add(node["$ref"])
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(document)

    named = {
        f"#/components/{kind}/{name}"
        for kind in ("parameters", "responses", "schemas")
        for name in document["components"][kind]
    }
    assert found <= named
    assert named - found <= {"#/components/schemas/ProductLine"}
