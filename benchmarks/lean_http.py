"""Which HTTP is cheap enough for a load generator that shares its cores with what it measures?

One that knows its other side: HTTP/1.1 over kept connections, every message with a Content-Length, one request at a time
a connection. A general client or server would take as much CPU as a service does, and be what is measured.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Self, cast
from urllib.parse import urlsplit

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class _Messages(asyncio.Protocol):
    """Cuts what comes in on a connection into messages: the first line's words, and the body."""

    def __init__(self) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        while (end := received.find(_HEAD_END)) >= 0:
            start = end + len(_HEAD_END)
            stop = start + _body_length(received[:end])
            if len(received) < stop:
                break
            self.take(received[:end], received[start:stop])
            received = received[stop:]
        self._received = received

    def take(self, head: bytes, body: bytes) -> None:
        """Do something with a message."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send bytes, unless the other side is gone."""
        if self.transport is not None:
            self.transport.write(data)


def _body_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(_LENGTH)
    return 0 if at < 0 else int(lowered[at + len(_LENGTH) :].partition(b"\r\n")[0])


class _Connection(_Messages):
    """A client's side of a connection: one request is under way at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[int] | None = None

    def take(self, head: bytes, body: bytes) -> None:  # noqa: ARG002 (only the status matters)
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(int(head.split(b" ", 2)[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError())


class LeanClient:
    """Posts to one URL over as many connections as `connections_max`."""

    def __init__(self, url: str, *, connections_max: int, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._head = "\r\n".join(lines).encode()
        self._free: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        for _ in range(connections_max):
            self._free.put_nowait(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while not self._free.empty():
            connection = self._free.get_nowait()
            if connection is not None and connection.transport is not None:
                connection.transport.close()

    async def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a body and return the status of the answer; raise OSError if there is none."""
        connection = await self._free.get()
        try:
            if connection is None or connection.transport is None or connection.transport.is_closing():
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(_Connection, *self._address)
            connection.answer = asyncio.get_running_loop().create_future()
            lines = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
            connection.write(
                b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (self._head, lines.encode(), len(body), body)
            )
            return await connection.answer
        finally:
            self._free.put_nowait(connection)


class _ServerConnection(_Messages):
    """A server's side of a connection."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._answer = answer

    def take(self, head: bytes, body: bytes) -> None:  # noqa: ARG002 (there is only one route)
        answer = self._answer(body)
        self.write(
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )


class LeanServer:
    """Answers every request on 127.0.0.1 with 201 and what `answer` makes of its body."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self.url = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _ServerConnection(self._answer), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
