"""What is under way that takes longer than a page: plans and runs of replays, and audits?

A job belongs to this process: it can be watched and paused from any page, and is forgotten when the process ends. What
must not be forgotten (a replay's checkpoint, the operator's action) is kept where the commands keep it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from shared.database import is_transient
from shared.errors import HoldfastError, NotFound, Overloaded
from shared.ids import new_id
from shared.logging import get_logger

Kind = Literal["plan", "replay", "audit"]
State = Literal["running", "done", "paused", "failed"]

_RUNNING_MAX = 3
_KEPT_MAX = 50
_STOP_SECONDS_MAX = 10.0
_log = get_logger()


@dataclass(slots=True)
class Job:
    """Something under way or ended: how far it is (`looked_at` of `total`, of which `taken`), and what came of it.

    `led_to` is the run of a plan: a plan is carried out once, however often its button is pressed.
    """

    kind: Kind
    by: str
    about: Any = None
    total: int = 0
    id: UUID = field(default_factory=new_id)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: State = "running"
    looked_at: int = 0
    taken: int = 0
    result: Any = None
    led_to: UUID | None = None
    error: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def seconds(self) -> float:
        """For how long it has been known."""
        return (datetime.now(UTC) - self.at).total_seconds()

    def show(self, looked_at: int, taken: int) -> None:
        """Note how far it is."""
        self.looked_at, self.taken = looked_at, taken


#: Does the work of a job, and returns its result and how it ended.
Work = Callable[[Job], Awaitable[tuple[Any, State]]]


class Jobs:
    """Runs a few jobs at once, and remembers the last ones."""

    def __init__(self) -> None:
        self._jobs: dict[UUID, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job: Job, work: Work) -> Job:
        """Begin a job.

        Raises:
            Overloaded: enough are under way.
        """
        if sum(known.state == "running" for known in self._jobs.values()) >= _RUNNING_MAX:
            detail = f"{_RUNNING_MAX} jobs are under way: wait until one has ended."
            raise Overloaded(detail)
        self._jobs[job.id] = job
        ended = [known.id for known in self._jobs.values() if known.state != "running"]
        for job_id in ended[: max(0, len(self._jobs) - _KEPT_MAX)]:
            del self._jobs[job_id]
        task = asyncio.create_task(self._run(job, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def find(self, job_id: UUID, *kinds: Kind) -> Job:
        """Return a job; raise `NotFound` if there is none of these kinds."""
        job = self._jobs.get(job_id)
        if job is None or job.kind not in kinds:
            raise NotFound(
                "There is no such job any more: the console remembers the last ones until it ends."
            )
        return job

    def of(self, *kinds: Kind) -> list[Job]:
        """Return the jobs of some kinds, the newest first."""
        return [job for job in reversed(self._jobs.values()) if job.kind in kinds]

    async def close(self) -> None:
        """Have everything pause, and cancel what does not."""
        for job in self._jobs.values():
            job.stopping.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_SECONDS_MAX)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, job: Job, work: Work) -> None:
        try:
            job.result, job.state = await work(job)
        except HoldfastError as error:
            job.state, job.error = "failed", error.detail
        except Exception as error:
            job.state = "failed"
            job.error = (
                f"A part of the system does not answer: {error!r}" if is_transient(error) else repr(error)
            )
            _log.exception("job_failed", job=str(job.id), kind=job.kind)
        finally:
            if job.state == "running":
                job.state, job.error = "failed", "It was cut off."
            job.ended.set()
