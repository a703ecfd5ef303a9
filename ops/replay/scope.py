"""Which part of which topics is meant, and where does it end?

The words of the command are turned into offsets once, before anything is done: what is written to a topic after that is
not part of it, least of all what the replay itself writes.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from shared.errors import Invalid
from shared.events import CATALOGUE
from shared.kafka import Span, Spans, find_offsets, measure_topics
from shared.settings import KafkaSettings

_durations: TypeAdapter[timedelta] = TypeAdapter(timedelta)

#: By topic, then by partition: offsets, as a file lists them.
Listed = Mapping[str, Mapping[int, frozenset[int]]]


class Position(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of some topics in the operator's words: between two offsets, between two times, or what a file lists.

    `topics` names the partitions of each (None: all); what is not said is without limit. Both ends are exclusive.
    """

    topics: Mapping[str, frozenset[int] | None]
    from_offset: int | None = None
    to_offset: int | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None
    listed: Listed | None = None


def parse_topics(texts: Sequence[str]) -> dict[str, frozenset[int] | None]:
    """Read `TOPIC` and `TOPIC:0,3` as the Kafka tools do; a topic that is named twice means both.

    Raises:
        Invalid: no topic of events or commands, or no numbers behind the colon.
    """
    topics: dict[str, frozenset[int] | None] = {}
    for text in texts:
        name, colon, numbers = text.partition(":")
        if name not in CATALOGUE:
            detail = f"{name} is none of the topics that can be replayed: {', '.join(CATALOGUE)}."
            if name.endswith(".dlq"):
                detail += " Dead letters are sent again by `holdfast dlq redrive`."
            raise Invalid(detail)
        wanted = _parse_partitions(text, numbers) if colon else None
        before = topics.get(name, frozenset())
        topics[name] = None if wanted is None or before is None else before | wanted
    return topics


def _parse_partitions(text: str, numbers: str) -> frozenset[int]:
    try:
        partitions = frozenset(int(number) for number in numbers.split(","))
    except ValueError:
        partitions = frozenset()
    if not partitions or min(partitions) < 0:
        detail = f"{text}: partitions are numbers with commas between them, as in order.events:0,3."
        raise Invalid(detail)
    return partitions


def parse_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration.

    Raises:
        Invalid: it is none, or not longer than nothing.
    """
    try:
        duration = _durations.validate_python(text)
    except ValidationError:
        duration = timedelta(0)
    if not text.upper().startswith("P") or duration <= timedelta(0):
        detail = f"{text}: a duration is written like PT1H30M or P7D."
        raise Invalid(detail)
    return duration


def read_listed(file: Path) -> Listed:
    """Read `topic,partition,offset` a line, as `--export` and the Kafka tools write it.

    Raises:
        Invalid: the file cannot be read, or a line is something else.
    """
    listed: dict[str, dict[int, set[int]]] = {}
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                if row:
                    position = _read_row(file, number, row)
                    partitions = listed.setdefault(position.topic, {})
                    partitions.setdefault(position.partition, set()).add(position.offset)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        detail = f"{file} cannot be read: {error}"
        raise Invalid(detail) from error
    if not listed:
        detail = f"{file} lists nothing."
        raise Invalid(detail)
    return {
        topic: {partition: frozenset(offsets) for partition, offsets in partitions.items()}
        for topic, partitions in listed.items()
    }


def _read_row(file: Path, number: int, row: Sequence[str]) -> Position:
    try:
        topic, partition, offset = row
        position = Position(topic.strip(), int(partition), int(offset))
    except ValueError as error:
        detail = f"{file}, line {number}: not topic,partition,offset."
        raise Invalid(detail) from error
    if position.topic not in CATALOGUE or position.partition < 0 or position.offset < 0:
        detail = f"{file}, line {number}: there is no {','.join(row)} in the topics that can be replayed."
        raise Invalid(detail)
    return position


async def resolve(kafka: KafkaSettings, scope: Scope) -> dict[str, dict[int, Span]]:
    """Return the offsets that a scope means now; an empty part is left out.

    Raises:
        Invalid: a partition that the topic has not.
        NotFound: a topic is missing.
        Unavailable: Kafka does not answer.
    """
    there = await measure_topics(kafka, scope.topics)
    wanted = {
        topic: {
            number: span
            for number, span in there[topic].items()
            if number in _partitions(topic, scope, there)
        }
        for topic in scope.topics
    }
    if scope.from_time is not None:
        first = await find_offsets(kafka, wanted, scope.from_time)
        wanted = _cut(wanted, begins=first)
    if scope.to_time is not None:
        last = await find_offsets(kafka, wanted, scope.to_time)
        wanted = _cut(wanted, ends=last)
    return {
        topic: {
            number: cut
            for number, span in partitions.items()
            if (cut := _cut_span(span, topic, number, scope)).begin < cut.end
        }
        for topic, partitions in wanted.items()
    }


def _partitions(topic: str, scope: Scope, there: Spans) -> frozenset[int]:
    """Return the partitions of a topic that are meant."""
    wanted = scope.topics[topic]
    if scope.listed is not None:
        listed = frozenset(scope.listed.get(topic, {}))
        wanted = listed if wanted is None else wanted & listed
    if wanted is None:
        return frozenset(there[topic])
    missing = sorted(wanted - there[topic].keys())
    if missing:
        detail = f"{topic} has no partition {', '.join(map(str, missing))}: it has {len(there[topic])}."
        raise Invalid(detail)
    return wanted


def _cut(
    spans: Spans,
    *,
    begins: Mapping[str, Mapping[int, int]] | None = None,
    ends: Mapping[str, Mapping[int, int]] | None = None,
) -> dict[str, dict[int, Span]]:
    return {
        topic: {
            number: Span(
                max(span.begin, begins[topic][number]) if begins else span.begin,
                min(span.end, ends[topic][number]) if ends else span.end,
            )
            for number, span in partitions.items()
        }
        for topic, partitions in spans.items()
    }


def _cut_span(span: Span, topic: str, number: int, scope: Scope) -> Span:
    """Return what offsets, or a file, leave of a partition."""
    begin, end = span
    if scope.from_offset is not None:
        begin = max(begin, scope.from_offset)
    if scope.to_offset is not None:
        end = min(end, scope.to_offset)
    if scope.listed is not None:
        offsets = scope.listed[topic][number]
        begin, end = max(begin, min(offsets)), min(end, max(offsets) + 1)
    return Span(begin, end)


def count_records(spans: Spans) -> int:
    """Return how many records there are between the offsets, as far as none was deleted."""
    return sum(span.end - span.begin for partitions in spans.values() for span in partitions.values())
