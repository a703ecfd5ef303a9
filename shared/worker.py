"""What drives the work that nobody asks for: sweeping, judging, refunding?"""

import asyncio
from collections.abc import Awaitable, Callable

from shared import metrics
from shared.backoff import Backoff
from shared.database import is_transient
from shared.health import Progress
from shared.logging import get_logger

_log = get_logger()


class Worker:
    """Calls `tick` every interval, when woken, and at once again as long as it says that there is more to do."""

    def __init__(self, name: str, tick: Callable[[], Awaitable[bool]], *, interval_seconds: float) -> None:
        self.name = name
        self.progress = Progress()
        self._tick = tick
        self._interval_seconds = interval_seconds
        self._woken = asyncio.Event()
        self._backoff = Backoff(seconds_min=0.1, seconds_max=10.0)

    def wake(self) -> None:
        """Have the next tick now."""
        self._woken.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Tick until told to stop; a tick that fails is logged and tried again later."""
        failures = 0
        while not stopping.is_set():
            self._woken.clear()
            self.progress.owes()
            try:
                more = await self._tick()
            except Exception as error:
                self.progress.done()
                failures += 1
                metrics.WORKER_ERRORS.labels(self.name).inc()
                if is_transient(error):
                    _log.warning("tick_failed", worker=self.name, error=repr(error), failures=failures)
                else:
                    _log.exception("tick_failed", worker=self.name, failures=failures)
                await wait_for_any(stopping, seconds=self._backoff.seconds(failures))
                continue
            failures = 0
            self.progress.done()
            if not more:
                await wait_for_any(stopping, self._woken, seconds=self._interval_seconds)


async def wait_for_any(*events: asyncio.Event, seconds: float) -> None:
    """Return when one of the events is set, or after so many seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
