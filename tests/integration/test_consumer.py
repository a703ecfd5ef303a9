"""Is every message applied once, whatever fails, repeats, moves or is broken on the way?"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest

from deploy.local.postgres import EmbeddedPostgres
from shared.consumer import Consumer, ConsumerLimits, Handle
from shared.database import Connection, Database
from shared.envelope import Message, Record, Refusal, message_id
from shared.errors import Conflict, LedgerViolation
from shared.events import COMMANDS_TOPIC, CancelOrder, PlaceOrder
from shared.health import Health
from shared.ids import new_id
from shared.kafka import GroupConsumer, GroupLimits, TopicSpec, create_topics
from shared.outbox import OutboxRow, list_outbox
from shared.relay import Relay
from shared.settings import KafkaSettings
from tests.contracts.golden import sample_of
from tests.integration.conftest import Stream, dead_letters_of
from tests.integration.streams import (
    Effects,
    counted,
    effects,
    header_of,
    outcomes,
    publish,
    read,
    running,
    with_headers,
)
from tests.waiting import eventually

Make = Callable[..., Consumer]


@pytest.fixture
def make(shared_db: Database, stream: Stream, kafka_settings: KafkaSettings) -> Make:
    """Make consumers of the stream that write to the test's database."""

    def make_one(
        handle: Handle,
        *,
        group: str = stream.group,
        health: Health | None = None,
        records_max: int = 500,
        poll_interval_seconds_max: float = 120,
        offsets_interval_seconds: float = 0.1,
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
            limits=ConsumerLimits(limits, 0.01, offsets_interval_seconds),
            health=health or Health(),
        )

    return make_one


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


# --- once -----------------------------------------------------------------------------------------------------------


async def test_events_are_applied_once_however_often_and_in_whatever_order_they_come(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """Each of 300 events is delivered three times, shuffled, and has one effect."""
    rows = [counted(stream, number) for number in range(300)] * 3
    random.Random(7).shuffle(rows)  # noqa: S311 (a test's order, not a secret)
    await publish(kafka_settings, rows)

    async with running(make(Effects().handle)):
        await eventually(applied(shared_db, range(300)))
        await publish(kafka_settings, [counted(stream, 300)])
        await eventually(applied(shared_db, range(301)))


async def test_the_order_of_a_key_is_the_order_of_its_effects(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """What follows about one order is handed over in the order in which it was told, over several polls."""
    key = new_id()
    await publish(kafka_settings, [counted(stream, number, key=key) for number in range(100)])

    async with running(make(Effects().handle, records_max=7)):
        await eventually(applied(shared_db, range(100)))

    assert await effects(shared_db) == [*range(100)]


async def test_what_kafka_delivers_again_because_no_offset_was_taken_changes_nothing(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A commit of offsets that Kafka refuses costs a redelivery, which the inbox absorbs."""

    async def refuse(*_: object) -> bool:
        return False

    monkeypatch.setattr(GroupConsumer, "commit", refuse)
    await publish(kafka_settings, [counted(stream, number) for number in range(50)])
    async with running(make(Effects().handle)):
        await eventually(applied(shared_db, range(50)))
    handler = Effects()
    await publish(kafka_settings, [counted(stream, 50)])

    async with running(make(handler.handle)):
        await eventually(applied(shared_db, range(51)))

    assert handler.batches == [[50]]


async def test_reading_goes_on_after_a_restart_where_it_ended(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """Offsets are committed at a stop: even with an empty inbox, nothing old comes again."""
    await publish(kafka_settings, [counted(stream, number) for number in range(50)])
    async with running(make(Effects().handle, offsets_interval_seconds=60)):
        await eventually(applied(shared_db, range(50)))
    async with shared_db.transaction() as tx:
        await tx.execute("DELETE FROM processed_events")
    handler = Effects()
    await publish(kafka_settings, [counted(stream, 50)])

    async with running(make(handler.handle)):
        await eventually(applied(shared_db, range(51)))

    assert handler.batches == [[50]]


async def test_offsets_are_committed_while_running_but_not_for_every_batch(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make: Make,
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

    async with running(make(handler.handle, records_max=1, offsets_interval_seconds=1)):
        await eventually(applied(shared_db, range(100)))
        await eventually(lambda: commits and commits[-1] > 0)

    assert len(handler.batches) == 100
    assert 1 <= len(commits) < 50


# --- dead letters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("five is right out"), Conflict("known under another content"), LedgerViolation()]
)
async def test_a_poisoned_message_is_diverted_alone(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make, error: Exception
) -> None:
    """Of a batch of 64 the one that fails becomes a dead letter with its reason; the others have their effect."""
    key = new_id()
    rows = [counted(stream, number, key=key) for number in range(64)]
    await publish(kafka_settings, rows)

    async with running(make(Effects(bad=[5], error=error).handle)):
        await eventually(applied(shared_db, [number for number in range(64) if number != 5]))

    (letter,) = await letters(shared_db)
    said = headers_of(letter)
    assert (letter.topic, letter.key, letter.payload) == (
        f"{stream.topic}.{stream.group}.dlq",
        rows[5].key,
        rows[5].payload,
    )
    assert [*letter.headers[: len(rows[5].headers)]] == [*rows[5].headers]
    assert said["dlq_reason"] == getattr(error, "reason", "handler_failed")
    assert said["dlq_error"] == f"{type(error).__name__}: {error}"
    assert (said["dlq_topic"], said["dlq_offset"], said["dlq_group"]) == (stream.topic, "5", stream.group)
    remembered = await outcomes(shared_db, stream.group)
    assert [remembered[item.event_id] for item in rows] == ["handled"] * 5 + ["dead"] + ["handled"] * 58


async def test_what_a_handler_refuses_is_a_dead_letter_in_the_same_transaction(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """The batch is applied as a whole, once; the refused message is dead and moved nothing."""
    handler = Effects(refused=[2])
    key = new_id()
    rows = [counted(stream, number, key=key) for number in range(4)]
    await publish(kafka_settings, rows)

    async with running(make(handler.handle)):
        await eventually(applied(shared_db, [0, 1, 3]))

    (letter,) = await letters(shared_db)
    assert headers_of(letter)["dlq_reason"] == "conflict"
    assert headers_of(letter)["dlq_error"] == "this number is refused"
    assert (await outcomes(shared_db, stream.group))[rows[2].event_id] == "dead"
    assert [number for batch in handler.batches for number in batch] == [0, 1, 2, 3]


async def test_a_refused_message_stays_dead_when_it_is_delivered_again(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """A plain redelivery, also after newer events, brings neither an effect nor a second dead letter."""
    key = new_id()
    first, second, third = (counted(stream, number, key=key) for number in range(3))
    await publish(kafka_settings, [first, second, first, third, first])

    async with running(make(Effects(refused=[0]).handle, records_max=1)):
        await eventually(applied(shared_db, [1, 2]))
        await publish(kafka_settings, [counted(stream, 3, key=key)])
        await eventually(applied(shared_db, [1, 2, 3]))

    assert len(await letters(shared_db)) == 1


def without(item: OutboxRow, name: str) -> list[tuple[str, bytes | None]]:
    """Return a row's headers but for one."""
    return [header for header in item.headers if header[0] != name]


def spoil(item: OutboxRow, **changes: Any) -> OutboxRow:
    """Return a row with other contents."""
    fields = {name: getattr(item, name) for name in OutboxRow.__slots__}
    return OutboxRow(**{**fields, **changes})


async def test_what_cannot_be_read_is_a_dead_letter_and_its_neighbours_are_applied(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """Not JSON, not UTF-8, no value, no id, no UUID, no type, no sequence, no text as key: each is diverted."""
    good = counted(stream, 0)
    broken = {
        "not JSON": spoil(good, payload=b"{not JSON"),
        "not UTF-8": spoil(good, payload=b'{"order_id": "\xff\xfe"}'),
        "NUL": spoil(good, payload=b"\x00"),
        "no value": spoil(good, payload=None),
        "no id": spoil(good, headers=without(good, "ce_id")),
        "no UUID": spoil(good, headers=[*without(good, "ce_id"), ("ce_id", b"4711\x00\xff")]),
        "no type": spoil(good, headers=without(good, "ce_type")),
        "no sequence": spoil(good, headers=without(good, "ce_sequence")),
        "key": spoil(good, key=b"\xff\x00"),
        "no headers": spoil(good, headers=[]),
    }
    # Each with an id of its own, as long as it has one.
    rows = [
        spoil(
            item,
            headers=[
                (name, str(new_id()).encode() if value == str(good.event_id).encode() else value)
                for name, value in item.headers
            ],
        )
        for item in broken.values()
    ]
    await publish(kafka_settings, [rows[0], counted(stream, 1), *rows[1:], counted(stream, 2)])

    async with running(make(Effects().handle)):
        await eventually(applied(shared_db, [1, 2]))

        async def all_there() -> bool:
            return len(await letters(shared_db)) >= len(rows)

        await eventually(all_there)

    found = await letters(shared_db)
    assert {headers_of(letter)["dlq_reason"] for letter in found} == {"undecodable"}
    assert sorted((letter.key, letter.payload) for letter in found if letter.payload) == sorted(
        (item.key, item.payload) for item in rows if item.payload
    )
    assert sum(letter.payload is None for letter in found) == 1
    assert {*(await outcomes(shared_db, stream.group)).values()} == {"handled", "dead"}
    assert [letter.event_id for letter in found if "ce_id" not in headers_of(letter)] != []


async def test_unknown_types_are_passed_over(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """An event of the future is neither applied nor a dead letter."""
    future = counted(stream, 9)
    future = spoil(future, headers=[*without(future, "ce_type"), ("ce_type", b"Weighed.v1")])
    await publish(kafka_settings, [future, counted(stream, 1)])

    async with running(make(Effects().handle)):
        await eventually(applied(shared_db, [1]))

    assert await letters(shared_db) == []


async def test_commands_that_cannot_be_read_reach_the_dead_letter_topic(
    shared_db: Database, kafka_settings: KafkaSettings
) -> None:
    """Unknown, empty, oversized and misaddressed commands arrive in the group's dead letters as they were sent."""
    group = f"group-{new_id().hex}"
    await create_topics(
        kafka_settings, [TopicSpec(COMMANDS_TOPIC, 8), dead_letters_of(COMMANDS_TOPIC, group)]
    )
    key = str(new_id()).encode()
    good = sample_of(CancelOrder).model_dump_json().encode()

    def command(payload: bytes | None, **headers: bytes) -> OutboxRow:
        given = {"ce_id": str(new_id()).encode(), "ce_type": b"CancelOrder.v1", "dlq_test": b"1", **headers}
        kept = [(name, value) for name, value in given.items() if value]
        return OutboxRow(new_id(), COMMANDS_TOPIC, key, "Raw", 1, kept, payload)

    big = good[:-1] + b',"reason":"' + b"x" * 900_000 + b'"}'
    rows = [
        command(good, ce_type=b"NoSuchCommand.v1"),
        command(good, ce_type=b""),
        command(good, ce_id=b""),
        command(good, ce_id=b"4711"),
        command(None),
        command(b"\xff\xfe"),
        command(big.replace(b',"reason":"changed my mind"', b"")),
    ]
    handled: list[Message[Any]] = []

    async def handle(tx: Connection, batch: Sequence[Message[Any]]) -> Sequence[Refusal]:
        handled.extend(message for message in batch if message.key.encode() == key)
        return []

    consumer = Consumer(
        group,
        [PlaceOrder, CancelOrder],
        handle,
        database=shared_db,
        kafka=kafka_settings,
        limits=ConsumerLimits(),
        health=Health(),
    )
    await publish(kafka_settings, rows)
    async with running(consumer, Relay(shared_db.dsn, kafka_settings, name=group, health=Health())):

        def ours(records: Sequence[Record]) -> list[Record]:
            return [record for record in records if record.key == key]

        found: list[Record] = []

        async def all_there() -> bool:
            found[:] = ours(await read(kafka_settings, f"{COMMANDS_TOPIC}.{group}.dlq", 1))
            return len(found) >= len(rows)

        await eventually(all_there)

    assert [record.value for record in found] == [item.payload for item in rows]
    assert [[*record.headers][: len(item.headers)] for record, item in zip(found, rows, strict=True)] == [
        [*item.headers] for item in rows
    ]
    assert {header_of(record, "dlq_reason") for record in found} == {"undecodable"}
    assert {header_of(record, "dlq_topic") for record in found} == {COMMANDS_TOPIC}
    assert handled == []


# --- redrive --------------------------------------------------------------------------------------------------------


async def test_a_redrive_for_this_group_is_decided_once_more_and_applied_once(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """When its cause is mended, the dead message has its effect, once however often it is redriven."""
    item = counted(stream, 5)
    await publish(kafka_settings, [item])
    async with running(make(Effects(bad=[5]).handle)):

        async def is_dead() -> bool:
            return await outcomes(shared_db, stream.group) == {item.event_id: "dead"}

        await eventually(is_dead)
    again = with_headers(item, dlq_redrive=b"1", dlq_group=stream.group.encode())
    await publish(kafka_settings, [item, again, again, item, counted(stream, 6)])

    async with running(make(Effects().handle)):
        await eventually(applied(shared_db, [5, 6]))

    assert (await outcomes(shared_db, stream.group))[item.event_id] == "handled"


async def test_a_redrive_for_another_group_is_passed_over(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """The others have handled the event long ago, or have it in their own dead letters."""
    foreign = with_headers(counted(stream, 5), dlq_redrive=b"1", dlq_group=b"another-group")
    await publish(kafka_settings, [foreign, spoil(foreign, payload=b"rubbish"), counted(stream, 6)])

    async with running(make(Effects().handle)):
        await eventually(applied(shared_db, [6]))

    assert await letters(shared_db) == []
    assert foreign.event_id not in await outcomes(shared_db, stream.group)


async def test_a_redrive_that_fails_again_is_a_dead_letter_again(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """Nothing is lost by redriving too early, decodable or not."""
    item = counted(stream, 5)
    redriven = with_headers(item, dlq_redrive=b"1", dlq_group=stream.group.encode())
    rubbish = spoil(
        with_headers(counted(stream, 6), dlq_redrive=b"1", dlq_group=stream.group.encode()), payload=b""
    )
    await publish(kafka_settings, [item])
    async with running(make(Effects(bad=[5]).handle)):

        async def count(expected: int) -> bool:
            return len(await letters(shared_db)) == expected

        await eventually(lambda: count(1))
        await publish(kafka_settings, [redriven, rubbish])
        await eventually(lambda: count(3))

    assert {*(await outcomes(shared_db, stream.group)).values()} == {"dead"}


# --- what passes by itself ------------------------------------------------------------------------------------------


async def test_a_database_that_hangs_is_waited_for_without_leaving_the_group(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make: Make,
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
    consumer = make(handler.handle, health=health, poll_interval_seconds_max=2)

    async with running(consumer):
        await publish(kafka_settings, [counted(stream, 0)])
        await eventually(applied(shared_db, [0]))
        drained = 0
        async with shared_db.transaction() as tx:
            await tx.execute("LOCK TABLE effects IN ACCESS EXCLUSIVE MODE")
            await publish(kafka_settings, [counted(stream, number) for number in range(1, 20)])
            await eventually(lambda: consumer.name in health.away, what="the consumer to say what is wrong")
            # Real time has to pass here: a member that is silent for 2 s is thrown out.
            await tx.execute("SELECT pg_sleep(3.5)")
        await publish(kafka_settings, [counted(stream, 20)])
        await eventually(applied(shared_db, range(21)))
        await eventually(lambda: health.away == {}, what="the consumer to say that it works")

        assert drained == 0
    assert await letters(shared_db) == []


async def test_connections_that_are_cut_off_cost_nothing(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make, postgres: EmbeddedPostgres
) -> None:
    """Sessions are terminated again and again in the middle of batches; every event is applied once."""
    await publish(kafka_settings, [counted(stream, number) for number in range(200)])
    handler = Effects()

    async with running(make(handler.handle, records_max=20)):
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
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
) -> None:
    """The batch in hand is left to whoever comes next, and is applied then."""
    await publish(kafka_settings, [counted(stream, 1)])
    stopping, handler = asyncio.Event(), Effects()
    task = asyncio.create_task(make(handler.handle).run(stopping))
    async with shared_db.transaction() as tx:
        await tx.execute("LOCK TABLE effects IN ACCESS EXCLUSIVE MODE")
        await eventually(lambda: handler.batches)
        stopping.set()
        await asyncio.wait_for(task, 10)

    async with running(make(Effects().handle)):
        await eventually(applied(shared_db, [1]))


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
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make: Make
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
        async with running(make(first.handle, records_max=50)):
            await publish_more()
            await eventually(lambda: first.batches)
            await second_member.enter_async_context(running(make(second.handle, records_max=50)))
            await eventually(publish_more, what="the second member to get its share")
        await publish_more()
        await eventually(applied(shared_db, published), timeout_seconds=20)

    assert await letters(shared_db) == []


async def test_a_message_without_an_id_is_remembered_by_its_position(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read again from the start, it is the same dead letter, not a second one."""

    async def refuse(*_: object) -> bool:
        return False

    monkeypatch.setattr(GroupConsumer, "commit", refuse)
    item = counted(stream, 0)
    await publish(kafka_settings, [spoil(item, headers=without(item, "ce_id"))])
    for number in (1, 2):
        await publish(kafka_settings, [counted(stream, number)])
        async with running(make(Effects().handle)):
            await eventually(applied(shared_db, range(1, number + 1)))

            async def is_buried() -> list[OutboxRow]:
                return await letters(shared_db)

            await eventually(is_buried)

    (letter,) = await letters(shared_db)
    (record,) = [
        record for record in await read(kafka_settings, stream.topic, 3) if not header_of(record, "ce_id")
    ]
    assert letter.event_id == message_id(record)
    assert isinstance(letter.event_id, UUID)
