"""What do the tests of `shared` stand on? A database with the shared tables only, and topics of their own."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import UUID

import pytest

from deploy.local.postgres import EmbeddedPostgres, role_of
from shared.consumer import Consumer, ConsumerLimits, Handle
from shared.database import Database, DatabaseOptions
from shared.events import CATALOGUE, SOURCES, Wire
from shared.health import Health
from shared.ids import new_id
from shared.kafka import GroupLimits, TopicSpec, create_topics
from shared.migrate import Migration, migrate
from shared.outbox import dead_letter_topic
from shared.settings import KafkaSettings
from tests.conftest import Copies

#: The tables that every service has, and one in which the tests see what was done, and in which transaction.
SHARED_TABLES = """
CREATE TABLE processed_events (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('handled', 'dead')),
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    topic text NOT NULL,
    key bytea,
    type text NOT NULL,
    sequence bigint NOT NULL,
    headers json NOT NULL,
    payload bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE effects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number integer NOT NULL,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id()
);
"""


@pytest.fixture(scope="session")
async def shared_template(postgres: EmbeddedPostgres) -> str:
    """A database with the shared tables, from which each test's own is copied."""
    name = "template_shared"
    dsn = await postgres.create_database(name, role_of("order"))
    await migrate(dsn, [Migration(1, "0001_shared", SHARED_TABLES)])
    return name


@pytest.fixture
async def shared_dsn(copies: Copies, shared_template: str) -> AsyncIterator[str]:
    """Where a fresh database with the shared tables is."""
    async with copies.lend(shared_template, "order") as dsn:
        yield dsn


@pytest.fixture
async def shared_db(shared_dsn: str) -> AsyncIterator[Database]:
    """A fresh database with the shared tables; it does not wait long for locks."""
    database = Database(DatabaseOptions(dsn=shared_dsn, application_name="tests", lock_timeout_seconds=0.3))
    await database.open()
    yield database
    await database.close()


class Counted(Wire):
    """An event that only these tests have."""

    order_id: UUID
    number: int


@dataclass(frozen=True, slots=True)
class Stream:
    """A topic with an event of its own, known to the catalogue while its test runs."""

    topic: str
    group: str
    event: type[Counted]


@pytest.fixture
async def stream(kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> Stream:
    """A new topic of four partitions with its dead-letter topic, and a group of its own."""
    name = new_id().hex[-12:]
    topic, group = f"events-{name}", f"group-{name}"
    event: type[Counted] = type(
        "Counted", (Counted,), {"__doc__": Counted.__doc__, "topic": topic, "__module__": __name__}
    )
    monkeypatch.setitem(CATALOGUE, topic, {event.type: event})
    monkeypatch.setitem(SOURCES, topic, "/holdfast/tests")
    await create_topics(kafka_settings, [TopicSpec(topic, 4), dead_letters_of(topic, group)])
    return Stream(topic, group, event)


def dead_letters_of(topic: str, group: str) -> TopicSpec:
    """Return the dead-letter topic of a group, which takes a little more than any other topic."""
    return TopicSpec(dead_letter_topic(topic, group), 1, config={"max.message.bytes": "2097152"})


#: Makes consumers of the stream that write to the test's database.
MakeConsumer = Callable[..., Consumer]


@pytest.fixture
def make_consumer(shared_db: Database, stream: Stream, kafka_settings: KafkaSettings) -> MakeConsumer:
    """Make consumers of the stream that write to the test's database."""

    def make_one(
        handle: Handle,
        *,
        group: str = stream.group,
        health: Health | None = None,
        records_max: int = 500,
        poll_interval_seconds_max: float = 120,
        offsets_interval_seconds: float = 0.1,
        pause_seconds: float = 0.01,
    ) -> Consumer:
        limits = GroupLimits(
            records_max=records_max,
            session_timeout_seconds=6,
            poll_interval_seconds_max=poll_interval_seconds_max,
        )
        return Consumer(
            group,
            [stream.event],
            handle,
            database=shared_db,
            kafka=kafka_settings,
            limits=ConsumerLimits(limits, pause_seconds, offsets_interval_seconds),
            health=health or Health(),
        )

    return make_one
