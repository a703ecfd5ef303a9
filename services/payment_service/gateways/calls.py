"""How is a gateway called? Over so many connections and in so much time, and whatever goes wrong is `Unanswered`."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp

from services.payment_service.domain.answers import Unanswered

#: The longest answer that is read. Checkout sessions come a hundred at a time.
ANSWER_BYTES_MAX: Final = 2_097_152
_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a call, whatever it means."""

    status: int
    body: bytes


class Calls:
    """Calls to one gateway; `headers` go with each of them. It holds its connections between `async with`."""

    def __init__(
        self, *, timeout_seconds: float, connections_max: int, headers: Mapping[str, str] | None = None
    ) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._connections_max = connections_max
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections_max),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=self._timeout,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(
        self, method: str, url: str, *, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer | Unanswered:
        """Send one request; no redirect is followed, so that no secret goes anywhere else."""
        if self._session is None:
            return Unanswered("the gateway is closed")
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False
            ) as response:
                return Answer(response.status, await _read(response))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # Only its kind: the text of an error may repeat what was sent, secrets included.
            return Unanswered(f"no answer: {type(error).__name__}")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer, or raise ValueError if it is longer than any answer can be."""
    raw = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        raw += chunk
        if len(raw) > ANSWER_BYTES_MAX:
            detail = f"more than {ANSWER_BYTES_MAX} bytes"
            raise ValueError(detail)
    return bytes(raw)
