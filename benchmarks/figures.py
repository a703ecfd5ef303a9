"""How are measurements told: as a table for people and as JSON for comparison?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity over several runs; more is better unless `unit` is a time or a cost."""

    name: str
    unit: str
    runs: Sequence[float]
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The value to quote."""
        return median(self.runs)

    def as_dict(self) -> dict[str, object]:
        """Return the figure as it stands in the JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(self.median, 3),
            "min": round(min(self.runs), 3),
            "max": round(max(self.runs), 3),
            "runs": [round(run, 3) for run in self.runs],
            "details": {name: round(value, 4) for name, value in self.details.items()},
        }


def render(figures: Sequence[Figure], console: Console) -> None:
    """Print the figures: each with its ratio to the yardstick, and beneath it what else was measured."""
    table = Table("figure", "median", "min", "max", "unit", "ratio")
    for figure in figures:
        details = dict(figure.details)
        ratio = details.pop("ratio", None)
        beneath = ", ".join(f"{name} {value:.2f}" for name, value in details.items())
        table.add_row(
            f"{figure.name}\n[dim]{beneath}[/dim]" if beneath else figure.name,
            f"{figure.median:,.0f}",
            f"{min(figure.runs):,.0f}",
            f"{max(figure.runs):,.0f}",
            figure.unit,
            "" if ratio is None else f"{ratio:.2f}",
        )
    console.print(table)
