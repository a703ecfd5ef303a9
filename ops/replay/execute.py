"""How is a request carried out and recorded? Who, what, why and how much, in the database it is about."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from ops.actions import begin_action, connected, finish_action
from ops.place import Place
from ops.replay import store
from ops.replay.checkpoint import Checkpoint, Reached, Run
from ops.replay.readers import OWNERS, all_readers
from ops.replay.republish import Forget, republish
from ops.replay.request import Request, now
from ops.replay.rewind import Move, refuse_active, rewind
from ops.replay.scope import count_records
from shared.ids import new_id

_COMMAND = "replay"

Progress = Callable[[Reached], None]


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: `finished` unless it was paused, what was done in all, and the first of what Kafka refused."""

    replay_id: UUID
    finished: bool
    counts: dict[str, int]
    refusals: list[str] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all of it was done."""
        return self.finished and not self.refusals

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "replay_id": self.replay_id,
            "finished": self.finished,
            **self.counts,
            "refusals": self.refusals,
            "moves": [asdict(move) for move in self.moves],
        }


async def execute_republish(
    place: Place,
    data_dir: Path,
    request: Request,
    *,
    rate: float = 0,
    stopping: asyncio.Event | None = None,
    progress: Progress | None = None,
) -> Done:
    """Send what a request means again, from its beginning.

    Args:
        place: where the system is.
        data_dir: where the checkpoint is kept.
        request: what is wanted.
        rate: records a second; 0: without limit.
        stopping: set to pause it.
        progress: is told how far it is.

    Raises:
        Unavailable: Kafka or a database does not answer; it can be resumed.
    """
    replay_id = new_id()
    action_id = await _begin(place, request, replay_id, {"in_scope": count_records(request.spans)})
    checkpoint, run = Checkpoint(data_dir, replay_id), Run(replay_id, request, now(), action_id)
    checkpoint.begin(run)
    return await _carry_out(
        place, checkpoint, run, Reached(), rate=rate, stopping=stopping, progress=progress
    )


async def resume(
    place: Place,
    data_dir: Path,
    replay_id: UUID,
    *,
    rate: float = 0,
    stopping: asyncio.Event | None = None,
    progress: Progress | None = None,
) -> Done:
    """Send what is left of a run that was paused or cut off; arguments as for `execute_republish`.

    Raises:
        Conflict: it is under way.
        NotFound: there is no such run, or it has ended.
        Unavailable: Kafka or a database does not answer; it can be resumed again.
    """
    checkpoint = Checkpoint(data_dir, replay_id)
    run, reached = checkpoint.load()
    return await _carry_out(place, checkpoint, run, reached, rate=rate, stopping=stopping, progress=progress)


async def _carry_out(
    place: Place,
    checkpoint: Checkpoint,
    run: Run,
    reached: Reached,
    *,
    rate: float,
    stopping: asyncio.Event | None,
    progress: Progress | None,
) -> Done:
    with checkpoint.alone():
        async with _forgetting(place, run.request) as forget:
            republished = await republish(
                place.kafka,
                run,
                reached,
                checkpoint,
                forget=forget,
                rate=rate,
                stopping=stopping or asyncio.Event(),
                progress=progress,
            )
        if republished.finished:
            await _finish(place, run.request, run.action_id, reached.counts())
            checkpoint.end()
    return Done(run.replay_id, republished.finished, reached.counts(), republished.refusals)


async def execute_rewind(place: Place, request: Request, moves: list[Move]) -> Done:
    """Set the group of a request back.

    Raises:
        Conflict: the group is active; its offsets are as they were.
        Unavailable: Kafka or a database does not answer.
    """
    replay_id, group = new_id(), request.group or ""
    await refuse_active(place.kafka, group)
    counts = {"partitions": len(moves), "rewound": sum(move.committed - move.new for move in moves)}
    action_id = await _begin(place, request, replay_id, counts)
    async with _forgetting(place, request) as forget:
        counts["forgotten"] = await rewind(place.kafka, group, moves, forget=forget)
    await _finish(place, request, action_id, counts)
    return Done(replay_id, finished=True, counts=counts, moves=moves)


@asynccontextmanager
async def _forgetting(place: Place, request: Request) -> AsyncIterator[Forget | None]:
    """Lend what has a group forget that it has handled events, if that is wanted."""
    if not request.reprocess or request.group is None:
        yield None
        return
    service = all_readers()[request.group].service
    async with connected(service, place.dsns[service]) as connection:
        yield partial(_forget, connection, request.group)


async def _forget(connection: Any, group: str, event_ids: Collection[UUID]) -> int:
    return await store.forget_events(connection, group, event_ids)


def _service_of(request: Request) -> str:
    """Return in whose database a request is recorded: the group's if it is for one, else that of the topic's owner."""
    if request.group is not None:
        return all_readers()[request.group].service
    return OWNERS[next(iter(request.spans))]


async def _begin(place: Place, request: Request, replay_id: UUID, counts: dict[str, int]) -> UUID:
    service = _service_of(request)
    async with connected(service, place.dsns[service]) as connection:
        return await begin_action(
            connection,
            command=_COMMAND,
            details={"replay_id": str(replay_id), **request.as_details()},
            counts=counts,
            reason=request.reason,
            who=request.by,
        )


async def _finish(place: Place, request: Request, action_id: UUID | None, counts: dict[str, int]) -> None:
    service = _service_of(request)
    if action_id is not None:
        async with connected(service, place.dsns[service]) as connection:
            await finish_action(connection, action_id, counts=counts)
