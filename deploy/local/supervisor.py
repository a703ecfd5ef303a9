"""How are the parts started in order, kept alive and stopped in order?"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from shared.errors import HoldfastError

_PAUSE_SECONDS_MIN = 0.2
_PAUSE_SECONDS_MAX = 10.0
_STEADY_SECONDS = 60.0
_PROBE_INTERVAL_SECONDS = 5.0
# Long, because a machine under full load answers late, and a restart would only add to its load.
_SILENCE_SECONDS_MAX = 60.0


class DataDirInUse(HoldfastError):
    """Another `holdfast up` runs on this data directory."""

    status = 409
    reason = "data_dir_in_use"


class Part(Protocol):
    """Something that runs until it is stopped; starting it again after it died is possible at any time."""

    name: str

    @property
    def pid(self) -> int | None:
        """The process id, or none while it does not run."""

    async def start(self) -> None:
        """Start it and return when it is ready; raise `PartFailed` if it does not become so."""

    async def stop(self) -> None:
        """Stop it in order, then by force; a part that does not run is no error."""

    async def wait(self) -> int:
        """Wait for its end and give its exit code."""

    async def is_healthy(self) -> bool:
        """Tell whether it answers."""


class Supervisor:
    """Starts groups of parts one group after the other, starts again what dies, and stops all in reverse."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Take where to tell a person what happens."""
        self._say = say
        #: Called whenever a part runs again, with another process id than before.
        self.on_return: Callable[[], None] | None = None
        self._groups: list[Sequence[Part]] = []
        self._aside: list[Part] = []
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self, *parts: Part) -> None:
        """Start parts that do not need each other, all at once; return when all are ready.

        Raises:
            PartFailed: one does not start; the others are left to `stop`.
        """
        self._groups.append(parts)
        starts = [asyncio.create_task(self._start(part), name=f"start {part.name}") for part in parts]
        try:
            await asyncio.gather(*starts)
        finally:
            await _cancel(starts)
        self._watchers += [
            asyncio.create_task(self._watch(part), name=f"watch {part.name}") for part in parts
        ]

    def start_aside(self, part: Part) -> asyncio.Event:
        """Start a part that no other needs and keep it running; that it does not start holds nobody up.

        Returns:
            What is set as soon as its first start has succeeded or failed.
        """
        tried = asyncio.Event()
        self._aside.append(part)
        self._watchers.append(asyncio.create_task(self._keep_aside(part, tried), name=f"watch {part.name}"))
        return tried

    async def watch(self) -> None:
        """Keep everything running for ever; ends only by cancellation, or by a fault of our own."""
        await asyncio.gather(*self._watchers)

    async def stop(self) -> None:
        """Stop everything, the last group first."""
        await _cancel(self._watchers)
        self._watchers.clear()
        failures: list[BaseException] = []
        groups = [*self._groups, *([self._aside] if self._aside else [])]
        self._groups, self._aside = [], []
        while groups:
            group = groups.pop()
            self._say(f"stopping {', '.join(part.name for part in group)}")
            results = await asyncio.gather(*(part.stop() for part in group), return_exceptions=True)
            failures += [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            self._say(f"could not be stopped: {failure!r}")

    def pids(self) -> dict[str, int | None]:
        """Return the process id of each part."""
        return {part.name: part.pid for group in [*self._groups, self._aside] for part in group}

    async def _start(self, part: Part) -> None:
        began = time.monotonic()
        await part.start()
        self._say(f"{part.name} is ready ({time.monotonic() - began:.1f} s)")

    async def _keep_aside(self, part: Part, tried: asyncio.Event) -> None:
        try:
            await self._start(part)
        except (HoldfastError, OSError, TimeoutError) as error:
            tried.set()
            await self._bring_back(part, f"did not start ({error})", _PAUSE_SECONDS_MIN)
        else:
            tried.set()
            if self.on_return is not None:
                self.on_return()
        await self._watch(part)

    async def _watch(self, part: Part) -> None:
        pause_seconds = _PAUSE_SECONDS_MIN
        while True:
            began = time.monotonic()
            reason = await _end_of(part)
            if time.monotonic() - began > _STEADY_SECONDS:
                pause_seconds = _PAUSE_SECONDS_MIN
            pause_seconds = await self._bring_back(part, reason, pause_seconds)

    async def _bring_back(self, part: Part, reason: str, pause_seconds: float) -> float:
        """Start a part until it runs again, with growing pauses; give the pause that the next failure begins with."""
        while True:
            self._say(f"{part.name} {reason}: starting it again in {pause_seconds:g} s")
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)
            try:
                await part.stop()
                await self._start(part)
            except (HoldfastError, OSError, TimeoutError) as error:
                reason = f"did not start ({error})"
            else:
                if self.on_return is not None:
                    self.on_return()
                return pause_seconds


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold a data directory for ourselves; the kernel gives it back when we end, however we end.

    Raises:
        DataDirInUse: another process holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            detail = (
                f"{data_dir} is in use by another `holdfast up` (process {lock.read().strip() or 'unknown'}): "
                "stop that one, or choose another --data-dir"
            )
            raise DataDirInUse(detail) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


async def _end_of(part: Part) -> str:
    """Wait until a part has died or has not answered for too long, and say which."""
    end = asyncio.create_task(part.wait(), name=f"end of {part.name}")
    heard = time.monotonic()
    try:
        while True:
            done, _ = await asyncio.wait([end], timeout=_PROBE_INTERVAL_SECONDS)
            if done:
                return f"died (exit code {end.result()})"
            if await part.is_healthy():
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_SECONDS_MAX:
                return f"has not answered for {_SILENCE_SECONDS_MAX:g} s"
    finally:
        await _cancel([end])


async def _cancel(tasks: Sequence[asyncio.Task[None]] | Sequence[asyncio.Task[int]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
