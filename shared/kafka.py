"""How do the services reach Kafka?

The only module that imports aiokafka. A publisher that sends rows pipelined and never trusts an uncertain producer, a
group consumer with every limit set explicitly, and the few questions operators ask of topics.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
)
from aiokafka.partitioner import murmur2

from shared.envelope import Headers, Record
from shared.errors import Unavailable
from shared.settings import KafkaSettings

__all__ = [
    "GroupConsumer",
    "Outgoing",
    "Published",
    "Publisher",
    "TopicPartition",
    "TopicReader",
    "TopicSpec",
    "is_kafka_error",
]

#: Larger than a topic's own limit, so that a dead letter with its added headers still fits its topic.
REQUEST_BYTES_MAX = 4 * 1024 * 1024
_BATCH_BYTES_MAX = 768 * 1024
_BATCH_RECORDS_MAX = 10_000
_KEYS_REMEMBERED = 65_536
_SEND_TIMEOUTS = 2


def is_kafka_error(error: BaseException) -> bool:
    """Tell whether an error came from Kafka or from the way to it."""
    return isinstance(error, KafkaError | OSError | TimeoutError)


class Outgoing(Protocol):
    """The parts of a row that are sent."""

    @property
    def topic(self) -> str:
        """Where it goes."""

    @property
    def key(self) -> bytes | None:
        """What decides its partition."""

    @property
    def payload(self) -> bytes | None:
        """The value."""

    @property
    def headers(self) -> Headers:
        """The headers."""


@dataclass(slots=True)
class Published:
    """What became of rows, by their position: acknowledged, refused for good with why, or neither (not sent yet)."""

    acknowledged: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


class Publisher:
    """An idempotent producer that sends many rows at once and keeps the order of each partition.

    A failed send leaves its outcome unknown (out-of-order sequence, unknown producer, fenced, time-out): whoever
    publishes closes this publisher, opens a new one and sends again; consumers know what they had already.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._producer = self._build()
        self._partitions: dict[str, int] = {}
        # Falls to 1 for a round when a batch is larger than its topic allows, to find the row that is.
        self._batch_records_max = _BATCH_RECORDS_MAX

    def _build(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **_connection(self._settings, self._client_id),
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES_MAX,
            max_request_size=REQUEST_BYTES_MAX,
            linger_ms=0,
        )

    async def open(self) -> None:
        """Connect; raise `Unavailable` if Kafka does not answer."""
        try:
            await self._producer.start()
        except (KafkaError, OSError) as error:
            # An unstarted producer still holds sockets and a background task.
            await self.close()
            detail = f"Kafka does not answer: {error!r}"
            raise Unavailable(detail) from error

    async def close(self) -> None:
        """Disconnect, without waiting for what was not acknowledged."""
        try:
            async with asyncio.timeout(2):
                await self._producer.stop()
        except (KafkaError, OSError, TimeoutError):
            return

    async def publish(self, rows: Sequence[Outgoing]) -> Published:
        """Send rows and wait for every acknowledgement: at most one Kafka batch a partition, the rest stays unsent.

        Raises:
            KafkaError, OSError, TimeoutError: nothing is known of what was sent; open a new publisher.
        """
        published = Published()
        batches: dict[tuple[str, int], tuple[Any, list[int]]] = {}
        full: set[tuple[str, int]] = set()
        counts = {topic: await self._count_partitions(topic) for topic in {row.topic for row in rows}}
        for position, row in enumerate(rows):
            count = counts[row.topic]
            if count is None:
                published.refused[position] = f"there is no topic {row.topic}"
                continue
            target = (row.topic, _partition(row.key, count))
            if target in full:
                continue
            if target not in batches:
                batches[target] = (self._producer.create_batch(), [])
            batch, positions = batches[target]
            taken = batch.append(timestamp=None, key=row.key, value=row.payload, headers=list(row.headers))
            if taken is not None:
                positions.append(position)
            if taken is None or len(positions) >= self._batch_records_max:
                full.add(target)
        await self._send(batches, published)
        return published

    async def _send(
        self, batches: dict[tuple[str, int], tuple[Any, list[int]]], published: Published
    ) -> None:
        # An idempotent producer tries for ever by itself, and would neither say that Kafka is away nor ever stop.
        async with asyncio.timeout(_SEND_TIMEOUTS * self._settings.request_timeout_seconds):
            sent = [
                (await self._producer.send_batch(batch, topic, partition=partition), positions)
                for (topic, partition), (batch, positions) in batches.items()
            ]
            results = await asyncio.gather(*(future for future, _ in sent), return_exceptions=True)
        self._batch_records_max = _BATCH_RECORDS_MAX
        for result, (_, positions) in zip(results, sent, strict=True):
            if not isinstance(result, BaseException):
                published.acknowledged += positions
            elif not isinstance(result, MessageSizeTooLargeError):
                raise result
            elif len(positions) == 1:
                published.refused[positions[0]] = "the message is larger than its topic allows"
            else:
                self._batch_records_max = 1
        if any(isinstance(result, MessageSizeTooLargeError) for result in results):
            await self._renew()

    async def _renew(self) -> None:
        """Go on with a new producer: the old one numbered the refused batch, and Kafka would miss that number."""
        await self.close()
        self._producer = self._build()
        await self.open()

    async def _count_partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has; None if Kafka answers that there is no such topic."""
        count = self._partitions.get(topic)
        if count is None:
            # Asking for one topic waits for it to appear, and cannot tell a missing topic from a silent broker.
            if topic not in (await self._producer.client.fetch_all_metadata()).topics():
                return None
            count = self._partitions[topic] = len(await self._producer.partitions_for(topic))
        return count


@lru_cache(maxsize=_KEYS_REMEMBERED)
def _partition(key: bytes | None, count: int) -> int:
    """Return the partition of a key, as every Kafka client computes it (murmur2, the Java client's default)."""
    return 0 if key is None else int(murmur2(key) & 0x7FFFFFFF) % count


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """How much a group member takes at once and how long it may be silent."""

    records_max: int = 500
    fetch_bytes_max: int = 8 * 1024 * 1024
    session_timeout_seconds: float = 15.0
    poll_interval_seconds_max: float = 120.0


class GroupConsumer:
    """A member of a consumer group that reads several topics; offsets are committed only by its owner's word."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str,
        topics: Collection[str],
        limits: GroupLimits,
        before_revoked: Callable[[], Awaitable[None]],
    ) -> None:
        self._records_max = limits.records_max
        self._consumer = AIOKafkaConsumer(
            **_connection(settings, group),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_records=limits.records_max,
            fetch_max_bytes=limits.fetch_bytes_max,
            max_partition_fetch_bytes=max(limits.fetch_bytes_max // 8, REQUEST_BYTES_MAX),
            fetch_max_wait_ms=250,
            session_timeout_ms=round(limits.session_timeout_seconds * 1000),
            heartbeat_interval_ms=round(limits.session_timeout_seconds * 1000 / 5),
            max_poll_interval_ms=round(limits.poll_interval_seconds_max * 1000),
        )
        self._consumer.subscribe(topics=list(topics), listener=_Listener(before_revoked))

    async def open(self) -> None:
        """Join the group; raise `Unavailable` if Kafka does not answer."""
        try:
            await self._consumer.start()
        except (KafkaError, OSError) as error:
            await self.close()
            detail = f"Kafka does not answer: {error!r}"
            raise Unavailable(detail) from error

    async def close(self) -> None:
        """Leave the group."""
        try:
            async with asyncio.timeout(5):
                await self._consumer.stop()
        except (KafkaError, OSError, TimeoutError):
            return

    async def poll(self, wait_seconds: float) -> list[Record]:
        """Return the records that have arrived, waiting at most so long for the first."""
        found = await self._consumer.getmany(
            timeout_ms=round(wait_seconds * 1000), max_records=self._records_max
        )
        return [record for records in found.values() for record in records]

    async def keep_alive(self, wait_seconds: float) -> None:
        """Poll without taking anything, so that the group does not think this member dead."""
        self._consumer.pause(*self._consumer.assignment())
        found = await self._consumer.getmany(timeout_ms=round(wait_seconds * 1000))
        for partition, records in found.items():
            # Assigned while we were paused: put them back.
            self._consumer.seek(partition, records[0].offset)

    def resume(self) -> None:
        """Take records again."""
        self._consumer.resume(*self._consumer.paused())

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> bool:
        """Say which offset comes next in each partition; False if Kafka did not take it (the inbox covers for it)."""
        assigned = self._consumer.assignment()
        owned = {
            TopicPartition(topic, partition): offset
            for (topic, partition), offset in offsets.items()
            if TopicPartition(topic, partition) in assigned
        }
        if not owned:
            return True
        try:
            await self._consumer.commit(owned)
        except (KafkaError, OSError, TimeoutError):
            return False
        return True

    async def is_up(self, timeout_seconds: float) -> bool:
        """Tell whether some broker answers."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._consumer.topics()
        except (KafkaError, OSError, TimeoutError):
            return False
        return True


class TopicReader:
    """Reads every partition of some topics from now on, outside any group: for whoever only watches."""

    def __init__(self, settings: KafkaSettings, *, topics: Collection[str], client_id: str) -> None:
        self._consumer = AIOKafkaConsumer(
            *topics,
            **_connection(settings, client_id),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            isolation_level="read_committed",
        )

    async def open(self) -> None:
        """Connect and stand at the end of every partition; raise `Unavailable` if Kafka does not answer."""
        try:
            await self._consumer.start()
            found = await self._consumer.seek_to_end()
        except (KafkaError, OSError) as error:
            await self.close()
            detail = f"Kafka does not answer: {error!r}"
            raise Unavailable(detail) from error
        if not found:
            await self.close()
            raise Unavailable("Kafka does not say where its topics end.")

    async def close(self) -> None:
        """Disconnect."""
        try:
            async with asyncio.timeout(5):
                await self._consumer.stop()
        except (KafkaError, OSError, TimeoutError):
            return

    async def poll(self, wait_seconds: float) -> list[Record]:
        """Return the records that have arrived, each partition's in order, waiting at most so long for the first."""
        found = await self._consumer.getmany(timeout_ms=round(wait_seconds * 1000))
        return [record for records in found.values() for record in records]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka publishes no types
    """Lets the owner finish and commit what it has in hand before partitions move."""

    def __init__(self, before_revoked: Callable[[], Awaitable[None]]) -> None:
        self._before_revoked = before_revoked

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Drain before the partitions go to somebody else."""
        if revoked:
            await self._before_revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Nothing is kept per partition, so nothing has to be loaded."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be."""

    name: str
    partitions: int
    replication_factor: int = 1
    config: Mapping[str, str] = field(default_factory=dict)


@asynccontextmanager
async def _admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**_connection(settings, "holdfast-admin"))
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        detail = f"Kafka does not answer: {error!r}"
        raise Unavailable(detail) from error
    finally:
        await admin.close()


async def list_topics(settings: KafkaSettings) -> dict[str, int]:
    """Return the number of partitions of each topic, counting only partitions that have a leader.

    Raises:
        Unavailable: Kafka does not answer.
    """
    async with _admin(settings) as admin:
        described = await admin.describe_topics(await admin.list_topics())
    return {
        topic["topic"]: sum(1 for partition in topic["partitions"] if partition["leader"] >= 0)
        for topic in described
    }


async def create_topics(
    settings: KafkaSettings, specs: Sequence[TopicSpec], *, timeout_seconds: float = 30.0
) -> None:
    """Create the topics that are missing and wait until every partition has a leader.

    Raises:
        Unavailable: Kafka does not answer, or the leaders are not there in time.
    """
    async with _admin(settings) as admin:
        there = set(await admin.list_topics())
        missing = [
            NewTopic(spec.name, spec.partitions, spec.replication_factor, topic_configs=dict(spec.config))
            for spec in specs
            if spec.name not in there
        ]
        if missing:
            with suppress(TopicAlreadyExistsError):  # somebody else was faster
                await admin.create_topics(missing)
    try:
        async with asyncio.timeout(timeout_seconds):
            while not _all_led(await list_topics(settings), specs):
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        detail = "the new topics have no leaders yet"
        raise Unavailable(detail) from error


def _all_led(counts: Mapping[str, int], specs: Sequence[TopicSpec]) -> bool:
    return all(counts.get(spec.name, 0) >= spec.partitions for spec in specs)


def _connection(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return how every client connects."""
    encrypted = settings.security_protocol in {"SSL", "SASL_SSL"}
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": client_id,
        "request_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "security_protocol": settings.security_protocol,
        "ssl_context": _ssl_context(settings) if encrypted else None,
        "sasl_mechanism": settings.sasl_mechanism or "PLAIN",
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
    }


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ssl_cafile)
    if settings.ssl_certfile is not None:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    return context
