"""Does a publisher that was given up leave anything behind?"""

import asyncio

import pytest

from deploy.local.kafka import EmbeddedKafka
from shared.kafka import Publisher
from shared.settings import KafkaSettings
from tests.end_to_end.faults import frozen
from tests.integration.conftest import Stream
from tests.integration.streams import row
from tests.waiting import eventually


async def test_a_closed_publisher_does_not_go_on_trying(kafka: EmbeddedKafka, stream: Stream) -> None:
    """What Kafka did not acknowledge is not sent later by a producer that nobody holds any more."""
    impatient = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, request_timeout_seconds=1)
    publisher = Publisher(impatient, client_id="tests")
    before = asyncio.all_tasks()
    await publisher.open()
    await publisher.publish([row(stream.topic)])
    assert kafka.pid is not None
    with frozen(kafka.pid):
        with pytest.raises(TimeoutError):
            await publisher.publish([row(stream.topic)])

        await publisher.close()

        await eventually(lambda: asyncio.all_tasks() <= before, what="nothing left of the producer")
