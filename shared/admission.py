"""Who is let in? So many connections at once; who comes beyond them is told to come back, not left to wait.

A connection that asks for nothing is closed by the server it was handed to (`keepalive_timeout`, which aiohttp counts
from the first moment on, and which also ends a head that comes drop by drop).
"""

import asyncio
import resource
from contextlib import suppress
from http import HTTPStatus
from typing import Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

#: As many again are told to come back; who comes beyond these is not even answered.
_TURNED_AWAY_FACTOR = 2
_ANSWER_SECONDS = 1.0
_PROBES_MAX = 8
#: What a process opens besides its clients' connections: its logs, Postgres, Kafka, gateways.
_OTHER_FILES = 512
_LIVEZ: Final = b"GET /livez "
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


async def listen(runner: web.AppRunner, host: str, port: int, *, connections_max: int) -> asyncio.Server:
    """Listen, and hand up to `connections_max` connections at once to a runner that is set up."""
    server = runner.server
    if server is None:
        raise RuntimeError("the runner is not set up")
    _allow_files((1 + _TURNED_AWAY_FACTOR) * connections_max + _OTHER_FILES)
    turned_away: set[_Entrance] = set()
    return await asyncio.get_running_loop().create_server(
        lambda: _Entrance(server, connections_max, turned_away), host, port, backlog=1_024
    )


def _allow_files(count: int) -> None:
    """Let this process open so many files, as far as its hard limit goes: many systems start it with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Handler(RequestHandler):
    """Speaks HTTP; what is none is answered without repeating any of it."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 (it holds what the client sent)
    ) -> web.StreamResponse:
        """Answer by the name of the status alone."""
        return super().handle_error(request, status, exc, HTTPStatus(status).phrase)


class _Entrance(asyncio.Protocol):
    """Receives one connection and hands it on, or turns it away once it has said what it wants."""

    def __init__(self, server: web.Server, connections_max: int, turned_away: "set[_Entrance]") -> None:
        self._server = server
        self._connections_max = connections_max
        self._turned_away = turned_away
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or keep it for a moment: who is answered before asking may not read the answer."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._server.connections) < self._connections_max:
            self._let_in(self._transport)
        elif len(self._turned_away) >= _TURNED_AWAY_FACTOR * self._connections_max:
            self._transport.abort()
        else:
            self._turned_away.add(self)
            self._deadline = asyncio.get_running_loop().call_later(_ANSWER_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer that there is no room. A probe is let in all the same: a busy service must not be restarted for it."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if data.startswith(_LIVEZ) and len(self._server.connections) < self._connections_max + _PROBES_MAX:
            self._forget()
            self._let_in(transport).data_received(data)
        elif not self._is_answered:
            self._is_answered = True
            transport.write(_BUSY)
            transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the signature is asyncio's)
        """Make room for the next one."""
        self._forget()

    def _let_in(self, transport: asyncio.Transport) -> asyncio.Protocol:
        # As `web.Server` does it, which has no public way to choose the handler.
        options = self._server._kwargs  # noqa: SLF001
        handler = _Handler(self._server, loop=asyncio.get_running_loop(), **options)
        transport.set_protocol(handler)
        handler.connection_made(transport)
        return handler

    def _forget(self) -> None:
        self._turned_away.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
