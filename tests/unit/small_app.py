"""What is the smallest application that shows what the HTTP frame does?"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from shared.access import Access
from shared.database import Database, DatabaseOptions
from shared.errors import Conflict, Forbidden, LedgerViolation, NotFound, Overloaded, Unavailable
from shared.health import Health
from shared.web import (
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


@asynccontextmanager
async def small_app(health: Health | None = None) -> AsyncIterator[Client]:
    """Run an application with a few routes and no database that answers."""
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
        health=health or Health(started=True),
        database=Database(DatabaseOptions(dsn="postgresql://nowhere")),
        openapi={"openapi": "3.1.0"},
        body_bytes_max=BODY_BYTES_MAX,
    )
    async with TestClient(TestServer(app)) as opened:
        yield opened
