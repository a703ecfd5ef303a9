"""Does the HTTP frame answer every mistake with a problem that helps, and never with a 5xx for bad input?"""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from shared.database import Database, DatabaseOptions
from shared.errors import Conflict, Forbidden, LedgerViolation, NotFound, Overloaded, Unavailable
from shared.health import Health
from shared.web import (
    Access,
    Page,
    make_app,
    operator,
    page,
    path_identifier,
    path_uuid,
    public,
    read_bytes,
    read_json,
    read_query,
    request_cause,
    respond,
    storefront,
)

STOREFRONT, OPERATOR = "storefront-token-1", "operator-token-1"
ORDER_ID = UUID("0198c2a0-0000-7000-8000-000000000001")
BODY_BYTES_MAX = 1_024

Client = TestClient[web.Request, web.Application]


class Line(BaseModel):
    """A part of a body."""

    model_config = ConfigDict(strict=True, extra="forbid")

    quantity: int = Field(ge=1)


class Body(BaseModel):
    """A body."""

    model_config = ConfigDict(strict=True, extra="forbid")

    lines: list[Line]
    at: datetime | None = None


async def echo(request: web.Request) -> web.Response:
    """Answer with the body."""
    return respond(await read_json(request, Body))


async def length(request: web.Request) -> web.Response:
    """Answer with the length of the body, which may be longer than the service's limit."""
    return respond({"bytes": len(await read_bytes(request, 4 * BODY_BYTES_MAX))})


async def named(request: web.Request) -> web.Response:
    """Answer with the names in the path."""
    return respond({"order_id": path_uuid(request, "order_id"), "sku": path_identifier(request, "sku")})


async def listed(request: web.Request) -> web.Response:
    """Answer with the query as a page."""
    query = read_query(request, Page)
    return page([query], "next-key")


async def caused(request: web.Request) -> web.Response:
    """Answer with what a change would name as its cause."""
    return respond({"cause": request_cause(request)})


def failing(error: BaseException) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that fails."""

    async def fail(_: web.Request) -> web.Response:
        raise error

    return fail


ERRORS: dict[str, Exception] = {
    "forbidden": Forbidden(),
    "not-found": NotFound("There is no order 5."),
    "conflict": Conflict("It is already cancelled."),
    "overloaded": Overloaded(),
    "unavailable": Unavailable(),
    "ledger": LedgerViolation(),
    "bug": ZeroDivisionError("secret detail"),
    "away": ConnectionResetError("secret detail"),
    "media": web.HTTPUnsupportedMediaType(),
}


@pytest.fixture
def health() -> Health:
    """A service that has started."""
    return Health(started=True)


@pytest.fixture
async def client(health: Health) -> AsyncIterator[Client]:
    """A service with a few routes and no database that answers."""
    app = make_app(
        [
            web.post("/echo", public(echo)),
            web.post("/length", public(length)),
            web.get("/named/{order_id}/{sku}", public(named)),
            web.get("/listed", public(listed)),
            web.get("/caused", public(caused)),
            web.get("/storefront", storefront(caused)),
            web.get("/operator", operator(caused)),
            *(web.get(f"/fail/{name}", public(failing(error))) for name, error in ERRORS.items()),
        ],
        access=Access(storefront=SecretStr(STOREFRONT), operator=SecretStr(OPERATOR)),
        health=health,
        database=Database(DatabaseOptions(dsn="postgresql://nowhere")),
        openapi={"openapi": "3.1.0"},
        body_bytes_max=BODY_BYTES_MAX,
    )
    async with TestClient(TestServer(app)) as opened:
        yield opened


async def problem_of(response: ClientResponse, status: int) -> dict[str, Any]:
    """Return a problem after checking what all of them have."""
    assert response.status == status
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = json.loads(await response.read())
    assert problem["status"] == status
    assert problem["type"].startswith("urn:holdfast:problem:")
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["X-Request-Id"]
    return problem


async def in_chunks(body: bytes, size: int = 100) -> AsyncIterator[bytes]:
    """Give a body piece by piece, so that it is sent without a length."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


# --- bodies ---------------------------------------------------------------------------------------------------------


async def test_a_good_body_is_read(client: Client) -> None:
    """JSON becomes a model, and a model becomes JSON with times in UTC."""
    response = await client.post(
        "/echo", data=b'{"lines": [{"quantity": 2}], "at": "2026-03-01T14:00:00+02:00"}'
    )

    assert response.status == 200
    assert response.content_type == "application/json"
    assert await response.json() == {"lines": [{"quantity": 2}], "at": "2026-03-01T14:00:00+02:00"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"lines": [}', b"[" * 900, b'{"lines": NaN', b"\x00"]
)
async def test_a_body_that_is_not_json_is_malformed(client: Client, body: bytes) -> None:
    """400, not 422: there is nothing to point at."""
    problem = await problem_of(await client.post("/echo", data=body), 400)

    assert problem["type"] == "urn:holdfast:problem:malformed"
    assert "errors" not in problem


async def test_a_body_that_does_not_fit_says_where(client: Client) -> None:
    """422 with a JSON pointer for each fault, and without repeating the value."""
    body = {"lines": [{"quantity": 1}, {"quantity": "two-secret"}], "a/b~c": 1}

    problem = await problem_of(await client.post("/echo", json=body), 422)

    assert {error["pointer"] for error in problem["errors"]} == {"/lines/1/quantity", "/a~1b~0c"}
    assert all(error["detail"] for error in problem["errors"])
    assert "two-secret" not in json.dumps(problem)


@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b'"text"'])
async def test_json_of_another_kind_does_not_fit(client: Client, body: bytes) -> None:
    """422 that points at the whole document."""
    problem = await problem_of(await client.post("/echo", data=body), 422)

    assert [error["pointer"] for error in problem["errors"]] == [""]


async def test_a_body_up_to_the_limit_is_read(client: Client) -> None:
    """The limit itself is allowed, with a length and in chunks."""
    for data in (b" " * (4 * BODY_BYTES_MAX), in_chunks(b" " * (4 * BODY_BYTES_MAX))):
        response = await client.post("/length", data=data)

        assert await response.json() == {"bytes": 4 * BODY_BYTES_MAX}


async def test_a_body_that_says_it_is_too_long_is_refused_unread(client: Client) -> None:
    """413 by the Content-Length alone: the body is never sent."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")

    status_line = await asyncio.wait_for(reader.readline(), 5)

    writer.close()
    assert status_line.startswith(b"HTTP/1.1 413 ")


async def test_a_body_in_chunks_is_refused_past_the_limit(client: Client) -> None:
    """413 also for a body that never says its length."""
    body = b" " * (BODY_BYTES_MAX + 1)

    problem = await problem_of(await client.post("/echo", data=in_chunks(body)), 413)

    assert problem["type"] == "urn:holdfast:problem:too_large"


@pytest.mark.parametrize(("route", "limit"), [("/echo", BODY_BYTES_MAX), ("/length", 4 * BODY_BYTES_MAX)])
async def test_a_compressed_body_is_measured_unpacked(client: Client, route: str, limit: int) -> None:
    """A few bytes that unpack to megabytes are refused without unpacking them all."""
    packed = gzip.compress(b" " * 8_000_000)
    headers = {"Content-Encoding": "gzip"}

    response = await client.post(route, data=packed[:limit] + packed[limit:], headers=headers)

    await problem_of(response, 413)


async def test_a_compressed_body_within_the_limit_is_read(client: Client) -> None:
    """Compression itself is welcome."""
    packed = gzip.compress(b'{"lines": []}')

    response = await client.post("/echo", data=packed, headers={"Content-Encoding": "gzip"})

    assert await response.json() == {"lines": [], "at": None}


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"this is no gzip"),
        ("gzip", gzip.compress(b'{"lines": []}')[:-12]),
        ("deflate", b"\xff\xff\xff"),
        ("deflate", zlib.compress(b'{"lines": []}')[:-6]),
    ],
)
async def test_a_body_that_cannot_be_unpacked_is_malformed(
    client: Client, encoding: str, body: bytes
) -> None:
    """400: what the client broke is not our fault."""
    response = await client.post("/echo", data=body, headers={"Content-Encoding": encoding})

    assert response.status == 400


# --- paths and queries ----------------------------------------------------------------------------------------------


async def test_names_in_a_path_are_read(client: Client) -> None:
    """A UUID and an identifier come through, percent-encoded or not."""
    response = await client.get(f"/named/{ORDER_ID}/milk%3A1-l.x_y")

    assert await response.json() == {"order_id": str(ORDER_ID), "sku": "milk:1-l.x_y"}


@pytest.mark.parametrize("order_id", ["42", "x" * 36, "%00", "%FF", "0198c2a0"])
async def test_nothing_has_a_name_that_is_no_uuid(client: Client, order_id: str) -> None:
    """404: there can be no such order."""
    await problem_of(await client.get(f"/named/{order_id}/milk"), 404)


@pytest.mark.parametrize("sku", ["a%20b", "a%00", "%FF%FE", "%F0%9F%90%8C", "x" * 65, "a%2Fb"])
async def test_an_identifier_that_cannot_be_one_is_invalid(client: Client, sku: str) -> None:
    """422 with the rule, whatever bytes are in the path."""
    problem = await problem_of(await client.get(f"/named/{ORDER_ID}/{sku}"), 422)

    assert "64" in problem["detail"]


async def test_a_query_is_read_with_its_defaults(client: Client) -> None:
    """Text becomes numbers, and the page is as the contract says."""
    response = await client.get("/listed", params={"after": "a:1"})

    assert await response.json() == {"items": [{"after": "a:1", "limit": 100}], "next": "next-key"}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=1001", "/limit"),
        ("limit=ten", "/limit"),
        ("after=a%00b", "/after"),
        ("after=" + "x" * 201, "/after"),
        ("offset=5", "/offset"),
    ],
)
async def test_a_query_that_does_not_fit_says_where(client: Client, query: str, pointer: str) -> None:
    """422 with the name of the parameter; an unknown one is refused too."""
    problem = await problem_of(await client.get(f"/listed?{query}"), 422)

    assert [error["pointer"] for error in problem["errors"]] == [pointer]


# --- routes and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status"), [("forbidden", 403), ("not-found", 404), ("conflict", 409), ("overloaded", 503)]
)
async def test_an_error_becomes_the_problem_that_its_class_says(
    client: Client, name: str, status: int
) -> None:
    """Status, type and detail are those of the error raised."""
    problem = await problem_of(await client.get(f"/fail/{name}"), status)

    assert problem["detail"] == str(ERRORS[name])


async def test_an_unknown_route_is_a_problem(client: Client) -> None:
    """404 is problem+json even when no handler was reached."""
    await problem_of(await client.get("/nowhere"), 404)


async def test_another_method_is_a_problem_that_lists_the_right_ones(client: Client) -> None:
    """405 keeps the Allow header."""
    response = await client.delete("/echo")

    await problem_of(response, 405)
    assert response.headers["Allow"] == "POST"


async def test_what_aiohttp_itself_refuses_is_a_problem(client: Client) -> None:
    """Its own HTTP errors get the same form as ours."""
    await problem_of(await client.get("/fail/media"), 415)


@pytest.mark.parametrize("name", ["overloaded", "unavailable", "away"])
async def test_what_passes_by_itself_says_when_to_come_back(client: Client, name: str) -> None:
    """503 with Retry-After, for our own errors and for lost connections."""
    response = await client.get(f"/fail/{name}")

    await problem_of(response, 503)
    assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("name", ["bug", "ledger", "away"])
async def test_a_fault_of_ours_tells_nothing_of_the_inside(client: Client, name: str) -> None:
    """The text of an unexpected error stays in the log."""
    response = await client.get(f"/fail/{name}")

    assert response.status >= 500
    assert "secret detail" not in await response.text()


# --- request ids ----------------------------------------------------------------------------------------------------


async def test_a_usable_request_id_is_kept(client: Client) -> None:
    """The caller's id comes back, and is the cause of what follows."""
    response = await client.get("/caused", headers={"X-Request-Id": "shop-17:a.b_c"})

    assert response.headers["X-Request-Id"] == "shop-17:a.b_c"
    assert await response.json() == {"cause": "http:shop-17:a.b_c"}


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "ä", 'a"b'])
async def test_a_request_without_a_usable_id_gets_a_new_one(client: Client, given: str | None) -> None:
    """What could break a log or a header is replaced by a UUID."""
    response = await client.get("/caused", headers={} if given is None else {"X-Request-Id": given})

    UUID(response.headers["X-Request-Id"])
    assert await response.json() == {"cause": f"http:{response.headers['X-Request-Id']}"}


# --- scopes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "authorization", "status"),
    [
        ("/storefront", f"Bearer {STOREFRONT}", 200),
        ("/storefront", f"bearer  {STOREFRONT} ", 200),
        ("/storefront", f"Bearer {OPERATOR}", 200),
        ("/operator", f"Bearer {OPERATOR}", 200),
        ("/operator", f"Bearer {STOREFRONT}", 403),
        ("/storefront", None, 401),
        ("/storefront", "", 401),
        ("/storefront", "Bearer", 401),
        ("/storefront", "Bearer wrong-token", 401),
        ("/storefront", f"Basic {STOREFRONT}", 401),
        ("/storefront", STOREFRONT, 401),
        ("/storefront", "Bearer tökén", 401),
        ("/operator", f"Bearer {OPERATOR}x", 401),
        ("/caused", None, 200),
    ],
)
async def test_a_token_opens_its_scope_and_what_it_includes(
    client: Client, route: str, authorization: str | None, status: int
) -> None:
    """An operator may do what a storefront may; nobody else gets in; public routes ask nobody."""
    headers = {} if authorization is None else {"Authorization": authorization}

    response = await client.get(route, headers=headers)

    assert response.status == status
    if status != 200:
        await problem_of(response, status)
    assert ("WWW-Authenticate" in response.headers) == (status == 401)


async def test_a_body_is_not_read_before_the_token(client: Client) -> None:
    """Who may not come in is told so, whatever else is wrong."""
    await problem_of(await client.get("/operator", data=b"{" * 100), 401)


# --- what every service has -----------------------------------------------------------------------------------------


async def test_every_service_tells_its_openapi_document_and_metrics(client: Client) -> None:
    """Both are public; requests are counted by route template, not by path."""
    await client.get(f"/named/{ORDER_ID}/milk")

    document, metrics = await client.get("/openapi.json"), await client.get("/metrics")

    assert await document.json() == {"openapi": "3.1.0"}
    assert 'route="/named/{order_id}/{sku}"' in (text := await metrics.text())
    assert str(ORDER_ID) not in text


async def test_methods_and_paths_that_are_made_up_do_not_make_up_labels(client: Client) -> None:
    """A scanner cannot fill the memory with metrics."""
    await client.request("PROPFIND", "/coffee-pot-1")

    text = await (await client.get("/metrics")).text()

    assert 'method="OTHER",route="unmatched"' in text
    assert "coffee" not in text


async def test_a_live_process_says_so_without_its_database(client: Client) -> None:
    """Liveness asks nothing of others: a restart would not bring Postgres back."""
    assert (await client.get("/livez")).status == 200


async def test_a_service_without_its_database_is_not_ready(client: Client) -> None:
    """503: work sent here could not be stored."""
    await problem_of(await client.get("/readyz"), 503)


async def test_a_service_that_is_stopping_is_not_ready(client: Client, health: Health) -> None:
    """503, so that a load balancer looks elsewhere while the last requests finish."""
    health.stopping = True

    problem = await problem_of(await client.get("/readyz"), 503)

    assert "stopping" in problem["detail"]


async def test_json_keeps_times_and_ids_as_the_contract_writes_them(client: Client) -> None:
    """UUIDs are text, times RFC 3339 with Z."""
    response = respond({"id": ORDER_ID, "at": datetime(2026, 3, 1, 12, tzinfo=UTC)})

    assert response.body == b'{"id":"0198c2a0-0000-7000-8000-000000000001","at":"2026-03-01T12:00:00Z"}'
