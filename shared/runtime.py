"""How does a service start, run and stop?

`run` reads the settings, opens the database, lets the service wire its parts, and keeps them running. On SIGTERM it
stops in the order in which nothing is lost: first what takes work in, then what works on it, at last the relay.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

import uvloop
from aiohttp import web

from shared.backoff import Backoff
from shared.batcher import Batcher
from shared.consumer import Consumer, ConsumerLimits, Handle
from shared.database import Database, DatabaseOptions, is_transient
from shared.errors import HoldfastError, Misconfigured
from shared.events import Wire
from shared.health import Health
from shared.kafka import GroupLimits
from shared.logging import configure, get_logger
from shared.relay import Relay
from shared.settings import ServiceSettings, load
from shared.web import Access, make_app
from shared.worker import Worker, wait_for_any

S = TypeVar("S", bound=ServiceSettings)
C = TypeVar("C")
_log = get_logger()


class Part(Protocol):
    """Something that runs as long as its service does, and ends soon after `stopping` is set."""

    name: str

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop."""


P = TypeVar("P", bound=Part)


class Service(Generic[S]):
    """What a service is made of, filled in by its `wire`."""

    def __init__(self, name: str, settings: S, database: Database, resources: AsyncExitStack) -> None:
        self.name = name
        self.settings = settings
        self.database = database
        self.health = Health()
        self.parts: list[Part] = []
        self.app: web.Application | None = None
        self._resources = resources

    def add(self, part: P) -> P:
        """Have a part run with the service; its name is its own."""
        if any(other.name == part.name for other in self.parts):
            detail = f"two parts are named {part.name}"
            raise HoldfastError(detail)
        self.parts.append(part)
        return part

    async def enter(self, resource: AbstractAsyncContextManager[C]) -> C:
        """Open something that is closed after every part has ended."""
        return await self._resources.enter_async_context(resource)

    def consume(self, group: str, consumed: Sequence[type[Wire]], handle: Handle) -> Consumer:
        """Add the consumer that feeds `handle`."""
        settings = self.settings
        group_limits = GroupLimits(
            records_max=settings.batch_records_max,
            fetch_bytes_max=settings.fetch_bytes_max,
            session_timeout_seconds=settings.session_timeout_seconds,
            poll_interval_seconds_max=settings.poll_interval_seconds_max,
        )
        limits = ConsumerLimits(group_limits, settings.batch_pause_seconds, settings.offsets_interval_seconds)
        return self.add(
            Consumer(
                group,
                consumed,
                handle,
                database=self.database,
                kafka=settings.kafka(),
                limits=limits,
                health=self.health,
            )
        )

    def relay(self) -> Relay:
        """Add the relay that empties this service's outbox."""
        settings = self.settings
        return self.add(
            Relay(
                self.database.dsn,
                settings.kafka(),
                name=self.name,
                health=self.health,
                rows_max=settings.relay_rows_max,
                interval_seconds=settings.relay_interval_seconds,
            )
        )

    def serve(self, routes: Sequence[web.RouteDef], *, openapi: Mapping[str, Any]) -> None:
        """Answer HTTP with these routes and those that every service has."""
        settings = self.settings
        self.app = make_app(
            routes,
            access=Access(storefront=settings.storefront_token, operator=settings.operator_token),
            health=self.health,
            database=self.database,
            openapi=openapi,
            body_bytes_max=settings.http_body_bytes_max,
        )


Wiring = Callable[[Service[S]], Awaitable[None]]


def run(name: str, settings_type: type[S], wire: Wiring[S]) -> None:
    """Run a service until SIGTERM or Ctrl-C. Exit status 2 for wrong settings, 1 if it fails."""
    try:
        settings = load(settings_type)
    except Misconfigured as error:
        print(error.detail, file=sys.stderr)  # noqa: T201 (before there is a log, to a person)
        raise SystemExit(2) from error
    configure(name, settings.log_level)
    uvloop.run(_run(name, settings, wire))


async def _run(name: str, settings: S, wire: Wiring[S]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with start(name, settings, wire, stopping=stopping):
        await stopping.wait()


@asynccontextmanager
async def start(
    name: str, settings: S, wire: Wiring[S], *, stopping: asyncio.Event | None = None
) -> AsyncIterator[Service[S]]:
    """Start a service in this event loop, lend it, and stop it in order; tests use the same way in.

    Raises:
        HoldfastError: a part died.
    """
    stopping = stopping or asyncio.Event()
    async with AsyncExitStack() as resources:
        database = Database(_database_options(name, settings))
        await _open(database, stopping)
        resources.push_async_callback(database.close)
        service = Service(name, settings, database, resources)
        await wire(service)
        tasks = _Tasks(service.parts, stopping)
        try:
            async with _listening(service):
                service.health.started = True
                _log.info("started", service=name, parts=[part.name for part in service.parts])
                yield service
                service.health.stopping = True
                _log.info("stopping", service=name)
        finally:
            await tasks.stop(settings.drain_seconds_max)
    tasks.raise_failures()
    _log.info("stopped", service=name)


class _Tasks:
    """The running parts; if one dies, the service stops, since half a service is worse than none."""

    def __init__(self, parts: Sequence[Part], stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._stops = {part.name: asyncio.Event() for part in parts}
        self._parts = parts
        self._failures: list[tuple[str, BaseException]] = []
        self._tasks = {
            part.name: asyncio.create_task(part.run(self._stops[part.name]), name=part.name) for part in parts
        }
        for task in self._tasks.values():
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            _log.error("part_died", part=task.get_name(), exc_info=error)
            if error is not None:
                self._failures.append((task.get_name(), error))
            self._stopping.set()

    async def stop(self, seconds_max: float) -> None:
        """Stop what takes in before what works on it, and the relay last; cancel what does not end in time."""
        deadline = asyncio.get_running_loop().time() + seconds_max
        for kind in (Consumer, Worker, Batcher, object):
            ending = [
                part.name for part in self._parts if isinstance(part, kind) and not self._is_done(part.name)
            ]
            for part_name in ending:
                self._stops[part_name].set()
            tasks = [self._tasks[part_name] for part_name in ending]
            if tasks:
                left = max(0.1, deadline - asyncio.get_running_loop().time())
                _, late = await asyncio.wait(tasks, timeout=left)
                for task in late:
                    _log.warning("part_cancelled", part=task.get_name())
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    def _is_done(self, part_name: str) -> bool:
        return self._tasks[part_name].done()

    def raise_failures(self) -> None:
        """Raise if a part died."""
        if self._failures:
            part_name, error = self._failures[0]
            detail = f"{part_name} died: {error!r}"
            raise HoldfastError(detail) from error


@asynccontextmanager
async def _listening(service: Service[S]) -> AsyncIterator[None]:
    """Answer HTTP; at the end stop listening, and let the requests under way finish."""
    if service.app is None:
        yield
        return
    settings = service.settings
    runner = web.AppRunner(
        service.app, access_log=None, handle_signals=False, shutdown_timeout=settings.drain_seconds_max / 2
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.http_host, settings.http_port, backlog=1_024)
        await site.start()
        yield
    finally:
        await runner.cleanup()


async def _open(database: Database, stopping: asyncio.Event) -> None:
    """Connect to the database, waiting for it as long as it takes."""
    backoff = Backoff(seconds_min=0.2, seconds_max=5.0)
    failures = 0
    while True:
        try:
            await database.open()
        except Exception as error:
            if not is_transient(error) or stopping.is_set():
                raise
            failures += 1
            _log.warning("database_away", error=repr(error), failures=failures)
            await wait_for_any(stopping, seconds=backoff.seconds(failures))
        else:
            return


def _database_options(name: str, settings: ServiceSettings) -> DatabaseOptions:
    return DatabaseOptions(
        dsn=settings.database_dsn,
        pool_size_max=settings.database_pool_size_max,
        acquire_timeout_seconds=settings.database_acquire_timeout_seconds,
        statement_timeout_seconds=settings.database_statement_timeout_seconds,
        lock_timeout_seconds=settings.database_lock_timeout_seconds,
        application_name=name,
    )
