"""How are rows sent, many at once, and never by an uncertain producer?"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import murmur2

from shared.envelope import Headers
from shared.errors import Unavailable
from shared.kafka.connection import connection
from shared.settings import KafkaSettings

#: Larger than a topic's own limit, so that a dead letter with its added headers still fits its topic.
REQUEST_BYTES_MAX = 4 * 1024 * 1024
_BATCH_BYTES_MAX = 768 * 1024
_BATCH_RECORDS_MAX = 10_000
_KEYS_REMEMBERED = 65_536
_SEND_TIMEOUTS = 2
_CLOSE_SECONDS_MAX = 2.0


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
            **connection(self._settings, self._client_id),
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
        """Disconnect; what was not acknowledged is not sent any more."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                # To stop, the producer would first send what it has, and go on trying when we no longer wait for it.
                # Without connections what is under way fails, and the sender ends at once.
                await self._producer.client.close()
                await self._producer._sender.close()  # noqa: SLF001 (there is no other way to the sender)
        except (KafkaError, OSError, TimeoutError):
            return
        finally:
            self._producer._closed = True  # noqa: SLF001 (as `stop` would note; else it complains when it is gone)

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
            target = (row.topic, partition_of(row.key, count))
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
def partition_of(key: bytes | None, count: int) -> int:
    """Return the partition of a key, as every Kafka client computes it (murmur2, the Java client's default)."""
    return 0 if key is None else int(murmur2(key) & 0x7FFFFFFF) % count
