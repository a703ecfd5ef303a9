"""Which SQL reads and writes carts?"""

from collections.abc import Collection, Sequence
from datetime import datetime

from services.order_service.domain.cart import Cart
from services.order_service.store.rows import count
from shared.database import Connection
from shared.errors import ConcurrentWrite, LedgerViolation


async def lock_carts(tx: Connection, cart_ids: Collection[str]) -> dict[str, Cart]:
    """Lock the carts that have a row, always in the order of their ids, and return all of them, without their items."""
    if not cart_ids:
        return {}
    rows = await tx.fetch(
        "SELECT cart_id, order_id, customer_id FROM carts WHERE cart_id = ANY($1::text[]) ORDER BY cart_id FOR UPDATE",
        list(cart_ids),
    )
    carts = {cart_id: Cart(cart_id) for cart_id in cart_ids}
    for cart_id, order_id, customer_id in rows:
        carts[cart_id] = Cart(cart_id, order_id=order_id, customer_id=customer_id, is_new=False)
    return carts


async def load_items(tx: Connection, carts: Collection[Cart]) -> None:
    """Fill carts with their items."""
    known = {cart.cart_id: cart for cart in carts if not cart.is_new}
    if not known:
        return
    rows = await tx.fetch(
        "SELECT cart_id, sku, quantity FROM cart_items WHERE cart_id = ANY($1::text[])", list(known)
    )
    for cart_id, sku, quantity in rows:
        known[cart_id].items[sku] = quantity


async def find_cart(connection: Connection, cart_id: str) -> Cart:
    """Return one cart with its items, as of one moment; one without a row is open and empty."""
    rows = await connection.fetch(
        """
        SELECT order_id, customer_id, sku, quantity FROM carts LEFT JOIN cart_items USING (cart_id)
        WHERE cart_id = $1
        """,
        cart_id,
    )
    if not rows:
        return Cart(cart_id)
    items = {row["sku"]: row["quantity"] for row in rows if row["sku"] is not None}
    order_id, customer_id = rows[0]["order_id"], rows[0]["customer_id"]
    return Cart(cart_id, items, order_id=order_id, customer_id=customer_id, is_new=False)


async def save_carts(tx: Connection, carts: Collection[Cart], at: datetime) -> None:
    """Write what changed of carts: one statement for each kind of change there is.

    Raises:
        ConcurrentWrite: another process stored one of the new carts first.
        LedgerViolation: a locked cart is not there any more.
    """
    changed = [cart for cart in carts if cart.changed]
    await _insert_carts(tx, [cart for cart in changed if cart.is_new], at)
    await _update_carts(tx, [cart for cart in changed if not cart.is_new], at)
    await _delete_all_items(tx, [cart.cart_id for cart in changed if cart.emptied])
    await _delete_items(tx, [(cart.cart_id, sku) for cart in changed for sku in cart.taken])
    await _insert_items(tx, [(cart.cart_id, sku, cart.items[sku]) for cart in changed for sku in cart.put])


async def delete_abandoned_carts(connection: Connection, *, hours: int, carts_max: int) -> int:
    """Forget some of the open carts that nobody has touched for so long, the oldest first; return how many."""
    deleted: int = await connection.fetchval(
        """
        WITH abandoned AS MATERIALIZED (
            SELECT cart_id FROM carts
            WHERE order_id IS NULL AND updated_at < now() - make_interval(hours => $1)
            ORDER BY updated_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ), emptied AS (
            DELETE FROM cart_items USING abandoned WHERE cart_items.cart_id = abandoned.cart_id
        ), deleted AS (
            DELETE FROM carts USING abandoned WHERE carts.cart_id = abandoned.cart_id RETURNING 1
        )
        SELECT count(*) FROM deleted
        """,
        hours,
        carts_max,
    )
    return deleted


async def _insert_carts(tx: Connection, carts: Sequence[Cart], at: datetime) -> None:
    if not carts:
        return
    inserted = await tx.execute(
        """
        INSERT INTO carts (cart_id, order_id, customer_id, updated_at)
        SELECT cart_id, order_id, customer_id, $4
        FROM unnest($1::text[], $2::uuid[], $3::text[]) AS row (cart_id, order_id, customer_id)
        ORDER BY cart_id
        ON CONFLICT (cart_id) DO NOTHING
        """,
        [cart.cart_id for cart in carts],
        [cart.order_id for cart in carts],
        [cart.customer_id for cart in carts],
        at,
    )
    if count(inserted) != len(carts):
        raise ConcurrentWrite


async def _update_carts(tx: Connection, carts: Sequence[Cart], at: datetime) -> None:
    if not carts:
        return
    updated = await tx.execute(
        """
        UPDATE carts SET order_id = row.order_id, customer_id = row.customer_id, updated_at = $4
        FROM unnest($1::text[], $2::uuid[], $3::text[]) AS row (cart_id, order_id, customer_id)
        WHERE carts.cart_id = row.cart_id
        """,
        [cart.cart_id for cart in carts],
        [cart.order_id for cart in carts],
        [cart.customer_id for cart in carts],
        at,
    )
    if count(updated) != len(carts):
        raise LedgerViolation(f"{len(carts)} carts were decided on, {updated} were there")


async def _delete_all_items(tx: Connection, cart_ids: Sequence[str]) -> None:
    if cart_ids:
        await tx.execute("DELETE FROM cart_items WHERE cart_id = ANY($1::text[])", cart_ids)


async def _delete_items(tx: Connection, items: Sequence[tuple[str, str]]) -> None:
    if not items:
        return
    await tx.execute(
        """
        DELETE FROM cart_items USING unnest($1::text[], $2::text[]) AS row (cart_id, sku)
        WHERE cart_items.cart_id = row.cart_id AND cart_items.sku = row.sku
        """,
        [cart_id for cart_id, _ in items],
        [sku for _, sku in items],
    )


async def _insert_items(tx: Connection, items: Sequence[tuple[str, str, int]]) -> None:
    if not items:
        return
    await tx.execute(
        """
        INSERT INTO cart_items (cart_id, sku, quantity)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
        ON CONFLICT (cart_id, sku) DO UPDATE SET quantity = EXCLUDED.quantity
        """,
        [cart_id for cart_id, _, _ in items],
        [sku for _, sku, _ in items],
        [quantity for _, _, quantity in items],
    )
