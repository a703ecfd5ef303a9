"""Start here: `python -m benchmarks` measures and prints a table; `--json FILE` keeps the figures."""

from pathlib import Path

import orjson
import uvloop
from cyclopts import App
from rich.console import Console

from benchmarks import audit, relay, replay, reserve, saga, webhooks
from benchmarks.figures import Figure, render
from benchmarks.shapes import real_baskets, synthetic_shapes

app = App(name="benchmarks", help="Measure Holdfast on this machine.")


@app.command(name="saga")
def measure_saga(*, orders: int = 10_000, runs: int = 3, baskets: int = 0, json: Path | None = None) -> None:
    """Measure whole orders a second, every process on this machine, beside the textbook design.

    Args:
        orders: how many each run of Holdfast takes; the textbook design gets a quarter.
        runs: how many of each, alternating; the median is told.
        baskets: with so many real baskets instead of the synthetic shapes (needs the extra `demo`).
        json: a file that keeps the figures.
    """
    shapes = [real_baskets(baskets)] if baskets else synthetic_shapes()
    _tell(uvloop.run(saga.measure(orders, runs, shapes)), json)


@app.command(name="reserve")
def measure_reserve(*, orders: int = 20_000, runs: int = 3, json: Path | None = None) -> None:
    """Measure the reserve stage alone, on one hot SKU and on 10,000."""
    _tell(uvloop.run(reserve.measure(orders, runs)), json)


@app.command(name="relay")
def measure_relay(*, events: int = 40_000, runs: int = 3, json: Path | None = None) -> None:
    """Measure how fast a full outbox is emptied, beside a producer alone."""
    _tell(uvloop.run(relay.measure(events, runs)), json)


@app.command(name="replay")
def measure_replay(*, events: int = 1_000_000, runs: int = 3, json: Path | None = None) -> None:
    """Measure how fast a service passes through events that it has handled, beside reading them alone."""
    _tell(uvloop.run(replay.measure(events, runs)), json)


@app.command(name="audit")
def measure_audit(*, orders: int = 1_000_000, runs: int = 1, json: Path | None = None) -> None:
    """Measure how long `holdfast audit` takes for so many orders, in which nothing is wrong."""
    _tell(uvloop.run(audit.measure(orders, runs)), json)


@app.command(name="webhooks")
def measure_webhooks(*, webhooks_sent: int = 20_000, runs: int = 3, json: Path | None = None) -> None:
    """Measure how fast webhooks are acknowledged, beside the textbook design."""
    _tell(uvloop.run(webhooks.measure(webhooks_sent, runs)), json)


@app.default
def measure_all(*, runs: int = 3, json: Path | None = None) -> None:
    """Measure everything (about a quarter of an hour); the other commands measure one thing each."""
    _tell(
        [
            *uvloop.run(reserve.measure(20_000, runs)),
            *uvloop.run(relay.measure(40_000, runs)),
            *uvloop.run(replay.measure(1_000_000, runs)),
            *uvloop.run(webhooks.measure(20_000, runs)),
            *uvloop.run(saga.measure(10_000, runs, [*synthetic_shapes(), real_baskets(2_000)])),
        ],
        json,
    )


def _tell(figures: list[Figure], json: Path | None) -> None:
    render(figures, Console())
    if json is not None:
        json.write_bytes(orjson.dumps([figure.as_dict() for figure in figures], option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    app()
