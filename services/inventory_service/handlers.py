"""What does the inventory service do with what it hears?

Load, decide, save, for a batch, in the caller's transaction. What is heard: see `Consumed`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias, assert_never, get_args
from uuid import UUID

from services.inventory_service import store
from services.inventory_service.domain.ledger import Change, Ledger
from services.inventory_service.settings import HOLD_SECONDS
from shared import outbox
from shared.database import Connection
from shared.envelope import Message, Refusal
from shared.errors import Conflict
from shared.events import (
    OrderCancelled,
    OrderFact,
    OrderRequested,
    PaymentFact,
    PaymentFailed,
    PaymentRefunded,
    PaymentSucceeded,
    Wire,
)

CONSUMER = "inventory-service"

Consumed: TypeAlias = OrderRequested | OrderCancelled | PaymentSucceeded | PaymentFailed | PaymentRefunded
CONSUMED: tuple[type[Wire], ...] = get_args(Consumed)


async def handle(
    tx: Connection, batch: Sequence[Message[Consumed]], *, hold_seconds: int = HOLD_SECONDS
) -> Sequence[Refusal]:
    """Apply messages in order; the caller's transaction makes them one. Nothing is ever refused."""
    ledger = await store.load(tx, {message.event.order_id for message in batch}, _ordered_skus(batch))
    for message in batch:
        match message.event:
            case OrderRequested() as event:
                ledger.open(event, message.cause, hold_seconds)
            case OrderFact() as event:  # of any other order event only what it carries counts
                ledger.join_order(event, message.cause)
            case PaymentFact() as event:
                ledger.join_payment(event, message.cause)
            case unreachable:
                assert_never(unreachable)
    await _save(tx, ledger)
    return ()


async def expire(tx: Connection, order_ids: Collection[UUID], expired_by: datetime) -> int:
    """Release those of the orders' holds that ended at `expired_by` or before, and that nobody else works on.

    Returns:
        How many were released.
    """
    ledger = await store.load_due(tx, order_ids, expired_by)
    for order_id in list(ledger.reservations):
        ledger.expire(order_id, expired_by, "timer:sweep")
    await _save(tx, ledger)
    return sum(reservation.changed for reservation in ledger.reservations.values())


async def change_stock(tx: Connection, changes: Sequence[Change]) -> Sequence[bool | Conflict]:
    """Apply receipts and adjustments in order; the results say whether each is new, or why it cannot be applied."""
    ledger = await store.load_changes(tx, changes)
    results = [ledger.change(change) for change in changes]
    await _save(tx, ledger)
    return results


async def recount(tx: Connection, skus: Collection[str], *, cause: str) -> list[str]:
    """Make the counters of SKUs what their movements add up to, and return those that were wrong.

    Raises:
        LedgerViolation: the movements add up to less than nothing.
    """
    ledger = await store.load_to_tell(tx, (), skus)
    # The movements of a locked SKU stay as they are: whoever adds one changes its counters, too.
    sums = await store.sum_movements(tx, skus)
    wrong = [sku for sku in sorted(skus) if ledger.recount(sku, sums.get(sku, (0, 0, 0)), cause)]
    await _save(tx, ledger)
    return wrong


async def tell_again(
    tx: Connection,
    lost: Mapping[UUID, Sequence[int]],
    lost_of_skus: Mapping[str, Sequence[int]] = MappingProxyType({}),
    *,
    cause: str,
) -> int:
    """Tell once more where reservations and SKUs stand, and return how many events that takes; nothing moves.

    Args:
        tx: the caller's transaction.
        lost: by order, the numbers of its events that no topic holds any more; none: it is told under a new one.
        lost_of_skus: by SKU, the numbers of its events that no topic holds any more.
        cause: what the events name as their cause.
    """
    ledger = await store.load_to_tell(tx, lost.keys(), lost_of_skus.keys())
    for order_id, numbers in lost.items():
        ledger.tell_again(order_id, numbers, cause)
    for sku, numbers in lost_of_skus.items():
        ledger.tell_sku_again(sku, numbers, cause)
    await _save(tx, ledger)
    return len(ledger.events)


async def _save(tx: Connection, ledger: Ledger) -> None:
    await store.save(tx, ledger)
    await outbox.add(tx, ledger.events, at=ledger.at)


def _ordered_skus(batch: Sequence[Message[Consumed]]) -> set[str]:
    return {
        line.sku
        for message in batch
        if isinstance(message.event, OrderRequested)
        for line in message.event.lines
    }
