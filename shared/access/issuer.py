"""Who holds a token that our OpenID issuer has signed (a JWT, RFC 7519)?

Signature, issuer, audience and times are checked, with algorithms from a short list and keys that only the issuer can
sign with. A token that was found good is remembered by its digest for a short time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from joserfc import jws, jwt
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry
from pydantic import TypeAdapter, ValidationError

from shared.access.callers import Caller, Scope, name_of
from shared.access.issuer_keys import IssuerKeys
from shared.errors import Forbidden, Unauthorized
from shared.events import Identifier
from shared.logging import get_logger

SUBJECT_CHARACTERS_MAX = 255
_identifier: TypeAdapter[str] = TypeAdapter(Identifier)
_log = get_logger()


@dataclass(frozen=True, slots=True)
class IssuerOptions:
    """Whose tokens are taken, for whom, and what their claims mean.

    `scope_claim` and `customer_claim` are names, or JSON pointers if they begin with a slash.
    """

    issuer: str
    audience: str
    algorithms: Sequence[str]
    scopes: Mapping[str, Scope]
    scope_claim: str = "scope"
    customer_claim: str = "sub"
    leeway_seconds: int = 30
    verified_seconds_max: float = 60.0
    verified_tokens_max: int = 10_000


class Issuer:
    """Verifies tokens, and remembers the good ones."""

    def __init__(
        self, options: IssuerOptions, keys: IssuerKeys, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.keys = keys
        self._options = options
        self._clock = clock
        # Header parameters that nobody knows are passed over (RFC 7515, section 4); critical ones are refused.
        self._registry = JWSRegistry(algorithms=[*options.algorithms], strict_check_header=False)
        self._claims = JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=options.leeway_seconds,
            iss={"essential": True, "value": options.issuer},
            aud={"essential": True, "value": options.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._verified: dict[bytes, tuple[Caller, float, int]] = {}

    async def find(self, token: str) -> Caller:
        """Return whose token this is.

        Raises:
            Unauthorized: it is not a good one.
            Forbidden: it is, but says nothing that opens anything here.
            Unavailable: its key is not known, and the issuer does not answer.
        """
        digest = sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None:
            caller, good_until, generation = known
            if self._clock() < good_until and generation == self.keys.generation:
                return caller
            del self._verified[digest]
        claims = await self._verify(token)
        caller = self._caller(claims)
        good_until = min(
            self._clock() + self._options.verified_seconds_max, claims["exp"] + self._options.leeway_seconds
        )
        while len(self._verified) >= self._options.verified_tokens_max:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = caller, good_until, self.keys.generation
        return caller

    async def _verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a good token; joserfc also raises other errors than its own on hostile input."""
        try:
            header = jws.extract_compact(token.encode(), registry=self._registry).headers()
            algorithm, key_id = header.get("alg"), header.get("kid")
        except Exception as error:
            raise Unauthorized from error
        if algorithm not in self._options.algorithms or not isinstance(key_id, str | None):
            raise Unauthorized
        key = await self.keys.find(key_id)
        if key is None or key.alg not in {None, algorithm}:
            raise Unauthorized
        try:
            claims = jwt.decode(token, key, registry=self._registry).claims
            self._claims.validate(claims)
        except Exception as error:
            _log.info("token_refused", error=type(error).__name__)
            raise Unauthorized from error
        return claims

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        subject: str = claims["sub"]
        if not subject.isprintable() or len(subject) > SUBJECT_CHARACTERS_MAX:
            raise Unauthorized
        said = _words(_claim(claims, self._options.scope_claim))
        scopes = {self._options.scopes[word] for word in said if word in self._options.scopes}
        for scope in (Scope.OPERATOR, Scope.STOREFRONT):
            if scope in scopes:
                return Caller(name_of("oidc", subject), scope)
        if Scope.CUSTOMER not in scopes:
            raise Forbidden("The token names no scope that opens anything here.")
        try:
            customer_id = _identifier.validate_python(_claim(claims, self._options.customer_claim))
        except ValidationError as error:
            raise Forbidden("The token does not name a customer.") from error
        return Caller(name_of("customer", customer_id), Scope.CUSTOMER, customer_id)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or what a JSON pointer (RFC 6901) leads to; None if there is nothing."""
    if not name.startswith("/"):
        return claims.get(name)
    found: Any = claims
    for part in name[1:].split("/"):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


def _words(value: Any) -> list[str]:
    """Return what a claim lists: an array of text, or words with spaces between (RFC 8693, section 4.2)."""
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
