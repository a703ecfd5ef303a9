"""Which tokens of an OpenID issuer are taken, and what do they come to?"""

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiohttp import web
from joserfc.jwk import OctKey, RSAKey

from shared.access import Caller, Issuer, IssuerKeys, IssuerOptions, Scope
from shared.errors import Forbidden, Unauthorized, Unavailable
from shared.health import Health
from tests.issuer_building import (
    AUDIENCE,
    ISSUER,
    LocalIssuer,
    SigningKey,
    claims_of,
    ec_key,
    local_issuer,
    sign,
)

KEY = ec_key("key-1")
OTHER_KEY = ec_key("key-2")
RSA_KEY = RSAKey.generate_key(2_048, {"kid": "rsa-1", "use": "sig"})
OPTIONS = IssuerOptions(
    issuer=ISSUER,
    audience=AUDIENCE,
    algorithms=("RS256", "ES256"),
    scopes={f"holdfast:{scope}": scope for scope in Scope},
)
LEEWAY = OPTIONS.leeway_seconds


class Clock:
    """A clock that a test moves; it goes on by itself, as the issuer's does."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        """Return the seconds since 1970."""
        return time.time() + self.ahead

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic() + self.ahead


class Door:
    """An issuer, and somebody who takes its tokens."""

    def __init__(self, server: LocalIssuer, options: IssuerOptions) -> None:
        self.server, self.clock, self.health = server, Clock(), Health()
        self.keys = IssuerKeys(
            server.url,
            timeout_seconds=5,
            refetch_seconds_min=30,
            health=self.health,
            clock=self.clock.monotonic,
        )
        self.issuer = Issuer(options, self.keys, clock=self.clock.time)

    async def refuses(self, token: str) -> bool:
        """Tell whether a token is no good, for a reason that lies in it."""
        try:
            await self.issuer.find(token)
        except Unauthorized:
            return True
        return False


@asynccontextmanager
async def a_door(*keys: Any, **options: Any) -> AsyncIterator[Door]:
    """Run an issuer with some keys."""
    async with local_issuer(*(keys or (KEY, RSA_KEY))) as server:
        yield Door(server, replace(OPTIONS, **options))


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """An issuer with an EC and an RSA key."""
    async with a_door() as opened:
        yield opened


# --- good tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "caller"),
    [
        ("holdfast:customer", Caller("customer:alice", Scope.CUSTOMER, "alice")),
        ("openid holdfast:customer profile", Caller("customer:alice", Scope.CUSTOMER, "alice")),
        ("holdfast:storefront", Caller("oidc:alice", Scope.STOREFRONT)),
        (["holdfast:operator", 7, None], Caller("oidc:alice", Scope.OPERATOR)),
        ("holdfast:customer holdfast:operator", Caller("oidc:alice", Scope.OPERATOR)),
    ],
)
async def test_the_words_of_a_claim_are_the_scope(door: Door, scope: object, caller: Caller) -> None:
    """Text or an array; of several scopes the widest one holds; only a customer has a customer id."""
    assert await door.issuer.find(sign(claims_of("alice", scope), KEY)) == caller


async def test_every_listed_algorithm_is_taken(door: Door) -> None:
    """RSA and elliptic curves, each with its own key."""
    keys: list[tuple[SigningKey, str]] = [(KEY, "ES256"), (RSA_KEY, "RS256")]

    for key, algorithm in keys:
        assert (await door.issuer.find(sign(claims_of("a"), key, algorithm))).customer_id == "a"


async def test_claims_may_be_found_by_pointers() -> None:
    """Nested roles, as some issuers have them, and a customer id in a claim of its own, with any name."""
    claims = claims_of(
        "auth0|17",
        None,
        realm_access={"roles": ["shopper"]},
        **{"https://shop.example/customer": "c-7"},
    )
    async with a_door(
        scope_claim="/realm_access/roles",
        scopes={"shopper": Scope.CUSTOMER},
        customer_claim="https://shop.example/customer",
    ) as opened:
        caller = await opened.issuer.find(sign(claims, KEY))

    assert caller == Caller("customer:c-7", Scope.CUSTOMER, "c-7")


async def test_names_of_callers_cannot_be_made_to_look_like_others(door: Door) -> None:
    """The subject is escaped: `customer:x` of the issuer is not customer x."""
    named = [
        (await door.issuer.find(sign(claims_of(subject, "holdfast:operator"), KEY))).name
        for subject in ("a:b", "a%3Ab")
    ]

    assert named == ["oidc:a%3Ab", "oidc:a%253Ab"]


@pytest.mark.parametrize(
    "header",
    [{"typ": "at+jwt"}, {"nonce": "abc"}, {"x5t": "abc"}, {"jku": "https://evil.example/keys"}],
    ids=lambda header: next(iter(header)),
)
async def test_header_parameters_that_mean_nothing_here_change_nothing(
    door: Door, header: dict[str, str]
) -> None:
    """They are passed over; no key is ever fetched from where a token says."""
    assert (await door.issuer.find(sign(claims_of("a"), KEY, **header))).customer_id == "a"


async def test_an_only_key_needs_no_id() -> None:
    """A set of one key serves tokens without `kid`; a set of two does not."""
    bare = ec_key(None)
    async with a_door(bare) as one:
        assert (await one.issuer.find(sign(claims_of("a"), bare, kid=None))).customer_id == "a"
    async with a_door(KEY, OTHER_KEY) as two:
        assert await two.refuses(sign(claims_of("a"), KEY, kid=None))


# --- bad tokens -----------------------------------------------------------------------------------------------------


def unsigned(claims: dict[str, Any], algorithm: str = "none", key_id: str = "key-1") -> str:
    """Return a token that nobody has signed."""
    parts = ({"alg": algorithm, "kid": key_id}, claims)
    return ".".join([*(urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode() for part in parts), ""])


def forged_with_the_public_key() -> str:
    """Return a token signed as if the issuer's public key were a shared secret: by hand, since joserfc will not."""
    signed = unsigned(claims_of("a"), "HS256", key_id="rsa-1").rstrip(".")
    tag = hmac.digest(RSA_KEY.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{urlsafe_b64encode(tag).rstrip(b'=').decode()}"


def tampered() -> str:
    """Return a token whose claims were changed after it was signed."""
    head, _, tail = sign(claims_of("a"), KEY).split(".")
    claims = urlsafe_b64encode(orjson.dumps(claims_of("b"))).rstrip(b"=").decode()
    return f"{head}.{claims}.{tail}"


NOW = int(time.time())
BAD: dict[str, Callable[[], str]] = {
    "of another audience": lambda: sign(claims_of("a", aud="another"), KEY),
    "without an audience": lambda: sign(claims_of("a", aud=None), KEY),
    "of another issuer": lambda: sign(claims_of("a", iss=ISSUER.rstrip("/")), KEY),
    "without an issuer": lambda: sign(claims_of("a", iss=None), KEY),
    "over": lambda: sign(claims_of("a", exp=NOW - 3_600), KEY),
    "without an end": lambda: sign(claims_of("a", exp=None), KEY),
    "with an end that is no number": lambda: sign(claims_of("a", exp="tomorrow"), KEY),
    "not yet good": lambda: sign(claims_of("a", nbf=NOW + 3_600), KEY),
    "from the future": lambda: sign(claims_of("a", iat=NOW + 3_600), KEY),
    "without a subject": lambda: sign(claims_of("a", sub=None), KEY),
    "with a subject that is no text": lambda: sign(claims_of("a", sub=7), KEY),
    "with a subject that breaks lines": lambda: sign(claims_of("a\nb", "holdfast:operator"), KEY),
    "with a subject without an end": lambda: sign(claims_of("a" * 256, "holdfast:operator"), KEY),
    "signed with another key under a known id": lambda: sign(claims_of("a"), OTHER_KEY, kid="key-1"),
    "signed with a key that the issuer does not have": lambda: sign(claims_of("a"), OTHER_KEY),
    "that names another kind of key": lambda: sign(claims_of("a"), KEY, kid="rsa-1"),
    "of an algorithm that is not listed": lambda: sign(claims_of("a"), RSA_KEY, "PS256"),
    "of a shared secret": lambda: sign(claims_of("a"), OctKey.generate_key(256), "HS256", kid="key-1"),
    "of the public key as a shared secret": forged_with_the_public_key,
    "that nobody has signed": lambda: unsigned(claims_of("a")),
    "that nobody has signed, in capitals": lambda: unsigned(claims_of("a"), "NONE"),
    "that says it is signed": lambda: unsigned(claims_of("a"), "ES256"),
    "changed afterwards": tampered,
    "with a critical header that nobody knows": lambda: sign(claims_of("a"), KEY).replace(
        sign(claims_of("a"), KEY).split(".")[0],
        urlsafe_b64encode(b'{"alg":"ES256","kid":"key-1","crit":["x"],"x":1}').rstrip(b"=").decode(),
    ),
    "with a key id that is no text": lambda: unsigned({}).replace(
        unsigned({}).split(".")[0], urlsafe_b64encode(b'{"alg":"ES256","kid":[1]}').rstrip(b"=").decode()
    ),
    "with a header that is a list": lambda: urlsafe_b64encode(b"[]").decode() + ".e30.AA",
    "of no parts": lambda: "abc",
    "of empty parts": lambda: "..",
    "of five parts": lambda: "a.b.c.d.e",
    "of nested brackets": lambda: urlsafe_b64encode(b"[" * 300).decode() + ".e30.AA",
    "of nothing": lambda: "",
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_token_is_refused(door: Door, kind: str) -> None:
    """Whatever is wrong with it, the answer is the same, and it is not remembered."""
    token = BAD[kind]()

    assert await door.refuses(token)
    assert await door.refuses(token)


@pytest.mark.parametrize(
    ("subject", "scope"),
    [("a", None), ("a", "openid"), ("a", {"holdfast:operator": True}), ("auth0|17", "holdfast:customer")],
)
async def test_a_token_that_opens_nothing_is_forbidden(door: Door, subject: str, scope: object) -> None:
    """The caller is known, and has no scope of ours, or a customer id that none can be."""
    with pytest.raises(Forbidden):
        await door.issuer.find(sign(claims_of(subject, scope), KEY))


async def test_clocks_may_differ_a_little(door: Door) -> None:
    """Within the leeway a token is good before it begins and after it ends; not beyond."""
    now = int(time.time())
    nearly = [claims_of("a", exp=now - LEEWAY + 10), claims_of("a", nbf=now + LEEWAY - 10)]
    not_nearly = [claims_of("a", exp=now - LEEWAY - 10), claims_of("a", nbf=now + LEEWAY + 10)]

    assert [await door.refuses(sign(claims, KEY)) for claims in nearly] == [False, False]
    assert [await door.refuses(sign(claims, KEY)) for claims in not_nearly] == [True, True]


# --- what is remembered ---------------------------------------------------------------------------------------------


async def test_a_good_token_is_verified_once_and_ends_when_it_ends(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is remembered no longer its signature is not looked at again; after its end it is no good."""
    token = sign(claims_of("a", exp=int(time.time()) + 40), KEY)
    verified = []
    verify = door.issuer._verify

    async def counted(given: str) -> dict[str, Any]:
        verified.append(given)
        return await verify(given)

    monkeypatch.setattr(door.issuer, "_verify", counted)
    for _ in range(3):
        await door.issuer.find(token)
    assert len(verified) == 1
    door.clock.ahead = 61
    assert not await door.refuses(token)
    assert len(verified) == 2
    door.clock.ahead = 72

    assert await door.refuses(token)


async def test_no_more_tokens_are_remembered_than_allowed() -> None:
    """The oldest one makes room."""
    async with a_door(verified_tokens_max=3) as opened:
        for number in range(10):
            await opened.issuer.find(sign(claims_of(f"c-{number}"), KEY))

        assert len(opened.issuer._verified) == 3


# --- keys -----------------------------------------------------------------------------------------------------------


async def test_a_new_key_is_fetched_when_its_first_token_comes(door: Door) -> None:
    """The issuer changes its key: nobody is turned away, and the issuer is asked once."""
    await door.issuer.find(sign(claims_of("a"), KEY))
    door.server.keys = [OTHER_KEY]
    door.clock.ahead = 31

    assert (await door.issuer.find(sign(claims_of("a"), OTHER_KEY))).customer_id == "a"
    assert door.server.asked == 2


async def test_a_key_that_was_taken_back_opens_nothing_any_more(door: Door) -> None:
    """With the next set also tokens are refused that were found good before."""
    token = sign(claims_of("a"), KEY)
    await door.issuer.find(token)
    door.server.keys = [OTHER_KEY]

    await door.keys.tick()

    assert await door.refuses(token)


async def test_unknown_keys_do_not_make_us_ask_all_the_time(door: Door) -> None:
    """Made-up key ids cost the issuer one question every 30 seconds, however many come."""
    made_up = [sign(claims_of("a"), OTHER_KEY, kid=f"made-up-{number}") for number in range(20)]

    assert all([await door.refuses(token) for token in made_up])
    assert door.server.asked == 1
    door.clock.ahead = 31
    assert all([await door.refuses(token) for token in made_up])
    assert door.server.asked == 2


async def test_known_keys_hold_while_the_issuer_is_away(door: Door) -> None:
    """Tokens are verified on; the process says what is away, and 503 for what cannot be known; then all is well."""
    await door.keys.tick()
    door.server.answer = web.Response(status=500)
    door.clock.ahead = 31

    with pytest.raises(Unavailable):
        await door.keys.tick()
    assert (await door.issuer.find(sign(claims_of("a"), KEY))).customer_id == "a"
    assert "500" in door.health.away["issuer_keys"]
    with pytest.raises(Unavailable):
        await door.issuer.find(sign(claims_of("a"), OTHER_KEY))
    door.server.answer = None
    await door.keys.tick()
    assert door.health.away == {}
    assert await door.refuses(sign(claims_of("a"), OTHER_KEY))


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(body=b"<html>"),
        web.Response(body=b"[]"),
        web.Response(body=b'{"keys": {}}'),
        web.Response(body=b'{"keys": []}'),
        web.Response(body=b'{"keys": [7, {"kty": "oct", "k": "AAAA", "kid": "key-1"}, {"kty": "PQ"}]}'),
        web.Response(body=b" " * (256 * 1024 + 1)),
        web.Response(status=302, headers={"Location": "/elsewhere"}),
    ],
    ids=["html", "a list", "an object", "no key", "no key of ours", "too long", "elsewhere"],
)
async def test_an_answer_that_is_no_key_set_changes_nothing(door: Door, answer: web.Response) -> None:
    """The keys known before hold, and the process says so."""
    await door.keys.tick()
    door.server.answer = answer

    with pytest.raises(Unavailable):
        await door.keys.tick()
    assert (await door.issuer.find(sign(claims_of("a"), KEY))).customer_id == "a"
    assert "issuer_keys" in door.health.away


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_keys_that_are_not_to_verify_with_are_passed_over() -> None:
    """Keys for encryption, shared secrets and short RSA keys verify nothing, and take no neighbour's place."""
    encrypting, namesake = ec_key("encrypting", use="enc"), ec_key("key-1", use="enc")
    short = RSAKey.generate_key(1_024, {"kid": "short"})
    secret = OctKey.generate_key(256, {"kid": "secret"})
    async with a_door(KEY, encrypting, short) as opened:
        opened.server.answer = web.json_response(
            {
                "keys": [
                    *(key.as_dict(private=False) for key in (KEY, encrypting, short, namesake)),
                    secret.as_dict(private=True),
                ]
            }
        )

        assert not await opened.refuses(sign(claims_of("a"), KEY))
        assert await opened.refuses(
            sign(claims_of("a"), encrypting.import_key(_bare(encrypting)), kid="encrypting")
        )
        assert await opened.refuses(sign(claims_of("a"), short, "RS256"))
        assert await opened.refuses(sign(claims_of("a"), secret, "HS256"))


def _bare(key: Any) -> dict[str, Any]:
    """Return a key that does not say what it is for."""
    return {name: value for name, value in key.as_dict(private=True).items() if name != "use"}
