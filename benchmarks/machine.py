"""What runs while something is measured? The real parts and the three services, each a process, on this machine."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from deploy.local.kafka import EmbeddedKafka
from deploy.local.ports import free_port
from deploy.local.postgres import EmbeddedPostgres
from shared.errors import Unavailable
from shared.settings import KafkaSettings

WEBHOOK_SECRET = "whsec_" + "Yi" * 16
TOKEN = "benchmark-token-benchmark"  # noqa: S105 (guards nothing but this run)
_READY_SECONDS_MAX = 60.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Parts:
    """Postgres and Kafka, ready."""

    postgres: EmbeddedPostgres
    kafka: EmbeddedKafka

    @property
    def kafka_settings(self) -> KafkaSettings:
        """How to reach the broker."""
        return KafkaSettings(bootstrap_servers=self.kafka.bootstrap_servers)


@contextmanager
def _open_folder() -> Iterator[Path]:
    """Lend a folder that any account may enter: as root, Postgres runs under another one."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@asynccontextmanager
async def parts() -> AsyncIterator[Parts]:
    """Run a durable Postgres and a Kafka in a folder that goes away with them."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_open_folder())
        postgres = EmbeddedPostgres(folder / "postgres")
        kafka = EmbeddedKafka(folder / "kafka")
        await asyncio.gather(postgres.start(), kafka.start())
        stack.push_async_callback(postgres.stop)
        stack.push_async_callback(kafka.stop)
        yield Parts(postgres, kafka)


@dataclass(slots=True)
class ServiceProcess:
    """A service as a process of its own."""

    name: str
    url: str
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def stop(self) -> None:
        """End it in order."""
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()


@asynccontextmanager
async def service(
    name: str, parts_: Parts, settings: Mapping[str, str], port: int | None = None
) -> AsyncIterator[ServiceProcess]:
    """Run a service (`order`, `inventory`, `payment`) until the block ends."""
    port = port or free_port()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HOLDFAST_")},
        "HOLDFAST_DATABASE_DSN": parts_.postgres.dsn(name),
        "HOLDFAST_KAFKA_BOOTSTRAP_SERVERS": parts_.kafka.bootstrap_servers,
        "HOLDFAST_HTTP_PORT": str(port),
        "HOLDFAST_STOREFRONT_TOKEN": f"{TOKEN}-storefront",
        "HOLDFAST_OPERATOR_TOKEN": TOKEN,
        "HOLDFAST_LOG_LEVEL": "WARNING",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{name}_service", env=environment
    )
    running = ServiceProcess(name, f"http://127.0.0.1:{port}", process)
    try:
        await until_ready(running)
        yield running
    finally:
        await running.stop()


async def until_ready(running: ServiceProcess) -> None:
    """Wait until a service says that it is ready; raise `Unavailable` if it ends before."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(_READY_SECONDS_MAX):
        while True:
            if running.process.returncode is not None:
                detail = f"{running.name} ended with {running.process.returncode}"
                raise Unavailable(detail)
            try:
                async with session.get(f"{running.url}/readyz") as answer:
                    if answer.status == 200:  # noqa: PLR2004 (OK)
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


def cpu_seconds(*pids: int) -> float:
    """Return the CPU time, user and system, that processes and their children have used so far."""
    return sum(_cpu_seconds_of(pid) for root in pids for pid in (root, *_children_of(root)))


def _cpu_seconds_of(pid: int) -> float:
    """Return the CPU time of a process and of its children that have ended; one that ends now counts there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / _TICKS_PER_SECOND


def _children_of(pid: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    ]
