"""How is what was decided about payments written?"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from services.payment_service import store
from services.payment_service.domain.payments import Payment
from shared import outbox
from shared.database import Connection


async def save(tx: Connection, payments: Mapping[UUID, Payment], at: datetime) -> None:
    """Write what has changed and what is told of it, and have deliveries judged that came before their attempt."""
    await store.save(tx, payments.values(), at)
    await outbox.add(tx, [emitted for payment in payments.values() for emitted in payment.emitted], at=at)
    attempts = [attempt for payment in payments.values() for attempt in payment.attempts.values()]
    appeared = [attempt.attempt_id for attempt in attempts if attempt.is_new]
    if appeared:
        await store.release_webhooks(tx, appeared, [])
