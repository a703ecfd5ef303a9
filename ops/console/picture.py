"""Where do the lines of a chart run? Plain numbers for templates that draw SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 300, 64
_MARGIN = 3


@dataclass(frozen=True, slots=True)
class Chart:
    """A small chart: its title, the newest and the largest value, and the points of its line and of what is below it."""

    title: str
    unit: str
    now: float
    peak: float
    line: str
    area: str


def chart(title: str, unit: str, values: Sequence[float], *, length: int) -> Chart:
    """Draw values, the newest at the right edge; fewer than `length` leave the left side empty."""
    if not values:
        return Chart(title, unit, 0.0, 0.0, "", "")
    peak = max(values)
    step = WIDTH / max(1, length - 1)
    first = WIDTH - step * (len(values) - 1)
    points = [
        (round(first + step * position, 1), round(_height(value, peak), 1))
        for position, value in enumerate(values)
    ]
    line = " ".join(f"{x},{y}" for x, y in points)
    area = f"{points[0][0]},{HEIGHT} {line} {points[-1][0]},{HEIGHT}"
    return Chart(title, unit, values[-1], peak, line, area)


def _height(value: float, peak: float) -> float:
    usable = HEIGHT - 2 * _MARGIN
    return HEIGHT - _MARGIN - (usable * value / peak if peak > 0 else 0.0)


def share(value: float, whole: float) -> float:
    """Return how wide a bar is, in percent; what is there at all can be seen."""
    return 0.0 if value <= 0 or whole <= 0 else max(0.6, round(100 * value / whole, 1))
