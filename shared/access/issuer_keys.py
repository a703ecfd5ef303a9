"""With which keys does the issuer sign?

Its JWK set (RFC 7517) is fetched by a worker and kept; a request waits for it only when it brings a key that is not
known, which may make us ask at most every so many seconds. While the issuer is away the keys that are known hold.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from shared.errors import Unavailable
from shared.health import Health
from shared.logging import get_logger

SET_BYTES_MAX = 256 * 1024
_RSA_BITS_MIN = 2_048
_PART = "issuer_keys"
_KEY_TYPES = (RSAKey, ECKey, OKPKey)
_log = get_logger()

#: A key that can verify and cannot sign: with a shared secret, whoever checks a token could also make one.
PublicKey = RSAKey | ECKey | OKPKey


class IssuerKeys:
    """The issuer's keys by their id (`kid`)."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        refetch_seconds_min: float,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._refetch_seconds_min = refetch_seconds_min
        self._health = health
        self._clock = clock
        self._keys: Mapping[str, PublicKey] = {}
        self._fetching = asyncio.Lock()
        self._asked_at = float("-inf")
        self._is_away = False
        #: Counts the sets: what was verified with keys of an older one is verified again.
        self.generation = 0

    async def find(self, key_id: str | None) -> PublicKey | None:
        """Return the key of this id, or None if the issuer has none; without an id the only key there is.

        Raises:
            Unavailable: the key is not known, and the issuer does not answer.
        """
        found = self._known(key_id)
        if found is None:
            async with self._fetching:  # who comes while another asks has its answer
                if self._known(key_id) is None and self._may_ask():
                    await self._fetch()
            found = self._known(key_id)
            if found is None and self._is_away:
                raise Unavailable("The keys of the tokens' issuer cannot be fetched now.")
        return found

    async def tick(self) -> bool:
        """Fetch the keys again.

        Raises:
            Unavailable: the issuer does not answer, or with something else.
        """
        async with self._fetching:
            problem = await self._fetch()
        if problem is not None:
            raise Unavailable(problem)
        return False

    def _known(self, key_id: str | None) -> PublicKey | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id) if key_id is not None else None

    def _may_ask(self) -> bool:
        return self._clock() - self._asked_at >= self._refetch_seconds_min

    async def _fetch(self) -> str | None:
        """Take the set that the issuer has now, or return why it cannot be had."""
        self._asked_at = self._clock()
        try:
            keys = await fetch_keys(self._url, timeout_seconds=self._timeout_seconds)
        except Unavailable as error:
            self._is_away = True
            self._health.down(_PART, f"the keys known before are kept: {error.detail}")
            return error.detail
        if keys.keys() != self._keys.keys() or any(keys[key] != self._keys[key] for key in keys):
            _log.info("issuer_keys_read", keys=sorted(keys))
            self._keys = keys
            self.generation += 1
        self._is_away = False
        self._health.up(_PART)
        return None


async def fetch_keys(url: str, *, timeout_seconds: float) -> Mapping[str, PublicKey]:
    """Return the keys that may verify signatures, by their id, or their thumbprint (RFC 7638) where they have none.

    Raises:
        Unavailable: there is no answer, or it is no key set.
    """
    try:
        return _usable(await _ask(url, timeout_seconds))
    except (ClientError, OSError, TimeoutError, ValueError) as error:
        raise Unavailable(str(error) or type(error).__name__) from error


async def _ask(url: str, timeout_seconds: float) -> bytes:
    """Return the answer of the issuer.

    Raises:
        ClientError, OSError, TimeoutError: there is none.
        ValueError: it is not one.
    """
    async with (
        ClientSession(timeout=ClientTimeout(total=timeout_seconds)) as session,
        session.get(url, allow_redirects=False) as response,
    ):
        if response.status != HTTPStatus.OK:
            raise ValueError(f"the key set's address answers {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_chunked(SET_BYTES_MAX):
            body += chunk
            if len(body) > SET_BYTES_MAX:
                raise ValueError(f"the key set has more than {SET_BYTES_MAX:,} bytes")
    return bytes(body)


def _usable(body: bytes) -> dict[str, PublicKey]:
    """Return the keys of a set that may verify signatures; others, and unknown kinds, are passed over.

    Raises:
        ValueError: it is no key set, or has no such key.
    """
    content = orjson.loads(body)
    listed = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is no key set")  # noqa: TRY004 (it is what the issuer sent)
    usable = [key for item in listed if (key := _read_key(item)) is not None]
    if not usable:
        raise ValueError("the key set has no key to verify signatures with")
    return {key.kid if key.kid is not None else key.thumbprint(): key for key in usable}


def _read_key(item: Any) -> PublicKey | None:
    if not isinstance(item, dict) or item.get("use", "sig") != "sig" or item.get("kty") == "oct":
        return None
    try:
        key = JWKRegistry.import_key(item)
        key.check_key_op("verify")
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAKey) and key.public_key.key_size < _RSA_BITS_MIN:
        return None
    return key if isinstance(key, _KEY_TYPES) else None
