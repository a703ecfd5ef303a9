"""How far has a replay come, so that it can go on after a pause or a crash?

Beside the request, which is written once, a small file says which offset comes next in each partition. It is replaced
when Kafka has acknowledged everything before that: a replay that was cut off sends at most its last chunk twice.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from deploy.local import kept
from ops.replay.request import Request
from shared.errors import Conflict, Invalid, NotFound
from shared.kafka import Span

_FOLDER = "replays"


@dataclass(frozen=True, slots=True)
class Run:
    """A replay under way: its id, what it is to do, since when, and which action of the operator's it is."""

    replay_id: UUID
    request: Request
    started_at: datetime
    action_id: UUID | None = None


@dataclass(slots=True)
class Reached:
    """How far a run has come: `positions` by `topic/partition`, and what was done so far."""

    positions: dict[str, int] = field(default_factory=dict)
    looked_at: int = 0
    published: int = 0
    refused: int = 0
    forgotten: int = 0

    def counts(self) -> dict[str, int]:
        """Return what was done so far."""
        return {
            "looked_at": self.looked_at,
            "published": self.published,
            "refused": self.refused,
            "forgotten": self.forgotten,
        }

    def spans_left(self, spans: Mapping[str, Mapping[int, Span]]) -> dict[str, dict[int, Span]]:
        """Return what is left of some offsets."""
        return {
            topic: {
                number: Span(max(span.begin, self.positions.get(f"{topic}/{number}", span.begin)), span.end)
                for number, span in partitions.items()
            }
            for topic, partitions in spans.items()
        }


_runs: TypeAdapter[Run] = TypeAdapter(Run)
_reached: TypeAdapter[Reached] = TypeAdapter(Reached)


class Checkpoint:
    """The files of one run, in the data directory."""

    def __init__(self, data_dir: Path, replay_id: UUID) -> None:
        self.replay_id = replay_id
        self._folder = data_dir / _FOLDER
        self._run = self._folder / f"{replay_id}.json"
        self._reached = self._folder / f"{replay_id}.reached.json"
        self._lock = self._folder / f"{replay_id}.lock"

    def begin(self, run: Run) -> None:
        """Write what is to be done."""
        self._folder.mkdir(parents=True, exist_ok=True)
        kept.save(self._run, _runs.dump_python(run, mode="json"))

    def save(self, reached: Reached) -> None:
        """Write how far it has come, in one step."""
        kept.save(self._reached, _reached.dump_python(reached, mode="json"))

    def load(self) -> tuple[Run, Reached]:
        """Return what is to be done, and how far it has come.

        Raises:
            NotFound: there is no such run, or it has ended.
            Invalid: the files cannot be read.
        """
        try:
            run, reached = kept.load(self._run), kept.load(self._reached)
            if run is not None:
                return _runs.validate_python(run), _reached.validate_python(reached or {})
        except (ValidationError, ValueError, OSError) as error:
            detail = f"{self._run} cannot be read: {error}"
            raise Invalid(detail) from error
        others = ", ".join(unfinished(self._folder.parent)) or "none"
        detail = f"No replay {self.replay_id} is unfinished in {self._folder}. Unfinished: {others}."
        raise NotFound(detail)

    def end(self) -> None:
        """Forget the run: it is done."""
        for file in (self._run, self._reached, self._lock):
            file.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from carrying out the same run meanwhile.

        Raises:
            Conflict: somebody does so already.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                detail = f"The replay {self.replay_id} is under way already."
                raise Conflict(detail) from error
            yield
        finally:
            os.close(handle)


def unfinished(data_dir: Path) -> list[str]:
    """Return the ids of the runs that can be resumed."""
    return sorted(
        file.stem for file in (data_dir / _FOLDER).glob("*.json") if not file.name.endswith(".reached.json")
    )
