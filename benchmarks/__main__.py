"""Start here: `python -m benchmarks` measures and prints a table; `--json FILE` keeps the figures."""

from pathlib import Path

import orjson
import uvloop
from cyclopts import App
from rich.console import Console

from benchmarks import reserve, saga
from benchmarks.figures import Figure, render

app = App(name="benchmarks", help="Measure Holdfast on this machine.")


@app.command(name="saga")
def measure_saga(*, orders: int = 20_000, runs: int = 3, json: Path | None = None) -> None:
    """Measure whole orders a second: Kafka in, webhooks by HTTP, every process on this machine."""
    _tell(uvloop.run(saga.measure(orders, runs)), json)


@app.command(name="reserve")
def measure_reserve(*, orders: int = 20_000, runs: int = 3, json: Path | None = None) -> None:
    """Measure the reserve stage alone, on one hot SKU and on 10,000."""
    _tell(uvloop.run(reserve.measure(orders, runs)), json)


@app.default
def measure_all(*, orders: int = 20_000, runs: int = 3, json: Path | None = None) -> None:
    """Measure everything."""
    _tell([*uvloop.run(reserve.measure(orders, runs)), *uvloop.run(saga.measure(orders, runs))], json)


def _tell(figures: list[Figure], json: Path | None) -> None:
    render(figures, Console())
    if json is not None:
        json.write_bytes(orjson.dumps([figure.as_dict() for figure in figures], option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    app()
