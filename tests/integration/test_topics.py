"""Are topics made as they were asked for, or is it said why not?"""

import asyncio

import pytest

from deploy.local.topics import wanted_topics
from shared.errors import Misconfigured
from shared.ids import new_id
from shared.kafka import TopicSpec, create_topics, list_topics
from shared.settings import KafkaSettings


async def test_a_topic_that_kafka_refuses_is_said_at_once(kafka_settings: KafkaSettings) -> None:
    """More copies than brokers is a mistake of whoever asks, in Kafka's own words, and nothing is waited for."""
    topic = f"refused-{new_id().hex}"

    with pytest.raises(Misconfigured, match=f"Kafka does not create {topic}: .*replicat"):
        await asyncio.wait_for(create_topics(kafka_settings, [TopicSpec(topic, 1, 3)]), 10)

    assert topic not in await list_topics(kafka_settings)


async def test_whoever_comes_second_finds_the_topic(kafka_settings: KafkaSettings) -> None:
    """Two that make the same topics at once both succeed."""
    specs = [TopicSpec(f"raced-{new_id().hex}", 2) for _ in range(3)]

    await asyncio.gather(*(create_topics(kafka_settings, specs) for _ in range(4)))

    assert {spec.name for spec in specs} <= (await list_topics(kafka_settings)).keys()


def test_with_several_brokers_a_write_waits_for_all_copies_but_one() -> None:
    """One broker may be away without a write being lost or refused; dead letters are kept on as many brokers."""
    specs = wanted_topics(replication_factor=3)

    assert {spec.replication_factor for spec in specs} == {3}
    assert {spec.config.get("min.insync.replicas") for spec in specs if not spec.name.endswith(".dlq")} == {
        "2"
    }
