"""Which SQL does the payment service run? One function a statement, the literal inside it.

The row of a payment is locked before anything about it is decided: it guards its attempts and refunds too. Workers
that take due attempts and refunds only move their leases, skip what is locked, and never wait.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from services.payment_service.domain.payments import Payment
from services.payment_service.store.attempts import (
    find_orders_of_attempts,
    find_orders_of_transactions,
    insert_attempts,
    list_attempts,
    list_attempts_of_orders,
    mark_attempts,
    take_attempts,
    take_attempts_to_ask_about,
    update_attempts,
)
from services.payment_service.store.payments import (
    get_payments,
    insert_payments,
    lock_payments,
    update_payments,
)
from services.payment_service.store.quarantine import (
    count_attempts_to_review,
    insert_resolutions,
    list_attempts_to_review,
    list_newest_resolutions,
    list_resolutions,
)
from services.payment_service.store.refunds import (
    count_open_refunds,
    insert_refunds,
    list_refunds_of_orders,
    take_refunds,
    update_refunds,
)
from services.payment_service.store.webhooks import (
    JudgedWebhook,
    NewWebhook,
    StoredWebhook,
    find_judged_events,
    insert_webhooks,
    list_webhooks,
    list_webhooks_to_judge,
    lock_webhooks,
    postpone_webhook,
    release_webhooks,
    update_webhooks,
)
from shared.database import Connection

__all__ = [
    "JudgedWebhook",
    "NewWebhook",
    "StoredWebhook",
    "count_attempts_to_review",
    "count_open_refunds",
    "find_judged_events",
    "find_orders_of_attempts",
    "find_orders_of_transactions",
    "get",
    "get_now",
    "get_payments",
    "insert_attempts",
    "insert_payments",
    "insert_refunds",
    "insert_resolutions",
    "insert_webhooks",
    "list_attempts",
    "list_attempts_of_orders",
    "list_attempts_to_review",
    "list_newest_resolutions",
    "list_refunds_of_orders",
    "list_resolutions",
    "list_webhooks",
    "list_webhooks_to_judge",
    "lock",
    "lock_payments",
    "lock_webhooks",
    "mark_attempts",
    "postpone_webhook",
    "release_webhooks",
    "save",
    "take_attempts",
    "take_attempts_to_ask_about",
    "take_refunds",
    "update_attempts",
    "update_payments",
    "update_refunds",
    "update_webhooks",
]


async def get_now(tx: Connection) -> datetime:
    """Return the time of the transaction."""
    now: datetime = await tx.fetchval("SELECT now()")
    return now


async def lock(tx: Connection, order_ids: Collection[UUID]) -> dict[UUID, Payment]:
    """Lock and load the payments of orders as far as there are any, in one order of locks for everybody."""
    return await _complete(tx, await lock_payments(tx, sorted(order_ids)))


async def get(tx: Connection, order_id: UUID) -> Payment | None:
    """Load a payment to be looked at."""
    return (await _complete(tx, await get_payments(tx, [order_id]))).get(order_id)


async def save(tx: Connection, payments: Iterable[Payment], at: datetime) -> None:
    """Write what has changed of payments, attempts and refunds.

    Raises:
        ConcurrentWrite: another process inserted one of the new payments meanwhile.
        LedgerViolation: a row that was decided on is not there.
    """
    changed = [payment for payment in payments if payment.is_changed or payment.is_new]
    await insert_payments(tx, [payment for payment in changed if payment.is_new], at)
    await update_payments(tx, [payment for payment in changed if not payment.is_new], at)
    attempts = [a for payment in payments for a in payment.attempts.values() if a.is_changed]
    await insert_attempts(tx, [attempt for attempt in attempts if attempt.is_new], at)
    await update_attempts(tx, [attempt for attempt in attempts if not attempt.is_new], at)
    await mark_attempts(tx, [attempt for attempt in attempts if attempt.is_marked])
    refunds = [r for payment in payments for r in payment.refunds.values() if r.is_changed]
    await insert_refunds(tx, [refund for refund in refunds if refund.is_new], at)
    await update_refunds(tx, [refund for refund in refunds if not refund.is_new], at)


async def _complete(tx: Connection, found: Sequence[Payment]) -> dict[UUID, Payment]:
    """Add attempts and refunds to payments."""
    payments = {payment.order_id: payment for payment in found}
    if payments:
        for attempt in await list_attempts_of_orders(tx, list(payments)):
            payments[attempt.order_id].attempts[attempt.attempt_id] = attempt
        for refund in await list_refunds_of_orders(tx, list(payments)):
            payments[refund.order_id].refunds[refund.refund_id] = refund
    return payments
