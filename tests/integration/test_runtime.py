"""Does a service start, say how it is, and stop without losing what it has begun?"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientError, ClientSession

from deploy.local.ports import free_port
from shared.batcher import Batcher
from shared.database import Database
from shared.errors import HoldfastError
from shared.events import INVENTORY_TOPIC
from shared.ids import new_id
from shared.kafka import TopicSpec, create_topics
from shared.runtime import Part, Service, start
from shared.settings import KafkaSettings, ServiceSettings, load
from shared.worker import Worker
from tests.integration import tiny_service
from tests.integration.streams import effects, locked, reading
from tests.waiting import eventually

OPERATOR = "operator-token-1"


def environment(dsn: str, kafka: str, port: int, **changes: str) -> dict[str, str]:
    """Return the environment of the tiny service."""
    given = {
        "DATABASE_DSN": dsn,
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "KAFKA_REQUEST_TIMEOUT_SECONDS": "2",
        "HTTP_PORT": str(port),
        "STOREFRONT_TOKEN": "storefront-token-1",
        "OPERATOR_TOKEN": OPERATOR,
        "DATABASE_LOCK_TIMEOUT_SECONDS": "10",
        "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "2",
        "DRAIN_SECONDS_MAX": "10",
        **changes,
    }
    return {f"HOLDFAST_{name}": value for name, value in given.items()}


def settings_of(given: Mapping[str, str]) -> ServiceSettings:
    """Return the environment as settings."""
    return load(ServiceSettings, environment=given)


class Client:
    """Talks to the tiny service."""

    def __init__(self, session: ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> tuple[int, Any]:
        """Return status and body; status 0 if nobody answers."""
        try:
            async with self._session.get(self._url + path) as response:
                return response.status, await response.json(content_type=None)
        except ClientError:
            return 0, None

    async def deplete(self, sku: str) -> int:
        """Have an effect written; return the status."""
        headers = {"Authorization": f"Bearer {OPERATOR}"}
        async with self._session.post(f"{self._url}/depleted/{sku}", headers=headers) as response:
            return response.status

    async def is_ready_with(self, status: str) -> bool:
        """Tell whether the service is ready, in this way."""
        code, body = await self.get("/readyz")
        return code == 200 and body["status"] == status


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[Client]:
    """Talk to the service at a port."""
    async with ClientSession() as session:
        yield Client(session, port)


@asynccontextmanager
async def own_process(*arguments: str, given: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the tiny service as a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.tiny_service",
        *arguments,
        env={**inherited, **given},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Gate:
    """A way to a server that can be shut and opened, as if the server went away and came back."""

    def __init__(self, host: str, port: int) -> None:
        self.port = free_port()
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Cut all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(65_536):
            target.write(chunk)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()


# --- starting and being well ----------------------------------------------------------------------------------------


async def test_a_service_answers_writes_and_tells(
    shared_dsn: str, shared_db: Database, kafka_settings: KafkaSettings
) -> None:
    """A request goes through the batcher into the database, and its event through the relay into Kafka."""
    await create_topics(kafka_settings, [TopicSpec(INVENTORY_TOPIC, 8)])
    port, sku = free_port(), f"sku-{new_id().hex}"
    settings = settings_of(environment(shared_dsn, kafka_settings.bootstrap_servers, port))

    async with (
        start("tiny-service", settings, tiny_service.wire),
        client_of(port) as client,
        reading(kafka_settings, INVENTORY_TOPIC) as reader,
    ):
        await eventually(lambda: client.is_ready_with("ok"))
        status = await client.deplete(sku)

        async def is_told() -> bool:
            return any(record.key == sku.encode() for record in await reader.until(1))

        await eventually(is_told)

    assert status == 201
    assert await effects(shared_db) == [len(sku)]


async def test_without_kafka_a_service_takes_work_and_says_so(shared_dsn: str, shared_db: Database) -> None:
    """`/readyz` stays 200 with what is away; the event waits in the outbox."""
    port = free_port()
    settings = settings_of(environment(shared_dsn, "127.0.0.1:1", port))

    async with start("tiny-service", settings, tiny_service.wire), client_of(port) as client:
        await eventually(lambda: client.is_ready_with("degraded"))
        _, body = await client.get("/readyz")

        assert "kafka" in body["away"]
        assert await client.deplete("milk") == 201

    async with shared_db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 1


async def test_without_postgres_a_service_lives_but_is_not_ready_until_it_is_back(shared_dsn: str) -> None:
    """`/readyz` and requests answer 503 meanwhile; then everything goes on by itself."""
    address = urlsplit(shared_dsn)
    gate = Gate(address.hostname or "", address.port or 0)
    await gate.open()
    port = free_port()
    dsn = shared_dsn.replace(f":{address.port}/", f":{gate.port}/")
    settings = settings_of(environment(dsn, "127.0.0.1:1", port))

    async with start("tiny-service", settings, tiny_service.wire), client_of(port) as client:
        assert await client.deplete("milk") == 201
        await gate.shut()

        assert (await client.get("/readyz"))[0] == 503
        assert (await client.get("/livez"))[0] == 200
        assert await client.deplete("milk") == 503
        await gate.open()
        await eventually(lambda: client.is_ready_with("degraded"))
        assert await client.deplete("milk") == 201
    await gate.shut()


async def test_a_service_waits_for_its_database_at_the_start(shared_dsn: str) -> None:
    """Started before Postgres, it comes up as soon as that does."""
    address = urlsplit(shared_dsn)
    gate = Gate(address.hostname or "", address.port or 0)
    port = free_port()
    dsn = shared_dsn.replace(f":{address.port}/", f":{gate.port}/")
    settings = settings_of(environment(dsn, "127.0.0.1:1", port))
    service = start("tiny-service", settings, tiny_service.wire)

    starting = asyncio.ensure_future(service.__aenter__())
    await asyncio.wait({starting}, timeout=0.3)
    assert not starting.done()
    await gate.open()
    await starting

    async with client_of(port) as client:
        assert await client.deplete("milk") == 201
    await service.__aexit__(None, None, None)
    await gate.shut()


# --- stopping -------------------------------------------------------------------------------------------------------


async def test_sigterm_lets_the_request_under_way_finish(shared_dsn: str, shared_db: Database) -> None:
    """The request gets its answer, its effect is kept, newcomers are turned away, and the exit status is 0."""
    port = free_port()

    async with (
        own_process(given=environment(shared_dsn, "127.0.0.1:1", port)) as process,
        client_of(port) as client,
    ):
        await eventually(lambda: client.is_ready_with("degraded"), timeout_seconds=30)
        async with locked(shared_dsn):
            under_way = asyncio.create_task(client.deplete("milk"))
            await eventually(lambda: _waits_for_lock(shared_db), what="the request to be under way")
            process.send_signal(signal.SIGTERM)

            async def turns_away() -> bool:
                return (await client.get("/livez"))[0] != 200

            await eventually(turns_away)
        status = await under_way

        assert status == 201
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert await effects(shared_db) == [4]


async def _waits_for_lock(database: Database) -> bool:
    async with database.connection() as connection:
        waits = await connection.fetchval(
            """
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'tiny-service' AND wait_event_type = 'Lock'
            """
        )
    return bool(waits)


async def test_a_service_with_a_dead_part_ends_with_an_error(shared_dsn: str) -> None:
    """Half a service is worse than none: the exit status is 1 and the log says which part."""
    given = environment(shared_dsn, "127.0.0.1:1", free_port())

    async with own_process("die", given=given) as process:
        _, log = await asyncio.wait_for(process.communicate(), 40)

    assert process.returncode == 1
    assert b"bomb died" in log


async def test_a_service_with_a_wrong_file_of_keys_does_not_start(tmp_path: Path) -> None:
    """The exit status is 2, with one line a mistake, before it even looks for its database."""
    keys = tmp_path / "keys"
    keys.write_text('{"name": "web shop"}')
    given = environment("postgresql://a:b@127.0.0.1:1/c", "127.0.0.1:1", free_port())

    async with own_process(given=given | {"HOLDFAST_API_KEYS_FILE": str(keys)}) as process:
        _, log = await asyncio.wait_for(process.communicate(), 40)

    lines = log.decode().splitlines()
    assert process.returncode == 2
    assert lines
    assert all(line.startswith("HOLDFAST_API_KEYS_FILE: line 1: /") for line in lines)


async def test_a_service_with_wrong_settings_does_not_start(shared_dsn: str) -> None:
    """The exit status is 2, with one line a mistake and no traceback."""
    given = environment(shared_dsn, "127.0.0.1:1", free_port(), OPERATOR_TOKENS="x", HTTP_PORT="many")

    async with own_process(given=given) as process:
        _, log = await asyncio.wait_for(process.communicate(), 40)

    lines = log.decode().splitlines()
    assert process.returncode == 2
    assert {line.split(":")[0] for line in lines} == {"HOLDFAST_OPERATOR_TOKENS", "HOLDFAST_HTTP_PORT"}


class Recording:
    """A part that notes when it is told to stop, and stops a little later."""

    def __init__(self, name: str, stopped: list[str]) -> None:
        self.name = name
        self._stopped = stopped

    async def run(self, stopping: asyncio.Event) -> None:
        """Wait for the stop."""
        await stopping.wait()
        await asyncio.sleep(0)
        self._stopped.append(self.name)


class RecordingWorker(Recording, Worker):
    """A worker that notes its stop."""


class RecordingBatcher(Recording, Batcher[int, int]):
    """A batcher that notes its stop."""


async def test_parts_stop_in_the_order_in_which_nothing_is_lost(shared_dsn: str) -> None:
    """What makes work stops before what works on it, and the relay, which sends what they told, last."""
    stopped: list[str] = []

    async def wire(service: Service[ServiceSettings]) -> None:
        parts: list[Part] = [
            Recording("relay", stopped),
            RecordingBatcher("batcher", stopped),
            RecordingWorker("worker", stopped),
        ]
        for part in parts:
            service.add(part)

    async with start("tests", settings_of(environment(shared_dsn, "127.0.0.1:1", 0)), wire):
        pass

    assert stopped == ["worker", "batcher", "relay"]


async def test_a_part_that_does_not_stop_is_cancelled(shared_dsn: str) -> None:
    """A stop takes no longer than the settings allow."""
    stopped: list[str] = []

    class Stubborn(Recording):
        async def run(self, stopping: asyncio.Event) -> None:  # noqa: ARG002 (the signature is a part's)
            """Never stop by itself."""
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(self.name)

    async def wire(service: Service[ServiceSettings]) -> None:
        service.add(Stubborn("stubborn", stopped))

    settings = settings_of(environment(shared_dsn, "127.0.0.1:1", 0, DRAIN_SECONDS_MAX="0.2"))
    async with asyncio.timeout(5), start("tests", settings, wire):
        pass

    assert stopped == ["stubborn"]


async def test_two_parts_of_one_name_are_refused(shared_dsn: str) -> None:
    """One of them would not run: the mistake shows at the start."""

    async def wire(service: Service[ServiceSettings]) -> None:
        service.add(Recording("twin", []))
        service.add(Recording("twin", []))

    service = start("tests", settings_of(environment(shared_dsn, "127.0.0.1:1", 0)), wire)
    with pytest.raises(HoldfastError, match="twin"):
        await service.__aenter__()
