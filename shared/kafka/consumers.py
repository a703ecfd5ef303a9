"""How are topics read: by a member of a group, or by whoever only watches?"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from shared.envelope import Record
from shared.errors import Unavailable
from shared.kafka.connection import connection
from shared.kafka.publisher import REQUEST_BYTES_MAX
from shared.settings import KafkaSettings

#: A position past every end: nothing of a partition that went to another member waits here.
_NOT_OURS = 2**63


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
            **connection(settings, group),
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
            async with asyncio.timeout(2):
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

    async def count_behind(self, timeout_seconds: float) -> int | None:
        """Return how many messages wait for this member; None if no broker answers.

        Kafka is asked where its partitions end: a member whose fetching stands still does not know that there is more.
        """
        assigned = self._consumer.assignment()
        try:
            async with asyncio.timeout(timeout_seconds):
                if not assigned:
                    await self._consumer.topics()
                    return 0
                ends: dict[TopicPartition, int] = await self._consumer.end_offsets(list(assigned))
        except (KafkaError, OSError, TimeoutError):
            return None
        positions = {partition: await self._position(partition, timeout_seconds) for partition in ends}
        return sum(max(0, end - positions[partition]) for partition, end in ends.items())

    async def _position(self, partition: TopicPartition, timeout_seconds: float) -> int:
        """Return which offset comes next; 0 if this is not to be learnt, so that the whole partition waits."""
        if not self._consumer.assignment() >= {partition}:
            return _NOT_OURS
        try:
            async with asyncio.timeout(timeout_seconds):
                position: int = await self._consumer.position(partition)
        except (KafkaError, OSError, TimeoutError):
            return 0
        return position


class TopicReader:
    """Reads every partition of some topics from now on, outside any group: for whoever only watches."""

    def __init__(self, settings: KafkaSettings, *, topics: Collection[str], client_id: str) -> None:
        self._consumer = AIOKafkaConsumer(
            *topics,
            **connection(settings, client_id),
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
