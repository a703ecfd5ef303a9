"""How is a group set back, so that it reads its topics again from an earlier offset?

Only backwards: a group never skips what it has not read. And only a group without members: Kafka takes no offsets for
others, and a member would go on where it is.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ops.replay.headers import event_id
from ops.replay.republish import Forget
from ops.replay.selection import Filters, Selection
from shared.errors import Conflict
from shared.kafka import (
    Span,
    Spans,
    commit_offsets,
    describe_group,
    list_committed_offsets,
)
from shared.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Move:
    """A partition of a topic: where its group stands, and where it is to go on."""

    topic: str
    partition: int
    committed: int
    new: int


async def plan_moves(kafka: KafkaSettings, group: str, spans: Spans) -> list[Move]:
    """Return which partitions a group would read again, from the beginning of each span on.

    A partition of which it has read nothing yet, or less than that, stays as it is.

    Raises:
        Unavailable: Kafka does not answer.
    """
    committed = await list_committed_offsets(kafka, group)
    return [
        Move(topic, number, committed[topic, number], span.begin)
        for topic, partitions in spans.items()
        for number, span in sorted(partitions.items())
        if committed.get((topic, number), 0) > span.begin
    ]


def spans_of(moves: Sequence[Move]) -> Mapping[str, Mapping[int, Span]]:
    """Return what a group would hear again."""
    spans: dict[str, dict[int, Span]] = {}
    for move in moves:
        spans.setdefault(move.topic, {})[move.partition] = Span(move.new, move.committed)
    return spans


async def refuse_active(kafka: KafkaSettings, group: str) -> None:
    """Raise `Conflict` while a group has members; says who they are.

    Raises:
        Unavailable: Kafka does not answer.
    """
    found = await describe_group(kafka, group)
    if found.is_active:
        members = ", ".join(found.members) or "none yet"
        detail = (
            f"{group} cannot be rewound while it is active (state {found.state}; members: {members}). "
            f"Stop all its processes first, or replay to it without --rewind."
        )
        raise Conflict(detail)


async def rewind(
    kafka: KafkaSettings, group: str, moves: Sequence[Move], *, forget: Forget | None = None
) -> int:
    """Set a group back, and return how many events it was made to forget before.

    Raises:
        Conflict: the group is active; its offsets are as they were.
        Unavailable: Kafka does not answer.
    """
    await refuse_active(kafka, group)
    forgotten = 0
    if forget is not None:
        selection = Selection(spans_of(moves), Filters(), takes_all=True)
        async with aclosing(selection.chunks(kafka)) as chunks:
            async for chunk in chunks:
                event_ids = {known for record in chunk if (known := event_id(record)) is not None}
                forgotten += await forget(event_ids) if event_ids else 0
    await commit_offsets(kafka, group, {(move.topic, move.partition): move.new for move in moves})
    return forgotten
