"""Is the embedded PostgreSQL durable, closed between services, and able to come back after a crash?"""

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from deploy.local.postgres import SERVICES, EmbeddedPostgres, role_of
from deploy.local.process import PartFailed
from shared.database import connect

OTHERS = [(service, other) for service in SERVICES for other in SERVICES if other != service]


async def fetch(dsn: str, query: str) -> list[tuple[object, ...]]:
    """Ask one question on a connection of its own."""
    connection = await connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def with_one_row(postgres: EmbeddedPostgres) -> None:
    """Leave a committed row in the order service's database."""
    await postgres.psql("CREATE TABLE kept AS SELECT 1 AS value", in_database=role_of("order"))
    await postgres.psql("GRANT SELECT ON kept TO holdfast_order", in_database=role_of("order"))


async def test_data_and_passwords_survive_a_restart(tmp_path: Path) -> None:
    """A second start on the same folder and port has the same URIs and finds what the first one stored."""
    first = EmbeddedPostgres(tmp_path)
    await first.start()
    await with_one_row(first)
    await first.stop()

    async with EmbeddedPostgres(tmp_path, first.port) as second:
        rows = await fetch(second.dsn("order"), "SELECT value FROM kept")

    assert rows == [(1,)]
    assert second.dsn("order") == first.dsn("order")


async def test_committed_data_survives_a_kill(tmp_path: Path) -> None:
    """What was committed before a kill -9 is there after the next start, on the same port."""
    first = EmbeddedPostgres(tmp_path)
    await first.start()
    await with_one_row(first)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    await first.wait()

    await first.start()
    rows = await fetch(first.dsn("order"), "SELECT value FROM kept")
    await first.stop()

    assert rows == [(1,)]


async def test_a_server_left_behind_is_ended_by_the_next_start(tmp_path: Path) -> None:
    """A start on the folder of a server that nobody stopped ends that server instead of failing."""
    forgotten = EmbeddedPostgres(tmp_path)
    await forgotten.start()
    forgotten_pid = forgotten.pid
    assert forgotten_pid is not None

    async with EmbeddedPostgres(tmp_path, forgotten.port) as next_one:
        assert next_one.pid != forgotten_pid

    assert await forgotten.wait() == 0


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Start a process that is no server, under the account of the cluster."""
    with ExitStack() as stack:

        def start() -> int:
            owner = (tmp_path / "cluster").stat().st_uid if os.geteuid() == 0 else None
            process = stack.enter_context(subprocess.Popen(["sleep", "600"], user=owner))  # noqa: S607 (any will do)
            stack.callback(process.kill)
            return process.pid

        yield start


async def test_a_lock_file_that_names_a_strange_process_is_no_obstacle(
    tmp_path: Path, stranger: Callable[[], int]
) -> None:
    """After a restart of the machine the number in the server's lock file may be anybody's: the server starts."""
    async with EmbeddedPostgres(tmp_path) as postgres:
        lock = tmp_path / "cluster" / "postmaster.pid"
        lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(stranger()), *lines[1:]]) + "\n")
    os.chown(lock, *((tmp_path / "cluster").stat()[4:6]))

    await postgres.start()
    await postgres.stop()

    assert not lock.exists()


@pytest.mark.parametrize(("service", "other"), OTHERS)
async def test_a_service_cannot_enter_the_database_of_another(
    postgres: EmbeddedPostgres, service: str, other: str
) -> None:
    """A service's role is refused by every other service's database."""
    password = postgres.dsn(service).split("@")[0].rsplit(":", 1)[1]
    foreign = f"postgresql://{role_of(service)}:{password}@127.0.0.1:{postgres.port}/{role_of(other)}"

    with pytest.raises(Exception, match=f'permission denied for database "{role_of(other)}"'):
        await connect(foreign)


@pytest.mark.parametrize("database", ["postgres", "template1"])
async def test_a_service_cannot_enter_the_common_databases(postgres: EmbeddedPostgres, database: str) -> None:
    """The databases that every cluster has are closed to services too."""
    with pytest.raises(Exception, match="permission denied for database"):
        await connect(postgres.dsn(database, role_of("order")))


async def test_a_wrong_password_is_refused(postgres: EmbeddedPostgres) -> None:
    """Nobody is trusted because of where they connect from."""
    dsn = f"postgresql://{role_of('order')}:wrong@127.0.0.1:{postgres.port}/{role_of('order')}"

    with pytest.raises(Exception, match="password authentication failed"):
        await connect(dsn)


async def test_a_service_is_no_superuser(postgres: EmbeddedPostgres) -> None:
    """A service's role may neither create databases or roles nor pass over permissions."""
    rows = await fetch(
        postgres.dsn("payment"),
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = current_user",
    )

    assert rows == [(False, False, False, False)]


async def test_a_copy_of_a_template_has_its_tables_and_is_closed_to_others(
    postgres: EmbeddedPostgres,
) -> None:
    """A database made from a template holds what the template holds; only its owner can enter; it can be dropped."""
    template = await postgres.create_database("local_template", role_of("order"))
    connection = await connect(template)
    await connection.execute("CREATE TABLE stamped AS SELECT 7 AS value")
    await connection.close()

    copy = await postgres.create_database("local_copy", role_of("order"), template="local_template")

    assert await fetch(copy, "SELECT value FROM stamped") == [(7,)]
    with pytest.raises(Exception, match="permission denied for database"):
        await connect(postgres.dsn("local_copy", role_of("inventory")))
    for name in ("local_copy", "local_template"):
        await postgres.drop_database(name)
    with pytest.raises(Exception, match="does not exist"):
        await connect(copy)


async def test_passwords_are_for_our_eyes_only(postgres: EmbeddedPostgres) -> None:
    """The file of passwords is readable by its owner alone, and the server's command line shows none of them."""
    file = postgres.data_dir / "passwords.json"
    command_line = " ".join(psutil.Process(postgres.pid).cmdline())

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert postgres.admin_dsn.split("@")[0].rsplit(":", 1)[1] not in command_line


async def test_the_modes_of_parent_folders_stay_as_they_are(tmp_path: Path) -> None:
    """The server runs below a folder that only we may enter, without opening that folder to anybody."""
    parent = tmp_path / "closed"
    parent.mkdir(mode=0o700)
    before = parent.stat()

    async with EmbeddedPostgres(parent / "postgres") as postgres:
        running_as = psutil.Process(postgres.pid).uids().real

    after = parent.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert running_as != 0


async def test_data_is_durable_unless_a_test_says_otherwise(tmp_path: Path) -> None:
    """An ordinary start keeps the settings that make a commit survive a power cut."""
    async with EmbeddedPostgres(tmp_path) as postgres:
        rows = await fetch(
            postgres.admin_dsn,
            "SELECT name, setting FROM pg_settings"
            " WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name",
        )

    assert rows == [("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on")]


async def test_a_taken_port_is_named(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """A start on a port where another server answers fails, instead of taking that one's answers for its own."""
    with pytest.raises(PartFailed, match=f"postgres needs port {postgres.port}, but another program listens"):
        await EmbeddedPostgres(tmp_path, postgres.port).start()
