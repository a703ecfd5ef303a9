"""Is this process fit for work, what does it miss, and which of its parts has come to a halt?

A part that fails says so (`down`) and tries again: `/readyz` tells, and a restart would not help. A part that is silent
is another matter: it owes work and does none, or does not come back from a step that has to end. For that there is the
watchdog behind `/livez`. An event loop that stands still needs none: it answers no probe.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic


class Progress:
    """What one part owes: since when work waits, or a step is under way that has to end, without anything done."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    def owes(self) -> None:
        """Note that work waits or a step begins; what was owed before is owed since then."""
        if self._since is None:
            self._since = self._clock()

    def done(self) -> None:
        """Note that something was done, that nothing waits, or that it failed for a reason that a restart keeps."""
        self._since = None

    @property
    def halted_seconds(self) -> float:
        """For how long the part has owed something and done nothing; 0 if it owes nothing."""
        return 0.0 if self._since is None else self._clock() - self._since


@dataclass(slots=True)
class Health:
    """What the parts of one process say of themselves: `away` maps a part to what is wrong with it."""

    started: bool = False
    stopping: bool = False
    away: dict[str, str] = field(default_factory=dict)
    watched: dict[str, Progress] = field(default_factory=dict)

    def up(self, part: str) -> None:
        """Note that a part works."""
        self.away.pop(part, None)

    def down(self, part: str, why: str) -> None:
        """Note that a part does not work, and why; the process goes on without it."""
        self.away[part] = why[:500]

    def watch(self, part: str, progress: Progress) -> None:
        """Have the watchdog look at a part."""
        self.watched[part] = progress

    def halted(self, seconds_max: float) -> dict[str, float]:
        """Return the parts that have owed something for longer than allowed, each with its seconds."""
        return {
            part: progress.halted_seconds
            for part, progress in self.watched.items()
            if progress.halted_seconds > seconds_max
        }
