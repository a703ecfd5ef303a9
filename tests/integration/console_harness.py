"""How do tests look at the console? As a browser without JavaScript does, over HTTP, with one session."""

import html
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from ops.console import main
from ops.console.settings import Settings

TOKEN = "operator-token-12"
NOWHERE = "127.0.0.1:1"
_FORM_KEY = re.compile(r'name="form_key" value="([0-9a-f]+)"')
_TAGS = re.compile(r"<[^>]*>")


def settings_of(dsns: Mapping[str, str], data_dir: Path, **given: Any) -> Settings:
    """Return the settings of a console on a free port; Kafka and the payment service are away unless named."""
    fields = {
        **{f"{service}_database_dsn": dsn for service, dsn in dsns.items()},
        "kafka_bootstrap_servers": NOWHERE,
        "kafka_request_timeout_seconds": 1.0 if given.get("kafka_bootstrap_servers") is None else 10.0,
        "payment_url": f"http://{NOWHERE}",
        "http_port": 0,
        "operator_token": TOKEN,
        "data_dir": data_dir,
        **given,
    }
    return Settings.model_validate(fields)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    text: str
    headers: Mapping[str, str]
    path: str

    @property
    def words(self) -> str:
        """What a person reads: without tags, blanks run together."""
        return " ".join(html.unescape(_TAGS.sub(" ", self.text)).split())

    @property
    def form_key(self) -> str:
        """What the forms of the page carry."""
        found = _FORM_KEY.search(self.text)
        assert found is not None, self.words
        return found[1]

    def field(self, name: str) -> str:
        """Return the value of a hidden field."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.text)
        assert found is not None, self.words
        return html.unescape(found[1])


@dataclass
class Browser:
    """Asks for pages and sends forms, keeping its cookies."""

    url: str
    session: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=lambda: {"Accept": "text/html"})

    async def get(self, path: str, **headers: str) -> Page:
        """Ask for a page, following where it leads."""
        return await self._send("GET", path, None, headers)

    async def post(self, path: str, fields: Mapping[str, str], **headers: str) -> Page:
        """Send a form as it stands, following where it leads."""
        return await self._send("POST", path, fields, {"Origin": self.url, **headers})

    async def submit(self, page: Page, path: str, **fields: str) -> Page:
        """Send a form of a page, with the page's key."""
        return await self.post(path, {"form_key": page.form_key, **fields})

    async def log_in(self, name: str = "Ada") -> Page:
        """Begin a session."""
        return await self.post("/login", {"name": name, "token": TOKEN, "next": "/orders"})

    async def _send(
        self, method: str, path: str, fields: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Page:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, f"{self.url}{path}", data=fields, headers={**self.headers, **named}
        ) as answer:
            return Page(answer.status, await answer.text(), answer.headers, answer.url.raw_path_qs)


@asynccontextmanager
async def browsing(url: str) -> AsyncIterator[Browser]:
    """Open a browser."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield Browser(url, session)


@asynccontextmanager
async def console(dsns: Mapping[str, str], data_dir: Path, **given: Any) -> AsyncIterator[Browser]:
    """Run a console, and open a browser that has not logged in."""
    async with main.start(settings_of(dsns, data_dir, **given)) as url, browsing(url) as browser:
        yield browser


def every_route() -> list[web.RouteDef]:
    """Return the routes of the console; nothing stands behind them."""
    nothing: Any = None
    return main.routes(nothing, nothing, nothing, nothing, access=nothing, sessions=nothing)
