"""Start here: how does `holdfast demo` run from nothing to its summary?

The whole system is started as `holdfast up` starts it; then everything happens from outside it, over HTTP and Kafka.
"""

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.baskets import RealInput, read_real_input
from deploy.local.ready import ReadyLine
from deploy.local.system import run_up
from ops.audit import AuditLimits, audit
from ops.demo.day import Day
from ops.demo.plan import HOLD_GRACE_SECONDS, SEED, Plan, make_plan
from ops.demo.shop import Money, Refused, Shop
from ops.demo.summary import DemoSummary, Observed, summarize
from ops.demo.watch import TOPICS, Watch
from shared.errors import HoldfastError
from shared.kafka import TopicReader
from shared.settings import KafkaConnection, KafkaSettings, load_lenient

#: What the stories of the plan need: a second card, and holds that end while somebody watches.
_SETTINGS = {
    "HOLDFAST_HOLD_GRACE_SECONDS": str(HOLD_GRACE_SECONDS),
    "HOLDFAST_SWEEP_INTERVAL_SECONDS": "0.5",
    "HOLDFAST_PAYMENT_ATTEMPTS_MAX": "2",
    "HOLDFAST_PAYMENT_AUTO_INITIATE": "false",
}
# Longer than the supervisor takes to find a hanging service and to start it again.
_SILENCE_SECONDS_MAX = 120.0
_LOOK_AGAIN_SECONDS = 0.5
_PUBLIC_FOLDER = 0o755

T = TypeVar("T")


class Stopped(HoldfastError):
    """The system was stopped before the demo was over."""

    reason = "stopped"


async def run_demo(*, orders: int, data_dir: Path | None, progress: bool, seed: int = SEED) -> DemoSummary:
    """Run real baskets through the whole system and audit it.

    Args:
        orders: how many baskets.
        data_dir: where the system keeps everything; None for a temporary folder that is removed at the end.
        progress: whether to show a progress bar on standard error.
        seed: decides who does what.

    Raises:
        HoldfastError: the data are not there, or the system does not start or was stopped.
    """
    # It tells at length that a stopped Kafka is not there; what matters comes as an error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    real = await asyncio.to_thread(read_real_input, orders)
    prices_minor = {sku: product.price_minor for sku, product in real.products.items()}
    plan = make_plan(real.baskets, prices_minor, seed)
    with _folder(data_dir) as folder:
        async with _running_system(folder) as (system, running):
            return await _unless_stopped(running, _hold_a_day(system, real, plan, progress=progress))


async def _hold_a_day(system: ReadyLine, real: RealInput, plan: Plan, *, progress: bool) -> DemoSummary:
    kafka = _kafka(system.kafka_bootstrap_servers)
    async with AsyncExitStack() as stack:
        bar = stack.enter_context(_Bar(len(plan.orders), shown=progress))
        shop = await stack.enter_async_context(Shop(system, kafka))
        bar.say("filling the shelves")
        await shop.import_catalog(real.products.values())
        await shop.receive_stock(plan.stock)
        units_before, verdicts_before = await shop.units_sold(), await shop.webhook_verdicts()
        watch = Watch()
        day = Day(plan, shop, watch, on_end=bar.advance)
        reader = TopicReader(kafka, topics=TOPICS, client_id="holdfast-demo")
        await reader.open()
        stack.push_async_callback(reader.close)
        bar.say("orders that have ended")
        await _until_over(day, watch, reader)
        bar.say("auditing")
        report = await audit(system.postgres, limits=AuditLimits(hold_grace_seconds=HOLD_GRACE_SECONDS))
        observed = Observed(
            visits=day.visits,
            units_sold=await _ask(day, shop.units_sold(), units_before) - units_before,
            money=await _ask(day, shop.money(), Money(0, 0)),
            webhook_verdicts=await _ask(day, shop.webhook_verdicts(), verdicts_before) - verdicts_before,
            problems=day.problems,
            ended_at=day.ended_at or time.perf_counter(),
            audit=report,
        )
    return summarize(real, plan, observed)


async def _ask(day: Day, question: Awaitable[T], otherwise: T) -> T:
    """Return the answer; where there is none, say so among the day's problems: the summary matters most on a bad day."""
    try:
        return await question
    except Refused as error:
        day.problems.append(str(error))
        return otherwise


async def _until_over(day: Day, watch: Watch, reader: TopicReader) -> None:
    """Let the day go by; give up when nothing has been heard of any order for a long time."""
    reading, living = asyncio.create_task(watch.run(reader)), asyncio.create_task(day.live())
    try:
        while not living.done():
            await asyncio.wait(
                [reading, living], timeout=_LOOK_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if reading.done():
                reading.result()
            if watch.silent_seconds > _SILENCE_SECONDS_MAX:
                day.problems.append(f"nothing was heard of any order for {_SILENCE_SECONDS_MAX:.0f} s")
                return
        living.result()
    finally:
        await _end(living)
        await _end(reading)


@asynccontextmanager
async def _running_system(data_dir: Path) -> AsyncIterator[tuple[ReadyLine, asyncio.Task[None]]]:
    """Start the whole system and stop it at the end; give where everything is, and the task that runs it."""
    ready: asyncio.Future[ReadyLine] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        run_up(
            data_dir,
            ports="auto",
            services=True,
            on_ready=ready.set_result,
            environment={**os.environ, **_SETTINGS},
        )
    )
    try:
        waiting: list[asyncio.Future[Any]] = [running, ready]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
            raise Stopped
        yield ready.result(), running
    finally:
        await _end(running)


def _kafka(bootstrap_servers: str) -> KafkaSettings:
    return load_lenient(KafkaConnection, kafka_bootstrap_servers=bootstrap_servers).kafka()


async def _unless_stopped(running: asyncio.Task[None], day: Coroutine[None, None, T]) -> T:
    """Return what the day comes to, unless the system that it needs ends before."""
    living = asyncio.create_task(day)
    try:
        await asyncio.wait([running, living], return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            return living.result()
        running.result()
        raise Stopped
    finally:
        await _end(living)


async def _end(task: asyncio.Task[None] | asyncio.Task[T]) -> None:
    """Cancel a task and wait until it is gone."""
    task.cancel()
    await asyncio.wait([task])


@contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    if data_dir is not None:
        yield data_dir
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-", ignore_cleanup_errors=True) as folder:
        # Who is root starts Postgres as somebody else, who must be able to enter.
        Path(folder).chmod(_PUBLIC_FOLDER)
        yield Path(folder)


class _Bar:
    """A progress bar on standard error, or nothing at all."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._progress.add_task("starting", total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, what: str) -> None:
        """Say what is being done."""
        self._progress.update(self._task, description=what)

    def advance(self) -> None:
        """Count one more order that has ended."""
        self._progress.advance(self._task)
