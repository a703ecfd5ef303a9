"""Is every message applied once, whatever fails, repeats, moves or is broken on the way?"""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from deploy.local.postgres import EmbeddedPostgres
from shared.consumer import Consumer, ConsumerLimits
from shared.database import Database
from shared.health import Health
from shared.ids import new_id
from shared.kafka import GroupConsumer, GroupLimits
from shared.settings import KafkaSettings
from tests.integration.conftest import MakeConsumer, Stream
from tests.integration.streams import (
    Effects,
    applied,
    counted,
    effects,
    letters,
    locked,
    publish,
    running,
)
from tests.waiting import eventually

# --- once -----------------------------------------------------------------------------------------------------------


async def test_events_are_applied_once_however_often_and_in_whatever_order_they_come(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """Each of 300 events is delivered three times, shuffled, and has one effect."""
    rows = [counted(stream, number) for number in range(300)] * 3
    random.Random(7).shuffle(rows)  # noqa: S311 (a test's order, not a secret)
    await publish(kafka_settings, rows)

    async with running(make_consumer(Effects().handle)):
        await eventually(applied(shared_db, range(300)))
        await publish(kafka_settings, [counted(stream, 300)])
        await eventually(applied(shared_db, range(301)))


async def test_the_order_of_a_key_is_the_order_of_its_effects(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """What follows about one order is handed over in the order in which it was told, over several polls."""
    key = new_id()
    await publish(kafka_settings, [counted(stream, number, key=key) for number in range(100)])

    async with running(make_consumer(Effects().handle, records_max=7)):
        await eventually(applied(shared_db, range(100)))

    assert await effects(shared_db) == [*range(100)]


async def test_after_a_full_batch_there_is_no_pause(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """A backlog is worked off without stopping; only a batch that could have been larger is followed by a pause."""
    key = new_id()
    await publish(kafka_settings, [counted(stream, number, key=key) for number in range(21)])

    async with running(make_consumer(Effects().handle, records_max=7, pause_seconds=3_600)):
        await eventually(applied(shared_db, range(21)))


async def test_what_kafka_delivers_again_because_no_offset_was_taken_changes_nothing(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make_consumer: MakeConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A commit of offsets that Kafka refuses costs a redelivery, which the inbox absorbs."""

    async def refuse(*_: object) -> bool:
        return False

    monkeypatch.setattr(GroupConsumer, "commit", refuse)
    await publish(kafka_settings, [counted(stream, number) for number in range(50)])
    async with running(make_consumer(Effects().handle)):
        await eventually(applied(shared_db, range(50)))
    handler = Effects()
    await publish(kafka_settings, [counted(stream, 50)])

    async with running(make_consumer(handler.handle)):
        await eventually(applied(shared_db, range(51)))

    assert handler.batches == [[50]]


async def test_reading_goes_on_after_a_restart_where_it_ended(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """Offsets are committed at a stop: even with an empty inbox, nothing old comes again."""
    await publish(kafka_settings, [counted(stream, number) for number in range(50)])
    async with running(make_consumer(Effects().handle, records_max=5, offsets_interval_seconds=60)):
        await eventually(applied(shared_db, range(50)))
    async with shared_db.transaction() as tx:
        await tx.execute("DELETE FROM processed_events")
    handler = Effects()
    await publish(kafka_settings, [counted(stream, 50)])

    async with running(make_consumer(handler.handle)):
        await eventually(applied(shared_db, range(51)))

    assert handler.batches == [[50]]


async def test_offsets_are_committed_while_running_but_not_for_every_batch(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make_consumer: MakeConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lazily: many batches share one commit, and the last offsets follow soon."""
    commits: list[int] = []
    original = GroupConsumer.commit

    async def count(self: GroupConsumer, offsets: dict[tuple[str, int], int]) -> bool:
        commits.append(sum(offsets.values()))
        return await original(self, offsets)

    monkeypatch.setattr(GroupConsumer, "commit", count)
    handler = Effects()
    await publish(kafka_settings, [counted(stream, number) for number in range(100)])

    async with running(make_consumer(handler.handle, records_max=1, offsets_interval_seconds=1)):
        await eventually(applied(shared_db, range(100)))
        await eventually(lambda: commits and commits[-1] > 0)

    assert len(handler.batches) == 100
    assert 1 <= len(commits) < 50


# --- what passes by itself ------------------------------------------------------------------------------------------


async def test_a_database_that_hangs_is_waited_for_without_leaving_the_group(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make_consumer: MakeConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a lock outlasts the longest pause between polls, membership is kept, health says why, nothing is lost."""
    drained = 0
    original = Consumer._drain

    async def count(self: Consumer, consumer: GroupConsumer) -> None:
        nonlocal drained
        drained += 1
        await original(self, consumer)

    monkeypatch.setattr(Consumer, "_drain", count)
    health, handler = Health(), Effects()
    consumer = make_consumer(handler.handle, health=health, poll_interval_seconds_max=2)

    async with running(consumer):
        await publish(kafka_settings, [counted(stream, 0)])
        await eventually(applied(shared_db, [0]))
        drained = 0
        async with locked(shared_db.dsn) as holder:
            await publish(kafka_settings, [counted(stream, number) for number in range(1, 20)])
            await eventually(lambda: consumer.name in health.away, what="the consumer to say what is wrong")
            # Real time has to pass here: a member that is silent for 2 s is thrown out.
            await holder.execute("SELECT pg_sleep(3.5)")
        await publish(kafka_settings, [counted(stream, 20)])
        await eventually(applied(shared_db, range(21)))
        await eventually(lambda: health.away == {}, what="the consumer to say that it works")

        assert drained == 0
    assert await letters(shared_db) == []


async def test_connections_that_are_cut_off_cost_nothing(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make_consumer: MakeConsumer,
    postgres: EmbeddedPostgres,
) -> None:
    """Sessions are terminated again and again in the middle of batches; every event is applied once."""
    await publish(kafka_settings, [counted(stream, number) for number in range(200)])
    handler = Effects()

    async with running(make_consumer(handler.handle, records_max=20)):
        for seen in range(1, 6):
            await eventually(lambda: len(handler.batches) >= seen)  # noqa: B023 (awaited at once)
            await postgres.psql(
                """
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = :'database' AND application_name = 'tests'
                """,
                database=shared_db.dsn.rsplit("/", 1)[1],
            )

        async def all_applied() -> bool:
            try:
                return sorted(await effects(shared_db)) == [*range(200)]
            except Exception:
                return False  # this look was cut off as well

        await eventually(all_applied)

    assert await letters(shared_db) == []


async def test_a_stop_does_not_wait_for_a_database_that_hangs(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """The batch in hand is left to whoever comes next, and is applied then."""
    await publish(kafka_settings, [counted(stream, 1)])
    stopping, handler = asyncio.Event(), Effects()
    task = asyncio.create_task(make_consumer(handler.handle).run(stopping))
    async with locked(shared_db.dsn):
        await eventually(lambda: handler.batches)
        stopping.set()
        await asyncio.wait_for(task, 10)

    async with running(make_consumer(Effects().handle)):
        await eventually(applied(shared_db, [1]))


async def test_a_stop_does_not_wait_for_a_group_that_waits_for_another_member(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """A member that is busy, or died a moment ago, holds up whoever joins, but not its end."""
    was_asked, may_leave = asyncio.Event(), asyncio.Event()
    limits = GroupLimits(session_timeout_seconds=15)

    async def hold_up() -> None:
        was_asked.set()
        await may_leave.wait()

    other = GroupConsumer(
        kafka_settings, group=stream.group, topics=[stream.topic], limits=limits, before_revoked=hold_up
    )
    await other.open()
    consumer = Consumer(
        stream.group,
        [stream.event],
        Effects().handle,
        database=shared_db,
        kafka=kafka_settings,
        limits=ConsumerLimits(limits),
        health=Health(),
    )

    stopping = asyncio.Event()
    task = asyncio.create_task(consumer.run(stopping))
    await eventually(was_asked.is_set, what="the group to ask its other member")
    stopping.set()

    await asyncio.wait_for(task, 8)
    may_leave.set()
    await other.close()


async def test_kafka_that_is_not_there_is_waited_for(shared_db: Database, stream: Stream) -> None:
    """The consumer does not die of it, says so, and can be stopped."""
    health = Health()
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_seconds=1)
    consumer = Consumer(
        stream.group,
        [stream.event],
        Effects().handle,
        database=shared_db,
        kafka=nowhere,
        limits=ConsumerLimits(),
        health=health,
    )

    async with running(consumer) as (task,):
        await eventually(lambda: "kafka" in health.away)

        assert not task.done()


# --- several members ------------------------------------------------------------------------------------------------


async def test_nothing_is_lost_or_doubled_while_members_come_and_go(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """A second member joins and the first leaves while events flow; each has one effect."""
    first, second = Effects(), Effects()
    published: list[int] = []

    async def publish_more() -> bool:
        numbers = range(len(published), len(published) + 40)
        await publish(kafka_settings, [counted(stream, number) for number in numbers])
        published.extend(numbers)
        return bool(second.batches)

    async with AsyncExitStack() as second_member:
        async with running(make_consumer(first.handle, records_max=50)):
            await publish_more()
            await eventually(lambda: first.batches)
            await second_member.enter_async_context(running(make_consumer(second.handle, records_max=50)))
            await eventually(publish_more, what="the second member to get its share")
        await publish_more()
        await eventually(applied(shared_db, published), timeout_seconds=20)

    assert await letters(shared_db) == []
