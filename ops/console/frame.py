"""What holds for every answer of the console? Who may have it, what its page may load, and how errors look.

Nothing is open unless it is named here: a route that is added later needs a session from its first day.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from aiohttp import web

from ops.console.access import COOKIE, Session, Sessions
from ops.console.rendering import Renderer
from shared.database import is_transient
from shared.errors import Forbidden, HoldfastError, Malformed, NotFound, Unauthorized, Unavailable
from shared.logging import get_logger
from shared.web import read_bytes, request_id

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SESSIONS = web.AppKey("sessions", Sessions)
RENDERER = web.AppKey("renderer", Renderer)
SESSION = web.RequestKey("session", Session)
FORM: web.RequestKey[Mapping[str, str]] = web.RequestKey("form", Mapping)

#: What anybody may have: the way in, what it looks like, and what `up` and probes ask.
PUBLIC: Final = frozenset({"/login", "/static/{name}", "/livez", "/readyz", "/metrics", "/openapi.json"})
HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        # Not less: without a referrer browsers also hide where a form comes from.
        "Referrer-Policy": "same-origin",
    }
)
_FIELDS_MAX = 100
_READING = frozenset({"GET", "HEAD"})
_FORM_TYPE = "application/x-www-form-urlencoded"
_log = get_logger()


def install(app: web.Application, sessions: Sessions, renderer: Renderer) -> None:
    """Have an application treat all its routes so."""
    app[SESSIONS] = sessions
    app[RENDERER] = renderer
    app.middlewares.append(_errors_as_pages)
    app.middlewares.append(_guard)
    app.on_response_prepare.append(_add_headers)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let requests through that come from our own pages and belong to a session."""
    if "\x00" in request.path or "\x00" in request.query_string:
        raise Malformed("A NUL character has no place in an address.")
    if request.method not in _READING:
        _refuse_foreign(request)
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical in PUBLIC:
        return await handler(request)
    sessions = request.app[SESSIONS]
    session = sessions.read(request.cookies.get(COOKIE, ""))
    if session is None:
        if request.method in _READING and wants_page(request):
            return see_other(f"/login?next={quote(request.path_qs, safe='')}")
        raise Unauthorized("Log in first: your session has ended, or there was none.")
    request[SESSION] = session
    if request.method not in _READING:
        form = await read_form(request)
        if not sessions.is_form_key(session, form.get("form_key", "")):
            raise Forbidden("This form was not made for your session. Open its page again and repeat it.")
        request[FORM] = form
    return await handler(request)


def _refuse_foreign(request: web.Request) -> None:
    """Refuse a form that another site sends; browsers say so, by one header or the other."""
    said = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    is_foreign = (
        said not in {"same-origin", "none"}
        if said is not None
        else origin is not None and urlsplit(origin).netloc != request.host
    )
    if is_foreign:
        raise Forbidden("This form was sent from another site.")


async def read_form(request: web.Request) -> dict[str, str]:
    """Return the fields of a form; of a field that is there twice the last one counts.

    Raises:
        Malformed: it is no form.
    """
    if request.content_type != _FORM_TYPE:
        detail = f"A form is sent as {_FORM_TYPE}."
        raise Malformed(detail)
    try:
        text = (await read_bytes(request)).decode()
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX))
    except ValueError as error:
        raise Malformed("The form cannot be read.") from error
    if any("\x00" in value for value in fields.values()):
        raise Malformed("A NUL character has no place in a form.")
    return fields


@web.middleware
async def _errors_as_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into pages for people; for programs `shared.web` makes problems of them."""
    try:
        return await handler(request)
    except Exception as error:
        if not wants_page(request) or (isinstance(error, web.HTTPException) and error.status < 400):  # noqa: PLR2004 (a redirect)
            raise
        shown = _shown(error)
        if shown.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not shown.transient:
            _log.exception("page_failed", request_id=request_id(request), path=request.path)
        return page(request, "error.html", code=shown.status, error=shown, phrase=_phrase(shown))


def _shown(error: Exception) -> HoldfastError:
    if isinstance(error, HoldfastError):
        return error
    if isinstance(error, web.HTTPNotFound):
        return NotFound("There is no such page.")
    if isinstance(error, web.HTTPException):
        return Malformed(HTTPStatus(error.status).description or None)
    return (
        Unavailable(f"A part of the system does not answer: {error!r}")
        if is_transient(error)
        else HoldfastError()
    )


def _phrase(error: HoldfastError) -> str:
    return HTTPStatus(error.status).phrase


def wants_page(request: web.Request) -> bool:
    """Tell whether a person asks, by a browser."""
    return "text/html" in request.headers.get("Accept", "")


def see_other(path: str) -> web.Response:
    """Lead a browser on to another page of ours."""
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": path})


def page(request: web.Request, template: str, *, code: int = 200, **values: object) -> web.Response:
    """Return a page with what every page has: who is logged in, where one is, and the key for its forms."""
    session = request.get(SESSION)
    form_key = request.app[SESSIONS].form_key(session) if session is not None else ""
    text = request.app[RENDERER].render(
        template, session=session, form_key=form_key, path=request.path, **values
    )
    return web.Response(status=code, text=text, content_type="text/html")
