"""Which SQL does the console run? It only reads; lists are paged by key, so that the last page costs what the first does."""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from ops.webhooks.store import Delivery, DeliveryFilters
from shared.database import Connection, Row


class Written(NamedTuple):
    """How many rows of a table were ever inserted and deleted, as Postgres counts them."""

    inserted: int
    deleted: int


# --- overview -------------------------------------------------------------------------------------------------------


async def count_written(connection: Connection) -> Mapping[str, Written]:
    """Return what was written to each table of a database since its statistics began: costs nothing to ask."""
    rows = await connection.fetch("SELECT relname, n_tup_ins, n_tup_del FROM pg_stat_user_tables")
    return {row["relname"]: Written(row["n_tup_ins"], row["n_tup_del"]) for row in rows}


async def count_orders(connection: Connection) -> dict[str, int]:
    """Return how many orders have each status; reads the whole table."""
    rows = await connection.fetch("SELECT status, count(*) AS orders FROM orders GROUP BY status")
    return {row["status"]: row["orders"] for row in rows}


# --- orders ---------------------------------------------------------------------------------------------------------


async def list_orders(
    connection: Connection, *, customer_id: str | None, status: str | None, before: UUID | None, limit: int
) -> list[Row]:
    """Return orders by id, the newest first: of a customer, with a status, older than the order `before`."""
    return await connection.fetch(
        """
        SELECT order_id, customer_id, status, reason, total_minor, currency, created_at, updated_at
        FROM orders
        WHERE ($1::text IS NULL OR customer_id = $1)
          AND ($2::text IS NULL OR status = $2)
          AND ($3::uuid IS NULL OR order_id < $3)
        ORDER BY order_id DESC LIMIT $4
        """,
        customer_id,
        status,
        before,
        limit,
    )


async def list_lines(connection: Connection, order_id: UUID, limit: int) -> list[Row]:
    """Return what an order asked for, with the names that the catalog has by now."""
    return await connection.fetch(
        """
        SELECT line.sku, line.quantity, line.unit_price_minor, product.name
        FROM order_lines AS line LEFT JOIN products AS product ON product.sku = line.sku
        WHERE line.order_id = $1 ORDER BY line.sku LIMIT $2
        """,
        order_id,
        limit,
    )


# --- stock ----------------------------------------------------------------------------------------------------------


async def list_levels(
    connection: Connection, *, prefix: str, is_empty: bool, after: str, limit: int
) -> list[Row]:
    """Return levels by SKU: those that begin with a prefix, perhaps only those that have run out."""
    return await connection.fetch(
        """
        SELECT sku, available, reserved, sold
        FROM stock_levels
        WHERE sku > $1 AND sku >= $2 AND starts_with(sku, $2) AND (NOT $3 OR available = 0)
        ORDER BY sku LIMIT $4
        """,
        after,
        prefix,
        is_empty,
        limit,
    )


async def find_level(connection: Connection, sku: str) -> Row | None:
    """Return the level of a SKU."""
    return await connection.fetchrow(
        "SELECT sku, available, reserved, sold FROM stock_levels WHERE sku = $1", sku
    )


async def list_movements(connection: Connection, sku: str, *, before: int | None, limit: int) -> list[Row]:
    """Return the ledger of a SKU, the newest first, from behind the movement `before` on."""
    return await connection.fetch(
        """
        SELECT id, order_id, kind, round, available_delta, reserved_delta, sold_delta, cause, at
        FROM stock_movements
        WHERE sku = $1 AND ($2::bigint IS NULL OR id < $2)
        ORDER BY id DESC LIMIT $3
        """,
        sku,
        before,
        limit,
    )


async def find_product(connection: Connection, sku: str) -> Row | None:
    """Return what the catalog says of a SKU."""
    return await connection.fetchrow(
        "SELECT sku, name, price_minor, currency, active FROM products WHERE sku = $1", sku
    )


# --- payments -------------------------------------------------------------------------------------------------------


async def list_attempts(
    connection: Connection, *, status: str | None, gateway: str | None, before: UUID | None, limit: int
) -> list[Row]:
    """Return attempts by id, the newest first."""
    return await connection.fetch(
        """
        SELECT attempt_id, order_id, gateway, gateway_transaction_id, status, native_status, amount_minor, currency,
               received_amount_minor, received_currency, created_at, updated_at, review_at
        FROM attempts
        WHERE ($1::text IS NULL OR status = $1)
          AND ($2::text IS NULL OR gateway = $2)
          AND ($3::uuid IS NULL OR attempt_id < $3)
        ORDER BY attempt_id DESC LIMIT $4
        """,
        status,
        gateway,
        before,
        limit,
    )


async def count_reviews(connection: Connection) -> int:
    """Return about how many attempts an operator has to decide."""
    count: int = await connection.fetchval("SELECT count(*) FROM attempts WHERE review_at IS NOT NULL")
    return count


async def list_reviews(connection: Connection, *, after: UUID | None, limit: int) -> list[Row]:
    """Return attempts about which an operator has to decide, by id: what is quarantined or disputed has a `review_at`."""
    return await connection.fetch(
        """
        SELECT attempt_id, order_id, gateway, status, native_status, dispute, review_reason, review_at,
               amount_minor, currency, received_amount_minor, received_currency
        FROM attempts
        WHERE review_at IS NOT NULL AND ($1::uuid IS NULL OR attempt_id > $1)
        ORDER BY attempt_id LIMIT $2
        """,
        after,
        limit,
    )


async def find_attempt(connection: Connection, order_id: UUID, attempt_id: UUID) -> Row | None:
    """Return an attempt of an order, with what its payment has settled."""
    return await connection.fetchrow(
        """
        SELECT attempt.attempt_id, attempt.order_id, attempt.gateway, attempt.status, attempt.native_status,
               attempt.dispute, attempt.review_reason, attempt.review_at, attempt.amount_minor, attempt.currency,
               attempt.received_amount_minor, attempt.received_currency, attempt.refunding_minor,
               attempt.gateway_transaction_id, payment.status AS payment_status, payment.closed
        FROM attempts AS attempt JOIN payments AS payment ON payment.order_id = attempt.order_id
        WHERE attempt.attempt_id = $1 AND attempt.order_id = $2
        """,
        attempt_id,
        order_id,
    )


async def list_refunds_due(connection: Connection, *, after: UUID | None, limit: int) -> list[Row]:
    """Return refunds that the gateways have not made yet, by id."""
    return await connection.fetch(
        """
        SELECT refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, status, error, tries,
               next_try_at, created_at
        FROM refunds
        WHERE next_try_at IS NOT NULL AND ($1::uuid IS NULL OR refund_id > $1)
        ORDER BY refund_id LIMIT $2
        """,
        after,
        limit,
    )


# --- webhooks -------------------------------------------------------------------------------------------------------


async def list_newest_deliveries(
    connection: Connection, filters: DeliveryFilters, *, before: int | None, limit: int
) -> list[Delivery]:
    """Return deliveries that match, the newest first; the command lists them in the order in which they came."""
    rows = await connection.fetch(
        """
        SELECT id, gateway, event_id, verdict, reason, order_id, attempt_id, transaction_id, received_at,
               judged_at, judge_at, judge_tries, octet_length(body) AS body_bytes
        FROM webhooks
        WHERE ($1::bigint IS NULL OR id < $1)
          AND ($2::text IS NULL OR verdict = $2 OR ($2 = 'unjudged' AND verdict IS NULL))
          AND ($3::text IS NULL OR gateway = $3)
          AND ($4::uuid IS NULL OR order_id = $4)
        ORDER BY id DESC LIMIT $5
        """,
        before,
        filters.verdict,
        filters.gateway,
        filters.order_id,
        limit,
    )
    return [Delivery(*row) for row in rows]
