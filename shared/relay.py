"""How do outbox rows reach Kafka, each at least once and in order?

One leader per database, elected by a session advisory lock on the very connection that reads and deletes the rows: a
leader that has lost its session can delete nothing, and one that falls silent loses its session. It always takes the
oldest rows; a cursor on `id` would pass over rows whose transaction commits late.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from shared import metrics, outbox
from shared.backoff import Backoff
from shared.database import Database, DedicatedConnection, connect, is_transient
from shared.errors import Unavailable
from shared.health import Health, Progress
from shared.kafka import Publisher, is_kafka_error
from shared.logging import get_logger
from shared.outbox import OutboxRow
from shared.settings import KafkaSettings
from shared.worker import wait_for_any

T = TypeVar("T")

_log = get_logger()
_LOCK = 4_846_318_150_227_002
_BUSY_ROWS = 4
_BUSY_PAUSE_SECONDS = 0.05
_UNSENDABLE_PAUSE_SECONDS = 60.0
#: How long a leader that is frozen, or whose machine is gone, keeps the others from leading (beyond its polling interval).
_SILENCE_SECONDS_MAX = 10.0
_SIGN_OF_LIFE_SECONDS = 2.0


class Relay:
    """Empties the outbox of one database while it leads, and waits to lead otherwise. A part of a service."""

    def __init__(
        self,
        dsn: str,
        kafka: KafkaSettings,
        *,
        name: str,
        health: Health,
        rows_max: int = 2_000,
        interval_seconds: float = 1.0,
    ) -> None:
        self.name = "relay"
        self.progress = Progress()
        self._dsn = dsn
        self._kafka = kafka
        self._client_id = f"{name}-relay"
        self._health = health
        self._rows_max = rows_max
        self._interval_seconds = interval_seconds
        self._woken = asyncio.Event()
        self._backoff = Backoff(seconds_min=0.1, seconds_max=5.0)
        self._unsendable: dict[int, float] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Lead or follow until told to stop; what fails is built anew, after growing pauses."""
        failures = 0
        while not stopping.is_set():
            started = asyncio.get_running_loop().time()
            self.progress.owes()
            try:
                await self._serve(stopping)
            except Exception as error:
                if not (is_transient(error) or is_kafka_error(error)):
                    _log.exception("relay_failed")
                recovered = asyncio.get_running_loop().time() - started > self._backoff.seconds_max
                failures = 1 if recovered else failures + 1
                self._health.down(self.name, repr(error))
                if isinstance(error, Unavailable | TimeoutError):
                    # Kafka or Postgres does not answer: a restart would not help. Whatever else comes back may.
                    self.progress.done()
                _log.warning("relay_interrupted", error=repr(error), failures=failures)
                await wait_for_any(stopping, seconds=self._backoff.seconds(failures))
            finally:
                metrics.RELAY_LEADER.set(0)

    async def _serve(self, stopping: asyncio.Event) -> None:
        """Hold one session: wait for the lock, then send until something breaks."""
        connection = await connect(
            self._dsn,
            application_name=self._client_id,
            silence_seconds_max=self._interval_seconds + _SILENCE_SECONDS_MAX,
        )
        try:
            await connection.add_listener(outbox.CHANNEL, lambda *_: self._woken.set())
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                self._health.up(self.name)
                self.progress.done()
                await wait_for_any(stopping, seconds=self._interval_seconds)
                if stopping.is_set():
                    return
                self.progress.owes()
            metrics.RELAY_LEADER.set(1)
            publisher = Publisher(self._kafka, client_id=self._client_id)
            try:
                await _alive(connection, publisher.open())
                await self._send_all(connection, publisher, stopping)
            finally:
                await publisher.close()
        except BaseException:
            # Politeness would wait for a database that may be the very thing that does not answer.
            connection.terminate()
            raise
        finally:
            await connection.close(timeout=2)

    async def _send_all(
        self, connection: DedicatedConnection, publisher: Publisher, stopping: asyncio.Event
    ) -> None:
        while True:
            self._woken.clear()
            self.progress.owes()
            sent = await self.send(connection, publisher)
            self._health.up(self.name)
            if sent == 0:
                self.progress.done()
                if stopping.is_set():
                    return
                if connection.is_closed():
                    raise Unavailable("the relay's session was closed")
                await wait_for_any(stopping, self._woken, seconds=self._interval_seconds)
            elif _BUSY_ROWS <= sent < self._rows_max:
                # Busy: let more rows gather, so that the next batch is large too.
                await asyncio.sleep(_BUSY_PAUSE_SECONDS)

    async def send(self, connection: DedicatedConnection, publisher: Publisher) -> int:
        """Send the oldest rows, delete those that Kafka acknowledged, and return how many were looked at."""
        rows = await outbox.list_outbox(connection, self._rows_max, besides=self._set_aside())
        metrics.OUTBOX_WAITING.set(len(rows))
        if not rows:
            return 0
        published = await _alive(connection, publisher.publish([row for _, row in rows]))
        if published.acknowledged or published.refused:
            # Sent is sent, whatever becomes of the deletion: that is a new step.
            self.progress.done()
            self.progress.owes()
        if published.acknowledged:
            await outbox.delete_outbox(connection, [rows[position][0] for position in published.acknowledged])
            metrics.OUTBOX_SENT.inc(len(published.acknowledged))
        self._put_aside(rows, published.refused)
        return len(rows)

    def _set_aside(self) -> list[int]:
        """Return the rows that Kafka refused a short while ago: they must not block the others."""
        now = asyncio.get_running_loop().time()
        self._unsendable = {row_id: until for row_id, until in self._unsendable.items() if until > now}
        return list(self._unsendable)

    def _put_aside(self, rows: Sequence[tuple[int, OutboxRow]], refused: dict[int, str]) -> None:
        until = asyncio.get_running_loop().time() + _UNSENDABLE_PAUSE_SECONDS
        for position, why in refused.items():
            row_id, row = rows[position]
            self._unsendable[row_id] = until
            metrics.OUTBOX_UNSENDABLE.inc()
            _log.error("outbox_row_unsendable", event_id=str(row.event_id), topic=row.topic, why=why)


class OutboxAge:
    """Tells how old the oldest row of the outbox is, as a metric: every copy of a service, also while nobody leads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tick(self) -> bool:
        """Look once."""
        async with self._database.connection() as connection:
            metrics.OUTBOX_OLDEST_SECONDS.set(await outbox.get_outbox_age_seconds(connection))
        return False


async def _alive(connection: DedicatedConnection, work: Awaitable[T]) -> T:
    """Wait for Kafka without falling silent towards Postgres; a session that is lost meanwhile ends the work, too."""
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=_SIGN_OF_LIFE_SECONDS))[0]:
            await connection.fetchval("SELECT 1")
        return working.result()
    finally:
        working.cancel()
