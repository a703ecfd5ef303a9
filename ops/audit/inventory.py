"""A1 to A4: are the units of each SKU where the ledger says?

`among` restricts a look to some SKUs or orders; None looks at all of them.
"""

from collections.abc import Collection

from ops.audit.findings import Finding, Suspect
from ops.audit.limits import AuditLimits
from ops.audit.snapshots import Snapshots
from shared.database import Row


async def find_negative_counters(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> list[Suspect]:
    """A1: no counter is negative."""
    rows = await snapshots.inventory.fetch(
        # The table's CHECK refuses such a row; this says so also where somebody took the CHECK away.
        """
        SELECT sku, available, reserved, sold
        FROM stock_levels
        WHERE least(available, reserved, sold) < 0 AND ($1::text[] IS NULL OR sku = ANY($1))
        ORDER BY sku LIMIT $2
        """,
        among,
        limits.suspects_max,
    )
    return [
        Suspect(Finding("A1", sku, f"available {available}, reserved {reserved}, sold {sold}"))
        for sku, available, reserved, sold in rows
    ]


async def find_wrong_sums(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> list[Suspect]:
    """A2: each counter is the sum of its movements, and no more and no fewer units are there than came in."""
    rows = await snapshots.inventory.fetch(
        # Every unit of a counter has a movement that put it there; a SKU with only one of the two is wrong as well.
        # `booked` is what came from outside: all other movements only move units from one counter to another.
        """
        WITH ledger AS (
            SELECT sku, sum(available_delta) AS available, sum(reserved_delta) AS reserved, sum(sold_delta) AS sold,
                   coalesce(sum(available_delta) FILTER (WHERE kind IN ('RECEIVED', 'ADJUSTED')), 0) AS booked
            FROM stock_movements
            WHERE $1::text[] IS NULL OR sku = ANY($1)
            GROUP BY sku
        ),
        levels AS (
            SELECT sku, available, reserved, sold FROM stock_levels WHERE $1::text[] IS NULL OR sku = ANY($1)
        ),
        compared AS (
            SELECT sku,
                   ARRAY[
                       coalesce(levels.available, 0), coalesce(levels.reserved, 0), coalesce(levels.sold, 0)
                   ]::numeric[] AS counters,
                   ARRAY[
                       coalesce(ledger.available, 0), coalesce(ledger.reserved, 0), coalesce(ledger.sold, 0)
                   ] AS sums,
                   coalesce(booked, 0) AS booked
            FROM levels FULL JOIN ledger USING (sku)
        )
        SELECT sku, counters::bigint[] AS counters, sums::bigint[] AS sums, booked::bigint AS booked
        FROM compared
        WHERE counters <> sums OR booked <> counters[1] + counters[2] + counters[3]
        ORDER BY sku LIMIT $2
        """,
        among,
        limits.suspects_max,
    )
    return [
        Suspect(Finding("A2", sku, _wrong_sum(counters, sums, booked)))
        for sku, counters, sums, booked in rows
    ]


def _wrong_sum(counters: list[int], sums: list[int], booked: int) -> str:
    wrong = [
        f"{name} is {counter}, its movements add up to {added_up}"
        for name, counter, added_up in zip(("available", "reserved", "sold"), counters, sums, strict=True)
        if counter != added_up
    ]
    if booked != sum(counters):
        wrong.append(f"{booked} units came in, {sum(counters)} are there")
    return "; ".join(wrong)


async def find_wrong_holds(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> list[Suspect]:
    """A3: what is reserved of a SKU is what held reservations hold of it."""
    rows = await snapshots.inventory.fetch(
        # The ledger may be right in itself and still reserve what nobody holds: this compares with the orders' lines.
        """
        WITH held AS (
            SELECT sku, sum(quantity) AS units
            FROM reservation_lines JOIN reservations USING (order_id)
            WHERE status = 'HELD' AND ($1::text[] IS NULL OR sku = ANY($1))
            GROUP BY sku
        ),
        levels AS (
            SELECT sku, reserved FROM stock_levels WHERE $1::text[] IS NULL OR sku = ANY($1)
        )
        SELECT sku, coalesce(reserved, 0)::bigint AS reserved, coalesce(units, 0)::bigint AS units
        FROM levels FULL JOIN held USING (sku)
        WHERE coalesce(reserved, 0) <> coalesce(units, 0)
        ORDER BY sku LIMIT $2
        """,
        among,
        limits.suspects_max,
    )
    return [
        Suspect(Finding("A3", sku, f"reserved is {reserved}, reservations hold {units}"))
        for sku, reserved, units in rows
    ]


async def find_wrong_moves(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> list[Suspect]:
    """A4: each reservation moved only along allowed paths, all its lines alike, and each move once."""
    rows = await snapshots.inventory.fetch(
        # The movements of an order's SKU, in the order in which they were made, are its path. All SKUs of an order went
        # the same path, one that its status allows; every step of it moved the same number of units.
        # Without any movement are only: what was never reserved, and what was cancelled before it could be.
        """
        WITH allowed (status, path) AS (
            VALUES
            ('HELD', 'RESERVED 1'),
            ('CONFIRMED', 'RESERVED 1, CONFIRMED 1'),
            ('CONFIRMED', 'RESERVED 1, RELEASED 1, RESERVED 2, CONFIRMED 2'),
            ('RELEASED', 'RESERVED 1, RELEASED 1'),
            ('RETURNED', 'RESERVED 1, CONFIRMED 1, RETURNED 1'),
            ('RETURNED', 'RESERVED 1, RELEASED 1, RESERVED 2, CONFIRMED 2, RETURNED 2')
        ),
        line AS (
            SELECT order_id,
                   string_agg(kind || ' ' || round, ', ' ORDER BY id) AS path,
                   min(abs(available_delta) + abs(reserved_delta) + abs(sold_delta)) AS least_moved,
                   max(abs(available_delta) + abs(reserved_delta) + abs(sold_delta)) AS most_moved
            FROM stock_movements
            WHERE order_id IS NOT NULL AND ($1::uuid[] IS NULL OR order_id = ANY($1))
            GROUP BY order_id, sku
        ),
        moved AS (
            SELECT order_id, min(path) AS path, max(path) AS other_path, bool_and(least_moved = most_moved) AS even
            FROM line
            GROUP BY order_id
        ),
        reservation AS (
            SELECT order_id, status, reason FROM reservations WHERE $1::uuid[] IS NULL OR order_id = ANY($1)
        )
        SELECT order_id::text AS order_id, status, reason, path, other_path, even
        FROM reservation FULL JOIN moved USING (order_id)
        WHERE CASE
            WHEN path IS NULL THEN
                NOT (status IS NULL OR status = 'REJECTED' OR (status = 'RELEASED' AND reason = 'cancelled'))
            ELSE path <> other_path OR NOT even OR (status, path) NOT IN (SELECT status, path FROM allowed)
                 OR status IS NULL
            END
        ORDER BY order_id LIMIT $2
        """,
        among,
        limits.suspects_max,
    )
    return [Suspect(Finding("A4", row["order_id"], _wrong_moves(row))) for row in rows]


def _wrong_moves(row: Row) -> str:
    path, other_path = row["path"], row["other_path"]
    status = f"{row['status']} ({row['reason']})" if row["reason"] else row["status"] or "not open"
    if path is None:
        return f"the reservation is {status}, but nothing moved"
    if path != other_path:
        return f"the reservation is {status}; its SKUs moved differently: {path} / {other_path}"
    if not row["even"]:
        return f"the steps {path} moved different numbers of units"
    return f"the reservation is {status}, but its units moved: {path}"
