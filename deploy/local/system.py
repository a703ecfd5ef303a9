"""Start here: what does `holdfast up` consist of, and in which order does it start?

Postgres and Kafka together, then migrations and topics, then the sandbox gateway and the services together, and beside
them the operators' console, without which everything else works as well; stopped the other way round.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from deploy.local import ready
from deploy.local.environment import Caller, module_of
from deploy.local.kafka import EmbeddedKafka
from deploy.local.kept import kept_secrets, new_token, new_webhook_secret
from deploy.local.migrations import migrate_all
from deploy.local.ports import HOST, choose_ports, is_free
from deploy.local.postgres import SERVICES, EmbeddedPostgres
from deploy.local.process import end_leftover
from deploy.local.progress import Progress
from deploy.local.ready import ReadyLine
from deploy.local.supervisor import Part, Supervisor, exclusive
from deploy.local.topics import ensure_topics
from deploy.local.web_part import WebPart
from shared.settings import KafkaConnection, load_lenient

#: Makes the stores fit for the services, given the URI of each service's database and the bootstrap servers.
Prepare = Callable[[Mapping[str, str], str], Awaitable[None]]

_FIXED_PORTS = {
    "order_service": 8001,
    "inventory_service": 8002,
    "payment_service": 8003,
    "sandbox": 8004,
    "kafka": 9092,
}
_CONSOLE_PORT = 8005
#: How long the ready line waits for the console beyond all that it needs.
_CONSOLE_SECONDS_MAX = 5.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PID_FILES = ("postgres/*.pid", "kafka/*.pid", "run/*.pid")


async def migrate_and_create_topics(databases: Mapping[str, str], bootstrap_servers: str) -> None:
    """Bring the databases up to date and create the topics that are missing."""
    kafka = load_lenient(KafkaConnection, kafka_bootstrap_servers=bootstrap_servers).kafka()
    await asyncio.gather(migrate_all(databases), ensure_topics(kafka))


async def run_up(
    data_dir: Path,
    *,
    ports: Literal["auto", "fixed"],
    services: bool,
    copies: int = 1,
    console: bool = False,
    on_ready: Callable[[ReadyLine], None],
    prepare: Prepare = migrate_and_create_topics,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the whole system until SIGINT, SIGTERM, SIGHUP or the cancellation of this task; all is stopped by then.

    Args:
        data_dir: where everything is kept; a restart on it finds it again.
        ports: `fixed` ones as documented, or `auto`: free ones, chosen once and kept.
        services: whether to start the three services, or only what they need.
        copies: how many processes of each service; those after the first get ports of their own.
        console: whether to start the operators' console beside the services.
        on_ready: called once, when everything is ready.
        prepare: makes the stores fit for the services.
        environment: settings for the parts, instead of the process's own.

    Raises:
        HoldfastError: it cannot start; nothing is left running.
    """
    caller = Caller(os.environ if environment is None else environment)
    with exclusive(data_dir), Progress() as progress, _asked_to_stop() as asked:
        supervisor = Supervisor(progress.say)

        async def run() -> None:
            await _end_leftovers(data_dir, progress)
            system = _System(
                data_dir,
                caller,
                supervisor,
                progress,
                fixed_ports=ports == "fixed",
                copies=copies,
                console=console and services,
            )
            await system.start(services=services, prepare=prepare, on_ready=on_ready)
            await supervisor.watch()

        try:
            await _run_until(asked, run())
        finally:
            progress.waiting("stopping")
            ready.forget(data_dir)
            await supervisor.stop()


class _System:
    """The parts of one data directory and what they are told about each other."""

    def __init__(
        self,
        data_dir: Path,
        caller: Caller,
        supervisor: Supervisor,
        progress: Progress,
        *,
        fixed_ports: bool,
        copies: int,
        console: bool,
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._caller = caller
        self._supervisor = supervisor
        self._progress = progress
        self._processes = {
            name: service
            for copy in range(1, copies + 1)
            for service in SERVICES
            for name in [f"{service}_service" if copy == 1 else f"{service}_service_{copy}"]
        }
        self._has_console = console
        names = ["postgres", "kafka", "kafka_controller", "sandbox", *self._processes]
        names += ["console"] if console else []
        kept_in = self._data_dir / "ports.json"
        self._ports = choose_ports(names, fixed=self._fixed(wanted=fixed_ports), kept_in=kept_in)
        self._keys = _keys(self._data_dir, caller)
        self._databases = caller.databases()
        self._bootstrap_servers = caller.value("HOLDFAST_KAFKA_BOOTSTRAP_SERVERS")

    def _fixed(self, *, wanted: bool) -> Mapping[str, int]:
        """Return the ports that are documented; no shop is kept from running by who has taken the console's."""
        if not wanted:
            return {}
        if not self._has_console or is_free(_CONSOLE_PORT):
            return {**_FIXED_PORTS, "console": _CONSOLE_PORT}
        self._progress.say(f"port {_CONSOLE_PORT} is taken by another program: the console gets another one")
        return _FIXED_PORTS

    async def start(
        self,
        *,
        services: bool,
        prepare: Prepare,
        on_ready: Callable[[ReadyLine], None],
    ) -> None:
        """Start everything, and say so when it is ready."""
        databases, bootstrap_servers = await self._start_stores()
        self._progress.waiting("applying migrations, creating topics")
        await prepare(databases, bootstrap_servers)
        self._progress.waiting("starting the gateway and the services")
        parts: list[Part] = [self._sandbox()]
        if services:
            parts += [self._service(name, databases, bootstrap_servers) for name in self._processes]
        tried = self._start_console(databases, bootstrap_servers)
        await self._supervisor.start(*parts)
        with suppress(TimeoutError):
            await asyncio.wait_for(tried.wait(), _CONSOLE_SECONDS_MAX)
        line = self._ready_line(databases, bootstrap_servers)
        ready.save(line)
        self._supervisor.on_return = lambda: ready.save(self._ready_line(databases, bootstrap_servers))
        self._progress.settled()
        self._progress.say("everything is ready; Ctrl-C stops it")
        on_ready(line)

    async def _start_stores(self) -> tuple[Mapping[str, str], str]:
        """Start what stores data, unless the caller has it elsewhere; give the addresses."""
        parts: list[Part] = []
        databases, bootstrap_servers = self._databases, self._bootstrap_servers
        postgres = EmbeddedPostgres(
            self._data_dir / "postgres", self._ports["postgres"], log_file=self._log_dir / "postgres.log"
        )
        kafka = EmbeddedKafka(
            self._data_dir / "kafka",
            self._ports["kafka"],
            controller_port=self._ports["kafka_controller"],
            log_file=self._log_dir / "kafka.log",
        )
        if databases is None:
            parts.append(postgres)
        if bootstrap_servers is None:
            parts.append(kafka)
        self._progress.waiting(" and ".join(f"starting {part.name}" for part in parts))
        await self._supervisor.start(*parts)
        databases = databases or {service: postgres.dsn(service) for service in SERVICES}
        return databases, bootstrap_servers or kafka.bootstrap_servers

    def _sandbox(self) -> WebPart:
        decided = {
            "HOLDFAST_HTTP_HOST": self._host,
            "HOLDFAST_HTTP_PORT": str(self._ports["sandbox"]),
            "HOLDFAST_SANDBOX_DATA_DIR": str(self._data_dir / "sandbox"),
            "HOLDFAST_SANDBOX_WEBHOOK_SECRETS": self._keys["sandbox_webhook_secrets"],
            "HOLDFAST_SANDBOX_WEBHOOK_URL": f"{self._url('payment_service')}/webhooks/sandbox",
        }
        return self._web_part("sandbox", "deploy.local.sandbox", "sandbox", decided)

    def _service(self, name: str, databases: Mapping[str, str], bootstrap_servers: str) -> WebPart:
        service = self._processes[name]
        decided = {
            "HOLDFAST_DATABASE_DSN": databases[service],
            "HOLDFAST_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "HOLDFAST_HTTP_HOST": self._host,
            "HOLDFAST_HTTP_PORT": str(self._ports[name]),
            "HOLDFAST_STOREFRONT_TOKEN": self._keys["storefront_token"],
            "HOLDFAST_OPERATOR_TOKEN": self._keys["operator_token"],
        }
        if service == "payment":
            decided |= {
                "HOLDFAST_GATEWAYS": self._caller.value("HOLDFAST_GATEWAYS") or "sandbox",
                "HOLDFAST_SANDBOX_URL": self._url("sandbox"),
                "HOLDFAST_SANDBOX_WEBHOOK_SECRETS": self._keys["sandbox_webhook_secrets"],
            }
        return self._web_part(name, module_of(service), service, decided)

    def _start_console(self, databases: Mapping[str, str], bootstrap_servers: str) -> asyncio.Event:
        """Start the operators' console, if it is wanted; return what says that it was tried."""
        if not self._has_console:
            nothing = asyncio.Event()
            nothing.set()
            return nothing
        decided = {
            **{f"HOLDFAST_{service.upper()}_DATABASE_DSN": dsn for service, dsn in databases.items()},
            "HOLDFAST_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "HOLDFAST_PAYMENT_URL": self._url("payment_service"),
            "HOLDFAST_HTTP_HOST": self._host,
            "HOLDFAST_HTTP_PORT": str(self._ports["console"]),
            "HOLDFAST_OPERATOR_TOKEN": self._keys["operator_token"],
            "HOLDFAST_DATA_DIR": str(self._data_dir),
        }
        return self._supervisor.start_aside(self._web_part("console", "ops.console", "console", decided))

    def _web_part(self, name: str, module: str, process: str, decided: Mapping[str, str]) -> WebPart:
        environment = self._caller.environment_of(process, decided)
        run_dir = self._data_dir / "run"
        run_dir.mkdir(exist_ok=True)
        return WebPart(
            name, module, environment, port=self._ports[name], log_dir=self._log_dir, run_dir=run_dir
        )

    def _ready_line(self, databases: Mapping[str, str], bootstrap_servers: str) -> ReadyLine:
        absent = dict.fromkeys(("postgres", "kafka", *self._processes, "sandbox"))
        return ReadyLine(
            order_url=self._url("order_service"),
            inventory_url=self._url("inventory_service"),
            payment_url=self._url("payment_service"),
            gateway_url=self._url("sandbox"),
            console_url=self._url("console") if self._has_console else None,
            kafka_bootstrap_servers=bootstrap_servers,
            postgres=dict(databases),
            tokens={"storefront": self._keys["storefront_token"], "operator": self._keys["operator_token"]},
            webhook_secrets={"sandbox": self._keys["sandbox_webhook_secrets"].split(",")[0].strip()},
            data_dir=str(self._data_dir),
            pids={**absent, **self._supervisor.pids()},
        )

    def _url(self, name: str) -> str:
        return f"http://{HOST}:{self._ports[name]}"

    @property
    def _host(self) -> str:
        return self._caller.value("HOLDFAST_HTTP_HOST") or HOST

    @property
    def _log_dir(self) -> Path:
        return self._data_dir / "logs"


async def _end_leftovers(data_dir: Path, progress: Progress) -> None:
    """End what an earlier run left behind when it was killed: it holds our ports and our data."""
    files = _pid_files(data_dir)
    if files:
        progress.say("the last run here was not stopped in order: clearing up after it")
    await asyncio.gather(*map(end_leftover, files))


def _pid_files(data_dir: Path) -> list[Path]:
    return [file for pattern in _PID_FILES for file in data_dir.glob(pattern)]


def _keys(data_dir: Path, caller: Caller) -> dict[str, str]:
    """Return the tokens and the webhook secret: the caller's, or those made once for this data directory."""
    made = kept_secrets(
        data_dir / "keys.json",
        {
            "storefront_token": new_token,
            "operator_token": new_token,
            "sandbox_webhook_secrets": new_webhook_secret,
        },
    )
    return {name: caller.value(f"HOLDFAST_{name.upper()}") or value for name, value in made.items()}


async def _run_until(asked: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Run something until it ends or fails, or we are asked to stop."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(asked.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


@contextmanager
def _asked_to_stop() -> Iterator[asyncio.Event]:
    """Turn the signals that end a program into an event, for as long as the block lasts."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, asked.set)
    try:
        yield asked
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
