"""How does a service speak HTTP?

aiohttp with one middleware: a request id, metrics, and every error as problem+json (RFC 9457). Routes say their scope
where they are listed, and by that stand behind one door or another; bodies and queries are pydantic models; bodies have a limit before they are read.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Any, Final, Protocol, TypeVar, cast
from uuid import UUID

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared import metrics
from shared.access import Access, Caller, Scope
from shared.database import Database, is_transient
from shared.envelope import faults_of
from shared.errors import (
    Forbidden,
    HoldfastError,
    Invalid,
    Malformed,
    NotFound,
    TooLarge,
    TooSlow,
    Unavailable,
)
from shared.events import Identifier
from shared.health import Health
from shared.ids import new_id
from shared.logging import bound, get_logger
from shared.masking import mask_named, mask_text

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
M = TypeVar("M", bound=BaseModel)

PROBLEM_JSON: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 1
IDEMPOTENCY_KEY_CHARACTERS_MAX: Final = 255
_IDEMPOTENCY_KEY = re.compile(rf"[\x20-\x7e]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}")
_CHUNK_BYTES = 65_536
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,64}$")
_REQUEST_ID_KEY = web.RequestKey("request_id", str)
_CALLER_KEY = web.RequestKey("caller", Caller)
_log = get_logger()
_identifier: TypeAdapter[str] = TypeAdapter(Identifier)


@dataclass(frozen=True, slots=True)
class _Limits:
    """What `make_app` was told."""

    body_bytes_max: int
    body_seconds_max: float
    watchdog_seconds: float


ACCESS = web.AppKey("access", Access)
HEALTH = web.AppKey("health", Health)
LIMITS = web.AppKey("limits", _Limits)
OPENAPI = web.AppKey("openapi", bytes)
DATABASE = web.AppKey("database", Database)


class _Marked(Protocol):
    """A handler that says whom it is for; None: anybody."""

    reach: Scope | None

    def __call__(self, request: web.Request, /) -> Awaitable[web.StreamResponse]:
        """Answer a request."""


def public(handler: Handler) -> Handler:
    """Let anybody call this route; it has its own way to know its caller, or needs none."""

    async def unchecked(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    return _marked(unchecked, None)


def customer(handler: Handler) -> Handler:
    """Let customers call this route too: it must see to it that they find their own alone (`customer_of`)."""
    return _scoped(handler, Scope.CUSTOMER)


def storefront(handler: Handler) -> Handler:
    """Let storefronts and operators call this route."""
    return _scoped(handler, Scope.STOREFRONT)


def operator(handler: Handler) -> Handler:
    """Let only operators call this route."""
    return _scoped(handler, Scope.OPERATOR)


def _scoped(handler: Handler, reach: Scope) -> Handler:
    async def checked(request: web.Request) -> web.StreamResponse:
        caller = await request.app[ACCESS].identify(request.headers.get("Authorization", ""))
        if not caller.scope.includes(reach):
            raise Forbidden
        request[_CALLER_KEY] = caller
        with bound(caller=caller.name):
            return await handler(request)

    return _marked(checked, reach)


def _marked(handler: Handler, reach: Scope | None) -> Handler:
    marked = cast("_Marked", handler)
    marked.reach = reach
    return marked


def reach_of(handler: Any) -> Scope | None:
    """Return the scope that a route needs, None if anybody may call it.

    Raises:
        ValueError: it does not say.
    """
    if not hasattr(handler, "reach"):
        raise ValueError(f"{handler} does not say whom it is for")
    reach: Scope | None = handler.reach
    return reach


class Door(Enum):
    """Which routes a port serves: all, or, where operators have a port of their own, theirs there and the others here."""

    ONE = "one"
    PUBLIC = "public"
    OPERATORS = "operators"

    def serves(self, reach: Scope | None) -> bool:
        """Tell whether a route of this scope is to be found behind this door."""
        return self is Door.ONE or (self is Door.OPERATORS) is (reach is Scope.OPERATOR)


# --- what comes in --------------------------------------------------------------------------------------------------


class Page(BaseModel):
    """Which part of a list: at most `limit` items after the one whose key is `after`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: str | None = Field(None, max_length=200, pattern=r"^[^\x00]*$")
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100


async def read_bytes(request: web.Request, bytes_max: int | None = None) -> bytes:
    """Return the body, never holding more than the limit (the service's own unless given).

    Raises:
        TooLarge: the body, after decompression, is longer.
        TooSlow: it did not come in time.
        Malformed: it cannot be unpacked, or ends before its end.
    """
    limits = request.app[LIMITS]
    limit = limits.body_bytes_max if bytes_max is None else bytes_max
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge
    try:
        if request.content.is_eof():
            # It came together with its head, as most do: there is nothing to wait for.
            body = request.content.read_nowait()
        else:
            async with asyncio.timeout(limits.body_seconds_max):
                body = await _read_chunks(request, limit)
    except TimeoutError as error:
        raise TooSlow from error
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise Malformed("The body cannot be unpacked, or is not complete.") from error
    if len(body) > limit:
        raise TooLarge
    return body


async def _read_chunks(request: web.Request, bytes_max: int) -> bytes:
    """Read a body as it comes in, but not much more than a limit."""
    body = bytearray()
    async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > bytes_max:
            break
    return bytes(body)


async def read_json(request: web.Request, model: type[M], bytes_max: int | None = None) -> M:
    """Return the body as a model.

    Raises:
        Malformed: not JSON.
        Invalid: JSON that does not fit, with a JSON pointer for each fault.
        TooLarge: longer than the limit.
    """
    return parse_json(await read_bytes(request, bytes_max), model)


def parse_json(body: bytes, model: type[M]) -> M:
    """Return JSON text as a model, or raise `Malformed` or `Invalid`."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if any(
            fault["type"] == "json_invalid" for fault in error.errors(include_url=False, include_input=False)
        ):
            raise Malformed("The body is not JSON.") from error
        raise Invalid("The body does not fit.", faults=faults_of(error)) from error


def read_query(request: web.Request, model: type[M]) -> M:
    """Return the query string as a model, or raise `Invalid`."""
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise Invalid("The query does not fit.", faults=faults_of(error)) from error


def path_uuid(request: web.Request, name: str) -> UUID:
    """Return a UUID of the path, or raise `NotFound`: nothing can have such a name."""
    try:
        return UUID(request.match_info[name])
    except ValueError as error:
        raise NotFound from error


def path_identifier(request: web.Request, name: str) -> str:
    """Return an identifier of the path, or raise `Invalid`."""
    try:
        return _identifier.validate_python(request.match_info[name])
    except ValidationError as error:
        detail = f"{name} is 1 to 64 of the characters A-Z a-z 0-9 . _ : -"
        raise Invalid(detail) from error


def caller_of(request: web.Request) -> Caller:
    """Return who sends a request; only of a route that is not public."""
    caller: Caller = request[_CALLER_KEY]
    return caller


def customer_of(request: web.Request) -> str | None:
    """Return whose things alone the caller may see and touch; None if everybody's."""
    return caller_of(request).customer_id


def idempotency_key(request: web.Request) -> str:
    """Return the caller's Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), as it stands.

    Raises:
        Malformed: there is none, or it is not 1 to 255 printable ASCII characters.
    """
    key = request.headers.get("Idempotency-Key", "")
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Malformed(
            f"The header Idempotency-Key is needed: 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable ASCII characters."
        )
    return key


def request_id(request: web.Request) -> str:
    """Return the id of this request: the caller's own where it sent a usable one."""
    identity: str = request[_REQUEST_ID_KEY]
    return identity


def request_cause(request: web.Request) -> str:
    """Return what the events that follow from this request name as their cause."""
    return f"http:{request_id(request)}"


# --- what goes out --------------------------------------------------------------------------------------------------


def respond(data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return data as JSON: models, mappings and lists of whatever JSON, UUID and time can be."""
    return web.Response(body=dump(data), status=status, headers=headers, content_type="application/json")


def page(items: Sequence[Any], following: str | None) -> web.Response:
    """Return one part of a list, and the key to continue after (None at the end)."""
    return respond({"items": items, "next": following})


def dump(data: Any) -> bytes:
    """Write JSON: times as RFC 3339 in UTC, models as their fields."""
    return orjson.dumps(data, default=_plain, option=orjson.OPT_UTC_Z)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, UUID):  # asyncpg has a UUID class of its own
        return str(value)
    raise TypeError(type(value).__name__)


def problem(error: HoldfastError, identity: str) -> web.Response:
    """Return an error as problem+json."""
    body: dict[str, Any] = {
        "type": f"urn:holdfast:problem:{error.reason}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": mask_text(error.detail),
        "request_id": identity,
    }
    if error.faults:
        # A pointer names fields as they came, and people write anything as the name of a field.
        body["errors"] = [
            {name: mask_text(text) for name, text in asdict(fault).items()} for fault in error.faults
        ]
    headers = {}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(body=dump(body), status=error.status, headers=headers, content_type=PROBLEM_JSON)


# --- the frame ------------------------------------------------------------------------------------------------------


@web.middleware
async def _frame(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, time it, and turn every error into a problem."""
    given = request.headers.get("X-Request-Id", "")
    # What is written down with everything that follows must be nothing that may not be written down.
    is_usable = _REQUEST_ID.match(given) and mask_text(given) == given
    identity = given if is_usable else str(new_id())
    request[_REQUEST_ID_KEY] = identity
    started = time.perf_counter()
    response = await _answer(request, handler, identity)
    if not response.prepared:
        response.headers["X-Request-Id"] = identity
    resource = request.match_info.route.resource
    metrics.REQUEST_SECONDS.labels(
        request.method if request.method in _METHODS else "OTHER",
        resource.canonical if resource is not None else "unmatched",
        str(response.status),
    ).observe(time.perf_counter() - started)
    return response


_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"})


async def _answer(request: web.Request, handler: Handler, identity: str) -> web.StreamResponse:
    try:
        return await handler(request)
    except HoldfastError as error:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not error.transient:
            _log.exception("request_failed", **_facts(request))
        return problem(error, identity)
    except web.HTTPException as error:
        return _http_problem(error, identity)
    except Exception as error:
        if is_transient(error):
            _log.warning("request_unavailable", error=repr(error), **_facts(request))
            return problem(Unavailable(), identity)
        _log.exception("request_failed", **_facts(request))
        return problem(HoldfastError(), identity)


def _facts(request: web.Request) -> dict[str, str | None]:
    """Return what the log says of a request that failed."""
    caller = request.get(_CALLER_KEY)
    return {
        "request_id": request_id(request),
        "path": request.path,
        "caller": None if caller is None else caller.name,
    }


def _http_problem(error: web.HTTPException, identity: str) -> web.StreamResponse:
    """Return what aiohttp itself refuses (no such route, another method, a body too large) as a problem."""
    status = HTTPStatus(error.status)
    if status < HTTPStatus.BAD_REQUEST:
        return error
    body = {
        "type": f"urn:holdfast:problem:{status.name.lower()}",
        "title": status.phrase,
        "status": status.value,
        "detail": status.description or status.phrase,
        "request_id": identity,
    }
    kept = {name: value for name, value in error.headers.items() if name == "Allow"}
    return web.Response(body=dump(body), status=error.status, headers=kept, content_type=PROBLEM_JSON)


def make_app(
    routes: Sequence[web.RouteDef],
    *,
    access: Access,
    health: Health,
    database: Database,
    openapi: Mapping[str, Any],
    body_bytes_max: int,
    body_seconds_max: float = 20.0,
    watchdog_seconds: float = 120.0,
    door: Door = Door.ONE,
) -> web.Application:
    """Return the application of a service: its own routes and the ones that every service has.

    Behind a `door` that does not serve a route it is as if it were not there. A route reads at most `body_bytes_max` (unpacked; unless it has a limit of its own) in `body_seconds_max`; `/livez`
    answers 503 when a part that owes work has done none for `watchdog_seconds`.
    """
    # Every route reads its body through `read_bytes`, which knows the limit of that route.
    app = web.Application(middlewares=[_frame], client_max_size=0)
    app[ACCESS] = access
    app[HEALTH] = health
    app[LIMITS] = _Limits(body_bytes_max, body_seconds_max, watchdog_seconds)
    app[OPENAPI] = dump(openapi)
    app[DATABASE] = database
    app.add_routes([_behind(door, route) for route in routes])
    app.add_routes(
        [
            web.get("/livez", public(_livez)),
            web.get("/readyz", public(_readyz)),
            web.get("/metrics", public(_metrics)),
            web.get("/openapi.json", public(_openapi)),
        ]
    )
    return app


def _behind(door: Door, route: web.RouteDef) -> web.RouteDef:
    """Return a route as it is to be found behind a door."""
    if door is Door.ONE or door.serves(reach_of(route.handler)):
        return route
    return web.RouteDef(route.method, route.path, public(_absent), route.kwargs)


async def _absent(_request: web.Request) -> web.Response:
    raise NotFound


async def _livez(request: web.Request) -> web.Response:
    """Say whether a restart may help: a part owes work and does none."""
    health = request.app[HEALTH]
    halted = health.halted(request.app[LIMITS].watchdog_seconds)
    if halted and not health.stopping:
        parts = ", ".join(f"{part} for {seconds:.0f} s" for part, seconds in sorted(halted.items()))
        raise Unavailable(f"Work waits, and none is done: {parts}.")
    return respond({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    """Say whether to send work here: yes while only Kafka is away, since writes wait in the outbox."""
    health = request.app[HEALTH]
    if not health.started or health.stopping:
        raise Unavailable("The service is starting or stopping.")
    if not await request.app[DATABASE].is_up():
        raise Unavailable("The database is away.")
    if health.away:
        return respond({"status": "degraded", "away": mask_named("", dict(health.away))})
    return respond({"status": "ok", "away": {}})


async def _metrics(request: web.Request) -> web.Response:
    _measure(request.app[HEALTH])
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _measure(health: Health) -> None:
    """Tell as metrics what /readyz and /livez look at."""
    metrics.PART_AWAY.clear()
    for part in {*health.watched, *health.away}:
        metrics.PART_AWAY.labels(part).set(part in health.away)
    metrics.PART_HALTED_SECONDS.clear()
    for part, progress in health.watched.items():
        metrics.PART_HALTED_SECONDS.labels(part).set(progress.halted_seconds)


async def _openapi(request: web.Request) -> web.Response:
    return web.Response(body=request.app[OPENAPI], content_type="application/json")
