"""Do clients that are many, slow, huge or hostile leave the others in peace?"""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter

import pytest
from aiohttp import ClientError, ClientSession, web

from shared.runtime import Service, start
from shared.settings import ServiceSettings
from shared.web import public, read_bytes, respond
from tests.integration.test_runtime import environment, settings_of
from tests.waiting import eventually

BODY_BYTES_MAX = 65_536
HEAD = b"POST /length HTTP/1.1\r\nHost: tests\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def wire(service: Service[ServiceSettings]) -> None:
    """One route that reads a body and asks the database."""

    async def length(request: web.Request) -> web.Response:
        body = await read_bytes(request)
        async with service.database.connection() as connection:
            return respond({"bytes": len(body), "one": await connection.fetchval("SELECT 1")})

    service.serve([web.post("/length", public(length))], openapi={})


@asynccontextmanager
async def serving(dsn: str, **settings: str) -> AsyncIterator["Clients"]:
    """Run a service and lend its clients."""
    given = settings_of(environment(dsn, "127.0.0.1:1", 0, **settings))
    async with start("tests", given, wire) as service, AsyncExitStack() as stack, ClientSession() as session:
        yield Clients(service.http_port, session, stack)


class Clients:
    """A good client, and as many bad ones as a test wants."""

    def __init__(self, port: int, session: ClientSession, stack: AsyncExitStack) -> None:
        self.port = port
        self._session = session
        self._stack = stack
        self._writers: list[asyncio.StreamWriter] = []

    async def ask(self) -> int:
        """Ask for something ordinary on a connection of its own; return the status, 0 without an answer."""
        url = f"http://127.0.0.1:{self.port}/length"
        try:
            async with self._session.post(url, data=b"abc", headers={"Connection": "close"}) as response:
                await response.read()
                return response.status
        except ClientError:
            return 0

    async def open(self, first: bytes = b"") -> Stream:
        """Open a connection and say something on it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._stack.callback(writer.transport.abort)
        self._writers.append(writer)
        writer.write(first)
        return reader, writer

    async def tell(self, said: bytes) -> bytes:
        """Say something and return all that comes back until the connection is closed."""
        reader, _ = await self.open(said)
        return await read_all(reader)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the other side closes, one way or the other."""
    try:
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b""


# --- too many -------------------------------------------------------------------------------------------------------


async def test_beyond_the_limit_of_connections_a_client_is_told_to_come_back(shared_dsn: str) -> None:
    """503 with Retry-After; as soon as somebody leaves there is room again."""
    async with serving(shared_dsn, HTTP_CONNECTIONS_MAX="3") as clients:
        others = [await clients.open() for _ in range(3)]

        answer = await clients.tell(HEAD + b"Content-Length: 3\r\n\r\nabc")

        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        others[0][1].transport.abort()

        async def has_room() -> bool:
            return await clients.ask() == 200

        await eventually(has_room)


async def test_a_service_without_room_still_says_that_it_lives(shared_dsn: str) -> None:
    """A probe is let in beyond the limit: a restart would turn away everybody."""
    async with serving(shared_dsn, HTTP_CONNECTIONS_MAX="2") as clients:
        for _ in range(2):
            await clients.open()

        lives = await clients.tell(b"GET /livez HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n\r\n")
        ready = await clients.tell(b"GET /readyz HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n\r\n")

        assert lives.startswith(b"HTTP/1.1 200 ")
        assert ready.startswith(b"HTTP/1.1 503 ")


async def test_who_is_turned_away_and_says_nothing_is_cut_off(shared_dsn: str) -> None:
    """Being turned away costs the service nothing for long."""
    async with serving(shared_dsn, HTTP_CONNECTIONS_MAX="1") as clients:
        await clients.open()

        silent = [await clients.open() for _ in range(5)]

        assert [await read_all(reader) for reader, _ in silent] == [b""] * 5


async def test_a_thousand_half_open_connections_do_not_stop_others(shared_dsn: str) -> None:
    """Half of them say nothing, half of them begin a head; others are answered meanwhile, and then they are closed."""
    async with serving(shared_dsn, HTTP_IDLE_SECONDS_MAX="3") as clients:
        half_open = [await clients.open(HEAD if number % 2 else b"") for number in range(1_000)]

        started = perf_counter()
        statuses = {await clients.ask() for _ in range(20)}
        took = perf_counter() - started

        assert statuses == {200}
        assert took < 10
        assert {await read_all(reader) for reader, _ in half_open} <= {b""}


# --- too slow -------------------------------------------------------------------------------------------------------


async def test_a_body_that_does_not_come_is_not_waited_for(shared_dsn: str) -> None:
    """408 after the time for a body; others are answered meanwhile."""
    async with serving(shared_dsn, HTTP_BODY_SECONDS_MAX="1") as clients:
        slow = [await clients.open(HEAD + b"Content-Length: 1000\r\n\r\nabc") for _ in range(50)]

        statuses = {await clients.ask() for _ in range(20)}
        heads = [await asyncio.wait_for(reader.readuntil(b"\r\n"), 30) for reader, _ in slow]

        assert statuses == {200}
        assert {head.split()[1] for head in heads} == {b"408"}


async def test_a_body_that_comes_drop_by_drop_is_not_waited_for(shared_dsn: str) -> None:
    """Each drop in time does not make the whole in time."""
    async with serving(shared_dsn, HTTP_BODY_SECONDS_MAX="1") as clients:
        reader, writer = await clients.open(HEAD + b"Content-Length: 1000\r\n\r\n")
        answer = asyncio.ensure_future(reader.readuntil(b"\r\n"))

        async def has_dropped_until_answered() -> bool:
            writer.write(b".")
            return answer.done()

        await eventually(has_dropped_until_answered)

        assert (await answer).split()[1] == b"408"


# --- too large, and broken ------------------------------------------------------------------------------------------


async def test_large_and_compressed_bodies_do_not_stop_others(shared_dsn: str) -> None:
    """Whatever they unpack to is refused at the limit: 413, and others are answered at once."""
    bomb = gzip.compress(b"0" * 20_000_000, 1)
    packed = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    endless = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n%b\r\n" % (b"0" * 65_536) * 20
    async with serving(shared_dsn) as clients:
        huge = [await clients.open(said) for said in (packed, endless) for _ in range(10)]

        started = perf_counter()
        statuses = {await clients.ask() for _ in range(20)}
        took = perf_counter() - started
        heads = [await asyncio.wait_for(reader.readuntil(b"\r\n"), 30) for reader, _ in huge]

        assert statuses == {200}
        assert took < 10
        assert {head.split()[1] for head in heads} == {b"413"}


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", b"no gzip at all"),
        (b"gzip", gzip.compress(b"abc", mtime=0) + b"and more"),
        (b"deflate", b"\xff\xff\xff"),
        (b"br", b"not even installed"),
        (b"zstd", b"not even installed"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_broken_encoding_is_the_clients_fault(
    shared_dsn: str, encoding: bytes, body: bytes, *, at_once: bool
) -> None:
    """400, whether the body comes with its head or after it; never a 5xx."""
    head = HEAD + b"Connection: close\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    async with serving(shared_dsn, HTTP_BODY_SECONDS_MAX="5") as clients:
        said = head % (encoding, len(body))
        reader, writer = await clients.open(said + body if at_once else said)
        if not at_once:
            await writer.drain()
            writer.write(body)

        answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 30)

        assert answer.split()[1] == b"400"
        assert await clients.ask() == 200
