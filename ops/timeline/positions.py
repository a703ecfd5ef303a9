"""Where in Kafka are the messages about one order?

A key has one partition in each topic, so one of each is read, from when the order began, and not for ever.
"""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, cast
from uuid import UUID

import orjson

from deploy.local.topics import DEAD_LETTER_TOPICS
from ops.timeline.facts import Letter, Position
from ops.timeline.limits import TimelineLimits
from shared.envelope import REDRIVE_GROUP_HEADER, REDRIVE_HEADER, Record, is_structured, message_id
from shared.events import COMMANDS_TOPIC, INVENTORY_TOPIC, ORDER_TOPIC, PAYMENT_TOPIC
from shared.kafka import Span, find_offsets, measure_topics, partition_of, read_spans
from shared.settings import KafkaSettings

TOPICS = (COMMANDS_TOPIC, ORDER_TOPIC, INVENTORY_TOPIC, PAYMENT_TOPIC, *DEAD_LETTER_TOPICS)


#: A command may have waited before it became an order, and clocks differ.
_BEFORE = timedelta(hours=1)


class _Stamped(Protocol):
    """What a record also says: when it was written, in milliseconds."""

    timestamp: int


class Found(NamedTuple):
    """The positions of an order's messages, and what was not looked at."""

    positions: list[Position]
    notes: list[str]


async def find_positions(
    kafka: KafkaSettings, order_id: UUID, limits: TimelineLimits, *, since: datetime | None
) -> Found:
    """Return where the messages about an order are, by topic and offset.

    Messages are looked at that were written after `since`, when the order began, and a while before; where that is not
    known, the newest.

    Raises:
        NotFound: a topic is missing.
        Unavailable: Kafka does not answer.
    """
    key = str(order_id).encode()
    found = Found([], [])
    spans = {
        topic: {number: partitions[number]}
        for topic, partitions in (await measure_topics(kafka, TOPICS)).items()
        for number in [partition_of(key, len(partitions))]
    }
    begins = None if since is None else await find_offsets(kafka, spans, since - _BEFORE)
    for topic, partitions in spans.items():
        for number, span in partitions.items():
            begin = None if begins is None else begins[topic][number]
            partitions[number] = _cut(f"{topic}[{number}]", span, begin, limits, found.notes)
    await _read(kafka, spans, key, limits, found)
    places = {topic: place for place, topic in enumerate(TOPICS)}
    found.positions.sort(key=lambda position: (places[position.topic], position.offset))
    return found


def _cut(name: str, span: Span, begin: int | None, limits: TimelineLimits, notes: list[str]) -> Span:
    """Return what is read of a span: from `begin` on, or its newest; note what is left out."""
    if begin is not None:
        span = Span(max(span.begin, begin), span.end)
    count = span.end - span.begin
    if count <= limits.records_max:
        return span
    which = "newest" if begin is None else "first, since the order began,"
    notes.append(
        f"{name}: only the {which} {limits.records_max:,} of {count:,} messages were looked at; --records-max looks "
        "at more."
    )
    if begin is None:
        return Span(span.end - limits.records_max, span.end)
    return Span(span.begin, span.begin + limits.records_max)


async def _read(
    kafka: KafkaSettings,
    spans: dict[str, dict[int, Span]],
    key: bytes,
    limits: TimelineLimits,
    found: Found,
) -> None:
    total = sum(span.end - span.begin for partitions in spans.values() for span in partitions.values())
    count = 0
    try:
        async with (
            asyncio.timeout(limits.kafka_seconds_max),
            aclosing(read_spans(kafka, spans)) as records,
        ):
            async for record in records:
                count += 1
                if record.key == key:
                    found.positions.append(read_position(record))
    except TimeoutError:
        found.notes.append(
            f"Kafka: {count:,} of {total:,} messages were looked at within {limits.kafka_seconds_max:g} s; "
            "--kafka-seconds-max takes longer."
        )


def read_position(record: Record) -> Position:
    """Return what a record says of itself; whatever it lacks or spoils is left out."""
    headers = {
        name: value.decode(errors="replace") for name, value in reversed(record.headers) if value is not None
    }
    number = headers.get("ce_sequence", "")
    letter = _read_letter(headers) if record.topic in DEAD_LETTER_TOPICS else None
    inside = _inside(record)
    return Position(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        type=headers.get("ce_type") or inside.get("type") or "(no type)",
        event_id=inside.get("id") or str(message_id(record)),
        sequence=int(number) if number.isascii() and number.isdigit() else None,
        at=_read_time(headers.get("dlq_at" if letter else "ce_time"), record),
        cause=headers.get("ce_causationid"),
        redriven_to=headers.get(REDRIVE_GROUP_HEADER) if REDRIVE_HEADER in headers else None,
        letter=letter,
    )


def _read_letter(headers: dict[str, str]) -> Letter:
    return Letter(
        group=headers.get("dlq_group", "?"),
        reason=headers.get("dlq_reason", "?"),
        detail=headers.get("dlq_error", ""),
        read_at=f"{headers.get('dlq_topic')}[{headers.get('dlq_partition')}] offset {headers.get('dlq_offset')}",
    )


def _inside(record: Record) -> dict[str, str]:
    """Return the texts of a structured-mode command, which has its type and its id inside its value."""
    if not is_structured(record):
        return {}
    try:
        document: Any = orjson.loads(record.value or b"")
    except ValueError:
        return {}
    fields = document.items() if isinstance(document, dict) else ()
    return {name: value for name, value in fields if isinstance(value, str)}


def _read_time(text: str | None, record: Record) -> datetime:
    """Return the time that a message names, or else the time at which it was written."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        at = None
    if at is not None and at.tzinfo is not None:
        return at.astimezone(UTC)
    return datetime.fromtimestamp(cast("_Stamped", record).timestamp / 1000, UTC)
