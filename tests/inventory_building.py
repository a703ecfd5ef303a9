"""How do tests make what the inventory service hears, and read what it has written?"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.inventory_service import handlers
from services.inventory_service.domain.stock import Receipt
from services.inventory_service.worker import Sweeper
from shared.database import Database
from shared.events import (
    OrderCancelled,
    OrderRequested,
    OrderStatus,
    PaymentFact,
    PaymentFailed,
    PaymentReason,
    PaymentRefunded,
    PaymentStatus,
    PaymentSucceeded,
    PricedLine,
)
from shared.ids import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

Fact = OrderRequested | OrderCancelled | PaymentSucceeded | PaymentFailed | PaymentRefunded


def ordered(
    order_id: UUID, *lines: tuple[str, int], cancelled: bool = False, hold_seconds: int | None = None
) -> OrderRequested:
    """Return that an order was placed: for one apple, unless told otherwise."""
    priced = tuple(
        PricedLine(sku=sku, quantity=quantity, unit_price_minor=100)
        for sku, quantity in lines or [("APPLE", 1)]
    )
    return OrderRequested(
        order_id=order_id,
        order_status=OrderStatus.CANCELLED if cancelled else OrderStatus.REQUESTED,
        cancelled=cancelled,
        customer_id="customer-1",
        lines=priced,
        total_minor=sum(100 * line.quantity for line in priced),
        currency="EUR",
        hold_seconds=hold_seconds,
    )


def order_cancelled(order_id: UUID) -> OrderCancelled:
    """Return that an order was cancelled."""
    return OrderCancelled(
        order_id=order_id,
        order_status=OrderStatus.CANCELLED,
        cancelled=True,
        reason="changed my mind",
        requested_by="storefront",
    )


def _money(status: PaymentStatus, reason: PaymentReason | None = None) -> dict[str, Any]:
    settled = status in (PaymentStatus.SUCCEEDED, PaymentStatus.REFUNDED)
    return {
        "payment_status": status,
        "payment_reason": reason,
        "settled_attempt_id": new_id() if settled else None,
        "settled_amount_minor": 100 if settled else None,
        "settled_currency": "EUR" if settled else None,
        "refunded_minor": 100 if status is PaymentStatus.REFUNDED else 0,
        "paid_at": NOW if settled else None,
    }


def paid(order_id: UUID, carrying: PaymentStatus = PaymentStatus.SUCCEEDED) -> PaymentSucceeded:
    """Return that the money came."""
    return PaymentSucceeded(
        order_id=order_id,
        attempt_id=new_id(),
        gateway="sandbox",
        gateway_transaction_id="t-1",
        amount_minor=100,
        currency="EUR",
        **(_money(carrying) | {"paid_at": NOW}),
    )


def payment_failed(order_id: UUID, reason: PaymentReason = "declined") -> PaymentFailed:
    """Return that the money will not come; the payment is CANCELLED if that is the reason, else FAILED."""
    status = PaymentStatus.CANCELLED if reason == "cancelled" else PaymentStatus.FAILED
    return PaymentFailed(order_id=order_id, reason=reason, attempts=1, **_money(status, reason))


def refunded(order_id: UUID, carrying: PaymentStatus = PaymentStatus.REFUNDED) -> PaymentRefunded:
    """Return that money went back: all of it, unless another state is carried."""
    return PaymentRefunded(
        order_id=order_id,
        attempt_id=new_id(),
        amount_minor=100,
        currency="EUR",
        reason="operator",
        **_money(carrying),
    )


def payment_facts(order_id: UUID) -> list[PaymentFact]:
    """Return one of each thing that can be heard of a payment."""
    return [
        paid(order_id),
        payment_failed(order_id),
        payment_failed(order_id, "expired"),
        payment_failed(order_id, "cancelled"),
        refunded(order_id),
    ]


async def receive(database: Database, **units: int) -> None:
    """Book units of SKUs."""
    async with database.transaction() as tx:
        await handlers.change_stock(tx, [Receipt(f"receipt-{new_id()}", units, "http:test")])


async def sweep(database: Database, *, ahead: timedelta = timedelta(0), batch_max: int = 500) -> None:
    """Release what is due by the database's clock, or will be so much later."""
    sweeper = Sweeper(database, grace_seconds=-ahead.total_seconds(), batch_max=batch_max)
    while await sweeper.tick():
        pass


async def counters(database: Database, sku: str = "APPLE") -> tuple[int, int, int]:
    """Return what is available, reserved and sold of a SKU."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT available, reserved, sold FROM stock_levels WHERE sku = $1", sku
        )
    assert row is not None
    return row["available"], row["reserved"], row["sold"]


async def standing(database: Database, order_id: UUID) -> tuple[str | None, str | None, bool] | None:
    """Return status, reason and the unavailable mark of a reservation."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT status, reason, unavailable FROM reservations WHERE order_id = $1", order_id
        )
    return None if row is None else (row["status"], row["reason"], row["unavailable"])


async def moves(database: Database, order_id: UUID) -> list[tuple[str, int, str]]:
    """Return kind, round and SKU of an order's movements, in order."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT kind, round, sku FROM stock_movements WHERE order_id = $1 ORDER BY id", order_id
        )
    return [(row["kind"], row["round"], row["sku"]) for row in rows]


_DIFFERENCES = """
    SELECT coalesce(levels.sku, sums.sku) AS sku
    FROM stock_levels AS levels
    FULL JOIN (
        SELECT sku, sum(available_delta) AS available, sum(reserved_delta) AS reserved, sum(sold_delta) AS sold
        FROM stock_movements GROUP BY sku
    ) AS sums USING (sku)
    WHERE (levels.available, levels.reserved, levels.sold)
          IS DISTINCT FROM (sums.available, sums.reserved, sums.sold)
"""

_HELD_WRONGLY = """
    SELECT sku
    FROM stock_levels
    LEFT JOIN (
        SELECT sku, sum(quantity) AS held FROM reservation_lines JOIN reservations USING (order_id)
        WHERE status = 'HELD' GROUP BY sku
    ) AS holds USING (sku)
    WHERE reserved <> coalesce(held, 0)
"""


async def assert_sound(database: Database) -> None:
    """Fail unless every counter is the sum of its movements, and what is reserved is what is held."""
    async with database.connection() as connection:
        differing: Sequence[Any] = await connection.fetch(_DIFFERENCES)
        held_wrongly: Sequence[Any] = await connection.fetch(_HELD_WRONGLY)
    assert [row["sku"] for row in differing] == []
    assert [row["sku"] for row in held_wrongly] == []
