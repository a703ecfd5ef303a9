"""What does the overview show, and what does it cost to know? Gathered once for everybody who looks.

Rates come from the counters that Postgres keeps of its tables anyway, every two seconds, looked at or not. What reads
whole tables is asked only while somebody looks, and never for more than a small part of the time.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ops.console import store
from ops.console.databases import Databases
from ops.console.picture import Chart, chart
from ops.console.settings import REFRESH_SECONDS
from ops.lag import LagLimits, LagReport, measure_lag
from ops.place import Place, hold_times
from shared.database import is_transient
from shared.errors import HoldfastError
from shared.logging import get_logger

#: Points of a chart: five minutes.
POINTS = 150
#: Over how many samples a rate is taken: Postgres counts a commit about a second late.
_SAMPLES = 5
#: Part of the time that questions which read whole tables may take.
_SHARE_MAX = 0.05
_WATCHED_SECONDS = 30.0
_STALE_SECONDS = 10.0
_FIRST_LOOK_SECONDS = 3.0
_log = get_logger()

#: What is counted: the name of a rate, the database, the table, and whether rows come or go.
_COUNTED = (
    ("orders", "order", "orders", "inserted"),
    ("attempts", "payment", "attempts", "inserted"),
    ("webhooks", "payment", "webhooks", "inserted"),
    ("refunds", "payment", "refunds", "inserted"),
    *((f"{service}_told", service, "outbox", "deleted") for service in ("order", "inventory", "payment")),
    *(
        (f"{service}_heard", service, "processed_events", "inserted")
        for service in ("order", "inventory", "payment")
    ),
)


@dataclass(slots=True)
class Meter:
    """How fast a counter grows, over its last samples."""

    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))

    def add(self, at: float, count: int) -> None:
        """Take a sample; a counter that has become smaller was set back, and begins anew."""
        if self.samples and count < self.samples[-1][1]:
            self.samples.clear()
        self.samples.append((at, count))

    @property
    def per_second(self) -> float:
        """How many a second; 0 until there are two samples."""
        if len(self.samples) < 2:  # noqa: PLR2004 (a difference needs two)
            return 0.0
        (since, first), (until, last) = self.samples[0], self.samples[-1]
        return (last - first) / max(until - since, 0.001)


@dataclass(slots=True)
class Overview:
    """What is known at the moment; None: not asked yet."""

    rates: Mapping[str, float]
    statuses: Mapping[str, int] | None = None
    lag: LagReport | None = None
    reviews: int = 0
    problems: Sequence[str] = ()
    charts: list[Chart] = field(default_factory=list)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def value(self, what: str, of: str | None = None) -> float:
        """Return a measure, or the sum over all that begin with the same words."""
        measures = self.lag.measures if self.lag is not None else ()
        return sum(
            measure.value
            for measure in measures
            if measure.what == what and (of is None or measure.of.startswith(of))
        )


class Gatherer:
    """Keeps an `Overview` fresh, and tells those who wait that it has changed."""

    def __init__(self, databases: Databases, place: Place) -> None:
        self._databases = databases
        self._place = place
        self._meters = {name: Meter() for name, *_ in _COUNTED}
        self._series: dict[str, deque[float]] = {
            name: deque(maxlen=POINTS) for name in ("orders", "told", "webhooks", "waiting")
        }
        self._now = asyncio.get_running_loop().time
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()
        self._watched_until = 0.0
        self._known: dict[str, Any] = {}
        self._known_at: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self.overview = Overview(dict.fromkeys(self._meters, 0.0))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Gather for as long as the block lasts."""
        questions: Mapping[str, Callable[[], Awaitable[object]]] = {
            "statuses": self._ask_statuses,
            "lag": self._ask_lag,
            "reviews": self._ask_reviews,
        }
        tasks = [asyncio.create_task(self._sample_for_ever())]
        tasks += [asyncio.create_task(self._ask_for_ever(name, ask)) for name, ask in questions.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def watch(self) -> None:
        """Note that somebody looks: what costs more is asked as well, for a while."""
        self._watched_until = self._now() + _WATCHED_SECONDS
        self._looked.set()

    async def look(self) -> Overview:
        """Return what is known; waits a moment for what nobody has asked for lately."""
        self.watch()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK_SECONDS):
                while not self._is_fresh():
                    await self._changed.wait()
        return self.overview

    async def changed(self) -> Overview:
        """Return the next overview, as soon as there is one."""
        self.watch()
        await self._changed.wait()
        return self.overview

    def _is_fresh(self) -> bool:
        asked = [self._known_at.get(name, -_STALE_SECONDS) for name in ("statuses", "lag")]
        return min(asked) > self._now() - _STALE_SECONDS

    async def _sample_for_ever(self) -> None:
        while True:
            for service in ("order", "inventory", "payment"):
                await self._noting(service, self._sample(service))
            rates = {name: meter.per_second for name, meter in self._meters.items()}
            self._series["orders"].append(rates["orders"])
            self._series["webhooks"].append(rates["webhooks"])
            self._series["told"].append(sum(rates[name] for name in rates if name.endswith("_told")))
            self._series["waiting"].append(self.overview.value("consumer lag"))
            self._publish()
            await asyncio.sleep(REFRESH_SECONDS)

    async def _sample(self, service: str) -> None:
        async with self._databases.reading(service) as connection:
            written = await store.count_written(connection)
        at = self._now()
        for name, of, table, way in _COUNTED:
            if of == service and table in written:
                self._meters[name].add(at, getattr(written[table], way))

    async def _ask_for_ever(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        while True:
            if self._now() > self._watched_until:
                self._looked.clear()
                await self._looked.wait()
            began = self._now()
            await self._noting(name, self._keep(name, ask))
            self._known_at[name] = self._now()
            self._publish()
            await asyncio.sleep(max(REFRESH_SECONDS, (self._now() - began) / _SHARE_MAX))

    async def _keep(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        self._known[name] = await ask()

    async def _ask_statuses(self) -> dict[str, int]:
        async with self._databases.reading("order") as connection:
            return await store.count_orders(connection)

    async def _ask_lag(self) -> LagReport:
        grace = hold_times().hold_grace_seconds
        return await measure_lag(self._place, LagLimits(), hold_grace_seconds=grace)

    async def _ask_reviews(self) -> int:
        async with self._databases.reading("payment") as connection:
            return await store.count_reviews(connection)

    async def _noting(self, name: str, work: Awaitable[None]) -> None:
        """Do something that may fail, and note for the page what is wrong."""
        try:
            await work
        except Exception as error:
            if isinstance(error, HoldfastError):
                self._problems[name] = error.detail
            elif is_transient(error):
                self._problems[name] = f"{name}: {error!r}"
            else:
                self._problems[name] = f"{name}: cannot be told; see the log of the console"
                _log.exception("gathering_failed", what=name)
        else:
            self._problems.pop(name, None)

    def _publish(self) -> None:
        """Put together what is known, and wake those who wait."""
        titles = {
            "orders": ("Orders placed", "/s"),
            "told": ("Events published", "/s"),
            "webhooks": ("Webhooks received", "/s"),
            "waiting": ("Messages waiting", ""),
        }
        lag: LagReport | None = self._known.get("lag")
        problems = [*(lag.problems if lag is not None else ()), *self._problems.values()]
        self.overview = Overview(
            rates={name: meter.per_second for name, meter in self._meters.items()},
            statuses=self._known.get("statuses"),
            lag=lag,
            reviews=self._known.get("reviews", 0),
            problems=[*dict.fromkeys(problems)],
            charts=[
                chart(title, unit, [*self._series[name]], length=POINTS)
                for name, (title, unit) in titles.items()
            ],
        )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
