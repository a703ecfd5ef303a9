"""Which SQL reads and writes payments?"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.payment_service.domain.payments import Payment
from services.payment_service.store.rows import columns, count, must_be
from shared.database import Connection, Row
from shared.errors import ConcurrentWrite
from shared.events import PaymentStatus

_PAYMENT_FIELDS = (
    *("order_id", "status", "reason", "amount_minor", "currency", "pay_by", "attempts_max", "closed"),
    *(
        "settled_attempt_id",
        "settled_amount_minor",
        "settled_currency",
        "refunded_minor",
        "paid_at",
        "sequence",
        "customer_id",
    ),
)
_UPDATED_FIELDS = tuple(name for name in _PAYMENT_FIELDS if name != "attempts_max")


async def lock_payments(tx: Connection, order_ids: Sequence[UUID]) -> list[Payment]:
    """Read payments and keep others from deciding about them."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, reason, amount_minor, currency, pay_by, attempts_max, closed, settled_attempt_id,
               settled_amount_minor, settled_currency, refunded_minor, paid_at, sequence, customer_id, created_at, updated_at
        FROM payments WHERE order_id = ANY($1::uuid[]) ORDER BY order_id FOR UPDATE
        """,
        order_ids,
    )
    return [_read_payment(row) for row in rows]


async def get_payments(tx: Connection, order_ids: Sequence[UUID]) -> list[Payment]:
    """Read payments."""
    rows = await tx.fetch(
        """
        SELECT order_id, status, reason, amount_minor, currency, pay_by, attempts_max, closed, settled_attempt_id,
               settled_amount_minor, settled_currency, refunded_minor, paid_at, sequence, customer_id, created_at, updated_at
        FROM payments WHERE order_id = ANY($1::uuid[])
        """,
        order_ids,
    )
    return [_read_payment(row) for row in rows]


async def insert_payments(tx: Connection, payments: Sequence[Payment], at: datetime) -> None:
    """Add payments; raise `ConcurrentWrite` if somebody else did first."""
    if not payments:
        return
    done = await tx.execute(
        """
        INSERT INTO payments (order_id, status, reason, amount_minor, currency, pay_by, attempts_max, closed,
                              settled_attempt_id, settled_amount_minor, settled_currency, refunded_minor, paid_at,
                              sequence, customer_id, created_at, updated_at)
        SELECT row.*, $16, $16
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::integer[],
                    $8::boolean[], $9::uuid[], $10::bigint[], $11::text[], $12::bigint[], $13::timestamptz[],
                    $14::bigint[], $15::text[]) AS row
        ON CONFLICT DO NOTHING
        """,
        *columns(payments, _PAYMENT_FIELDS),
        at,
    )
    if count(done) != len(payments):
        raise ConcurrentWrite


async def update_payments(tx: Connection, payments: Sequence[Payment], at: datetime) -> None:
    """Write payments that are locked; their numbers only grow."""
    if not payments:
        return
    done = await tx.execute(
        """
        UPDATE payments
        SET status = row.status, reason = row.reason, amount_minor = row.amount_minor, currency = row.currency,
            pay_by = row.pay_by, closed = row.closed, settled_attempt_id = row.settled_attempt_id,
            settled_amount_minor = row.settled_amount_minor, settled_currency = row.settled_currency,
            refunded_minor = row.refunded_minor, paid_at = row.paid_at, sequence = row.sequence,
            customer_id = row.customer_id, updated_at = $15
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::boolean[],
                    $8::uuid[], $9::bigint[], $10::text[], $11::bigint[], $12::timestamptz[], $13::bigint[],
                    $14::text[])
             AS row (order_id, status, reason, amount_minor, currency, pay_by, closed,
                     settled_attempt_id, settled_amount_minor, settled_currency, refunded_minor, paid_at, sequence,
                     customer_id)
        WHERE payments.order_id = row.order_id AND payments.sequence <= row.sequence
        """,
        *columns(payments, _UPDATED_FIELDS),
        at,
    )
    must_be(done, payments)


def _read_payment(row: Row) -> Payment:
    values: dict[str, Any] = dict(row)
    values["status"] = PaymentStatus(values["status"])
    return Payment(**values)
