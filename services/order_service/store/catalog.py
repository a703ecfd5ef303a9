"""Which SQL reads and writes the catalog?"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.order_service.domain.book import Availability
from services.order_service.domain.placing import Price
from shared.database import Connection


@dataclass(frozen=True, slots=True)
class Product:
    """A row of the catalog, with whether inventory says that it has run out."""

    sku: str
    name: str
    price_minor: int
    currency: str
    active: bool
    depleted: bool = False

    @property
    def status(self) -> str:
        """Whether the product can be bought, as its customers see it."""
        if not self.active:
            return "INACTIVE"
        return "OUT_OF_STOCK" if self.depleted else "ACTIVE"


async def get_prices(tx: Connection, skus: Collection[str]) -> dict[str, Price]:
    """Return the prices of those of the SKUs that the catalog knows."""
    if not skus:
        return {}
    rows = await tx.fetch(
        "SELECT sku, price_minor, currency, active FROM products WHERE sku = ANY($1::text[])", sorted(skus)
    )
    return {sku: Price(price_minor, currency, active) for sku, price_minor, currency, active in rows}


async def find_product(connection: Connection, sku: str) -> Product | None:
    """Return one product."""
    row = await connection.fetchrow(
        """
        SELECT sku, name, price_minor, currency, active, coalesce(depleted, false) AS depleted
        FROM products LEFT JOIN product_availability USING (sku) WHERE sku = $1
        """,
        sku,
    )
    return None if row is None else Product(**row)


async def list_products(connection: Connection, *, after: str, limit: int) -> list[Product]:
    """Return products by SKU, beginning behind `after`."""
    rows = await connection.fetch(
        """
        SELECT sku, name, price_minor, currency, active, coalesce(depleted, false) AS depleted
        FROM products LEFT JOIN product_availability USING (sku) WHERE sku > $1 ORDER BY sku LIMIT $2
        """,
        after,
        limit,
    )
    return [Product(**row) for row in rows]


async def insert_products(connection: Connection, products: Collection[Product]) -> int:
    """Store products, each SKU at most once, over what is known of them; return how many were new."""
    ordered = sorted(products, key=lambda product: product.sku)
    created: int = await connection.fetchval(
        """
        WITH stored AS (
            INSERT INTO products (sku, name, price_minor, currency, active)
            SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::boolean[])
            ON CONFLICT (sku) DO UPDATE SET
                name = EXCLUDED.name, price_minor = EXCLUDED.price_minor, currency = EXCLUDED.currency,
                active = EXCLUDED.active, updated_at = now()
            RETURNING (xmax = 0) AS is_new
        )
        SELECT count(*) FILTER (WHERE is_new) FROM stored
        """,
        [product.sku for product in ordered],
        [product.name for product in ordered],
        [product.price_minor for product in ordered],
        [product.currency for product in ordered],
        [product.active for product in ordered],
    )
    return created


async def insert_availability(tx: Connection, rows: Sequence[Availability]) -> None:
    """Store which SKUs have run out, unless something newer is known; rows are sorted by SKU, each SKU once."""
    if not rows:
        return
    await tx.execute(
        """
        INSERT INTO product_availability (sku, depleted, sequence)
        SELECT * FROM unnest($1::text[], $2::boolean[], $3::bigint[])
        ON CONFLICT (sku) DO UPDATE SET depleted = EXCLUDED.depleted, sequence = EXCLUDED.sequence
        WHERE product_availability.sequence < EXCLUDED.sequence
        """,
        [row.sku for row in rows],
        [row.depleted for row in rows],
        [row.sequence for row in rows],
    )
