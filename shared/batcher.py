"""How do many requests share one transaction?

Group commit: whatever arrives while the previous batch is being committed is the next batch. A lone request is a batch
of one and waits for nobody; only after a large batch there may be a pause, so that the next one is large too.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared import metrics
from shared.backoff import Backoff
from shared.database import Connection, Database, is_transient
from shared.errors import HoldfastError, Overloaded, Unavailable
from shared.health import Progress
from shared.logging import get_logger
from shared.splitting import apply_splitting

Item = TypeVar("Item")
Result = TypeVar("Result")

_TRIES_MAX = 4
_LARGE_BATCH = 16
_log = get_logger()


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    answer: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Applies submitted items in batches, each batch in one transaction.

    `apply` returns one result an item, in their order; an expected refusal is a result too (a `HoldfastError`, which
    the submitter gets raised). If it raises by itself, the batch is split until the bad item stands alone.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        apply: Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result | HoldfastError]]],
        *,
        size_max: int,
        queue_max: int,
        pause_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.progress = Progress()
        self._database = database
        self._apply = apply
        self._size_max = size_max
        self._queue_max = queue_max
        self._pause_seconds = pause_seconds
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._backoff = Backoff(seconds_min=0.01, seconds_max=0.2)

    async def submit(self, item: Item) -> Result:
        """Have an item applied, and return its result once it is durable.

        Raises:
            Overloaded: more than `queue_max` items wait.
            Unavailable: the database is away.
            HoldfastError: what `apply` returned for the item.
        """
        if self._ended:
            raise Unavailable("the service is stopping")
        if len(self._queue) >= self._queue_max:
            raise Overloaded
        waiting: _Waiting[Item, Result] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self.progress.owes()
        self._arrived.set()
        return await waiting.answer

    async def run(self, stopping: asyncio.Event) -> None:
        """Apply batches until told to stop and nothing waits."""
        stop = asyncio.ensure_future(stopping.wait())
        try:
            while self._queue or not stopping.is_set():
                if not self._queue:
                    self._arrived.clear()
                    arrived = asyncio.ensure_future(self._arrived.wait())
                    await asyncio.wait({stop, arrived}, return_when=asyncio.FIRST_COMPLETED)
                    arrived.cancel()
                    continue
                batch = [self._queue.popleft() for _ in range(min(self._size_max, len(self._queue)))]
                metrics.QUEUE.labels(self.name).set(len(self._queue))
                await self._settle(batch)
                self.progress.done()
                if self._queue:
                    self.progress.owes()
                if _LARGE_BATCH <= len(batch) < self._size_max and not stopping.is_set():
                    await asyncio.sleep(self._pause_seconds)
        finally:
            stop.cancel()
            self._ended = True
            for waiting in self._queue:
                _refuse(waiting, Unavailable("the service is stopping"))

    async def _settle(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        """Give every item of a batch its answer, whatever happens."""
        metrics.BATCH_SIZE.labels(self.name).observe(len(batch))
        for tries in range(1, _TRIES_MAX + 1):
            open_items = [waiting for waiting in batch if not waiting.answer.done()]
            try:
                await apply_splitting(
                    open_items, self._commit, is_transient=is_transient, refuse=self._refuse
                )
            except Exception as error:  # only transient ones come here: every submitter gets an answer
                metrics.RETRIES.labels(self.name).inc()
                if tries == _TRIES_MAX or isinstance(error, OSError):
                    _log.warning("batch_unavailable", edge=self.name, error=repr(error), items=len(batch))
                    for waiting in open_items:
                        _refuse(waiting, Unavailable())
                    return
                await asyncio.sleep(self._backoff.seconds(tries))
            else:
                return

    async def _commit(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        if not batch:
            return
        with metrics.BATCH_SECONDS.labels(self.name).time():
            async with self._database.transaction() as tx:
                results = await self._apply(tx, [waiting.item for waiting in batch])
                if len(results) != len(batch):
                    # After the commit it would be too late to find out.
                    detail = f"{self.name}: {len(results)} results for {len(batch)} items"
                    raise HoldfastError(detail)
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, HoldfastError):
                _refuse(waiting, result)
            elif not waiting.answer.done():
                waiting.answer.set_result(result)

    async def _refuse(self, waiting: _Waiting[Item, Result], error: Exception) -> None:
        _log.error("item_failed", edge=self.name, exc_info=error)
        _refuse(waiting, error)


def _refuse(waiting: _Waiting[Item, Result], error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
