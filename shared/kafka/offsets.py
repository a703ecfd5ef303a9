"""What does Kafka hold of some topics, how far has a group read them, and what do they say from beginning to end?"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.envelope import Record
from shared.errors import NotFound, Unavailable
from shared.kafka.connection import connection
from shared.kafka.publisher import REQUEST_BYTES_MAX
from shared.kafka.topics import administrator, list_topics
from shared.settings import KafkaSettings

_CLIENT = "holdfast-offsets"
_FETCH_BYTES_MAX = 16 * 1024 * 1024
_RECORDS_MAX = 5_000
_POLL_SECONDS = 0.5
_RETRY_SECONDS = 0.2


class Span(NamedTuple):
    """The offsets of a partition: the first that is still there, and the one that comes next."""

    begin: int
    end: int


#: By topic, then by partition.
Spans = Mapping[str, Mapping[int, Span]]


async def measure_topics(settings: KafkaSettings, topics: Collection[str]) -> dict[str, dict[int, Span]]:
    """Return what there is of each partition of some topics.

    Raises:
        NotFound: a topic is missing.
        Unavailable: Kafka does not answer.
    """
    counts = await list_topics(settings)
    missing = sorted(topic for topic in topics if topic not in counts)
    if missing:
        detail = f"Kafka has no topic {', '.join(missing)}."
        raise NotFound(detail)
    async with _reader(settings) as reader:
        wanted = [
            TopicPartition(topic, number) for topic in sorted(topics) for number in range(counts[topic])
        ]
        begins = await reader.beginning_offsets(wanted)
        ends = await reader.end_offsets(wanted)
    spans: dict[str, dict[int, Span]] = {topic: {} for topic in sorted(topics)}
    for partition in wanted:
        spans[partition.topic][partition.partition] = Span(begins[partition], ends[partition])
    return spans


async def find_offsets(settings: KafkaSettings, spans: Spans, at: datetime) -> dict[str, dict[int, int]]:
    """Return the first offset of each partition that was written at a time or after it; its end if there is none.

    Raises:
        Unavailable: Kafka does not answer.
    """
    milliseconds = max(0, int(at.timestamp() * 1000))
    wanted = [TopicPartition(topic, number) for topic, partitions in spans.items() for number in partitions]
    async with _reader(settings) as reader:
        found = await reader.offsets_for_times(dict.fromkeys(wanted, milliseconds)) if wanted else {}
    offsets: dict[str, dict[int, int]] = {topic: {} for topic in spans}
    for topic, number in wanted:
        first = found[TopicPartition(topic, number)]
        offsets[topic][number] = spans[topic][number].end if first is None else first.offset
    return offsets


async def list_committed_offsets(settings: KafkaSettings, group: str) -> dict[tuple[str, int], int]:
    """Return which offset a group reads next, by topic and partition; without those it has not read yet.

    Raises:
        Unavailable: Kafka does not answer.
    """
    async with administrator(settings) as admin, asyncio.timeout(settings.request_timeout_seconds):
        committed = None
        while committed is None:
            try:
                committed = await admin.list_consumer_group_offsets(group)
            except KafkaError as error:
                # A new cluster makes the topic of the offsets only when it is first asked for one.
                if not error.retriable:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)
    return {
        (partition.topic, partition.partition): found.offset
        for partition, found in committed.items()
        if found.offset >= 0
    }


async def read_spans(settings: KafkaSettings, spans: Spans) -> AsyncGenerator[Record, None]:
    """Yield every record of some spans, each partition's in order; what retention has deleted meanwhile is passed over.

    Raises:
        Unavailable: Kafka does not answer, or not any more.
    """
    ends = {
        TopicPartition(topic, number): span.end
        for topic, partitions in spans.items()
        for number, span in partitions.items()
        if span.begin < span.end
    }
    if not ends:
        return
    async with _reader(settings) as reader:
        reader.assign(list(ends))
        for partition in ends:
            reader.seek(partition, spans[partition.topic][partition.partition].begin)
        patience = _Patience(settings.request_timeout_seconds * 3)
        while ends:
            found = await reader.getmany(timeout_ms=round(_POLL_SECONDS * 1000), max_records=_RECORDS_MAX)
            for partition, records in found.items():
                for record in records:
                    if record.offset < ends.get(partition, 0):
                        yield record
            read = [partition for partition, end in ends.items() if await reader.position(partition) >= end]
            for partition in read:
                del ends[partition]
                reader.pause(partition)
            patience.check(moved=bool(found or read))


class _Patience:
    """Gives up when nothing has moved for a while."""

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
        self._moved_at = self._now()

    def check(self, *, moved: bool) -> None:
        """Raise `Unavailable` if nothing has moved for too long."""
        if moved:
            self._moved_at = self._now()
        elif self._now() - self._moved_at > self._seconds_max:
            raise Unavailable("Kafka does not answer: it sends nothing more of a topic that has not ended.")

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


@asynccontextmanager
async def _reader(settings: KafkaSettings) -> AsyncIterator[AIOKafkaConsumer]:
    """Lend a consumer without a group, assigned to nothing."""
    reader = AIOKafkaConsumer(
        **connection(settings, _CLIENT),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_bytes=_FETCH_BYTES_MAX,
        max_partition_fetch_bytes=REQUEST_BYTES_MAX,
    )
    try:
        await reader.start()
        yield reader
    except (KafkaError, OSError) as error:
        detail = f"Kafka does not answer: {error!r}"
        raise Unavailable(detail) from error
    finally:
        await reader.stop()
