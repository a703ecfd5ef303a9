"""Is the embedded Kafka the real thing: durable, strict about topics, and able to come back after a crash?"""

import os
import signal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from deploy.local.kafka import EmbeddedKafka
from deploy.local.process import PartFailed

TOPIC = "kept"


async def produce(kafka: EmbeddedKafka, topic: str, value: bytes) -> None:
    """Send one message and wait for its acknowledgement."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        acks="all",
        request_timeout_ms=3_000,
        metadata_max_age_ms=500,
    ) as producer:
        await producer.send_and_wait(topic, value)


async def create_topic(kafka: EmbeddedKafka) -> None:
    """Create the topic that these tests write to."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    await admin.close()


async def first_value(kafka: EmbeddedKafka) -> bytes | None:
    """Read the topic's first message."""
    async with AIOKafkaConsumer(
        TOPIC, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        message = await consumer.getone()
        return bytes(message.value) if message.value is not None else None


async def test_messages_survive_a_restart_and_a_kill(tmp_path: Path) -> None:
    """A message that was acknowledged is there after an orderly restart with another controller port, and after a kill -9."""
    first = EmbeddedKafka(tmp_path)
    await first.start()
    await create_topic(first)
    await produce(first, TOPIC, b"still here")
    await first.stop()

    second = EmbeddedKafka(tmp_path, first.port)
    await second.start()
    after_restart = await first_value(second)
    assert second.pid is not None
    os.kill(second.pid, signal.SIGKILL)
    await second.wait()
    await second.start()
    after_kill = await first_value(second)
    await second.stop()

    assert (after_restart, after_kill) == (b"still here", b"still here")
    assert second.bootstrap_servers == first.bootstrap_servers
    assert second.pid is None


async def test_topics_are_never_created_by_accident(kafka: EmbeddedKafka) -> None:
    """Sending to a topic that nobody created fails."""
    with pytest.raises(UnknownTopicOrPartitionError):
        await produce(kafka, "misspelt", b"lost")


async def test_a_taken_port_is_named(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """A start on a port where another Kafka answers fails, instead of taking that one's answers for its own."""
    with pytest.raises(PartFailed, match=f"kafka needs port {kafka.port}, but another program listens on it"):
        await EmbeddedKafka(tmp_path, kafka.port).start()


async def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A broker that ends at its start is reported with the last lines of its log."""
    broker = EmbeddedKafka(tmp_path)
    (tmp_path / "log").mkdir()

    with pytest.raises(PartFailed, match=r"(?s)kafka ended with exit code 1\n.*No readable meta.properties"):
        await broker.start()
