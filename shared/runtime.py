"""How does a service start, run and stop?

`run` reads the settings, opens the database, lets the service wire its parts, and keeps them running. On SIGTERM it
stops in the order in which nothing is lost: first what takes work in, then what works on it, at last the relay.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import uvloop
from aiohttp import web

from shared.access import access_of
from shared.admission import listen
from shared.backoff import Backoff
from shared.batcher import Batcher
from shared.consumer import Consumer, ConsumerLimits, Handle
from shared.database import Connection, Database, DatabaseOptions, is_transient
from shared.errors import HoldfastError, Misconfigured
from shared.events import Wire
from shared.health import Health, Progress
from shared.inbox import InboxPruner
from shared.kafka import GroupLimits
from shared.listener import Listener
from shared.logging import configure, get_logger
from shared.masking import keep_secret, secrets_of
from shared.relay import OutboxAge, Relay
from shared.settings import ServiceSettings, load
from shared.web import Door, make_app, reach_of
from shared.worker import Worker, wait_for_any

S = TypeVar("S", bound=ServiceSettings)
C = TypeVar("C")
Item = TypeVar("Item")
Result = TypeVar("Result")
_OBJECTS_BETWEEN_COLLECTIONS = 50_000
_log = get_logger()
#: The last seconds of a stop, in which what still waits for a part that is away is cut off; at most half of it all.
_CUTTING_SECONDS_MAX = 5.0
#: For how long the rest of a body is read that nobody wants, so that its sender sees the answer.
_LINGER_SECONDS = 2.0


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
        self.access = access_of(settings, self.health)
        self.app: web.Application | None = None
        #: The application behind the operators' own port, if they have one.
        self.operator_app: web.Application | None = None
        #: Where it listens: the ports of the settings, or the free ones that were found for port 0.
        self.http_port = settings.http_port
        self.operator_http_port = settings.operator_http_port
        self._resources = resources

    def add(self, part: P) -> P:
        """Have a part run with the service; its name is its own."""
        if any(other.name == part.name for other in self.parts):
            detail = f"two parts are named {part.name}"
            raise HoldfastError(detail)
        self.parts.append(part)
        progress = getattr(part, "progress", None)
        if isinstance(progress, Progress):
            self.health.watch(part.name, progress)
        return part

    async def enter(self, resource: AbstractAsyncContextManager[C]) -> C:
        """Open something that is closed after every part has ended."""
        return await self._resources.enter_async_context(resource)

    def consume(self, group: str, consumed: Sequence[type[Wire]], handle: Handle) -> Consumer:
        """Add the consumer that feeds `handle`, and what forgets old entries of its inbox."""
        settings = self.settings
        group_limits = GroupLimits(
            records_max=settings.batch_records_max,
            fetch_bytes_max=settings.fetch_bytes_max,
            session_timeout_seconds=settings.session_timeout_seconds,
            poll_interval_seconds_max=settings.poll_interval_seconds_max,
        )
        limits = ConsumerLimits(
            group_limits,
            pause_seconds=settings.batch_pause_seconds,
            offsets_interval_seconds=settings.offsets_interval_seconds,
            pause_records_min=settings.batch_pause_records_min,
        )
        pruner = InboxPruner(self.database, retention_seconds=settings.inbox_retention_seconds)
        self.add(
            Worker("inbox_pruner", pruner.tick, interval_seconds=settings.inbox_pruning_interval_seconds)
        )
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

    def listen(self, channel: str) -> Listener:
        """Add the listener that wakes requests when a commit changes what they wait for."""
        return self.add(Listener(self.database.dsn, channel, health=self.health))

    def end_waits(self) -> None:
        """Have requests that wait for a change answered now, since the service stops."""
        for part in self.parts:
            if isinstance(part, Listener):
                part.wake_all()

    def batch(
        self,
        name: str,
        apply: Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result | HoldfastError]]],
        *,
        size_max: int | None = None,
    ) -> Batcher[Item, Result]:
        """Add an edge where requests that come together share a transaction."""
        settings = self.settings
        return self.add(
            Batcher(
                name,
                self.database,
                apply,
                size_max=size_max or settings.batch_records_max,
                queue_max=settings.queue_max,
                pause_seconds=settings.request_pause_seconds,
            )
        )

    def relay(self) -> Relay:
        """Add the relay that empties this service's outbox, and what tells how old the outbox is."""
        settings = self.settings
        age = OutboxAge(self.database)
        self.add(Worker("outbox_age", age.tick, interval_seconds=settings.measure_interval_seconds))
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
        """Answer HTTP with these routes and those that every service has.

        Raises:
            ValueError: a route does not say whom it is for.
        """
        for route in routes:
            reach_of(route.handler)
        settings, access = self.settings, self.access
        make = partial(
            make_app,
            routes,
            access=access,
            health=self.health,
            database=self.database,
            openapi=openapi,
            body_bytes_max=settings.http_body_bytes_max,
            body_seconds_max=settings.http_body_seconds_max,
            watchdog_seconds=settings.watchdog_seconds,
        )
        if settings.operator_http_port is None:
            self.app = make(door=Door.ONE)
        else:
            self.app, self.operator_app = make(door=Door.PUBLIC), make(door=Door.OPERATORS)
        if access.api_keys is not None:
            tick, seconds = access.api_keys.tick, settings.api_keys_interval_seconds
            self.add(Worker("keys_file", tick, interval_seconds=seconds))
        if access.issuer is not None:
            tick, seconds = access.issuer.keys.tick, settings.oidc_cache_seconds
            self.add(Worker("issuer_keys", tick, interval_seconds=seconds))


Wiring = Callable[[Service[S]], Awaitable[None]]


def run(name: str, settings_type: type[S], wire: Wiring[S]) -> None:
    """Run a service until SIGTERM or Ctrl-C. Exit status 2 for wrong settings, 1 if it fails."""
    try:
        settings = load(settings_type)
        keep_secret(secrets_of(settings))
        configure(name, settings.log_level)
        uvloop.run(_run(name, settings, wire))
    except Misconfigured as error:
        print(error.detail, file=sys.stderr)  # noqa: T201 (to a person)
        raise SystemExit(2) from error


async def _run(name: str, settings: S, wire: Wiring[S]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with start(name, settings, wire, stopping=stopping):
        _spare_the_collector()
        await stopping.wait()


def _spare_the_collector() -> None:
    """Have the garbage collector pass over what lives as long as the process, and come less often.

    A batch makes and drops thousands of objects at once: at the default threshold it would be searched many times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)


@asynccontextmanager
async def start(
    name: str, settings: S, wire: Wiring[S], *, stopping: asyncio.Event | None = None
) -> AsyncIterator[Service[S]]:
    """Start a service in this event loop, lend it, and stop it in order; tests use the same way in.

    Raises:
        Misconfigured: a file that the settings name is wrong.
        HoldfastError: a part died.
    """
    stopping = stopping or asyncio.Event()
    async with AsyncExitStack() as resources:
        database = Database(_database_options(name, settings))
        service = Service(name, settings, database, resources)
        await _open(database, stopping)
        resources.push_async_callback(database.close)
        await wire(service)
        tasks = _Tasks(service.parts, stopping)
        clock = asyncio.get_running_loop().time
        stopping_at = clock()
        try:
            async with _listening(service):
                service.health.started = True
                _log.info("started", service=name, parts=[part.name for part in service.parts])
                yield service
                stopping_at = clock()
                service.health.stopping = True
                service.end_waits()
                _log.info("stopping", service=name)
        finally:
            # The requests under way and the parts share the time that is promised for a stop.
            cutting_seconds = min(_CUTTING_SECONDS_MAX, settings.drain_seconds_max / 2)
            await tasks.stop(
                finish_at=stopping_at + settings.drain_seconds_max - cutting_seconds,
                cutting_seconds=0.6 * cutting_seconds,
                cut_off=database.terminate,
            )
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

    async def stop(self, *, finish_at: float, cutting_seconds: float, cut_off: Callable[[], None]) -> None:
        """Stop what takes in before what works on it, and the relay last.

        Args:
            finish_at: until when, in the loop's time, the parts may finish; then those that have not are cancelled.
            cutting_seconds: how long they may take to end themselves then; who has not ended is left behind.
            cut_off: takes their connections away, so that nobody waits for an answer that does not come.
        """
        clock = asyncio.get_running_loop().time
        for kind in (Consumer, Worker, Batcher, object):
            ending = [
                part.name for part in self._parts if isinstance(part, kind) and not self._is_done(part.name)
            ]
            for part_name in ending:
                self._stops[part_name].set()
            tasks = [self._tasks[part_name] for part_name in ending]
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.1, finish_at - clock()))
        late = [task for task in self._tasks.values() if not task.done()]
        if late:
            for task in late:
                _log.warning("part_cancelled", part=task.get_name())
                task.cancel()
            cut_off()
            _, abandoned = await asyncio.wait(late, timeout=cutting_seconds)
            for task in abandoned:
                _log.error("part_abandoned", part=task.get_name())

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
    settings = service.settings
    runners = {
        app: web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            # aiohttp waits so long for the requests under way, and as long again for those that it has cancelled.
            shutdown_timeout=settings.drain_seconds_max / 4,
            keepalive_timeout=settings.http_idle_seconds_max,
            lingering_time=_LINGER_SECONDS,
        )
        for app in (service.app, service.operator_app)
        if app is not None
    }
    try:
        with ExitStack() as ports:
            for app, runner in runners.items():
                await runner.setup()
                listening = await _open_port(service, app, runner)
                ports.callback(listening.close)
            yield
    finally:
        await asyncio.gather(*(runner.cleanup() for runner in runners.values()))


async def _open_port(service: Service[S], app: web.Application, runner: web.AppRunner) -> asyncio.Server:
    """Listen for one of a service's applications, each with connections of its own, and note where."""
    settings = service.settings
    is_public = app is service.app
    host = settings.http_host if is_public else settings.operator_http_host or settings.http_host
    port = settings.http_port if is_public else settings.operator_http_port or 0
    listening = await listen(runner, host, port, connections_max=settings.http_connections_max)
    found: int = listening.sockets[0].getsockname()[1]
    if is_public:
        service.http_port = found
    else:
        service.operator_http_port = found
    return listening


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
