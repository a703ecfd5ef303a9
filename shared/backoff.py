"""How long to wait before the next try?"""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Growing pauses with full jitter, so that many clients do not come back at once.

    Source: "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """

    seconds_min: float = 0.05
    seconds_max: float = 5.0
    factor: float = 2.0

    def seconds(self, tries: int) -> float:
        """Return the pause after the given number of failed tries (1 or more)."""
        ceiling: float = min(self.seconds_max, self.seconds_min * self.factor ** min(tries - 1, 32))
        return random.uniform(self.seconds_min / 2, ceiling)  # noqa: S311 (jitter, not a secret)
