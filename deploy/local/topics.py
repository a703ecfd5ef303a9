"""Which topics does Holdfast need, and are they as they should be?"""

from collections.abc import Sequence

from services.inventory_service import handlers as inventory
from services.order_service import handlers as order
from services.payment_service import handlers as payment
from shared.events import COMMANDS_TOPIC, INVENTORY_TOPIC, ORDER_TOPIC, PAYMENT_TOPIC
from shared.kafka import TopicSpec, create_topics, list_topics
from shared.outbox import dead_letter_topic
from shared.settings import KafkaSettings

#: Which topics each group reads.
SUBSCRIPTIONS = {
    service.CONSUMER: tuple(sorted({model.topic for model in service.CONSUMED}))
    for service in (order, inventory, payment)
}
DEAD_LETTER_TOPICS = tuple(
    dead_letter_topic(topic, group) for group, topics in SUBSCRIPTIONS.items() for topic in topics
)
PARTITIONS = 8
_DAY_MILLISECONDS = 86_400_000
# Shorter than `HOLDFAST_INBOX_RETENTION_SECONDS`: what can still be delivered must still be remembered.
_EVENTS_RETENTION_MILLISECONDS = 7 * _DAY_MILLISECONDS
_MESSAGE_BYTES_MAX = 1_048_576
# A dead letter is its message and seven headers more.
_DEAD_LETTER_BYTES_MAX = 2 * _MESSAGE_BYTES_MAX


def wanted_topics(*, replication_factor: int = 1) -> list[TopicSpec]:
    """Return every topic as it should be: events and commands, and one dead-letter topic a group that reads them."""
    events = [
        TopicSpec(
            name,
            PARTITIONS,
            replication_factor,
            {
                "retention.ms": str(_EVENTS_RETENTION_MILLISECONDS),
                "max.message.bytes": str(_MESSAGE_BYTES_MAX),
                "min.insync.replicas": str(max(1, replication_factor - 1)),
            },
        )
        for name in (COMMANDS_TOPIC, ORDER_TOPIC, INVENTORY_TOPIC, PAYMENT_TOPIC)
    ]
    dead_letters = [
        TopicSpec(
            name,
            1,
            replication_factor,
            {"retention.ms": "-1", "max.message.bytes": str(_DEAD_LETTER_BYTES_MAX)},
        )
        for name in DEAD_LETTER_TOPICS
    ]
    return events + dead_letters


async def ensure_topics(kafka: KafkaSettings, *, replication_factor: int = 1) -> list[str]:
    """Create what is missing and return the names of what was created.

    Raises:
        Unavailable: Kafka does not answer.
    """
    wanted = wanted_topics(replication_factor=replication_factor)
    there = await list_topics(kafka)
    await create_topics(kafka, wanted)
    return [spec.name for spec in wanted if spec.name not in there]


async def check_topics(kafka: KafkaSettings) -> Sequence[tuple[TopicSpec, int]]:
    """Return each wanted topic with the number of its partitions that have a leader (0: it is missing)."""
    there = await list_topics(kafka)
    return [(spec, there.get(spec.name, 0)) for spec in wanted_topics()]
