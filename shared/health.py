"""Is this process fit for work, and what does it miss?"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Health:
    """What the parts of one process say of themselves: `away` maps a part to what is wrong with it."""

    started: bool = False
    stopping: bool = False
    away: dict[str, str] = field(default_factory=dict)

    def up(self, part: str) -> None:
        """Note that a part works."""
        self.away.pop(part, None)

    def down(self, part: str, why: str) -> None:
        """Note that a part does not work, and why; the process goes on without it."""
        self.away[part] = why[:500]
