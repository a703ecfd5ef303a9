"""Which real parts do the tests stand on? One Postgres and one Kafka a run, a fresh database a test."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog

from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import EmbeddedPostgres, role_of
from shared.database import Database, DatabaseOptions
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


@pytest.fixture
async def make_database(postgres: EmbeddedPostgres, templates: dict[str, str]) -> AsyncIterator[MakeDatabase]:
    """Give fresh databases, dropped after the test."""
    made = []

    async def make(service: str) -> str:
        name = f"test_{service}_{new_id().hex}"
        dsn = await postgres.create_database(name, role_of(service), template=templates[service])
        made.append(name)
        return dsn

    yield make
    for name in made:
        await postgres.drop_database(name)


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
