"""How does a real Kafka run as our own child: one process, broker and controller in one?"""

import asyncio
import base64
import shutil
import struct
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.parts import java, kafka_jars
from deploy.local.ports import HOST, free_port
from deploy.local.process import Child, PartFailed, Program, run

_START_TIMEOUT_SECONDS = 90.0
_STOP_TIMEOUT_SECONDS = 30.0
_ANSWER_TIMEOUT_SECONDS = 3.0
_ANSWER_BYTES_MAX = 64 * 1024
_API_VERSIONS_KEY = 18
# After a kill the controller lets the broker back in only when its former session has run out.
_SESSION_MILLISECONDS = 3_000

# Of the compilers only the quick one: measured, it is the cheapest here in time to start and in CPU under load.
_JVM_FLAGS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_LOG_FLAGS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms={session_milliseconds}
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""


class EmbeddedKafka:
    """An Apache Kafka of our own on 127.0.0.1.

    `async with EmbeddedKafka(folder) as kafka` starts and stops it; topics and offsets stay in `data_dir`.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        controller_port: int | None = None,
        log_file: Path | None = None,
    ) -> None:
        """Take the folder to keep everything in, and ports if they are to be the same in every run."""
        self.name = "kafka"
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self._controller_port = controller_port or free_port()
        self._log_dir = self.data_dir / "log"
        self._properties = self.data_dir / "server.properties"
        self._log_file = log_file or self.data_dir / "kafka.log"
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """The address that clients are given."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id of the broker, or none while it does not run."""
        return None if self._child is None else self._child.pid

    async def start(self) -> None:
        """Format the storage if there is none, start the broker, and return when it answers.

        Raises:
            PartFailed: it does not start.
            PartsMissing: Kafka is not in the cache and cannot be fetched.
            PartsCorrupt: what is in the cache is not what is pinned.
        """
        jars = await asyncio.to_thread(kafka_jars)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(self._server_properties(self._log_dir))
        if not self._log_dir.exists():
            await self._format(jars)
        self._child = Child(self._program(jars))
        try:
            await self._child.start()
            await self._child.wait_until(self.is_healthy, _START_TIMEOUT_SECONDS)
        except BaseException:
            await self._child.stop()
            raise

    async def stop(self) -> None:
        """Shut the broker down in order."""
        if self._child is not None:
            await self._child.stop()

    async def wait(self) -> int:
        """Wait for the end of the broker and give its exit code."""
        if self._child is None:
            raise PartFailed("kafka was never started")
        return await self._child.wait()

    async def is_healthy(self) -> bool:
        """Tell whether the broker answers the first question of every client."""
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_SECONDS):
                return await _answers(self.port)
        except (OSError, TimeoutError, EOFError):
            return False

    async def _format(self, jars: list[Path]) -> None:
        """Format the storage beside its place and move it there, so that half a format is never started."""
        staging = self.data_dir / "log.new"
        properties = self.data_dir / "format.properties"
        shutil.rmtree(staging, ignore_errors=True)
        properties.write_text(self._server_properties(staging))
        tool: list[str | Path] = [
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            _cluster_id(),
            "-c",
            properties,
        ]
        await run([*self._java(jars), *tool])
        staging.rename(self._log_dir)
        properties.unlink()

    def _server_properties(self, log_dir: Path) -> str:
        return _PROPERTIES.format(
            host=HOST,
            port=self.port,
            controller_port=self._controller_port,
            log_dir=log_dir,
            session_milliseconds=_SESSION_MILLISECONDS,
        )

    def _java(self, jars: list[Path]) -> list[str | Path]:
        # Native libraries are unpacked into the temporary folder and stay there after a crash.
        scratch = self.data_dir / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        class_path = ":".join(map(str, jars))
        return [java(), *_JVM_FLAGS, *_LOG_FLAGS, f"-Djava.io.tmpdir={scratch}", "-cp", class_path]

    def _program(self, jars: list[Path]) -> Program:
        return Program(
            name=self.name,
            command=[*self._java(jars), "kafka.Kafka", self._properties],
            log_file=self._log_file,
            pid_file=self.data_dir / "kafka.pid",
            ports=(self.port, self._controller_port),
            stop_timeout_seconds=_STOP_TIMEOUT_SECONDS,
        )


def _cluster_id() -> str:
    # Kafka's own ids never begin with a dash: command lines would take them for an option.
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


async def _answers(port: int) -> bool:
    """Send ApiVersions version 0 and tell whether the answer to it comes back (Kafka protocol guide, "Messages")."""
    correlation_id = 1
    client = b"holdfast"
    header = struct.pack(">hhih", _API_VERSIONS_KEY, 0, correlation_id, len(client)) + client
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(struct.pack(">i", len(header)) + header)
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        if not 6 <= size <= _ANSWER_BYTES_MAX:  # noqa: PLR2004 (correlation id and error code)
            return False
        answered, error_code = struct.unpack(">ih", (await reader.readexactly(size))[:6])
    finally:
        writer.close()
    return bool(answered == correlation_id and error_code == 0)
