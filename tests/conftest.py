"""Which real parts do the tests stand on? One Postgres and one Kafka a run, a fresh database a test."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import structlog

from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import EmbeddedPostgres, role_of
from shared import masking
from shared.database import Database, DatabaseOptions, DedicatedConnection, connect
from shared.ids import new_id
from shared.migrate import migrate, read_migrations
from shared.settings import KafkaSettings

# Plain lines: a pretty traceback with all its locals takes seconds to draw.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(),
    ]
)

SERVICES = Path(__file__).parent.parent / "services"

#: Makes a fresh, migrated database of a service ("order", "inventory", "payment") and returns its URI.
MakeDatabase = Callable[[str], Awaitable[str]]


@pytest.fixture(autouse=True)
def _forget_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process keeps its own secrets for ever; here each test is a process of its own."""
    monkeypatch.setattr(masking, "_known", [])


@pytest.fixture(scope="session")
def parts_folder() -> Iterator[Path]:
    """A folder for the parts' data that any account may enter: as root, Postgres runs under another one."""
    with tempfile.TemporaryDirectory(prefix="holdfast-tests-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
async def postgres(parts_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A real PostgreSQL with the three services' roles; its data may be lost in a crash."""
    async with EmbeddedPostgres(parts_folder / "postgres", durable=False) as server:
        yield server


@pytest.fixture(scope="session")
async def kafka(parts_folder: Path) -> AsyncIterator[EmbeddedKafka]:
    """A real Kafka broker."""
    async with EmbeddedKafka(parts_folder / "kafka") as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_settings(kafka: EmbeddedKafka) -> KafkaSettings:
    """How to reach the broker."""
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


@pytest.fixture(scope="session")
async def templates(postgres: EmbeddedPostgres) -> dict[str, str]:
    """One migrated database a service, from which each test's own is copied."""
    names = {}
    for service in ("order", "inventory", "payment"):
        name = names[service] = f"template_{service}"
        dsn = await postgres.create_database(name, role_of(service))
        await migrate(dsn, read_migrations(SERVICES / f"{service}_service" / "migrations"))
    return names


class Copies:
    """Lends copies of template databases. The next one is made, and the last one dropped, while a test runs."""

    def __init__(self, postgres: EmbeddedPostgres, connection: DedicatedConnection) -> None:
        self._postgres = postgres
        self._connection = connection
        self._one_at_a_time = asyncio.Lock()
        self._coming: dict[str, asyncio.Task[str]] = {}
        self._going: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lend(self, template: str, service: str) -> AsyncIterator[str]:
        """Lend the URI of a fresh copy that belongs to a service's role."""
        name = await (self._coming.pop(template, None) or self._begin(template, service))
        self._coming[template] = self._begin(template, service)
        yield self._postgres.dsn(name, role_of(service))
        going = asyncio.create_task(self._execute(f'DROP DATABASE "{name}" WITH (FORCE)'))
        self._going.add(going)
        going.add_done_callback(self._going.discard)

    async def finish(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._coming.values(), *self._going)

    def _begin(self, template: str, service: str) -> asyncio.Task[str]:
        return asyncio.create_task(self._make(template, service))

    async def _make(self, template: str, service: str) -> str:
        name = f"test_{service}_{new_id().hex}"
        await self._execute(f'CREATE DATABASE "{name}" OWNER "{role_of(service)}" TEMPLATE "{template}"')
        await self._execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        return name

    async def _execute(self, statement: str) -> None:
        async with self._one_at_a_time:
            await self._connection.execute(statement)


@pytest.fixture(scope="session")
async def copies(postgres: EmbeddedPostgres) -> AsyncIterator[Copies]:
    """What lends databases to the tests."""
    connection = await connect(postgres.admin_dsn)
    copies = Copies(postgres, connection)
    yield copies
    await copies.finish()
    await connection.close()


@pytest.fixture
async def make_database(copies: Copies, templates: dict[str, str]) -> AsyncIterator[MakeDatabase]:
    """Give fresh databases, dropped after the test."""
    async with AsyncExitStack() as stack:

        async def make(service: str) -> str:
            return await stack.enter_async_context(copies.lend(templates[service], service))

        yield make


async def _open(stack: AsyncExitStack, dsn: str) -> Database:
    database = Database(DatabaseOptions(dsn=dsn, application_name="tests"))
    await database.open()
    stack.push_async_callback(database.close)
    return database


@pytest.fixture
async def order_db(make_database: MakeDatabase) -> AsyncIterator[Database]:
    """A fresh database of the order service."""
    async with AsyncExitStack() as stack:
        yield await _open(stack, await make_database("order"))


@pytest.fixture
async def inventory_db(make_database: MakeDatabase) -> AsyncIterator[Database]:
    """A fresh database of the inventory service."""
    async with AsyncExitStack() as stack:
        yield await _open(stack, await make_database("inventory"))


@pytest.fixture
async def payment_db(make_database: MakeDatabase) -> AsyncIterator[Database]:
    """A fresh database of the payment service."""
    async with AsyncExitStack() as stack:
        yield await _open(stack, await make_database("payment"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print at the end of a run how long each recovery took, which nobody would see of tests that pass."""
    told = [line for report in terminalreporter.getreports("passed") for line in report.user_properties]
    if told:
        terminalreporter.section("how long it took to go on")
    for what, figures in told:
        terminalreporter.line(f"{what}: {figures}")
