"""How is a dead letter laid aside, when nobody wants it handled any more? It stays in its topic; the decision is kept."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ops.actions import connected, record_action
from ops.dead_letters import store
from ops.dead_letters.reading import LetterTopic
from ops.dead_letters.redriving import places_of
from ops.dead_letters.selecting import Plan
from ops.place import Place


@dataclass(frozen=True, slots=True)
class Discarded:
    """What was laid aside of one topic, and the action that was recorded."""

    topic: LetterTopic
    action_id: UUID
    discarded: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "topic": self.topic.name,
            "group": self.topic.group,
            "action_id": self.action_id,
            "discarded": self.discarded,
        }


async def discard(place: Place, plan: Plan, *, reason: str, who: str | None = None) -> list[Discarded]:
    """Lay the letters of a plan aside: `dlq list` no longer shows them as waiting, and `redrive` leaves them out.

    Raises:
        Unavailable: a database does not answer; the topics before it are done.
        Misconfigured: it cannot be told who asks.
    """
    results = []
    for topic, letters in plan.by_topic().items():
        async with connected(topic.service, place.dsns[topic.service]) as connection:
            action_id = await record_action(
                connection,
                command=store.DISCARD,
                details={
                    "topic": topic.name,
                    "group": topic.group,
                    "filters": plan.filters.as_dict(),
                    "letters": [places_of(letter) for letter in letters],
                },
                counts={"letters": len(letters)},
                reason=reason,
                who=who,
            )
        results.append(Discarded(topic, action_id, len(letters)))
    return results
