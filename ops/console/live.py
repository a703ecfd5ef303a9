"""How does a page follow what happens? By server-sent events: each carries the part of the page that has changed."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web
from aiohttp_sse import EventSourceResponse, sse_response

from ops.console.frame import SESSION, SESSIONS
from ops.console.settings import STREAMS_MAX
from shared.errors import Overloaded

_RETRY_MILLISECONDS = 3_000

#: Waits for the next part of a page; None: there will be no other, and the page is best loaded again.
NextPart = Callable[[], Awaitable[str | None]]


class Live:
    """Sends streams, so many at once, until their session ends or the console does."""

    def __init__(self) -> None:
        self._ending = asyncio.Event()
        self._count = 0

    def end(self) -> None:
        """End all streams: the console stops. Browsers come back by themselves when it does."""
        self._ending.set()

    async def send(self, request: web.Request, next_part: NextPart) -> web.StreamResponse:
        """Send `part` events, and `done` after the last.

        Raises:
            Overloaded: enough pages follow already.
        """
        if self._count >= STREAMS_MAX:
            raise Overloaded("Too many pages follow at once; this one can be loaded again by hand.")
        self._count += 1
        try:
            async with sse_response(request) as response:
                # Who has closed the page is no longer there to be told so.
                with suppress(ConnectionResetError):
                    await self._send(
                        response, next_part, request.app[SESSIONS].seconds_left(request[SESSION])
                    )
        finally:
            self._count -= 1
        return response

    async def _send(self, response: EventSourceResponse, next_part: NextPart, seconds: float) -> None:
        await response.send("", event="hello", retry=_RETRY_MILLISECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (text := await self._unless_ending(next_part())) is not None:
                    await response.send(text, event="part")
        if not self._ending.is_set():
            await response.send("", event="done")

    async def _unless_ending(self, part: Awaitable[str | None]) -> str | None:
        """Return a part, or None as soon as the console stops."""
        ending, step = asyncio.ensure_future(self._ending.wait()), asyncio.ensure_future(part)
        try:
            await asyncio.wait((ending, step), return_when=asyncio.FIRST_COMPLETED)
            return step.result() if step.done() else None
        finally:
            ending.cancel()
            step.cancel()
