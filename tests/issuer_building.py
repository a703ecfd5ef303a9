"""What does a small OpenID issuer look like to tests: its keys, its tokens, and the address of its key set?"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import ECKey, KeyParameters, OctKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER, AUDIENCE = "https://login.example.com/", "holdfast"
SigningKey = ECKey | RSAKey | OctKey


def ec_key(key_id: str | None, use: str = "sig") -> ECKey:
    """Make a key for ES256."""
    parameters: KeyParameters = {"use": use}
    if key_id is not None:
        parameters["kid"] = key_id
    return ECKey.generate_key("P-256", parameters)


def claims_of(subject: str, scope: object = "holdfast:customer", **given: Any) -> dict[str, Any]:
    """Return the claims of a token that is good for five minutes, unless told otherwise; None leaves a claim out."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "scope": scope,
        "iat": now,
        "exp": now + 300,
        **given,
    }
    return {name: value for name, value in claims.items() if value is not None}


def sign(claims: dict[str, Any], key: SigningKey, algorithm: str = "ES256", **parameters: Any) -> str:
    """Return a token as whoever holds the key can make it; None leaves a header parameter out."""
    whole = {"alg": algorithm, "kid": key.kid, **parameters}
    registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    header = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(header, claims, key, registry=registry)


class LocalIssuer:
    """An issuer that serves whatever keys, or whatever else, a test gives it, and counts how often it is asked."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys: Sequence[SigningKey] = keys
        self.asked = 0
        self.answer: web.Response | None = None
        self.url = ""

    async def serve(self, _request: web.Request) -> web.Response:
        """Answer with the public parts of the keys, or with what the test has said."""
        self.asked += 1
        if self.answer is not None:
            return web.Response(
                body=self.answer.body, status=self.answer.status, headers=dict(self.answer.headers)
            )
        return await self.serve_elsewhere(_request)

    async def serve_elsewhere(self, _request: web.Request) -> web.Response:
        """Answer with the public parts of the keys, at an address that nobody was told."""
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys]})


@asynccontextmanager
async def local_issuer(*keys: SigningKey) -> AsyncIterator[LocalIssuer]:
    """Run an issuer on a free port of this machine."""
    issuer = LocalIssuer(*keys)
    app = web.Application()
    app.router.add_get("/keys", issuer.serve)
    app.router.add_get("/elsewhere", issuer.serve_elsewhere)
    async with TestServer(app) as server:
        issuer.url = str(server.make_url("/keys"))
        yield issuer
