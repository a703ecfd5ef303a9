"""How is a dead letter sent again, to the group that refused it and to nobody else?

It goes to its original topic with key, value and headers as they were; `dlq_redrive` counts how often, and `dlq_group`
makes every other group pass over it. The inbox of its own group takes a dead event once, so sending it twice is harmless.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ops.actions import begin_action, connected, finish_action
from ops.dead_letters import store
from ops.dead_letters.reading import Letter, LetterTopic
from ops.dead_letters.selecting import Plan
from ops.place import Place
from shared.envelope import REDRIVE_GROUP_HEADER, REDRIVE_HEADER, Headers
from shared.errors import Unavailable
from shared.kafka import Publisher, is_kafka_error
from shared.settings import KafkaSettings

_OURS = "dlq_"
_CLIENT = "holdfast-redrive"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A letter on its way back to its topic."""

    topic: str
    key: bytes | None
    payload: bytes | None
    headers: Headers


@dataclass(slots=True)
class Redriven:
    """What became of the letters of one topic: the action that was recorded, how many were sent, and which Kafka refused."""

    topic: LetterTopic
    action_id: UUID
    published: int
    refused: list[tuple[Letter, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "topic": self.topic.name,
            "to": self.topic.origin,
            "group": self.topic.group,
            "action_id": self.action_id,
            "published": self.published,
            "refused": [
                {"partition": letter.partition, "offset": letter.offset, "why": why}
                for letter, why in self.refused
            ],
        }


def outgoing(letter: Letter) -> Outgoing:
    """Return what is published for a letter (CONTRACT, section 3)."""
    kept = [(name, value) for name, value in letter.headers if not name.startswith(_OURS)]
    ours = [
        (REDRIVE_HEADER, str(letter.redrives + 1).encode()),
        (REDRIVE_GROUP_HEADER, letter.topic.group.encode()),
    ]
    return Outgoing(letter.topic.origin, letter.key, letter.value, [*kept, *ours])


async def redrive(
    place: Place, plan: Plan, *, reason: str | None = None, who: str | None = None
) -> list[Redriven]:
    """Send the letters of a plan again, one dead-letter topic after the other, and keep who did it (the operator).

    Raises:
        Unavailable: Kafka or a database does not answer; what was sent until then is kept with the action, and the rest
            may be sent by doing the same again.
        Misconfigured: it cannot be told who asks.
    """
    results = []
    for topic, letters in plan.by_topic().items():
        async with connected(topic.service, place.dsns[topic.service]) as connection:
            details = {
                "topic": topic.name,
                "to": topic.origin,
                "group": topic.group,
                "filters": plan.filters.as_dict(),
                "again": plan.again,
            }
            action_id = await begin_action(
                connection,
                command=store.REDRIVE,
                details=details,
                counts={"letters": len(letters)},
                reason=reason,
                who=who,
            )
            sending = _Sending(letters)
            try:
                await sending.run(place.kafka)
            finally:
                await finish_action(
                    connection, action_id, counts=sending.counts(), details={"letters": sending.places()}
                )
            results.append(Redriven(topic, action_id, len(sending.published), sending.refused))
    return results


class _Sending:
    """Sends letters in their order, and knows at any time which of them Kafka has."""

    def __init__(self, letters: Sequence[Letter]) -> None:
        self._waiting = [(letter, outgoing(letter)) for letter in letters]
        self._count = len(letters)
        self.published: list[Letter] = []
        self.refused: list[tuple[Letter, str]] = []

    async def run(self, kafka: KafkaSettings) -> None:
        publisher = Publisher(kafka, client_id=_CLIENT)
        try:
            await publisher.open()
            while self._waiting:
                await self._send(publisher)
        except Exception as error:
            if not (isinstance(error, Unavailable | OSError) or is_kafka_error(error)):
                raise
            detail = (
                f"Kafka stopped answering after {len(self.published)} of {self._count} letters. Give the same "
                f"command again: what was sent is left out, and a letter sent twice is handled once. ({error!r})"
            )
            raise Unavailable(detail) from error
        finally:
            await publisher.close()

    async def _send(self, publisher: Publisher) -> None:
        sent = await publisher.publish([row for _, row in self._waiting])
        acknowledged = frozenset(sent.acknowledged)
        rest = []
        for position, waiting in enumerate(self._waiting):
            if position in acknowledged:
                self.published.append(waiting[0])
            elif position in sent.refused:
                self.refused.append((waiting[0], sent.refused[position]))
            else:
                rest.append(waiting)
        self._waiting = rest

    def counts(self) -> dict[str, int]:
        return {
            "letters": self._count,
            "published": len(self.published),
            "refused": len(self.refused),
        }

    def places(self) -> list[list[int | str]]:
        return [places_of(letter) for letter in self.published]


def places_of(letter: Letter) -> list[int | str]:
    """Return how an action names a letter: partition, offset, event id."""
    return [letter.partition, letter.offset, str(letter.event_id)]
