"""Is what Prometheus is told of outboxes, lag and parts what is there?"""

from collections.abc import Sequence
from typing import Any

from prometheus_client import REGISTRY

from shared.database import Connection, Database
from shared.envelope import Message, Refusal
from shared.outbox import insert_outbox
from shared.relay import OutboxAge
from shared.settings import KafkaSettings
from tests.integration.conftest import MakeConsumer, Stream
from tests.integration.streams import counted, publish, row, running
from tests.waiting import eventually

HOUR_SECONDS = 3_600


def value_of(metric: str, **labels: str) -> float | None:
    """Return what is told now."""
    return REGISTRY.get_sample_value(metric, labels)


async def test_the_age_of_the_outbox_is_that_of_its_oldest_row(shared_db: Database) -> None:
    """It grows while nobody sends, is that of the oldest row however many wait, and 0 when all are gone."""
    age = OutboxAge(shared_db)
    async with shared_db.transaction() as tx:
        await insert_outbox(tx, [row("topic") for _ in range(10)])
        await tx.execute(
            "UPDATE outbox SET created_at = now() - interval '1 hour' WHERE id = (SELECT min(id) FROM outbox)"
        )
    await age.tick()
    waiting = value_of("holdfast_outbox_oldest_seconds")
    async with shared_db.transaction() as tx:
        await tx.execute("DELETE FROM outbox")
    await age.tick()

    assert waiting is not None
    assert HOUR_SECONDS <= waiting < HOUR_SECONDS + 60
    assert value_of("holdfast_outbox_oldest_seconds") == 0


async def test_the_lag_is_what_a_consumer_has_not_read(
    stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """What was published behind a batch that does not end is told, and no more once all is read."""
    fails = True

    async def handle(_tx: Connection, _messages: Sequence[Message[Any]]) -> Sequence[Refusal]:
        if fails:
            raise ConnectionResetError
        return []

    await publish(kafka_settings, [counted(stream, number) for number in range(30)])
    async with running(make_consumer(handle, records_max=1)):
        behind = await eventually(
            lambda: value_of("holdfast_consumer_lag", consumer=stream.group), what="a lag that is told"
        )
        fails = False
        await eventually(
            lambda: value_of("holdfast_consumer_lag", consumer=stream.group) == 0, what="no more lag"
        )

    assert behind is not None
    assert behind >= 29
