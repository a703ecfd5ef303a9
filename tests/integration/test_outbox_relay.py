"""Does every outbox row reach Kafka, each at least once and in the order of its key, whatever dies on the way?"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from uuid import UUID

import pytest

from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import EmbeddedPostgres
from shared import outbox
from shared.database import Connection, Database
from shared.envelope import Headers
from shared.health import Health
from shared.ids import new_id
from shared.kafka import Publisher, TopicSpec, create_topics
from shared.outbox import DeadLetter, OutboxRow, insert_outbox
from shared.relay import Relay
from shared.settings import KafkaSettings
from tests.feeding import FakeRecord
from tests.integration.conftest import Stream
from tests.integration.streams import counted, header_of, read, reading, row, running, waiting_rows
from tests.waiting import eventually


def relay(
    dsn: str,
    kafka: KafkaSettings,
    *,
    name: str = "tests",
    health: Health | None = None,
    interval: float = 0.1,
) -> Relay:
    """Return a relay that looks often."""
    return Relay(dsn, kafka, name=name, health=health or Health(), interval_seconds=interval)


async def put(database: Database, rows: Sequence[OutboxRow]) -> None:
    """Write outbox rows in a transaction of their own."""
    async with database.transaction() as tx:
        await insert_outbox(tx, rows)


async def empty(database: Database) -> None:
    """Wait until the outbox is empty."""

    async def is_empty() -> bool:
        return await waiting_rows(database) == 0

    await eventually(is_empty, what="an empty outbox")


async def sessions(postgres: EmbeddedPostgres, application_name: str) -> list[str]:
    """Return the process ids of an application's sessions in Postgres."""
    text = await postgres.psql(
        "SELECT pid FROM pg_stat_activity WHERE application_name = :'name'", name=application_name
    )
    return text.split()


async def cut_off(postgres: EmbeddedPostgres, application_name: str) -> None:
    """Terminate an application's sessions in Postgres."""
    await postgres.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :'name'",
        name=application_name,
    )


async def test_the_order_of_each_key_is_kept(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """Rows of many transactions arrive, per key, in the order in which they were written, each once."""
    keys = [new_id() for _ in range(20)]
    for number in range(0, 30, 2):
        await put(shared_db, [counted(stream, number + step, key=key) for key in keys for step in (0, 1)])

    async with running(relay(shared_db.dsn, kafka_settings)):
        records = await read(kafka_settings, stream.topic, 600)
        await empty(shared_db)

    sequences = defaultdict(list)
    for record in records:
        sequences[record.key].append(int(header_of(record, "ce_sequence") or 0))
    assert {*sequences} == {str(key).encode() for key in keys}
    assert all(sequence == [*range(1, 31)] for sequence in sequences.values())


async def test_nothing_is_lost_when_transactions_commit_in_another_order_than_their_ids(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """A row with a small id that becomes visible long after larger ones were sent is sent as well."""
    late, early = counted(stream, 1), counted(stream, 2)

    async with running(relay(shared_db.dsn, kafka_settings)), reading(kafka_settings, stream.topic) as reader:
        async with shared_db.transaction() as tx:
            await insert_outbox(tx, [late])
            await put(shared_db, [early])
            (first,) = await reader.until(1)
            await empty(shared_db)
        records = await reader.until(2)

    assert header_of(first, "ce_id") == str(early.event_id)
    assert [header_of(record, "ce_id") for record in records[1:]] == [str(late.event_id)]


async def test_nothing_is_lost_when_many_transactions_overlap(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """200 transactions, 5 at a time, each of which holds its ids for a while before it commits."""
    rows = [counted(stream, number) for number in range(200)]
    lanes = asyncio.Semaphore(5)

    async def write_slowly(item: OutboxRow, number: int) -> None:
        async with lanes, shared_db.transaction() as tx:
            await insert_outbox(tx, [item])
            await tx.execute("SELECT pg_sleep($1)", number * 7 % 5 / 200)

    async with running(relay(shared_db.dsn, kafka_settings)):
        await asyncio.gather(*(write_slowly(item, number) for number, item in enumerate(rows)))
        records = await read(kafka_settings, stream.topic, 200)
        await empty(shared_db)

    assert sorted(header_of(record, "ce_id") or "" for record in records) == sorted(
        str(item.event_id) for item in rows
    )


async def test_a_relay_that_dies_between_send_and_delete_sends_again_with_the_same_id(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    postgres: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kafka then holds each event twice under one `ce_id`, and the outbox forgets it once."""
    rows = [counted(stream, number) for number in range(5)]
    await put(shared_db, rows)
    cut = asyncio.Event()

    async def cut_before_delete(tx: Connection, ids: Sequence[int]) -> None:
        if not cut.is_set():
            cut.set()
            await cut_off(postgres, f"{stream.group}-relay")
        await outbox.delete_outbox(tx, ids)

    monkeypatch.setattr("shared.relay.outbox", _Patched(cut_before_delete))
    async with running(relay(shared_db.dsn, kafka_settings, name=stream.group)):
        records = await read(kafka_settings, stream.topic, 10)
        await empty(shared_db)

    assert cut.is_set()
    assert sorted(header_of(record, "ce_id") or "" for record in records) == sorted(
        2 * [str(item.event_id) for item in rows]
    )


class _Patched:
    """The module `outbox` with another `delete_outbox`."""

    def __init__(self, delete: object) -> None:
        self.delete_outbox = delete

    def __getattr__(self, name: str) -> object:
        return getattr(outbox, name)


async def test_a_second_relay_follows_and_takes_over_when_the_first_is_gone(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """While the leader lives, the follower sends nothing; afterwards it does, and nothing is sent twice."""
    leader, follower = (
        relay(shared_db.dsn, kafka_settings, name=f"{stream.group}-{name}") for name in ("first", "second")
    )
    rows = [counted(stream, number) for number in range(2)]

    async with reading(kafka_settings, stream.topic) as reader, running(leader) as (leading,):
        await put(shared_db, rows[:1])
        # Not only sent but deleted: else it is sent again, rightly.
        await empty(shared_db)
        async with running(follower):
            leading.cancel()
            await put(shared_db, rows[1:])
            records = await reader.until(2)
            await empty(shared_db)

    assert [header_of(record, "ce_id") for record in records] == [str(item.event_id) for item in rows]


async def test_there_is_never_more_than_one_leader(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, postgres: EmbeddedPostgres
) -> None:
    """Of four relays one holds the lock; when its session is cut off, another session holds it."""
    relays = [relay(shared_db.dsn, kafka_settings, name=f"{stream.group}-{place}") for place in range(4)]

    async def leaders() -> list[int]:
        async with shared_db.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                WHERE locktype = 'advisory' AND granted AND datname = current_database()
                """
            )
        return [found["pid"] for found in rows]

    async with running(*relays):
        (before,) = await eventually(leaders)
        await postgres.psql("SELECT pg_terminate_backend(:pid)", pid=str(before))

        async def another() -> list[int]:
            return [pid for pid in await leaders() if pid != before]

        after = await eventually(another)
        await put(shared_db, [counted(stream, 1)])
        await read(kafka_settings, stream.topic, 1)

    assert len(after) == 1


async def test_a_row_that_cannot_be_sent_does_not_block_the_others(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """Rows for a topic that does not exist, or larger than theirs allows, stay behind; all others are sent."""
    key = new_id()
    good = [counted(stream, number, key=key) for number in range(4)]
    huge = OutboxRow(new_id(), stream.topic, str(key).encode(), "Raw.v1", 9, [], b"x" * 2_000_000)
    await put(shared_db, [good[0], row("no-such-topic"), good[1], huge, good[2]])

    async with running(relay(shared_db.dsn, kafka_settings)), reading(kafka_settings, stream.topic) as reader:
        await reader.until(3, timeout_seconds=8)
        await put(shared_db, [good[3]])
        records = await reader.until(4, timeout_seconds=8)

        async def only_the_bad() -> bool:
            return await waiting_rows(shared_db) == 2

        await eventually(only_the_bad)

    assert [header_of(record, "ce_id") for record in records] == [str(item.event_id) for item in good]


async def test_a_batch_that_is_too_large_for_its_topic_is_sent_row_by_row(
    shared_db: Database, kafka_settings: KafkaSettings
) -> None:
    """Small rows that are only together over the topic's limit all arrive, in order."""
    topic = f"small-{new_id().hex}"
    await create_topics(kafka_settings, [TopicSpec(topic, 1, config={"max.message.bytes": "3000"})])
    payloads = [bytes([65 + place]) * 1_000 for place in range(6)]
    await put(shared_db, [row(topic, payload=payload) for payload in payloads])

    async with running(relay(shared_db.dsn, kafka_settings)):
        records = await read(kafka_settings, topic, 6)
        await empty(shared_db)

    assert [record.value for record in records] == payloads


async def test_a_publisher_goes_on_after_a_refused_row(stream: Stream, kafka_settings: KafkaSettings) -> None:
    """The partition of a row that was too large takes the next ones at once, from the same publisher."""
    publisher = Publisher(kafka_settings, client_id="tests")
    await publisher.open()

    published = [
        await publisher.publish([row(stream.topic, payload=payload)])
        for payload in (b"1", b"x" * 2_000_000, b"2")
    ]
    await publisher.close()

    assert [one.acknowledged for one in published] == [[0], [], [0]]
    assert [*published[1].refused] == [0]


async def test_a_commit_wakes_the_relay(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """An event leaves at once, though the relay would look by itself only after a minute."""
    async with running(relay(shared_db.dsn, kafka_settings, interval=60)):
        await put(shared_db, [counted(stream, 1)])
        await read(kafka_settings, stream.topic, 1)
        await put(shared_db, [counted(stream, 2)])

        await read(kafka_settings, stream.topic, 2)


async def test_a_relay_that_stops_sends_first_what_is_there(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """A service that is told to stop leaves no event behind that it could still send."""
    item = relay(shared_db.dsn, kafka_settings, interval=60)
    stopping = asyncio.Event()
    task = asyncio.create_task(item.run(stopping))
    await put(shared_db, [counted(stream, 0)])
    await empty(shared_db)

    await put(shared_db, [counted(stream, number) for number in range(1, 100)])
    stopping.set()
    await asyncio.wait_for(task, 10)

    assert await waiting_rows(shared_db) == 0


HOSTILE: list[tuple[bytes | None, bytes | None, Headers]] = [
    (None, None, []),
    (None, b"value", []),
    (b"key", None, [("ce_id", b"x")]),
    (b"", b"", [("", b"")]),
    (b"\x00\xff\xfe", b"\x00\xff" * 50, [("ce_id", b"\x00\xff"), ("ce_type", None)]),
    (b"k", b"{}", [("twice", b"1"), ("twice", b"2"), ("twice", b"1")]),
    (b"k", b"{}", [("ünï\x00\u2028", "ünï".encode()), ("quote\"\\'", b"\"\\'")]),
    (b"k", b"x" * 900_000, [("ce_type", b"PlaceOrder.v1")]),
]


async def test_a_dead_letter_keeps_key_value_and_headers_byte_for_byte(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings
) -> None:
    """Whatever was in the record is in its dead letter, with the reasons after it, and nothing else."""
    letters = [
        DeadLetter(
            FakeRecord(topic=stream.topic, partition=3, offset=place, key=key, value=value, headers=headers),
            new_id(),
            "undecodable",
            "a sentence",
        )
        for place, (key, value, headers) in enumerate(HOSTILE)
    ]
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    async with shared_db.transaction() as tx:
        await outbox.add_dead_letters(tx, letters, group=stream.group, at=at)

    async with running(relay(shared_db.dsn, kafka_settings)):
        records = await read(kafka_settings, f"{stream.topic}.{stream.group}.dlq", len(HOSTILE))

    found = {int(header_of(record, "dlq_offset") or -1): record for record in records}
    assert [found[place].key for place in range(len(HOSTILE))] == [key for key, _, _ in HOSTILE]
    assert [found[place].value for place in range(len(HOSTILE))] == [value for _, value, _ in HOSTILE]
    for place, (_, _, headers) in enumerate(HOSTILE):
        assert [*found[place].headers[: len(headers)]] == headers
        assert dict(found[place].headers[len(headers) :]) == {
            "dlq_reason": b"undecodable",
            "dlq_topic": stream.topic.encode(),
            "dlq_partition": b"3",
            "dlq_offset": str(place).encode(),
            "dlq_group": stream.group.encode(),
            "dlq_error": b"a sentence",
            "dlq_at": b"2026-03-01T12:00:00+00:00",
            "dlq_count": b"1",
            "dlq_version": version("holdfast").encode(),
        }


async def test_rows_wait_while_kafka_is_away_and_leave_when_it_is_back(
    shared_db: Database, stream: Stream, kafka: EmbeddedKafka
) -> None:
    """Writes go on, health says what is missing, and nothing is lost or out of order."""
    impatient = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, request_timeout_seconds=1)
    health, key = Health(), new_id()
    rows = [counted(stream, number, key=key) for number in range(20)]

    async with running(relay(shared_db.dsn, impatient, health=health)):
        await put(shared_db, rows[:10])
        await empty(shared_db)
        await kafka.stop()
        try:
            await put(shared_db, rows[10:])
            await eventually(lambda: "relay" in health.away, what="the relay to say that Kafka is away")
            assert await waiting_rows(shared_db) == 10
        finally:
            await kafka.start()
        await empty(shared_db)
        await eventually(lambda: "relay" not in health.away, what="the relay to say that it works")
        records = await read(impatient, stream.topic, 20)

    seen: list[UUID] = []
    for record in records:
        identity = UUID(header_of(record, "ce_id"))
        if identity not in seen:
            seen.append(identity)
    assert seen == [item.event_id for item in rows]
