"""What do operators ask of topics, and how are topics made?"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from shared.errors import Misconfigured, Unavailable
from shared.kafka.connection import connection
from shared.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be."""

    name: str
    partitions: int
    replication_factor: int = 1
    config: Mapping[str, str] = field(default_factory=dict)


@asynccontextmanager
async def administrator(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Lend a client that asks about topics and groups; raise `Unavailable` if Kafka does not answer."""
    admin = AIOKafkaAdminClient(**connection(settings, "holdfast-admin"))
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
    async with administrator(settings) as admin:
        described = await admin.describe_topics(await admin.list_topics())
    return {
        topic["topic"]: sum(1 for partition in topic["partitions"] if partition["leader"] >= 0)
        for topic in described
    }


async def list_topic_configs(settings: KafkaSettings, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return how topics that exist are configured: each name with its value, defaults included.

    Raises:
        Unavailable: Kafka does not answer.
    """
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str]] = {}
    async with administrator(settings) as admin:
        for response in await admin.describe_configs(resources):
            for _, message, _, name, entries in response.resources:
                if message:
                    detail = f"{name}: {message}"
                    raise Unavailable(detail)
                configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs


async def create_topics(
    settings: KafkaSettings, specs: Sequence[TopicSpec], *, timeout_seconds: float = 30.0
) -> None:
    """Create the topics that are missing and wait until every partition has a leader.

    Raises:
        Misconfigured: Kafka refuses a topic: more copies than brokers, no right to make one.
        Unavailable: Kafka does not answer, or the leaders are not there in time.
    """
    async with administrator(settings) as admin:
        there = set(await admin.list_topics())
        missing = [
            NewTopic(spec.name, spec.partitions, spec.replication_factor, topic_configs=dict(spec.config))
            for spec in specs
            if spec.name not in there
        ]
        if missing:
            _raise_refusal(await admin.create_topics(missing))
    try:
        async with asyncio.timeout(timeout_seconds):
            while not _all_led(await list_topics(settings), specs):
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        detail = "the new topics have no leaders yet"
        raise Unavailable(detail) from error


def _raise_refusal(response: Any) -> None:
    """Raise the first refusal: Kafka answers for each topic by itself, and the client raises none of it.

    A topic that is there already was made by somebody faster; for what passes by itself the leaders are waited for.
    """
    for topic, code, *message in response.topic_errors:
        error = for_code(code)
        if code and not error.retriable and error is not TopicAlreadyExistsError:
            detail = f"Kafka does not create {topic}: {' '.join(filter(None, message)) or error.__name__}"
            raise Misconfigured(detail)


def _all_led(counts: Mapping[str, int], specs: Sequence[TopicSpec]) -> bool:
    return all(counts.get(spec.name, 0) >= spec.partitions for spec in specs)
