"""A6 to A9: what do the three databases say of each order?

Each is read sorted by order id through a cursor, and the three are merged: a million orders need no more memory than
a few thousand rows of each.
"""

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Generic, Self, TypeVar
from uuid import UUID

from ops.audit.agreement import RULES, Case, OrderRow, PaymentRow, ReservationRow
from ops.audit.findings import Finding, Suspect
from ops.audit.limits import AuditLimits
from ops.audit.snapshots import Snapshots
from shared.database import Connection

R = TypeVar("R", bound=OrderRow | ReservationRow | PaymentRow)


async def find_disagreements(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> list[Suspect]:
    """A6 to A9: compare what the three databases say of each order, or of some of them."""
    suspects: list[Suspect] = []
    async with aclosing(list_cases(snapshots, limits, among)) as cases:
        async for order_id, case in cases:
            suspects += _judge(order_id, case)
            if len(suspects) >= limits.suspects_max:
                break
    return suspects


def _judge(order_id: UUID, case: Case) -> list[Suspect]:
    suspects = []
    for check, rule in RULES.items():
        if wrong := "; ".join(rule(case)):
            suspects.append(Suspect(Finding(check, str(order_id), wrong), case.young))
    return suspects


async def list_cases(
    snapshots: Snapshots, limits: AuditLimits, among: Collection[str] | None
) -> AsyncGenerator[tuple[UUID, Case], None]:
    """Yield every order that any database knows, or those of some, by id, with what each database says."""
    async with (
        aclosing(list_orders(snapshots.order, limits, among)) as order_rows,
        aclosing(list_reservations(snapshots.inventory, limits, among)) as reservation_rows,
        aclosing(list_payments(snapshots.payment, limits, among)) as payment_rows,
    ):
        orders = await _Stream(order_rows).start()
        reservations = await _Stream(reservation_rows).start()
        payments = await _Stream(payment_rows).start()
        streams = (orders, reservations, payments)
        while ahead := [stream.next.order_id for stream in streams if stream.next is not None]:
            order_id = min(ahead)
            case = Case(
                await orders.take(order_id), await reservations.take(order_id), await payments.take(order_id)
            )
            yield order_id, case


class _Stream(Generic[R]):
    """Rows sorted by order id, and the one that comes next."""

    def __init__(self, rows: AsyncGenerator[R, None]) -> None:
        self._rows = rows
        self.next: R | None = None

    async def start(self) -> Self:
        self.next = await anext(self._rows, None)
        return self

    async def take(self, order_id: UUID) -> R | None:
        """Return the next row and move on if it is of this order."""
        row = self.next
        if row is None or row.order_id != order_id:
            return None
        self.next = await anext(self._rows, None)
        return row


async def list_orders(
    connection: Connection, limits: AuditLimits, among: Collection[str] | None
) -> AsyncGenerator[OrderRow, None]:
    """Yield orders by id, with a digest of their lines: SKU and quantity of each, by SKU."""
    cursor = connection.cursor(
        """
        WITH line AS (
            SELECT order_id,
                   sha256(convert_to(string_agg(sku || ' ' || quantity, ',' ORDER BY sku COLLATE "C"), 'UTF8')) AS lines
            FROM order_lines
            WHERE $1::uuid[] IS NULL OR order_id = ANY($1)
            GROUP BY order_id
        )
        SELECT order_id, status, cancelled, total_minor, currency, lines,
               updated_at > now() - make_interval(secs => $2) AS young
        FROM orders LEFT JOIN line USING (order_id)
        WHERE $1::uuid[] IS NULL OR order_id = ANY($1)
        ORDER BY order_id
        """,
        among,
        limits.settle_seconds,
        prefetch=limits.rows_fetched_max,
    )
    async for row in cursor:
        yield OrderRow(*row)


async def list_reservations(
    connection: Connection, limits: AuditLimits, among: Collection[str] | None
) -> AsyncGenerator[ReservationRow, None]:
    """Yield reservations by order id, with a digest of what the ledger says was first reserved."""
    cursor = connection.cursor(
        """
        WITH line AS (
            SELECT order_id,
                   sha256(
                       convert_to(string_agg(sku || ' ' || reserved_delta, ',' ORDER BY sku COLLATE "C"), 'UTF8')
                   ) AS lines
            FROM stock_movements
            WHERE kind = 'RESERVED' AND round = 1 AND ($1::uuid[] IS NULL OR order_id = ANY($1))
            GROUP BY order_id
        )
        SELECT order_id, status, reason, unavailable, lines,
               updated_at > now() - make_interval(secs => $2) AS young
        FROM reservations LEFT JOIN line USING (order_id)
        WHERE $1::uuid[] IS NULL OR order_id = ANY($1)
        ORDER BY order_id
        """,
        among,
        limits.settle_seconds,
        prefetch=limits.rows_fetched_max,
    )
    async for row in cursor:
        yield ReservationRow(*row)


async def list_payments(
    connection: Connection, limits: AuditLimits, among: Collection[str] | None
) -> AsyncGenerator[PaymentRow, None]:
    """Yield payments by order id, with what their attempts took in and what goes back of it, due refunds included.

    Money in another currency gives nothing back; an amount of 0 is given back by its refund of 0.
    """
    cursor = connection.cursor(
        """
        WITH given_back AS (
            SELECT attempt_id, currency, sum(amount_minor) AS minor
            FROM refunds
            WHERE $1::uuid[] IS NULL OR order_id = ANY($1)
            GROUP BY attempt_id, currency
        ),
        refusal AS (
            SELECT order_id, count(*) AS refused
            FROM refunds
            WHERE status = 'FAILED' AND ($1::uuid[] IS NULL OR order_id = ANY($1))
            GROUP BY order_id
        ),
        attempt AS (
            SELECT order_id, amount_minor, attempts.currency, accepted_amount_minor, received_amount_minor,
                   coalesce(received_currency, attempts.currency) AS received_currency,
                   status = 'SUCCEEDED' AND coalesce(minor < received_amount_minor, true) AS settled,
                   status IN ('SUCCEEDED', 'REFUNDED') AND coalesce(minor < received_amount_minor, true) AS unreturned,
                   minor > coalesce(received_amount_minor, 0) AS overdrawn
            FROM attempts LEFT JOIN given_back
                 ON given_back.attempt_id = attempts.attempt_id
                    AND given_back.currency = coalesce(received_currency, attempts.currency)
            WHERE $1::uuid[] IS NULL OR order_id = ANY($1)
        ),
        taken AS (
            SELECT order_id, count(*) FILTER (WHERE settled) AS settled,
                   min(amount_minor) FILTER (WHERE settled) AS asked_minor,
                   min(currency) FILTER (WHERE settled) AS asked_currency,
                   min(received_amount_minor) FILTER (WHERE settled) AS received_minor,
                   min(received_currency) FILTER (WHERE settled) AS received_currency,
                   min(accepted_amount_minor) FILTER (WHERE settled) AS accepted_minor,
                   count(*) FILTER (WHERE unreturned) AS unreturned,
                   count(*) FILTER (WHERE overdrawn) AS overdrawn
            FROM attempt
            GROUP BY order_id
        )
        SELECT order_id, status, amount_minor, currency, coalesce(settled, 0) AS settled, asked_minor,
               asked_currency, received_minor, received_currency, accepted_minor,
               coalesce(unreturned, 0) AS unreturned, coalesce(overdrawn, 0) AS overdrawn,
               coalesce(refused, 0) AS refused,
               updated_at > now() - make_interval(secs => $2) AS young
        FROM payments LEFT JOIN taken USING (order_id) LEFT JOIN refusal USING (order_id)
        WHERE $1::uuid[] IS NULL OR order_id = ANY($1)
        ORDER BY order_id
        """,
        among,
        limits.settle_seconds,
        prefetch=limits.rows_fetched_max,
    )
    async for row in cursor:
        yield PaymentRow(*row)
