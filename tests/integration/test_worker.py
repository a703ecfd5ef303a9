"""Does a worker tick on time, at once when there is more, and go on after a failure?"""

import asyncio

from shared.worker import Worker
from tests.integration.streams import running
from tests.waiting import eventually


class Ticks:
    """Counts ticks; says that there is more, or fails, for the first of them."""

    def __init__(self, *, more: int = 0, failing: int = 0) -> None:
        self.count = 0
        self._more, self._failing = more, failing

    async def tick(self) -> bool:
        """Do a piece of work."""
        self.count += 1
        if self.count <= self._failing:
            raise ZeroDivisionError
        return self.count <= self._more


async def test_a_worker_ticks_at_once_and_then_every_interval() -> None:
    """The first tick does not wait, and others follow."""
    ticks = Ticks()

    async with running(Worker("tests", ticks.tick, interval_seconds=0.01)):
        await eventually(lambda: ticks.count >= 3)


async def test_a_worker_goes_on_at_once_while_there_is_more_to_do() -> None:
    """Five ticks say that there is more, so there are six, in spite of an interval of an hour."""
    ticks = Ticks(more=5)

    async with running(Worker("tests", ticks.tick, interval_seconds=3_600)):
        await eventually(lambda: ticks.count == 6)


async def test_a_worker_can_be_woken() -> None:
    """A wake before and one during the wait each bring a tick."""
    ticks = Ticks()
    worker = Worker("tests", ticks.tick, interval_seconds=3_600)

    async with running(worker):
        await eventually(lambda: ticks.count == 1)
        worker.wake()
        await eventually(lambda: ticks.count == 2)


async def test_a_wake_during_a_tick_is_not_lost() -> None:
    """Work that arrives while the worker looks elsewhere is looked at right after."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    ticks = 0

    async def tick() -> bool:
        nonlocal ticks
        ticks += 1
        begun.set()
        await go_on.wait()
        return False

    worker = Worker("tests", tick, interval_seconds=3_600)
    async with running(worker):
        await begun.wait()
        worker.wake()
        go_on.set()

        await eventually(lambda: ticks == 2)


async def test_a_tick_that_fails_is_tried_again() -> None:
    """The worker outlives its errors."""
    ticks = Ticks(failing=2)

    async with running(Worker("tests", ticks.tick, interval_seconds=3_600)):
        await eventually(lambda: ticks.count == 3)


async def test_a_stop_lets_the_tick_under_way_finish() -> None:
    """Half a sweep would be rolled back; a whole one is kept, and none follows."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    finished = 0

    async def tick() -> bool:
        nonlocal finished
        begun.set()
        await go_on.wait()
        finished += 1
        return True

    stopping = asyncio.Event()
    task = asyncio.create_task(Worker("tests", tick, interval_seconds=3_600).run(stopping))
    await begun.wait()
    stopping.set()
    go_on.set()
    await asyncio.wait_for(task, 5)

    assert finished == 1
