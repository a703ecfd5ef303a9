"""How does a storefront publish order commands on Kafka?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.envelope import Headers
from shared.errors import Invalid
from shared.events import COMMANDS_TOPIC, Command
from shared.ids import new_id
from shared.kafka import Outgoing, Publisher
from shared.settings import KafkaSettings

_COMMANDS_AT_ONCE = 1_000
_SOURCE = "/holdfast/send"


@dataclass(frozen=True, slots=True)
class OutgoingCommand:
    """A command on its way to `order.commands`."""

    key: bytes
    payload: bytes
    headers: Headers
    topic: str = COMMANDS_TOPIC


def command(model: Command, *, at: datetime | None = None) -> OutgoingCommand:
    """Return a command as the message that carries it, with a new id."""
    identity, key = new_id(), str(model.order_id)
    time = (at or datetime.now(UTC)).isoformat().replace("+00:00", "Z")
    headers = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": str(identity),
        "ce_type": model.type,
        "ce_source": _SOURCE,
        "ce_subject": key,
        "ce_time": time,
        "ce_correlationid": key,
    }
    return OutgoingCommand(
        key=key.encode(),
        payload=model.model_dump_json(exclude_none=True).encode(),
        headers=[(name, value.encode()) for name, value in headers.items()],
    )


async def send(kafka: KafkaSettings, commands: Sequence[OutgoingCommand]) -> int:
    """Publish commands in order and return how many Kafka acknowledged, which is all of them.

    Raises:
        Unavailable: Kafka does not answer.
        Invalid: Kafka refuses a command for good.
    """
    publisher = Publisher(kafka, client_id="holdfast-send")
    await publisher.open()
    try:
        for chunk in _chunks(commands, _COMMANDS_AT_ONCE):
            await publish_all(publisher, chunk)
    finally:
        await publisher.close()
    return len(commands)


async def publish_all(publisher: Publisher, commands: Sequence[Outgoing]) -> None:
    """Publish commands, or other rows, in order, until Kafka has acknowledged every one.

    Raises:
        Invalid: Kafka refuses a command for good.
        KafkaError, OSError, TimeoutError: nothing is known of what was sent; open a new publisher.
    """
    waiting = commands
    while waiting:
        published = await publisher.publish(waiting)
        if published.refused:
            raise Invalid(next(iter(published.refused.values())))
        done = set(published.acknowledged)
        waiting = [item for position, item in enumerate(waiting) if position not in done]


def _chunks(items: Sequence[OutgoingCommand], size: int) -> Iterable[Sequence[OutgoingCommand]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
