"""Who comes in by which token, and behind which door is a route to be found?"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from shared.access import Access, ApiKeys, Issuer, IssuerKeys, IssuerOptions, NewKey, Scope, new_key
from shared.database import Database, DatabaseOptions
from shared.health import Health
from shared.runtime import Service
from shared.settings import ServiceSettings
from shared.web import Door, caller_of, customer, customer_of, make_app, operator, public, respond, storefront
from tests.issuer_building import AUDIENCE, ISSUER, claims_of, ec_key, local_issuer, sign
from tests.unit.small_app import OPERATOR, STOREFRONT, Client, problem_of

AUTHORIZATION_CHARACTERS_MAX = 1_000
SIGNING = ec_key("key-1")
KEYS = {
    "storefront": new_key("web-shop", Scope.STOREFRONT),
    "operator": new_key("alice", Scope.OPERATOR),
    "customer": new_key("phone", Scope.CUSTOMER, customer_id="c-7"),
}


async def who(request: web.Request) -> web.Response:
    """Answer with what is known of the caller."""
    return respond({"name": caller_of(request).name, "customer_id": customer_of(request)})


async def anybody(_request: web.Request) -> web.Response:
    """Answer whoever asks."""
    return respond({})


async def facts(_request: web.Request) -> web.Response:
    """Answer with what every record of the log repeats now."""
    return respond(get_contextvars())


async def fault(_request: web.Request) -> web.Response:
    """Fail for a reason of ours."""
    raise ZeroDivisionError


def app_with(access: Access, door: Door = Door.ONE) -> web.Application:
    """Return an application with a route of each kind."""
    return make_app(
        [
            web.get("/customer", customer(who)),
            web.get("/storefront", storefront(who)),
            web.get("/operator", operator(who)),
            web.put("/storefront", operator(who)),
            web.get("/public", public(anybody)),
            web.get("/facts", storefront(facts)),
            web.get("/public-facts", public(facts)),
            web.get("/fault", operator(fault)),
        ],
        access=access,
        health=Health(started=True),
        database=Database(DatabaseOptions(dsn="postgresql://nowhere")),
        openapi={"openapi": "3.1.0"},
        body_bytes_max=1_024,
        door=door,
    )


def access_with(keys: ApiKeys | None = None, issuer: Issuer | None = None) -> Access:
    """Return who may come in, beside the holders of the two tokens."""
    return Access(
        storefront=SecretStr(STOREFRONT),
        operator=SecretStr(OPERATOR),
        api_keys=keys,
        issuer=issuer,
        authorization_characters_max=AUTHORIZATION_CHARACTERS_MAX,
    )


def keys_in(path: Path, *keys: NewKey) -> ApiKeys:
    """Return the keys of a new file."""
    path.write_text("\n".join(key.text() for key in keys))
    return ApiKeys(path, health=Health())


@pytest.fixture
def api_keys(tmp_path: Path) -> ApiKeys:
    """A key of each scope."""
    return keys_in(tmp_path / "keys", *KEYS.values())


@pytest.fixture
async def client(api_keys: ApiKeys) -> AsyncIterator[Client]:
    """An application that knows tokens, API keys and an issuer."""
    async with local_issuer(SIGNING) as server:
        keys = IssuerKeys(server.url, timeout_seconds=5, refetch_seconds_min=30, health=Health())
        options = IssuerOptions(ISSUER, AUDIENCE, ["ES256"], {f"holdfast:{scope}": scope for scope in Scope})
        app = app_with(access_with(api_keys, Issuer(options, keys)))
        async with TestClient(TestServer(app)) as opened:
            yield opened


def bearer(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {token}"}


# --- callers --------------------------------------------------------------------------------------------------------


async def test_a_caller_has_the_name_behind_its_token(client: Client) -> None:
    """The two tokens are called as their scopes, a key as its line says, and a customer always as itself."""
    tokens = {
        "storefront": STOREFRONT,
        "operator": OPERATOR,
        "key:web-shop": KEYS["storefront"].key,
        "key:alice": KEYS["operator"].key,
        "oidc:bob": sign(claims_of("bob", "holdfast:storefront"), SIGNING),
        "customer:c-7": sign(claims_of("c-7"), SIGNING),
    }

    for name, token in tokens.items():
        response = await client.get("/customer", headers=bearer(token))
        customer_id = "c-7" if name == "customer:c-7" else None
        assert await response.json() == {"name": name, "customer_id": customer_id}
    by_key = await client.get("/customer", headers=bearer(KEYS["customer"].key))
    assert await by_key.json() == {"name": "customer:c-7", "customer_id": "c-7"}


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("kind", ["key", "jwt"])
async def test_a_scope_opens_its_routes_and_those_of_the_ones_it_includes(
    client: Client, scope: Scope, kind: str
) -> None:
    """Operators all, storefronts their own and customers', customers theirs: 403 for the rest."""
    token = KEYS[scope].key if kind == "key" else sign(claims_of("c-7", f"holdfast:{scope}"), SIGNING)
    may = {"customer": [200, 403, 403], "storefront": [200, 200, 403], "operator": [200, 200, 200]}

    answers = [await client.get(f"/{route}", headers=bearer(token)) for route in Scope]

    assert [answer.status for answer in answers] == may[scope]


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {new_key('web-shop', Scope.OPERATOR).key}",
        "Bearer hfk_",
        "Bearer a.b.c",
        f"Bearer {sign(claims_of('a', aud='another'), SIGNING)}",
        f"Bearer {STOREFRONT} {STOREFRONT}",
        f"Basic {KEYS['operator'].key}",
        KEYS["operator"].key,
        f"Bearer {'x' * AUTHORIZATION_CHARACTERS_MAX}",
        f"Bearer {' ' * AUTHORIZATION_CHARACTERS_MAX}{OPERATOR}",
        "Bearer é.é.é",
    ],
    ids=[
        "an unknown key",
        "no key",
        "no token",
        "a token for others",
        "two tokens",
        "Basic",
        "no scheme",
        "too long",
        "too much space",
        "no ASCII",
    ],
)
async def test_who_is_nobody_is_told_how_to_come_in(client: Client, authorization: str) -> None:
    """401 with the scheme that is spoken here, and nothing of what was wrong."""
    response = await client.get("/customer", headers={"Authorization": authorization})

    problem = await problem_of(response, 401)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert problem["detail"] == "A valid bearer token is needed."


async def test_without_keys_and_issuer_only_the_two_tokens_come_in(tmp_path: Path) -> None:
    """What is not switched on lets nobody in."""
    async with TestClient(TestServer(app_with(access_with()))) as opened:
        for token in (KEYS["operator"].key, sign(claims_of("a"), SIGNING)):
            await problem_of(await opened.get("/customer", headers=bearer(token)), 401)
        assert (await opened.get("/operator", headers=bearer(OPERATOR))).status == 200


async def test_an_issuer_that_never_answered_is_no_fault_of_the_token(api_keys: ApiKeys) -> None:
    """503 for a token whose key cannot be known; everybody else comes in."""
    keys = IssuerKeys("http://127.0.0.1:1/", timeout_seconds=1, refetch_seconds_min=30, health=Health())
    options = IssuerOptions(ISSUER, AUDIENCE, ["ES256"], {})
    async with TestClient(TestServer(app_with(access_with(api_keys, Issuer(options, keys))))) as opened:
        unknown = await opened.get("/customer", headers=bearer(sign(claims_of("a"), SIGNING)))
        known = await opened.get("/customer", headers=bearer(KEYS["operator"].key))

    assert (unknown.status, unknown.headers["Retry-After"]) == (503, "1")
    assert known.status == 200


async def test_the_log_names_the_caller_while_its_request_is_worked_on(client: Client) -> None:
    """What is written meanwhile has the caller's name; the next request on the same connection has its own, or none."""
    bound = [
        await (await client.get(f"/{route}", headers=bearer(token))).json()
        for route, token in [
            ("facts", KEYS["operator"].key),
            ("facts", STOREFRONT),
            ("public-facts", OPERATOR),
        ]
    ]

    assert bound == [{"caller": "key:alice"}, {"caller": "storefront"}, {}]


async def test_a_fault_is_logged_with_the_callers_name_and_without_its_token(client: Client) -> None:
    """Who met it is known; what it showed at the door is not written down."""
    token = KEYS["operator"].key
    with capture_logs() as logs:
        await problem_of(await client.get("/fault", headers=bearer(token)), 500)

    (record,) = [record for record in logs if record["event"] == "request_failed"]
    assert record["caller"] == "key:alice"
    assert token.rsplit("_", 1)[1] not in repr(logs)


# --- doors ----------------------------------------------------------------------------------------------------------

PLACES = [
    ("GET", "/customer"),
    ("GET", "/storefront"),
    ("GET", "/operator"),
    ("PUT", "/storefront"),
    ("GET", "/public"),
    ("GET", "/livez"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
]


@pytest.mark.parametrize(
    ("door", "statuses"),
    [
        (Door.ONE, [200, 200, 200, 200, 200, 200, 200, 200]),
        (Door.PUBLIC, [200, 200, 404, 404, 200, 200, 200, 200]),
        (Door.OPERATORS, [404, 404, 200, 200, 404, 200, 200, 200]),
    ],
)
async def test_a_route_is_found_behind_the_door_of_its_scope(door: Door, statuses: list[int]) -> None:
    """What operators alone may do has a door of its own; health, metrics and the document are behind each."""
    async with TestClient(TestServer(app_with(access_with(), door))) as opened:
        answers = [await opened.request(*place, headers=bearer(OPERATOR)) for place in PLACES]

        assert [answer.status for answer in answers] == statuses


async def test_a_route_behind_another_door_asks_for_no_token() -> None:
    """It is not there, for nobody as for operators."""
    async with TestClient(TestServer(app_with(access_with(), Door.PUBLIC))) as opened:
        await problem_of(await opened.get("/operator"), 404)


async def test_a_service_with_a_route_that_does_not_say_whom_it_is_for_is_not_made() -> None:
    """Forgetting it opens the route to nobody, not to everybody."""
    settings = ServiceSettings.model_validate(
        {
            "database_dsn": "postgresql://nowhere",
            "http_port": 0,
            "storefront_token": STOREFRONT,
            "operator_token": OPERATOR,
        }
    )
    async with AsyncExitStack() as stack:
        service = Service("tiny", settings, Database(DatabaseOptions(dsn=settings.database_dsn)), stack)

        with pytest.raises(ValueError, match="whom it is for"):
            service.serve([web.get("/forgotten", who)], openapi={})
    assert service.app is None
