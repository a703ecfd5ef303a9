"""How does a request wait for what another process commits?

`NOTIFY` in the transaction of a change, `LISTEN` on one connection of this process: the database wakes the waiters, and
nobody polls. Payloads are keys, separated by commas.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from shared.backoff import Backoff
from shared.database import Connection, connect, is_transient
from shared.health import Health, Progress
from shared.logging import get_logger
from shared.worker import wait_for_any

_log = get_logger()
_CHECK_SECONDS = 5.0
# A payload must be shorter than 8,000 bytes (PostgreSQL manual, NOTIFY).
_PAYLOAD_BYTES_MAX = 7_900


async def notify(tx: Connection, channel: str, keys: Iterable[str]) -> None:
    """Tell every listener, at commit, which keys have changed; keys hold no comma."""
    payloads = list(_payloads(keys))
    if payloads:
        await tx.execute(
            "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload", channel, payloads
        )


def _payloads(keys: Iterable[str]) -> Iterator[str]:
    """Pack keys into as few payloads as they fit in."""
    packed: list[str] = []
    size = 0
    for key in keys:
        if packed and size + len(key) + 1 > _PAYLOAD_BYTES_MAX:
            yield ",".join(packed)
            packed, size = [], 0
        packed.append(key)
        size += len(key) + 1
    if packed:
        yield ",".join(packed)


class Listener:
    """Wakes whoever watches a key when any process commits a change of it. A part of a service."""

    def __init__(self, dsn: str, channel: str, *, health: Health) -> None:
        self.name = f"listener:{channel}"
        self.progress = Progress()
        self._dsn = dsn
        self._channel = channel
        self._health = health
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._backoff = Backoff(seconds_min=0.1, seconds_max=2.0)
        self._failures = 0

    @contextmanager
    def watch(self, key: str) -> Iterator[asyncio.Event]:
        """Lend an event that is set at every change of a key, and when changes may have been missed.

        Look at the row after entering, not before: what is committed in between would be missed.
        """
        changed = asyncio.Event()
        self._watchers.setdefault(key, set()).add(changed)
        try:
            yield changed
        finally:
            watchers = self._watchers[key]
            watchers.discard(changed)
            if not watchers:
                del self._watchers[key]

    @property
    def watched(self) -> int:
        """How many keys are watched."""
        return len(self._watchers)

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen until told to stop; a lost connection is built anew, and everybody looks once more."""
        while not stopping.is_set():
            try:
                await self._listen(stopping)
            except Exception as error:
                if not is_transient(error):
                    raise
                self._failures += 1
                self.progress.done()
                self._health.down(self.name, repr(error))
                _log.warning(
                    "listener_disconnected",
                    channel=self._channel,
                    error=repr(error),
                    failures=self._failures,
                )
                await wait_for_any(stopping, seconds=self._backoff.seconds(self._failures))
        self.wake_all()

    def wake_all(self) -> None:
        """Have everybody look: changes may have been missed, or it is time to end (`is_ending`)."""
        for watchers in self._watchers.values():
            for changed in watchers:
                changed.set()

    @property
    def is_ending(self) -> bool:
        """Whether the service stops, so that nobody should wait any longer."""
        return self._health.stopping

    async def _listen(self, stopping: asyncio.Event) -> None:
        connection = await connect(self._dsn, application_name=self.name)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(self._channel, lambda *args: self._wake(str(args[-1])))
            self._failures = 0
            self._health.up(self.name)
            self.wake_all()
            while not stopping.is_set():
                # A connection that is dead without a word is found out by asking it.
                self.progress.owes()
                await connection.fetchval("SELECT 1", timeout=_CHECK_SECONDS)
                self.progress.done()
                await wait_for_any(stopping, lost, seconds=_CHECK_SECONDS)
        finally:
            await connection.close(timeout=2)

    def _wake(self, payload: str) -> None:
        if self._watchers:
            for key in payload.split(","):
                for changed in self._watchers.get(key, ()):
                    changed.set()
