"""What is done with what gateways answered when they were asked where attempts stand?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from services.payment_service import store
from services.payment_service.domain import reconciling
from services.payment_service.domain.answers import Unanswered
from services.payment_service.domain.attempts import Notice
from services.payment_service.domain.reconciling import Outcome
from services.payment_service.domain.schedule import DEFAULT_SCHEDULE, Schedule
from services.payment_service.handlers.saving import save
from shared.database import Connection

CAUSE = "timer:reconcile"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a gateway said of an attempt, None if it knows none; without an answer it is asked after `retry_seconds`."""

    order_id: UUID
    attempt_id: UUID
    answer: Notice | Unanswered | None
    retry_seconds: float


async def reconcile(
    tx: Connection, batch: Sequence[Asked], *, schedule: Schedule = DEFAULT_SCHEDULE
) -> Sequence[Outcome]:
    """Judge answers as webhooks are judged, and return what came of each."""
    at = await store.get_now(tx)
    payments = await store.lock(tx, {asked.order_id for asked in batch})
    outcomes = [
        reconciling.reconcile(
            payments[asked.order_id],
            payments[asked.order_id].attempts[asked.attempt_id],
            asked.answer,
            schedule=schedule,
            cause=CAUSE,
            at=at,
            retry_at=at + timedelta(seconds=asked.retry_seconds),
        )
        for asked in batch
    ]
    await save(tx, payments, at)
    return outcomes
