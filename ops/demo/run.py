"""Start here: how does `holdfast demo` run from nothing to its summary?

The whole system is started as `holdfast up` starts it, with doubles of Stripe and Midtrans beside the sandbox; then
everything happens from outside it, over HTTP and Kafka. It is a system of its own: no database, Kafka, gateway or key that
the caller's settings name is ever touched.
"""

import asyncio
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from benchmarks.baskets import RealInput, read_real_input
from deploy.local.parts import importing
from deploy.local.ready import ReadyLine
from ops.audit import AuditLimits, audit
from ops.demo.banks import Bank, Doubles, Money, SandboxBank, doubles
from ops.demo.day import Day
from ops.demo.market import GatewayName, Offer, choose_gateways, find_gateways, localize
from ops.demo.plan import HOLD_GRACE_SECONDS, HOLD_SECONDS_SHORT, SEED, Plan, make_plan
from ops.demo.shop import Refused, Shop
from ops.demo.summary import DemoSummary, Observed, summarize
from ops.demo.watch import TOPICS, Watch
from shared.errors import HoldfastError, Misconfigured
from shared.kafka import TopicReader
from shared.settings import KafkaConnection, KafkaSettings, load_lenient

#: What the stories of the plan need: a second card, holds that end while somebody watches, and somebody who asks soon
#: what became of a payment of which nothing was heard.
_SETTINGS = {
    "HOLDFAST_HOLD_GRACE_SECONDS": str(HOLD_GRACE_SECONDS),
    "HOLDFAST_SWEEP_INTERVAL_SECONDS": "0.5",
    "HOLDFAST_PAYMENT_ATTEMPTS_MAX": "2",
    "HOLDFAST_PAYMENT_AUTO_INITIATE": "false",
    "HOLDFAST_RECONCILE_SCHEDULE_SECONDS": "4,8,16,32,64",
    "HOLDFAST_RECONCILE_BEFORE_EXPIRY_SECONDS": str(HOLD_SECONDS_SHORT // 3),
}
#: Where real money or real orders could be: the demo has its own.
_OF_REAL_GATEWAYS = ("HOLDFAST_STRIPE_", "HOLDFAST_MIDTRANS_", "HOLDFAST_SANDBOX_", "HOLDFAST_GATEWAYS")
_OF_REAL_STORES = (
    *("HOLDFAST_ORDER_DATABASE_DSN", "HOLDFAST_INVENTORY_DATABASE_DSN", "HOLDFAST_PAYMENT_DATABASE_DSN"),
    "HOLDFAST_KAFKA_BOOTSTRAP_SERVERS",
)
# Longer than the supervisor takes to find a hanging service and to start it again.
_SILENCE_SECONDS_MAX = 120.0
_LOOK_AGAIN_SECONDS = 0.5
_PUBLIC_FOLDER = 0o755

T = TypeVar("T")


class Stopped(HoldfastError):
    """The system was stopped before the demo was over."""

    reason = "stopped"


@dataclass(frozen=True, slots=True)
class _Staging:
    """What is to be played: the real input, what the catalog makes of it, who does what, and which gateways are away."""

    real: RealInput
    offers: dict[str, Offer]
    plan: Plan
    left_out: dict[str, str]


async def run_demo(*, orders: int, data_dir: Path | None, progress: bool, seed: int = SEED) -> DemoSummary:
    """Run real baskets through the whole system and audit it.

    Args:
        orders: how many baskets.
        data_dir: where the system keeps everything; None for a temporary folder that is removed at the end.
        progress: whether to show a progress bar on standard error.
        seed: decides who does what.

    Raises:
        Misconfigured: the settings name a database or a Kafka of their own, which a demo must not touch.
        HoldfastError: the data are not there, or the system does not start or was stopped.
    """
    # It tells at length that a stopped Kafka is not there; what matters comes as an error.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    caller = _without_real_gateways(os.environ)
    gateways, left_out = find_gateways()
    staging = await asyncio.to_thread(_stage, orders, seed, gateways, left_out)
    async with doubles(with_stripe="stripe" in gateways) as others:
        environment = {**caller, **_SETTINGS, **others.settings}
        with _folder(data_dir) as folder:
            async with _running_system(folder, environment) as (system, running):
                return await _unless_stopped(running, _hold_a_day(system, staging, others, progress=progress))


def _without_real_gateways(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment without a word about gateways; refuse one that names stores of its own."""
    named = sorted(name for name in environment if name.removesuffix("_FILE") in _OF_REAL_STORES)
    if named:
        detail = f"the demo sells what does not exist, in a system of its own: unset {', '.join(named)}"
        raise Misconfigured(detail)
    return {name: value for name, value in environment.items() if not name.startswith(_OF_REAL_GATEWAYS)}


def _stage(orders: int, seed: int, names: Sequence[GatewayName], left_out: dict[str, str]) -> _Staging:
    real = read_real_input(orders)
    gateways = choose_gateways(real.baskets, names)
    baskets, offers = localize(real, gateways)
    prices_minor = {sku: offer.price_minor for sku, offer in offers.items()}
    return _Staging(real, offers, make_plan(baskets, prices_minor, gateways, seed), left_out)


async def _hold_a_day(
    system: ReadyLine, staging: _Staging, others: Doubles, *, progress: bool
) -> DemoSummary:
    kafka = _kafka(system.kafka_bootstrap_servers)
    plan = staging.plan
    async with AsyncExitStack() as stack:
        bar = stack.enter_context(_Bar(len(plan.orders), shown=progress))
        shop = await stack.enter_async_context(Shop(system, kafka))
        banks = others.banks(system.payment_url) | {"sandbox": SandboxBank(shop.ask, system.gateway_url)}
        bar.say("Filling the shelves")
        await shop.import_catalog(staging.offers.values())
        await shop.receive_stock(plan.stock)
        units_before, verdicts_before = await shop.units_sold(), await shop.webhook_verdicts()
        watch = Watch()
        day = Day(plan, shop, banks, watch, on_end=bar.advance)
        reader = TopicReader(kafka, topics=TOPICS, client_id="holdfast-demo")
        await reader.open()
        stack.push_async_callback(reader.close)
        bar.say("Orders closed")
        await _until_over(day, watch, reader)
        bar.say("Auditing the books")
        report = await audit(system.postgres, limits=AuditLimits(hold_grace_seconds=HOLD_GRACE_SECONDS))
        observed = Observed(
            visits=day.visits,
            units_sold=await _ask(day, shop.units_sold(), units_before) - units_before,
            money=await _ask(day, _money(banks), {}),
            webhook_verdicts=await _ask(day, shop.webhook_verdicts(), verdicts_before) - verdicts_before,
            found_by_asking=await _ask(day, shop.found_by_asking(), Counter()),
            problems=day.problems,
            ended_at=day.ended_at or time.perf_counter(),
            audit=report,
        )
        bar.say("Orders closed")
    return summarize(staging.real, plan, observed, left_out=staging.left_out)


async def _money(banks: Mapping[GatewayName, Bank]) -> dict[GatewayName, Money]:
    return {name: await bank.money() for name, bank in banks.items()}


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
async def _running_system(
    data_dir: Path, environment: Mapping[str, str]
) -> AsyncIterator[tuple[ReadyLine, asyncio.Task[None]]]:
    """Start the whole system and stop it at the end; give where everything is, and the task that runs it."""
    with importing():
        from deploy.local.system import run_up  # noqa: PLC0415 (an image of the services alone has no such part)

    ready: asyncio.Future[ReadyLine] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        run_up(
            data_dir,
            ports="auto",
            services=True,
            on_ready=ready.set_result,
            environment=environment,
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
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._progress.add_task("Starting", total=total)

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
