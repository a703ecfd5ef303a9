"""How do the tests of dead letters get some? A topic that two services read, of which one refuses what it is told to."""

import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from ops.actions import Action, list_actions
from ops.cli import app
from shared.database import Connection, Database
from shared.envelope import Message, Record, Refusal
from shared.health import Health
from shared.ids import new_id
from shared.kafka import create_topics, measure_topics
from shared.outbox import OutboxRow
from shared.relay import Relay
from shared.settings import KafkaSettings
from tests.conftest import SERVICES
from tests.integration.conftest import MakeConsumer, Stream, dead_letters_of
from tests.integration.streams import Effects, effects, publish, read, running
from tests.waiting import eventually

#: Refuses, and its effects are rows.
FAILING = "inventory-service"
#: Reads the same topic, and handles everything.
OTHER = "payment-service"


async def say(*arguments: object) -> tuple[int, str]:
    """Run an operator's command in this process; return its exit status and what it printed."""
    with redirect_stdout(io.StringIO()) as printed:
        status = await app.run_async(
            [str(argument) for argument in arguments],
            result_action="return_value",
            exit_on_error=False,
            print_error=False,
        )
    return status, printed.getvalue()


async def holdfast(*arguments: object) -> tuple[int, Any]:
    """Run an operator's command with --json; return its exit status and what it printed."""
    status, printed = await say(*arguments, "--json")
    return status, orjson.loads(printed)


class Seen:
    """A handler that only remembers what it was given."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    async def handle(self, _: Connection, batch: Sequence[Message[Any]]) -> Sequence[Refusal]:
        """Take everything."""
        self.numbers += [message.event.number for message in batch]
        return []


@dataclass
class Desk:
    """A topic with its readers, and the database in which both remember what they handled."""

    stream: Stream
    database: Database
    kafka: KafkaSettings
    make_consumer: MakeConsumer
    seen: Seen = field(default_factory=Seen)

    @property
    def topic(self) -> str:
        """The topic of the events."""
        return self.stream.topic

    @property
    def letters_topic(self) -> str:
        """The dead letters of the service that refuses."""
        return f"{self.topic}.{FAILING}.dlq"

    async def holdfast(self, *arguments: object) -> tuple[int, Any]:
        """Run an operator's command."""
        return await holdfast(*arguments)

    async def letters(self, *arguments: object) -> list[dict[str, Any]]:
        """Return what `dlq list` lists of the topic."""
        _, listed = await self.holdfast("dlq", "list", self.topic, *arguments)
        found: list[dict[str, Any]] = listed["letters"]
        return found

    async def states(self) -> list[str]:
        """Return the state of each letter in the order in which they were refused."""
        return [letter["state"] for letter in await self.letters("--state", "all")]

    async def handle(
        self,
        until: Callable[[], Awaitable[object]],
        *,
        bad: Iterable[int] = (),
        group: str = FAILING,
    ) -> None:
        """Run a service, and what carries its dead letters to Kafka, until something is true."""
        handle = Effects(bad=bad).handle if group == FAILING else self.seen.handle
        async with AsyncExitStack() as stack:
            relay = Relay(self.database.dsn, self.kafka, name="tests", health=Health())
            consumer = self.make_consumer(handle, group=group)
            await stack.enter_async_context(running(consumer, relay))
            await eventually(until, timeout_seconds=30)

    async def poison(self, rows: Sequence[OutboxRow], *, bad: Iterable[int] = (), letters: int = 1) -> None:
        """Publish events of which the failing service refuses some, until so many dead letters are in Kafka."""
        await publish(self.kafka, rows)
        await self.handle(lambda: self.has_letters(letters), bad=bad)

    async def has_letters(self, count: int) -> bool:
        """Tell whether so many dead letters have arrived."""
        return await self.count(self.letters_topic) >= count

    async def count(self, topic: str) -> int:
        """Return how many records a topic holds."""
        spans = await measure_topics(self.kafka, [topic])
        return sum(span.end - span.begin for span in spans[topic].values())

    async def has_effects(self, numbers: Iterable[int]) -> bool:
        """Tell whether exactly these events had their effect, each once."""
        return sorted(await effects(self.database)) == sorted(numbers)

    async def has_seen(self, numbers: Iterable[int]) -> bool:
        """Tell whether the other service was given exactly these events, in any order."""
        return sorted(self.seen.numbers) == sorted(numbers)

    async def forget(self, group: str) -> None:
        """Empty a service's inbox, as its retention does in time."""
        async with self.database.connection() as connection:
            await connection.execute("DELETE FROM processed_events WHERE consumer = $1", group)

    async def records(self) -> list[Record]:
        """Return all records of the topic."""
        return await read(self.kafka, self.topic, await self.count(self.topic))

    async def actions(self) -> list[Action]:
        """Return what operators were recorded to have done, the newest first."""
        async with self.database.connection() as connection:
            return await list_actions(connection)


async def open_desk(
    stream: Stream,
    database: Database,
    kafka: KafkaSettings,
    make_consumer: MakeConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    """Return a topic that two services read; one database is all three services' own, with what operators did."""
    desk = Desk(stream, database, kafka, make_consumer)
    await create_topics(kafka, [dead_letters_of(stream.topic, group) for group in (FAILING, OTHER)])
    migration = SERVICES / "inventory_service" / "migrations" / "0002_operator_actions.sql"
    async with database.connection() as connection:
        await connection.execute(migration.read_text(encoding="utf-8"))
    for service in ("ORDER", "INVENTORY", "PAYMENT"):
        monkeypatch.setenv(f"HOLDFAST_{service}_DATABASE_DSN", database.dsn)
    monkeypatch.setenv("HOLDFAST_KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("HOLDFAST_OPERATOR_NAME", "Ada")
    return desk


def letter_row(desk: Desk, **changes: Any) -> OutboxRow:
    """Return a dead letter of the topic as its group would have written it; `headers` stand before the `dlq_*` ones."""
    headers = [*changes.pop("headers", [])]
    said = {
        "dlq_reason": b"handler_failed",
        "dlq_topic": desk.topic.encode(),
        "dlq_partition": b"0",
        "dlq_offset": b"0",
        "dlq_group": FAILING.encode(),
        "dlq_error": b"ValueError: no",
        "dlq_at": b"2026-03-01T12:00:00+00:00",
        **changes.pop("said", {}),
    }
    kept = [(name, value) for name, value in said.items() if value is not None]
    fields = {
        "event_id": new_id(),
        "key": b"k",
        "payload": b"{}",
        "type": "dead_letter",
        "sequence": 0,
        **changes,
    }
    return OutboxRow(topic=desk.letters_topic, headers=[*headers, *kept], **fields)
