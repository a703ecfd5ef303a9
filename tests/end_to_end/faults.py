"""How does a test take a part away from a running system, and give it back?"""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import orjson
import psutil  # type: ignore[import-untyped]  # it publishes no types

from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.process import PartFailed
from shared.database import DedicatedConnection, connect, is_transient
from tests.waiting import eventually

_DISK_BYTES = 256 * 1024 * 1024
_BALLAST_BYTES = 65_536


async def crash(part: EmbeddedPostgres | EmbeddedKafka) -> None:
    """Kill a part of the test's own, and return when it is gone; nobody starts it again."""
    assert part.pid is not None
    os.kill(part.pid, signal.SIGKILL)
    await part.wait()


async def bring_back(part: EmbeddedPostgres | EmbeddedKafka) -> None:
    """Start a part again on its old data; as `up` does, try again while its last run's remains are in the way."""

    async def started() -> bool:
        with suppress(PartFailed):
            await part.start()
            return True
        return False

    await eventually(started, timeout_seconds=120, what=f"{part.name} is back")


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Stop processes and their children in the middle of what they do, and let them go on at the end of the block."""
    parents = [psutil.Process(pid) for pid in pids]
    processes = [*parents, *(child for parent in parents for child in parent.children(recursive=True))]
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def small_disk(folder: Path) -> Iterator[str | None]:
    """Put a file system of its own on a folder, with little room; lend None, or why that is not possible here."""
    folder.mkdir(parents=True)
    refusal = _run("mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=0755", "tmpfs", str(folder))
    try:
        yield refusal
    finally:
        if refusal is None:
            # Lazily: a process that is late to end may still have a file open.
            _run("umount", "--lazy", str(folder))


def _run(name: str, *arguments: str) -> str | None:
    """Run a program and return None, or what it says if it fails or is not there."""
    program = shutil.which(name)
    if program is None:
        return f"there is no {name}"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 (a list, no shell)
    return done.stderr.strip() if done.returncode else None


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leave no room in the file system of a folder until the end of the block."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(_BALLAST_BYTES))
        yield
    finally:
        ballast.unlink()


@asynccontextmanager
async def superuser(dsn: str, data_dir: Path) -> AsyncIterator[DedicatedConnection]:
    """Lend a connection as the superuser of an embedded Postgres, given a database's URI; it need not live to the end."""
    place = urlsplit(dsn)
    password = orjson.loads((data_dir / "passwords.json").read_bytes())["holdfast_admin"]
    netloc = f"holdfast_admin:{quote(password)}@{place.hostname}:{place.port}"
    connection = await connect(place._replace(netloc=netloc, path="/postgres").geturl())
    try:
        yield connection
    finally:
        connection.terminate()


async def die_for_want_of_log(connection: DedicatedConnection) -> None:
    """Have Postgres begin one file of its write-ahead log after the other, of which it dies on a full disk."""

    async def has_died() -> bool:
        try:
            await connection.execute("SELECT pg_switch_wal(), pg_log_standby_snapshot()")
        except Exception as error:
            if not is_transient(error):
                raise
        return connection.is_closed()

    await eventually(has_died, timeout_seconds=60, what="Postgres dead for want of room for its log")


@asynccontextmanager
async def locked(dsn: str, table: str) -> AsyncIterator[None]:
    """Lock a table for ourselves, so that whoever wants a row of it holds its connection and waits."""
    connection = await connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def until_gone(pid: int, *, timeout_seconds: float) -> None:
    """Wait until a process has ended and its parent knows."""
    process = psutil.Process(pid)
    await eventually(
        lambda: not process.is_running(), timeout_seconds=timeout_seconds, what=f"the end of process {pid}"
    )
