"""How many whole orders a second, from placing to PROCESSING, beside the textbook design in the same run?"""

import asyncio
import time
from collections.abc import Sequence
from statistics import median

from benchmarks.figures import Figure
from benchmarks.machine import cpu_seconds, parts
from benchmarks.shapes import Shape, synthetic_shapes
from benchmarks.systems import Place, System, holdfast, textbook_peer

_LOOK_SECONDS = 0.05


async def measure(orders: int, runs: int, shapes: Sequence[Shape] | None = None) -> list[Figure]:
    """Measure whole orders a second for each shape and way in, as rates and as ratios to the textbook design.

    Args:
        orders: how many each run of Holdfast takes; the textbook design, being slower, gets a quarter.
        runs: how many of each, alternating, so that a change of the machine's speed meets all alike.
        shapes: what the orders look like; without it all that need no data.
    """
    async with parts() as machine, textbook_peer(machine) as peer, holdfast(machine) as ours:
        figures = []
        for shape in synthetic_shapes() if shapes is None else shapes:
            await asyncio.gather(peer.stock_up(shape.skus), ours.stock_up(shape.skus))
            figures += await _measure_shape(shape, peer, ours, orders, runs)
        return figures


async def _measure_shape(shape: Shape, peer: System, ours: System, orders: int, runs: int) -> list[Figure]:
    measured: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for _ in range(runs):
        yardstick = await _run(peer, peer.place["HTTP"], shape, orders // 4)
        measured.setdefault("textbook by HTTP", []).append(yardstick)
        for way, place in ours.place.items():
            result = await _run(ours, place, shape, orders)
            measured.setdefault(f"whole saga by {way}", []).append(result)
    return [_figure(name, shape, results, measured["textbook by HTTP"]) for name, results in measured.items()]


def _figure(
    name: str,
    shape: Shape,
    results: Sequence[tuple[float, dict[str, float]]],
    yardsticks: Sequence[tuple[float, dict[str, float]]],
) -> Figure:
    """Return the rates, and as details the ratio to the yardstick of the same round and CPU milliseconds an order."""
    ratios = [rate / base for (rate, _), (base, _) in zip(results, yardsticks, strict=True)]
    costs = {part: median(cost[part] for _, cost in results) for part in results[0][1]}
    return Figure(
        f"{name}, {shape.name}", "orders/s", [rate for rate, _ in results], {"ratio": median(ratios), **costs}
    )


async def _run(system: System, place: Place, shape: Shape, count: int) -> tuple[float, dict[str, float]]:
    """Place orders, wait until each one is PROCESSING, and return the rate and CPU milliseconds an order."""
    orders = shape.orders(count)
    goal, sent_goal = await system.count_done() + count, system.gateway.sent + count
    cpu_before = {name: cpu_seconds(pid) for name, pid in system.pids.items()}
    own_before, started = time.process_time(), time.perf_counter()
    await place(orders)
    while system.gateway.sent < sent_goal:
        await asyncio.sleep(_LOOK_SECONDS)
    # Counting rows weighs on what is measured, so it begins only when the last webhook was taken.
    while await system.count_done() < goal:
        await asyncio.sleep(_LOOK_SECONDS)
    seconds = time.perf_counter() - started
    costs = {
        f"{name} ms": (cpu_seconds(pid) - cpu_before[name]) * 1_000 / count
        for name, pid in system.pids.items()
    }
    costs["load generator ms"] = (time.process_time() - own_before) * 1_000 / count
    return count / seconds, costs
