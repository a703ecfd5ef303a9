"""Who gives back what nobody paid for in time?"""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from services.inventory_service import handlers, store
from shared import metrics
from shared.database import Database, is_transient
from shared.logging import get_logger
from shared.splitting import apply_splitting

NAME = "sweeper"

_START = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
_log = get_logger()


class Sweeper:
    """Releases holds some time after they have ended, by the database's clock.

    Each tick takes the next page of the holds that are due, the oldest first, until none is left; then it begins again.
    A hold that cannot be released is logged and counted, and passed over until then, so it stops no other.
    """

    def __init__(self, database: Database, *, grace_seconds: float, batch_max: int) -> None:
        self._database = database
        self._grace_seconds = grace_seconds
        self._batch_max = batch_max
        self._after = _START

    async def tick(self) -> bool:
        """Release one page of holds; tell whether there may be more."""
        async with self._database.connection() as connection:
            due = await store.find_due(connection, self._grace_seconds, self._after, self._batch_max)
        if due:
            await self._release([row["order_id"] for row in due], due[0]["expired_by"])
        has_more = len(due) == self._batch_max
        self._after = (due[-1]["expires_at"], due[-1]["order_id"]) if has_more else _START
        return has_more

    async def _release(self, order_ids: Sequence[UUID], expired_by: datetime) -> None:
        async def expire(some: Sequence[UUID]) -> None:
            async with self._database.transaction() as tx:
                await handlers.expire(tx, some, expired_by)

        await apply_splitting(order_ids, expire, is_transient=is_transient, refuse=self._refuse)

    async def _refuse(self, order_id: UUID, error: Exception) -> None:
        metrics.WORKER_ERRORS.labels(NAME).inc()
        _log.error("hold_not_released", order_id=str(order_id), error=repr(error))
