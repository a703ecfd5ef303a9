"""Do the real parts owe what they do not do, and nothing else?"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from shared.batcher import Batcher
from shared.consumer import Consumer, ConsumerLimits
from shared.database import Connection, Database
from shared.envelope import Message, Record, Refusal
from shared.errors import Unavailable
from shared.health import Health, Progress
from shared.kafka import GroupLimits, TopicSpec, create_topics
from shared.listener import Listener
from shared.outbox import insert_outbox
from shared.relay import Relay
from shared.settings import KafkaSettings
from shared.worker import Worker
from tests.integration.conftest import Stream
from tests.integration.streams import (
    Effects,
    counted,
    effects,
    locked,
    publish,
    row,
    running,
    waiting_rows,
)
from tests.waiting import eventually

#: Longer than any step of a part that works takes here, or that is tried again.
HALTED_SECONDS = 1.5
DEADLINE_SECONDS = 60

Handle = Callable[[Connection, Sequence[Message[Any]]], Awaitable[Sequence[Refusal]]]


class Failures(Health):
    """Counts how often parts said that they do not work."""

    count = 0

    def down(self, part: str, why: str) -> None:
        """Count."""
        super().down(part, why)
        self.count += 1


class Rests(Progress):
    """Counts how often a part said that it owes nothing.

    A consumer rests for no time at all: what follows the end of one poll is the next one, which has to end, too.
    """

    count = 0

    def done(self) -> None:
        """Count."""
        super().done()
        self.count += 1

    async def go_on(self) -> None:
        """Wait until the part has rested a few more times."""
        goal = self.count + 3
        await eventually(lambda: self.count >= goal, timeout_seconds=DEADLINE_SECONDS, what="a few rests")


async def halts(progress: Progress) -> None:
    """Wait until a part has owed something for a while."""
    await eventually(
        lambda: progress.halted_seconds > HALTED_SECONDS, timeout_seconds=DEADLINE_SECONDS, what="a halt"
    )


async def owes_nothing(progress: Progress) -> None:
    """Wait until a part owes nothing."""
    await eventually(
        lambda: progress.halted_seconds == 0, timeout_seconds=DEADLINE_SECONDS, what="nothing owed"
    )


# --- batchers and workers -------------------------------------------------------------------------------------------


async def test_a_batcher_whose_batch_does_not_end_halts(shared_db: Database) -> None:
    """It owes from the arrival of the first item on, and nothing once the batch is through."""
    go_on = asyncio.Event()

    async def apply(_tx: Connection, items: Sequence[int]) -> Sequence[int]:
        await go_on.wait()
        return items

    batcher: Batcher[int, int] = Batcher("tests", shared_db, apply, size_max=10, queue_max=10)
    async with running(batcher):
        assert batcher.progress.halted_seconds == 0
        answer = asyncio.ensure_future(batcher.submit(1))
        await halts(batcher.progress)
        go_on.set()
        await answer

        await owes_nothing(batcher.progress)


async def test_a_batcher_that_nobody_runs_halts(shared_db: Database) -> None:
    """What waits in the queue is owed, also when the loop that should take it is gone."""
    batcher: Batcher[int, int] = Batcher("tests", shared_db, _refuse_all, size_max=10, queue_max=10)

    answer = asyncio.ensure_future(batcher.submit(1))

    await halts(batcher.progress)
    answer.cancel()


async def _refuse_all(_tx: Connection, items: Sequence[int]) -> Sequence[int]:
    raise Unavailable(f"{len(items)} items")


async def test_a_batcher_that_answers_unavailable_does_not_halt(shared_db: Database) -> None:
    """A refusal is an answer: nothing waits any more."""
    batcher: Batcher[int, int] = Batcher("tests", shared_db, _refuse_all, size_max=10, queue_max=10)

    async with running(batcher):
        with pytest.raises(Unavailable):
            await batcher.submit(1)

        await owes_nothing(batcher.progress)


async def test_a_worker_whose_tick_does_not_end_halts() -> None:
    """It owes only while it ticks."""
    go_on = asyncio.Event()

    async def tick() -> bool:
        await go_on.wait()
        return False

    worker = Worker("tests", tick, interval_seconds=3_600)
    async with running(worker):
        await halts(worker.progress)
        go_on.set()

        await owes_nothing(worker.progress)


# --- the relay ------------------------------------------------------------------------------------------------------


@pytest.fixture
def failures() -> Failures:
    """A health that counts."""
    return Failures()


def relay(dsn: str, kafka: KafkaSettings, health: Health) -> Relay:
    """Return a relay that looks often and does not wait long for Kafka."""
    return Relay(
        dsn,
        kafka.model_copy(update={"request_timeout_seconds": 0.5}),
        name="tests",
        health=health,
        interval_seconds=0.05,
    )


async def put(database: Database, topic: str) -> None:
    """Have a row wait for the relay."""
    async with database.transaction() as tx:
        await insert_outbox(tx, [row(topic, key=None)])


async def test_a_relay_halts_while_a_statement_does_not_come_back(
    shared_dsn: str, shared_db: Database, kafka_settings: KafkaSettings, failures: Failures
) -> None:
    """Held up by a lock that nobody gives back, it neither fails nor works; then it goes on."""
    part = relay(shared_dsn, kafka_settings, failures)
    async with running(part):
        async with locked(shared_dsn, "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"):
            await halts(part.progress)

        await owes_nothing(part.progress)


async def test_a_relay_without_kafka_does_not_halt(
    shared_dsn: str, shared_db: Database, failures: Failures
) -> None:
    """Rows wait and none is sent, but a restart would not bring Kafka back."""
    await put(shared_db, "anywhere")
    part = relay(shared_dsn, KafkaSettings(bootstrap_servers="127.0.0.1:1"), failures)

    async with running(part):
        for tries in range(1, 6):
            await eventually(lambda: failures.count >= tries, what=f"try {tries}")  # noqa: B023 (awaited here)
            assert part.progress.halted_seconds < HALTED_SECONDS

    assert await waiting_rows(shared_db) == 1


async def test_a_relay_that_kafka_answers_and_that_sends_nothing_halts(
    shared_dsn: str, shared_db: Database, kafka_settings: KafkaSettings, failures: Failures, stream: Stream
) -> None:
    """The broker is there, takes connections, and acknowledges nothing: a compacted topic takes no row without a key."""
    topic = f"{stream.topic}-compacted"
    await create_topics(kafka_settings, [TopicSpec(topic, 1, config={"cleanup.policy": "compact"})])
    await put(shared_db, topic)
    part = relay(shared_dsn, kafka_settings, failures)

    async with running(part):
        await halts(part.progress)

        assert failures.count >= 2


async def test_a_relay_whose_database_takes_no_deletion_does_not_halt(
    shared_dsn: str, shared_db: Database, kafka_settings: KafkaSettings, failures: Failures, stream: Stream
) -> None:
    """With a full disk the same rows are sent again and again: that repeats, but it does not stand still."""
    async with shared_db.connection() as connection:
        await connection.execute(
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full';
            END $$;
            CREATE TRIGGER full_disk BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
    await put(shared_db, stream.topic)
    part = relay(shared_dsn, kafka_settings, failures)

    async with running(part):
        for tries in range(1, 6):
            await eventually(
                lambda: failures.count >= tries,  # noqa: B023 (awaited here)
                timeout_seconds=DEADLINE_SECONDS,
                what=f"try {tries}",
            )
            assert part.progress.halted_seconds < HALTED_SECONDS

    assert await waiting_rows(shared_db) == 1


# --- the consumer ---------------------------------------------------------------------------------------------------


@pytest.fixture
def consume(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, failures: Failures
) -> Callable[[Handle], Consumer]:
    """Make consumers of the stream."""

    def make(handle: Handle) -> Consumer:
        return Consumer(
            stream.group,
            [stream.event],
            handle,
            database=shared_db,
            kafka=kafka_settings,
            limits=ConsumerLimits(GroupLimits(session_timeout_seconds=6), 0.01, 0.1),
            health=failures,
        )

    return make


async def test_a_consumer_that_has_read_all_owes_nothing(
    consume: Callable[[Handle], Consumer], stream: Stream, shared_db: Database, kafka_settings: KafkaSettings
) -> None:
    """After its batch it rests, as long as nothing new comes."""
    await publish(kafka_settings, [counted(stream, number) for number in range(10)])
    consumer = consume(Effects().handle)
    rests = consumer.progress = Rests()

    async with running(consumer):

        async def all_done() -> bool:
            return len(await effects(shared_db)) == 10

        await eventually(all_done, timeout_seconds=DEADLINE_SECONDS)

        await rests.go_on()


async def test_a_consumer_whose_handler_does_not_come_back_halts(
    consume: Callable[[Handle], Consumer], stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """It took a batch and does nothing about it."""
    await publish(kafka_settings, [counted(stream, 1)])
    go_on = asyncio.Event()

    async def handle(_tx: Connection, _batch: Sequence[Message[Any]]) -> Sequence[Refusal]:
        await go_on.wait()
        return []

    consumer = consume(handle)
    rests = consumer.progress = Rests()
    async with running(consumer):
        await halts(rests)
        go_on.set()

        await rests.go_on()


async def test_a_consumer_that_is_given_nothing_although_messages_wait_halts(
    consume: Callable[[Handle], Consumer],
    stream: Stream,
    kafka_settings: KafkaSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kafka itself is asked what waits: a fetcher that stands still looks like a topic without messages."""
    await publish(kafka_settings, [counted(stream, 1)])

    async def poll(_self: object, wait_seconds: float) -> list[Record]:
        await asyncio.sleep(wait_seconds)
        return []

    monkeypatch.setattr("shared.kafka.GroupConsumer.poll", poll)
    consumer = consume(Effects().handle)

    async with running(consumer):
        await halts(consumer.progress)


async def test_a_consumer_that_tries_again_for_its_database_does_not_halt(
    consume: Callable[[Handle], Consumer], stream: Stream, kafka_settings: KafkaSettings, failures: Failures
) -> None:
    """Messages wait and none is handled, but `/readyz` says why, and a restart would not help."""
    await publish(kafka_settings, [counted(stream, 1)])

    async def handle(_tx: Connection, _batch: Sequence[Message[Any]]) -> Sequence[Refusal]:
        raise Unavailable("the database went away")

    consumer = consume(handle)
    async with running(consumer):
        for tries in range(1, 5):
            await eventually(
                lambda: failures.count >= tries,  # noqa: B023 (awaited here)
                timeout_seconds=DEADLINE_SECONDS,
                what=f"try {tries}",
            )
            assert consumer.progress.halted_seconds < HALTED_SECONDS

    assert consumer.name in failures.away


async def test_a_listener_owes_nothing_while_its_database_is_away(failures: Failures) -> None:
    """It fails and tries again; that is no halt."""
    listener = Listener("postgresql://nobody@127.0.0.1:1/nothing", "tests", health=failures)

    async with running(listener):
        await eventually(lambda: failures.count >= 3)

        assert listener.progress.halted_seconds < HALTED_SECONDS
