"""Which dead letters are there, what do they say, and what has become of each?"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import orjson

from deploy.local.migrations import SERVICES
from ops.dead_letters import store
from shared.database import Connection
from shared.envelope import (
    REDRIVE_GROUP_HEADER,
    REDRIVE_HEADER,
    Headers,
    Record,
    header,
    is_structured,
    message_id,
)
from shared.errors import NotFound
from shared.ids import position_id
from shared.kafka import Span, list_topics, measure_topics, read_spans
from shared.outbox import dead_letter_topic
from shared.settings import KafkaSettings

_ENDING = ".dlq"
_GROUPS: Mapping[str, str] = {f"{service}-service": service for service in SERVICES}
#: How many letters are looked up in the inbox at once, and held in memory for it.
_CHUNK = 500


class State(StrEnum):
    """What has become of a letter: nothing yet, it was sent again, or somebody laid it aside."""

    WAITING = "waiting"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class LetterTopic:
    """A dead-letter topic: what `group` refused of `origin`, and whose database remembers it."""

    name: str
    origin: str
    group: str
    service: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it stands in its topic; key, value and headers are the bytes that were refused.

    `event_ids` are the ids under which its consumer may remember it, the likeliest first. `is_handled` says that the
    consumer has applied the event since.
    """

    topic: LetterTopic
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    event_ids: Sequence[UUID]
    state: State = State.WAITING
    is_handled: bool = False

    @property
    def event_id(self) -> UUID:
        """The id of the event, or one made of its position where it has none that is usable."""
        return self.event_ids[0]

    @property
    def reason(self) -> str:
        """Why it was refused, in one word."""
        return self.text("dlq_reason") or "unknown"

    @property
    def type(self) -> str:
        """The type of the event, as far as it says one."""
        return self.text("ce_type") or ""

    @property
    def refused_at(self) -> datetime | None:
        """When it was refused; None if it does not say."""
        return _read_time(self.text("dlq_at"))

    @property
    def key_text(self) -> str:
        """The key, with what is no text escaped."""
        return _text(self.key) or ""

    @property
    def redrives(self) -> int:
        """How often it had been sent again before it was refused this time."""
        count = self.text(REDRIVE_HEADER) or ""
        return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0  # noqa: PLR2004 (a sane number)

    @property
    def place(self) -> str:
        """Where it stands in its dead-letter topic."""
        return f"{self.partition}/{self.offset}"

    def text(self, name: str) -> str | None:
        """Return the first value of a header, with what is no text escaped."""
        return _text(header(self.headers, name))

    def concerns(self, order_id: str) -> bool:
        """Tell whether it is about an order: by its key, its subject, its correlation id, or its body."""
        if order_id in {self.key_text, self.text("ce_subject"), self.text("ce_correlationid")}:
            return True
        return order_id.encode() in (self.value or b"")


def service_of(group: str) -> str | None:
    """Return the service whose consumers are this group."""
    return _GROUPS.get(group)


async def find_topics(
    kafka: KafkaSettings, named: str | None = None, *, group: str | None = None
) -> list[LetterTopic]:
    """Return the dead-letter topics: all, those of a topic, or the one of that very name; of one group or of all.

    Raises:
        NotFound: there is none; says which there are.
        Unavailable: Kafka does not answer.
    """
    there = [topic for name in sorted(await list_topics(kafka)) if (topic := topic_named(name)) is not None]
    found = [
        topic for topic in there if named in {None, topic.name, topic.origin} and group in {None, topic.group}
    ]
    if not found:
        names = ", ".join(topic.name for topic in there) or "none (`holdfast topics` creates them)"
        wanted = f"{named or 'any topic'}{f' and the group {group}' if group else ''}"
        detail = f"There are no dead letters for {wanted}. The dead-letter topics are: {names}."
        raise NotFound(detail)
    return found


def topic_named(name: str) -> LetterTopic | None:
    """Return what a topic's name says of it; None if it is no dead-letter topic of a service."""
    origin, _, group = name.removesuffix(_ENDING).rpartition(".")
    service = service_of(group)
    if service is None or not origin or name != dead_letter_topic(origin, group):
        return None
    return LetterTopic(name, origin, group, service)


async def survey(
    connection: Connection, kafka: KafkaSettings, topic: LetterTopic
) -> AsyncGenerator[Letter, None]:
    """Yield every letter of a topic, the oldest first, with what has become of it.

    Args:
        connection: to the database of the service that refused them.
        kafka: where the letters are.
        topic: one dead-letter topic.

    Raises:
        NotFound: the topic is missing.
        Unavailable: Kafka does not answer.
    """
    spans = await measure_topics(kafka, [topic.name])
    decided = await _decisions(connection, topic)
    async with aclosing(read_spans(kafka, spans)) as records:
        async for chunk in _chunks(records):
            for letter in await _with_states(connection, [read(topic, record) for record in chunk], decided):
                yield letter


async def find_letter(
    connection: Connection, kafka: KafkaSettings, topic: LetterTopic, partition: int, offset: int
) -> Letter:
    """Return one letter by its place.

    Raises:
        NotFound: there is none; says which offsets there are.
        Unavailable: Kafka does not answer.
    """
    spans = (await measure_topics(kafka, [topic.name]))[topic.name]
    span = spans.get(partition)
    if span is None or not span.begin <= offset < span.end:
        there = ", ".join(
            f"{number}: {span.begin} to {span.end - 1}" if span.begin < span.end else f"{number}: none"
            for number, span in sorted(spans.items())
        )
        detail = f"{topic.name} has no letter {partition}/{offset}. Its partitions hold the offsets {there}."
        raise NotFound(detail)
    wanted = {topic.name: {partition: Span(offset, offset + 1)}}
    async with aclosing(read_spans(kafka, wanted)) as records:
        async for record in records:
            decided = await _decisions(connection, topic)
            (letter,) = await _with_states(connection, [read(topic, record)], decided)
            return letter
    detail = f"{topic.name} holds nothing at {partition}/{offset} any more."
    raise NotFound(detail)


def read(topic: LetterTopic, record: Record) -> Letter:
    """Return a record of a dead-letter topic as a letter of which nothing is known yet."""
    return Letter(
        topic=topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=record.headers,
        event_ids=_event_ids(record),
    )


def _event_ids(record: Record) -> list[UUID]:
    """Return the ids under which a consumer may remember a letter (`shared.envelope`), the likeliest first."""
    ids = []
    by_header = message_id(record)
    if by_header != position_id(record.topic, record.partition, record.offset):
        ids.append(by_header)
    elif is_structured(record):
        ids += _structured_id(record)
    topic, partition, offset = (
        _text(header(record.headers, name)) for name in ("dlq_topic", "dlq_partition", "dlq_offset")
    )
    if topic and partition and offset and partition.isdecimal() and offset.isdecimal():
        ids.append(position_id(topic, int(partition), int(offset)))
    return ids or [by_header]


def _structured_id(record: Record) -> list[UUID]:
    try:
        return [UUID(str(orjson.loads(record.value or b"")["id"]))]
    except (ValueError, TypeError, KeyError):
        return []


#: By place: for which event, and what was decided last.
_Decided = Mapping[tuple[int, int], tuple[UUID, State]]


async def _decisions(connection: Connection, topic: LetterTopic) -> _Decided:
    states = {store.REDRIVE: State.REDRIVEN, store.DISCARD: State.DISCARDED}
    return {
        (decision.partition, decision.offset): (decision.event_id, states[decision.command])
        for decision in await store.list_decisions(connection, topic.name)
    }


async def _with_states(connection: Connection, letters: Sequence[Letter], decided: _Decided) -> list[Letter]:
    """Return letters with what the inbox and the operators' actions say of each.

    A decision counts for the event it was taken about: in a topic that was made anew, another letter has its place.
    """
    if not letters:
        return []
    ids: Collection[UUID] = {event_id for letter in letters for event_id in letter.event_ids}
    outcomes = await store.find_outcomes(connection, letters[0].topic.group, ids)
    found = []
    for letter in letters:
        is_handled = any(outcomes.get(event_id) == "handled" for event_id in letter.event_ids)
        event_id, state = decided.get((letter.partition, letter.offset), (None, State.WAITING))
        if event_id not in letter.event_ids:
            state = State.WAITING
        if is_handled:
            state = State.REDRIVEN
        found.append(replace(letter, state=state, is_handled=is_handled))
    return found


async def _chunks(records: AsyncIterator[Record]) -> AsyncGenerator[list[Record], None]:
    chunk: list[Record] = []
    async for record in records:
        chunk.append(record)
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    yield chunk


def belongs(letter: Letter) -> str | None:
    """Return why a record of a dead-letter topic is none of its letters; None if it is one."""
    said = {name: letter.text(name) for name in ("dlq_topic", REDRIVE_GROUP_HEADER)}
    ought = {"dlq_topic": letter.topic.origin, REDRIVE_GROUP_HEADER: letter.topic.group}
    for name, value in ought.items():
        if said[name] != value:
            return f"its header {name} says {said[name]!r}, not {value!r}"
    return None


def _read_time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
