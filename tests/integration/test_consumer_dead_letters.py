"""Is every message that cannot be handled kept whole, alone, and applied once when an operator sends it again?"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
import structlog
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from shared.consumer import Consumer, ConsumerLimits
from shared.database import Connection, Database
from shared.envelope import Message, Record, Refusal, message_id
from shared.errors import Conflict, LedgerViolation
from shared.events import COMMANDS_TOPIC, CancelOrder, PlaceOrder
from shared.health import Health
from shared.ids import new_id
from shared.kafka import GroupConsumer, TopicSpec, create_topics
from shared.outbox import OutboxRow
from shared.relay import Relay
from shared.settings import KafkaSettings
from tests.contracts.golden import sample_of
from tests.integration.conftest import MakeConsumer, Stream, dead_letters_of
from tests.integration.streams import (
    Effects,
    applied,
    counted,
    header_of,
    headers_of,
    letters,
    outcomes,
    publish,
    read,
    running,
    spoil,
    with_headers,
    without,
)
from tests.waiting import eventually

# --- dead letters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("five is right out"), Conflict("known under another content"), LedgerViolation()]
)
async def test_a_poisoned_message_is_diverted_alone(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make_consumer: MakeConsumer,
    error: Exception,
) -> None:
    """Of a batch of 64 the one that fails becomes a dead letter with its reason; the others have their effect."""
    key = new_id()
    rows = [counted(stream, number, key=key) for number in range(64)]
    await publish(kafka_settings, rows)

    async with running(make_consumer(Effects(bad=[5], error=error).handle)):
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
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """The batch is applied as a whole, once; the refused message is dead and moved nothing."""
    handler = Effects(refused=[2])
    key = new_id()
    rows = [counted(stream, number, key=key) for number in range(4)]
    await publish(kafka_settings, rows)

    async with running(make_consumer(handler.handle)):
        await eventually(applied(shared_db, [0, 1, 3]))

    (letter,) = await letters(shared_db)
    assert headers_of(letter)["dlq_reason"] == "conflict"
    assert headers_of(letter)["dlq_error"] == "this number is refused"
    assert (await outcomes(shared_db, stream.group))[rows[2].event_id] == "dead"
    assert [number for batch in handler.batches for number in batch] == [0, 1, 2, 3]


async def test_the_log_names_a_message_that_fails_and_its_order(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """Its failure, its dead letter, and what its handler logs when it is alone with it, are found by both ids."""
    order_id = new_id()
    rows = [counted(stream, number, key=order_id) for number in range(3)]
    log = structlog.get_logger()

    async def handle(_tx: Connection, batch: Sequence[Message[Any]]) -> Sequence[Refusal]:
        numbers = [message.event.number for message in batch]
        log.info("counting", numbers=numbers)
        if 1 in numbers:
            raise ValueError("uncountable")
        return []

    async def is_dead() -> bool:
        return len(await letters(shared_db)) == 1

    await publish(kafka_settings, rows)
    with capture_logs(processors=[merge_contextvars]) as lines:
        async with running(make_consumer(handle)):
            await eventually(is_dead)

    named = [line for line in lines if line.get("event_id") == str(rows[1].event_id)]
    assert {line["event"] for line in named} == {"counting", "message_failed", "dead_letter"}
    assert {line["order_id"] for line in named} == {str(order_id)}
    assert next(line for line in lines if line["event"] == "counting") == {
        "event": "counting",
        "numbers": [0, 1, 2],
        "log_level": "info",
    }


async def test_a_refused_message_stays_dead_when_it_is_delivered_again(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """A plain redelivery, also after newer events, brings neither an effect nor a second dead letter."""
    key = new_id()
    first, second, third = (counted(stream, number, key=key) for number in range(3))
    await publish(kafka_settings, [first, second, first, third, first])

    async with running(make_consumer(Effects(refused=[0]).handle, records_max=1)):
        await eventually(applied(shared_db, [1, 2]))
        await publish(kafka_settings, [counted(stream, 3, key=key)])
        await eventually(applied(shared_db, [1, 2, 3]))

    assert len(await letters(shared_db)) == 1


async def test_what_cannot_be_read_is_a_dead_letter_and_its_neighbours_are_applied(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
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

    async with running(make_consumer(Effects().handle)):
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
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """An event of the future is neither applied nor a dead letter."""
    future = counted(stream, 9)
    future = spoil(future, headers=[*without(future, "ce_type"), ("ce_type", b"Weighed.v1")])
    await publish(kafka_settings, [future, counted(stream, 1)])

    async with running(make_consumer(Effects().handle)):
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
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """When its cause is mended, the dead message has its effect, once however often it is redriven."""
    item = counted(stream, 5)
    await publish(kafka_settings, [item])
    async with running(make_consumer(Effects(bad=[5]).handle)):

        async def is_dead() -> bool:
            return await outcomes(shared_db, stream.group) == {item.event_id: "dead"}

        await eventually(is_dead)
    again = with_headers(item, dlq_redrive=b"1", dlq_group=stream.group.encode())
    await publish(kafka_settings, [item, again, again, item, counted(stream, 6)])

    async with running(make_consumer(Effects().handle)):
        await eventually(applied(shared_db, [5, 6]))

    assert (await outcomes(shared_db, stream.group))[item.event_id] == "handled"


async def test_a_redrive_for_another_group_is_passed_over(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """The others have handled the event long ago, or have it in their own dead letters."""
    foreign = with_headers(counted(stream, 5), dlq_redrive=b"1", dlq_group=b"another-group")
    await publish(kafka_settings, [foreign, spoil(foreign, payload=b"rubbish"), counted(stream, 6)])

    async with running(make_consumer(Effects().handle)):
        await eventually(applied(shared_db, [6]))

    assert await letters(shared_db) == []
    assert foreign.event_id not in await outcomes(shared_db, stream.group)


async def test_a_redrive_that_fails_again_is_a_dead_letter_again(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """Nothing is lost by redriving too early, decodable or not."""
    item = counted(stream, 5)
    redriven = with_headers(item, dlq_redrive=b"1", dlq_group=stream.group.encode())
    rubbish = spoil(
        with_headers(counted(stream, 6), dlq_redrive=b"1", dlq_group=stream.group.encode()), payload=b""
    )
    await publish(kafka_settings, [item])
    async with running(make_consumer(Effects(bad=[5]).handle)):

        async def count(expected: int) -> bool:
            return len(await letters(shared_db)) == expected

        await eventually(lambda: count(1))
        await publish(kafka_settings, [redriven, rubbish])
        await eventually(lambda: count(3))

    assert {*(await outcomes(shared_db, stream.group)).values()} == {"dead"}


async def test_a_message_without_an_id_is_remembered_by_its_position(
    shared_db: Database,
    stream: Stream,
    kafka_settings: KafkaSettings,
    make_consumer: MakeConsumer,
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
        async with running(make_consumer(Effects().handle)):
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
