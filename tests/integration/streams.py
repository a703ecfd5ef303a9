"""How do the tests of `shared` write to topics and read from them?"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.database import Connection, Database, DedicatedConnection, connect
from shared.envelope import Emitted, Headers, Message, Record, Refusal, encode, header
from shared.ids import new_id
from shared.kafka import GroupConsumer, GroupLimits, Publisher
from shared.outbox import OutboxRow, list_outbox
from shared.runtime import Part
from shared.settings import KafkaSettings
from tests.integration.conftest import Stream
from tests.waiting import eventually


def row(
    topic: str,
    *,
    key: bytes | None = b"k",
    payload: bytes | None = b"{}",
    headers: Headers = (),
    event_id: UUID | None = None,
) -> OutboxRow:
    """Return anything at all on its way to a topic."""
    return OutboxRow(event_id or new_id(), topic, key, "Raw.v1", 1, headers, payload)


def counted(
    stream: Stream, number: int, *, event_id: UUID | None = None, key: UUID | None = None
) -> OutboxRow:
    """Return a numbered event of a stream; events of one key go to one partition."""
    identity, order_id = event_id or new_id(), key or new_id()
    emitted = Emitted(
        stream.event(order_id=order_id, number=number), str(order_id), number + 1, "test", str(order_id)
    )
    payload, headers = encode(emitted, identity, datetime.now(UTC))
    return OutboxRow(
        event_id=identity,
        topic=stream.topic,
        key=emitted.key.encode(),
        type=emitted.event.type,
        sequence=emitted.sequence,
        headers=[(name, value.encode()) for name, value in headers],
        payload=payload,
    )


def with_headers(item: OutboxRow, **headers: bytes) -> OutboxRow:
    """Return a row with more headers."""
    return OutboxRow(
        item.event_id,
        item.topic,
        item.key,
        item.type,
        item.sequence,
        [*item.headers, *headers.items()],
        item.payload,
    )


async def publish(kafka: KafkaSettings, rows: Sequence[OutboxRow]) -> None:
    """Send rows past any outbox, as a foreign producer would; in order."""
    publisher = Publisher(kafka, client_id="tests")
    await publisher.open()
    try:
        waiting = [*rows]
        while waiting:
            published = await publisher.publish(waiting)
            assert published.refused == {}
            waiting = [item for place, item in enumerate(waiting) if place not in {*published.acknowledged}]
    finally:
        await publisher.close()


@asynccontextmanager
async def reading(kafka: KafkaSettings, topic: str) -> AsyncIterator["Reader"]:
    """Read a topic from its beginning."""

    async def nothing_in_hand() -> None:
        pass

    consumer = GroupConsumer(
        kafka,
        group=f"reader-{new_id().hex}",
        topics=[topic],
        limits=GroupLimits(records_max=5_000),
        before_revoked=nothing_in_hand,
    )
    await consumer.open()
    try:
        yield Reader(consumer)
    finally:
        await consumer.close()


class Reader:
    """Collects what a topic holds."""

    def __init__(self, consumer: GroupConsumer) -> None:
        self._consumer = consumer
        self.records: list[Record] = []

    async def until(self, count: int, *, timeout_seconds: float = 15) -> list[Record]:
        """Return all records so far, at least so many."""

        async def enough() -> bool:
            self.records += await self._consumer.poll(0.1)
            return len(self.records) >= count

        await eventually(enough, timeout_seconds=timeout_seconds, what=f"{count} records in the topic")
        return self.records


async def read(kafka: KafkaSettings, topic: str, count: int) -> list[Record]:
    """Return the first records of a topic, at least so many."""
    async with reading(kafka, topic) as reader:
        return await reader.until(count)


def header_of(record: Record, name: str) -> str | None:
    """Return the text of a header."""
    value = header(record.headers, name)
    return None if value is None else value.decode()


@asynccontextmanager
async def running(*parts: Part) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run parts as a service does, and stop them at the end."""
    stopping = asyncio.Event()
    tasks = [asyncio.create_task(part.run(stopping), name=part.name) for part in parts]
    try:
        yield tasks
    finally:
        stopping.set()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


class Effects:
    """A handler whose effect is one row for each event; some numbers make it fail, some are refused."""

    def __init__(
        self, *, bad: Iterable[int] = (), refused: Iterable[int] = (), error: Exception | None = None
    ) -> None:
        self.bad, self.refused = {*bad}, {*refused}
        self.error = error or ValueError("the handler cannot do this")
        self.batches: list[list[int]] = []

    async def handle(self, tx: Connection, batch: Sequence[Message[Any]]) -> Sequence[Refusal]:
        """Write a row for each event that is not refused."""
        numbers = [message.event.number for message in batch]
        self.batches.append(numbers)
        await tx.execute(
            "INSERT INTO effects (number) SELECT unnest($1::int[])",
            [number for number in numbers if number not in self.refused],
        )
        if self.bad & {*numbers}:
            raise self.error
        return [
            Refusal(message, "conflict", "this number is refused")
            for message in batch
            if message.event.number in self.refused
        ]


async def effects(database: Database) -> list[int]:
    """Return the numbers that had an effect, in the order of their effects."""
    async with database.connection() as connection:
        return [row["number"] for row in await connection.fetch("SELECT number FROM effects ORDER BY id")]


async def outcomes(database: Database, consumer: str) -> dict[UUID, str]:
    """Return what the inbox remembers."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_id, outcome FROM processed_events WHERE consumer = $1", consumer
        )
    return {UUID(str(row["event_id"])): row["outcome"] for row in rows}


async def waiting_rows(database: Database) -> int:
    """Return how many rows wait in the outbox."""
    async with database.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM outbox")
    return count


def applied(database: Database, numbers: Sequence[int]) -> Callable[[], Awaitable[bool]]:
    """Return a condition: these numbers had their effect, and no others, in any order."""

    async def condition() -> bool:
        return sorted(await effects(database)) == sorted(numbers)

    return condition


async def letters(database: Database) -> list[OutboxRow]:
    """Return the dead letters that wait in the outbox."""
    async with database.connection() as connection:
        return [item for _, item in await list_outbox(connection, 1_000)]


def headers_of(item: OutboxRow) -> dict[str, str]:
    """Return headers as text, rubbish marked."""
    return {name: (value or b"").decode(errors="replace") for name, value in item.headers}


def without(item: OutboxRow, name: str) -> list[tuple[str, bytes | None]]:
    """Return a row's headers but for one."""
    return [header for header in item.headers if header[0] != name]


def spoil(item: OutboxRow, **changes: Any) -> OutboxRow:
    """Return a row with other contents."""
    fields = {name: getattr(item, name) for name in OutboxRow.__slots__}
    return OutboxRow(**{**fields, **changes})


@asynccontextmanager
async def locked(
    dsn: str, statement: str = "LOCK TABLE effects IN ACCESS EXCLUSIVE MODE"
) -> AsyncIterator[DedicatedConnection]:
    """Keep the locks that a statement takes, in a session of its own.

    Sessions of a pool are ended when they hold a lock and do nothing for a while.
    """
    connection = await connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield connection
    finally:
        await connection.close()
