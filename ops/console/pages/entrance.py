"""How does an operator get in and out, and where do the pages get their looks?"""

import asyncio
from http import HTTPStatus

from aiohttp import web

from ops.console import frame
from ops.console.access import COOKIE, Attempts, Sessions, admit
from ops.console.rendering import STATIC
from shared.access import Access
from shared.errors import HoldfastError, NotFound

_FAILURE_SECONDS = 0.5
_A_YEAR = "public, max-age=31536000, immutable"


class TooManyAttempts(HoldfastError):
    """Too many attempts from your address; wait a minute."""

    status = 429
    reason = "too_many_attempts"


class Entrance:
    """Login, logout, style and script."""

    def __init__(
        self,
        access: Access,
        sessions: Sessions,
        attempts: Attempts,
        *,
        failure_seconds: float = _FAILURE_SECONDS,
    ) -> None:
        self._access = access
        self._sessions = sessions
        self._attempts = attempts
        self._failure_seconds = failure_seconds

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [
            web.get("/login", self.show),
            web.post("/login", self.log_in),
            web.post("/logout", self.log_out),
            web.get("/static/{name}", self.static),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """`GET /login`: the form; who is in already is led on."""
        target = own_path(request.query.get("next", ""))
        if self._sessions.read(request.cookies.get(COOKIE, "")) is not None:
            return frame.see_other(target)
        return frame.page(request, "login.html", target=target, name="", problem="")

    async def log_in(self, request: web.Request) -> web.Response:
        """`POST /login`: begin a session for whoever has the operators' token, or an operator's API key."""
        form = await frame.read_form(request)
        name, target = form.get("name", ""), own_path(form.get("next", ""))
        address = request.remote or ""
        if not self._attempts.take(address):
            raise TooManyAttempts
        admitted = await admit(self._access, form.get("token", ""))
        if admitted is None:
            await asyncio.sleep(self._failure_seconds)
            problem = "That opens nothing here: it is neither the operators' token nor an operator's key."
            return frame.page(
                request,
                "login.html",
                code=HTTPStatus.UNAUTHORIZED,
                target=target,
                name=name,
                problem=problem,
            )
        self._attempts.forget(address)
        session, cookie = self._sessions.begin(name, admitted)
        response = frame.see_other(target)
        response.set_cookie(
            COOKIE,
            cookie,
            path="/",
            max_age=int(self._sessions.seconds_left(session)),
            httponly=True,
            samesite="Strict",
            secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """`POST /logout`: end the session, here and in the browser."""
        self._sessions.end(request[frame.SESSION])
        response = frame.see_other("/login")
        response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
        return response

    async def static(self, request: web.Request) -> web.Response:
        """`GET /static/{name}`: style and script."""
        found = STATIC.get(request.match_info["name"])
        if found is None:
            raise NotFound
        kind, content = found
        return web.Response(
            body=content, content_type=kind, charset="utf-8", headers={"Cache-Control": _A_YEAR}
        )


def own_path(text: str) -> str:
    """Return where to go after the login: a path of ours, or else the overview."""
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\", "/login", "/live"))
    return text if is_ours and text.isprintable() else "/"
