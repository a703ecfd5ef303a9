"""What does the inventory service read from and write to Postgres?

Locks are taken in one order everywhere, reservations by order id and then levels by SKU, so that no two transactions
ever wait for each other in a circle.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from services.inventory_service.domain.ledger import Change, Ledger
from services.inventory_service.domain.reservation import Reservation
from services.inventory_service.domain.stock import Adjustment, Level, Movement, Receipt
from shared.database import Connection, Row
from shared.errors import ConcurrentWrite, LedgerViolation
from shared.events import PaymentStatus, ReservationStatus

# --- load -----------------------------------------------------------------------------------------------------------


async def load(tx: Connection, order_ids: Collection[UUID], skus: Collection[str]) -> Ledger:
    """Lock and return the reservations of some orders, and the levels of `skus` and of what is held for the orders."""
    return await _load_levels(tx, await lock_reservations(tx, order_ids), skus)


async def load_due(tx: Connection, order_ids: Collection[UUID], expired_by: datetime) -> Ledger:
    """Lock and return those of the orders' holds that ended at `expired_by` or before and nobody else works on."""
    return await _load_levels(tx, await lock_due_reservations(tx, order_ids, expired_by), ())


async def load_changes(tx: Connection, changes: Collection[Change]) -> Ledger:
    """Lock and return the levels that receipts and adjustments touch, and those of them that are known already."""
    receipts = [change for change in changes if isinstance(change, Receipt)]
    adjustments = [change for change in changes if isinstance(change, Adjustment)]
    skus = {sku for receipt in receipts for sku in receipt.lines} | {change.sku for change in adjustments}
    levels = await lock_levels(tx, skus)
    known: list[Change] = [
        *await list_receipts(tx, {receipt.receipt_id for receipt in receipts}),
        *await list_adjustments(tx, {adjustment.adjustment_id for adjustment in adjustments}),
    ]
    return Ledger(await get_now(tx), levels=levels, changes=known)


async def load_to_tell(tx: Connection, order_ids: Collection[UUID], skus: Collection[str]) -> Ledger:
    """Lock and return the reservations of some orders with all their lines, and the levels of some SKUs."""
    reservations = {item.order_id: item for item in await lock_reservations(tx, order_ids)}
    for row in await list_lines(tx, list(reservations)):
        reservations[row["order_id"]].lines[row["sku"]] = row["quantity"]
    levels = await lock_levels(tx, skus)
    return Ledger(await get_now(tx), reservations=reservations.values(), levels=levels)


async def _load_levels(
    tx: Connection, reservations: Collection[Reservation], skus: Collection[str]
) -> Ledger:
    movable = {reservation.order_id: reservation for reservation in reservations if reservation.may_move}
    if movable:
        for row in await list_lines(tx, list(movable)):
            movable[row["order_id"]].lines[row["sku"]] = row["quantity"]
    needed = {sku for reservation in movable.values() for sku in reservation.lines}.union(skus)
    levels = await lock_levels(tx, needed) if needed else []
    return Ledger(await get_now(tx), reservations=reservations, levels=levels)


async def get_now(tx: Connection) -> datetime:
    """Return the time at which the transaction began, by the database's clock."""
    now: datetime = await tx.fetchval("SELECT now()")
    return now


async def lock_reservations(tx: Connection, order_ids: Collection[UUID]) -> list[Reservation]:
    """Lock the reservations of some orders, as far as there are any; the lines stay where they are."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, reason, expires_at, cancelled, unavailable, payment_status, payment_reason, round, sequence
        FROM reservations WHERE order_id = ANY($1::uuid[]) ORDER BY order_id FOR UPDATE
        """,
        order_ids,
    )
    return [_reservation(row) for row in rows]


async def lock_due_reservations(
    tx: Connection, order_ids: Collection[UUID], expired_by: datetime
) -> list[Reservation]:
    """Lock those of some orders' reservations whose hold has ended; one that is locked elsewhere is left for later."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, reason, expires_at, cancelled, unavailable, payment_status, payment_reason, round, sequence
        FROM reservations
        WHERE order_id = ANY($1::uuid[]) AND status = 'HELD' AND expires_at <= $2
        ORDER BY order_id FOR UPDATE SKIP LOCKED
        """,
        order_ids,
        expired_by,
    )
    return [_reservation(row) for row in rows]


async def list_lines(tx: Connection, order_ids: Collection[UUID]) -> list[Row]:
    """Return the lines of some orders by SKU."""
    return await tx.fetch(
        "SELECT order_id, sku, quantity FROM reservation_lines WHERE order_id = ANY($1::uuid[]) ORDER BY order_id, sku",
        order_ids,
    )


async def lock_levels(tx: Connection, skus: Collection[str]) -> list[Level]:
    """Lock the levels of some SKUs, as far as there are any."""
    rows = await tx.fetch(
        """
        SELECT sku, available, reserved, sold, sequence
        FROM stock_levels WHERE sku = ANY($1::text[]) ORDER BY sku FOR UPDATE
        """,
        skus,
    )
    return [
        Level(row["sku"], row["available"], row["reserved"], row["sold"], row["sequence"], stored=True)
        for row in rows
    ]


async def sum_movements(tx: Connection, skus: Collection[str]) -> dict[str, tuple[int, int, int]]:
    """Return what the movements of SKUs add up to: available, reserved, sold."""
    rows = await tx.fetch(
        """
        SELECT sku, sum(available_delta)::bigint AS available, sum(reserved_delta)::bigint AS reserved,
               sum(sold_delta)::bigint AS sold
        FROM stock_movements WHERE sku = ANY($1::text[]) GROUP BY sku
        """,
        skus,
    )
    return {sku: (available, reserved, sold) for sku, available, reserved, sold in rows}


async def list_receipts(tx: Connection, receipt_ids: Collection[str]) -> list[Receipt]:
    """Return the receipts that are known by some ids."""
    rows = await tx.fetch(
        "SELECT receipt_id, lines, cause FROM stock_receipts WHERE receipt_id = ANY($1::text[])", receipt_ids
    )
    return [Receipt(row["receipt_id"], row["lines"], row["cause"]) for row in rows]


async def list_adjustments(tx: Connection, adjustment_ids: Collection[str]) -> list[Adjustment]:
    """Return the adjustments that are known by some ids."""
    rows = await tx.fetch(
        """
        SELECT adjustment_id, sku, quantity_delta, reason, cause
        FROM stock_adjustments WHERE adjustment_id = ANY($1::text[])
        """,
        adjustment_ids,
    )
    return [Adjustment(*row) for row in rows]


# --- save -----------------------------------------------------------------------------------------------------------


async def save(tx: Connection, ledger: Ledger) -> None:
    """Write what a ledger has decided, one statement a table; its events are the caller's to send.

    Raises:
        ConcurrentWrite: another process was first to write a row that was not there when this batch was loaded.
        LedgerViolation: a row is not what it was when it was locked, or a counter would fall below zero.
    """
    changed = sorted(
        (item for item in ledger.reservations.values() if item.changed), key=attrgetter("order_id")
    )
    if new := [item for item in changed if item.stored_sequence is None]:
        await insert_reservations(tx, new)
    if old := [item for item in changed if item.stored_sequence is not None]:
        await update_reservations(tx, old)
    if lines := [
        line for item in changed if item.opened and not item.stored_sequence for line in _lines(item)
    ]:
        await insert_lines(tx, lines)
    moved = sorted((level for level in ledger.levels.values() if level.changed), key=attrgetter("sku"))
    if new_levels := [level for level in moved if not level.stored]:
        await insert_levels(tx, new_levels)
    if old_levels := [level for level in moved if level.stored]:
        await update_levels(tx, old_levels)
    if ledger.movements:
        await insert_movements(tx, ledger.movements)
    if receipts := [change for change in ledger.new_changes if isinstance(change, Receipt)]:
        await insert_receipts(tx, sorted(receipts, key=attrgetter("receipt_id")))
    if adjustments := [change for change in ledger.new_changes if isinstance(change, Adjustment)]:
        await insert_adjustments(tx, sorted(adjustments, key=attrgetter("adjustment_id")))


async def insert_reservations(tx: Connection, reservations: Sequence[Reservation]) -> None:
    """Store reservations that have no row yet, in the order of their ids."""
    status = await tx.execute(
        """
        INSERT INTO reservations (
            order_id, status, reason, expires_at, cancelled, unavailable, payment_status, payment_reason, round, sequence
        )
        SELECT * FROM unnest(
            $1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::boolean[], $6::boolean[],
            $7::text[], $8::text[], $9::bigint[], $10::bigint[]
        )
        ON CONFLICT DO NOTHING
        """,
        *_columns(reservations),
    )
    _expect(status, len(reservations), ConcurrentWrite)


async def update_reservations(tx: Connection, reservations: Sequence[Reservation]) -> None:
    """Store where reservations stand now, if they stood where they were loaded, and only what is due expires."""
    status = await tx.execute(
        """
        UPDATE reservations
        SET status = next.status, reason = next.reason, expires_at = next.expires_at, cancelled = next.cancelled,
            unavailable = next.unavailable, payment_status = next.payment_status,
            payment_reason = next.payment_reason, round = next.round, sequence = next.sequence, updated_at = now()
        FROM unnest(
            $1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::boolean[], $6::boolean[],
            $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::timestamptz[]
        ) AS next (
            order_id, status, reason, expires_at, cancelled, unavailable,
            payment_status, payment_reason, round, sequence, stored_sequence, expired_by
        )
        WHERE reservations.order_id = next.order_id AND reservations.sequence = next.stored_sequence
          AND (next.expired_by IS NULL OR (reservations.status = 'HELD' AND reservations.expires_at <= next.expired_by))
        """,
        *_columns(reservations),
        [item.stored_sequence for item in reservations],
        [item.expired_by for item in reservations],
    )
    _expect(status, len(reservations), LedgerViolation)


async def insert_lines(tx: Connection, lines: Sequence[tuple[UUID, str, int]]) -> None:
    """Store what orders asked for: order id, SKU, units."""
    await tx.copy_records_to_table(
        "reservation_lines", columns=("order_id", "sku", "quantity"), records=lines
    )


async def insert_levels(tx: Connection, levels: Sequence[Level]) -> None:
    """Store the levels of SKUs that have no row yet, in the order of SKUs."""
    status = await tx.execute(
        """
        INSERT INTO stock_levels (sku, available, reserved, sold, sequence)
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
        ON CONFLICT DO NOTHING
        """,
        [level.sku for level in levels],
        [level.available for level in levels],
        [level.reserved for level in levels],
        [level.sold for level in levels],
        [level.sequence for level in levels],
    )
    _expect(status, len(levels), ConcurrentWrite)


async def update_levels(tx: Connection, levels: Sequence[Level]) -> None:
    """Add to each SKU's counters what a whole batch has moved, unless one would fall below zero."""
    status = await tx.execute(
        """
        UPDATE stock_levels
        SET available = stock_levels.available + moved.available, reserved = stock_levels.reserved + moved.reserved,
            sold = stock_levels.sold + moved.sold, sequence = moved.sequence
        FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
             AS moved (sku, available, reserved, sold, sequence)
        WHERE stock_levels.sku = moved.sku
          AND stock_levels.available + moved.available >= 0
          AND stock_levels.reserved + moved.reserved >= 0
          AND stock_levels.sold + moved.sold >= 0
        """,
        [level.sku for level in levels],
        [level.available_delta for level in levels],
        [level.reserved_delta for level in levels],
        [level.sold_delta for level in levels],
        [level.sequence for level in levels],
    )
    _expect(status, len(levels), LedgerViolation)


async def insert_movements(tx: Connection, movements: Sequence[Movement]) -> None:
    """Store movements in the order in which they were decided; the table refuses one that was made before."""
    await tx.copy_records_to_table("stock_movements", columns=Movement._fields, records=movements)


async def insert_receipts(tx: Connection, receipts: Sequence[Receipt]) -> None:
    """Remember receipts, in the order of their ids."""
    status = await tx.execute(
        """
        INSERT INTO stock_receipts (receipt_id, lines, cause)
        SELECT * FROM unnest($1::text[], $2::jsonb[], $3::text[])
        ON CONFLICT DO NOTHING
        """,
        [receipt.receipt_id for receipt in receipts],
        [receipt.lines for receipt in receipts],
        [receipt.cause for receipt in receipts],
    )
    _expect(status, len(receipts), ConcurrentWrite)


async def insert_adjustments(tx: Connection, adjustments: Sequence[Adjustment]) -> None:
    """Remember adjustments, in the order of their ids."""
    status = await tx.execute(
        """
        INSERT INTO stock_adjustments (adjustment_id, sku, quantity_delta, reason, cause)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[])
        ON CONFLICT DO NOTHING
        """,
        [adjustment.adjustment_id for adjustment in adjustments],
        [adjustment.sku for adjustment in adjustments],
        [adjustment.quantity_delta for adjustment in adjustments],
        [adjustment.reason for adjustment in adjustments],
        [adjustment.cause for adjustment in adjustments],
    )
    _expect(status, len(adjustments), ConcurrentWrite)


# --- single reads ---------------------------------------------------------------------------------------------------


async def find_due(
    connection: Connection, grace_seconds: float, after: tuple[datetime, UUID], limit: int
) -> list[Row]:
    """Return the next holds that ended more than `grace_seconds` ago, oldest first, and that moment as `expired_by`."""
    return await connection.fetch(
        """
        SELECT order_id, expires_at, now() - make_interval(secs => $1) AS expired_by
        FROM reservations
        WHERE status = 'HELD' AND expires_at <= now() - make_interval(secs => $1)
          AND (expires_at, order_id) > ($2, $3)
        ORDER BY expires_at, order_id LIMIT $4
        """,
        grace_seconds,
        *after,
        limit,
    )


async def get_level(connection: Connection, sku: str) -> Row | None:
    """Return the counters of a SKU."""
    return await connection.fetchrow(
        "SELECT sku, available, reserved, sold FROM stock_levels WHERE sku = $1", sku
    )


async def list_levels(connection: Connection, after: str, limit: int) -> list[Row]:
    """Return the counters of the SKUs that follow one."""
    return await connection.fetch(
        "SELECT sku, available, reserved, sold FROM stock_levels WHERE sku > $1 ORDER BY sku LIMIT $2",
        after,
        limit,
    )


async def list_movements(connection: Connection, sku: str, after: int, limit: int) -> list[Row]:
    """Return the movements of a SKU that follow one, in the order in which they happened."""
    return await connection.fetch(
        """
        SELECT id, sku, order_id, kind, round, available_delta, reserved_delta, sold_delta, cause, at
        FROM stock_movements WHERE sku = $1 AND id > $2 ORDER BY id LIMIT $3
        """,
        sku,
        after,
        limit,
    )


async def get_reservation(connection: Connection, order_id: UUID) -> Row | None:
    """Return where the reservation of an order stands, unless facts are only remembered for it."""
    return await connection.fetchrow(
        """
        SELECT order_id, status, reason, expires_at, unavailable, updated_at
        FROM reservations WHERE order_id = $1 AND status IS NOT NULL
        """,
        order_id,
    )


# --- rows and objects -----------------------------------------------------------------------------------------------


def _reservation(row: Row) -> Reservation:
    return Reservation(
        order_id=row["order_id"],
        status=ReservationStatus(row["status"]) if row["status"] else None,
        reason=row["reason"],
        expires_at=row["expires_at"],
        cancelled=row["cancelled"],
        unavailable=row["unavailable"],
        payment_status=PaymentStatus(row["payment_status"]),
        payment_reason=row["payment_reason"],
        round=row["round"],
        sequence=row["sequence"],
        stored_sequence=row["sequence"],
    )


def _lines(reservation: Reservation) -> Iterable[tuple[UUID, str, int]]:
    return ((reservation.order_id, sku, quantity) for sku, quantity in reservation.lines.items())


def _columns(reservations: Sequence[Reservation]) -> Iterable[Sequence[object]]:
    """Return the columns that inserting and updating have in common."""
    return (
        [item.order_id for item in reservations],
        [item.status for item in reservations],
        [item.reason for item in reservations],
        [item.expires_at for item in reservations],
        [item.cancelled for item in reservations],
        [item.unavailable for item in reservations],
        [item.payment_status for item in reservations],
        [item.payment_reason for item in reservations],
        [item.round for item in reservations],
        [item.sequence for item in reservations],
    )


def _expect(status: str, rows: int, error: type[ConcurrentWrite | LedgerViolation]) -> None:
    """Compare the rows that a statement wrote, as its command tag tells, with those that were decided."""
    if int(status.rpartition(" ")[2]) != rows:
        raise error
