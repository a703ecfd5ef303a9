"""What does a person click who pays at a double? One plain page a payment, which says that no money is moved."""

from collections.abc import Awaitable, Callable, Mapping
from html import escape
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import parse_qs

import orjson
from aiohttp import web

_DELIVERIES_MAX: Final = 20

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}, a double</title>
<h1>{name}, a double on this machine</h1>
<p><strong>No money is moved here.</strong> This page plays what customers and banks do at {name}.</p>
<p>{about}</p>
<form method="post">{buttons}</form>
</html>
"""
_BUTTON: Final = '<p><button name="act" value="{act}">{label}</button></p>'
#: No script may run here, and nobody may show this page as a part of theirs.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


class Sender(Protocol):
    """What sends webhooks, each so many times; 0 loses them."""

    deliveries: int


def turning(sender: Sender) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return what answers `POST /double` `{"deliveries": 0 to 20}`: how often each webhook is sent from now on."""

    async def turn(request: web.Request) -> web.Response:
        try:
            deliveries = orjson.loads(await request.read())["deliveries"]
        except (ValueError, TypeError, KeyError):
            deliveries = None
        if not isinstance(deliveries, int) or not 0 <= deliveries <= _DELIVERIES_MAX:
            text = f'The body is {{"deliveries": 0 to {_DELIVERIES_MAX}}}.\n'
            return web.Response(status=HTTPStatus.UNPROCESSABLE_ENTITY, text=text)
        sender.deliveries = deliveries
        return web.Response(text=f"Each webhook is sent {deliveries} times.\n")

    return turn


class Pages:
    """The pages of one double: `about` says where a payment stands, `acts` what can happen to it, by name and label.

    Each takes the last part of the page's address, and raises `LookupError` for what there is not, or not any more.
    """

    def __init__(
        self,
        name: str,
        about: Callable[[str], str],
        acts: Mapping[tuple[str, str], Callable[[str], object]],
    ) -> None:
        self._name = name
        self._about = about
        self._acts = {act: do for (act, _), do in acts.items()}
        self._buttons = "".join(_BUTTON.format(act=escape(act), label=escape(label)) for act, label in acts)

    async def show(self, request: web.Request) -> web.Response:
        """`GET` the page of a payment."""
        try:
            about = self._about(request.match_info["id"])
        except LookupError:
            return web.Response(status=HTTPStatus.NOT_FOUND, text="There is no such payment.\n")
        text = _PAGE.format(name=self._name, about=escape(about), buttons=self._buttons)
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    async def act(self, request: web.Request) -> web.Response:
        """`POST` the form field `act` to it."""
        act = parse_qs((await request.read()).decode("latin-1")).get("act", [""])[0]
        if act not in self._acts:
            known = ", ".join(self._acts)
            return web.Response(
                status=HTTPStatus.UNPROCESSABLE_ENTITY, text=f"The field act is one of {known}.\n"
            )
        try:
            self._acts[act](request.match_info["id"])
            about = self._about(request.match_info["id"])
        except LookupError as error:
            detail = str(error.args[0]) if error.args else "there is no such payment"
            return web.Response(status=HTTPStatus.CONFLICT, text=f"Not now: {detail}.\n")
        if "text/html" in request.headers.get("Accept", ""):
            return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": request.path, **_HEADERS})
        return web.Response(text=f"{about}\n")
