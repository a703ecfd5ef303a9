"""Start here: how is the console put together, started and stopped?"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvloop
from aiohttp import ClientSession, ClientTimeout, web

from ops.console import frame
from ops.console.access import Attempts, Sessions
from ops.console.databases import Databases
from ops.console.desk import Desk
from ops.console.gathering import Gatherer
from ops.console.jobs import Jobs
from ops.console.live import Live
from ops.console.pages.audits import AuditPages
from ops.console.pages.dead_letters import DeadLetterPages
from ops.console.pages.entrance import Entrance
from ops.console.pages.orders import OrderPages
from ops.console.pages.overview import OverviewPage
from ops.console.pages.payments import PaymentPages
from ops.console.pages.replays import ReplayPages
from ops.console.pages.stock import StockPages
from ops.console.pages.webhooks import WebhookPages
from ops.console.rendering import Renderer
from ops.console.settings import BODY_BYTES_MAX, CONNECTIONS_MAX, SESSION_SECONDS, Settings
from shared.access import Access, ApiKeys
from shared.admission import listen
from shared.errors import Misconfigured
from shared.health import Health
from shared.logging import configure, get_logger
from shared.settings import load
from shared.web import make_app, public

_SERVICE = "console"
_OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Holdfast console",
        "version": "1",
        "description": "Pages for people; there is no API.",
    },
    "paths": {},
}
_GATEWAY_SECONDS = 20.0
_SHUTDOWN_SECONDS = 3.0
_log = get_logger()


def main() -> None:
    """Run until SIGTERM or Ctrl-C. Exit status 2 for wrong settings, 1 if the port is taken."""
    try:
        settings = load(Settings)
    except Misconfigured as error:
        print(error.detail, file=sys.stderr)
        raise SystemExit(2) from error
    configure(_SERVICE, settings.log_level)
    try:
        uvloop.run(_run(settings))
    except Misconfigured as error:
        print(error.detail, file=sys.stderr)
        raise SystemExit(2) from error
    except OSError as error:
        print(f"the console cannot run: {error}", file=sys.stderr)
        raise SystemExit(1) from error


async def _run(settings: Settings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with start(settings) as url:
        _log.info("started", service=_SERVICE, url=url)
        await stopping.wait()
        _log.info("stopping", service=_SERVICE)


@asynccontextmanager
async def start(settings: Settings) -> AsyncIterator[str]:
    """Run the console in this event loop and lend its address; tests use the same way in.

    Raises:
        Misconfigured: the file of API keys is wrong.
    """
    health, live = Health(), Live()
    access = _access(settings, health)
    async with AsyncExitStack() as stack:
        databases = Databases(settings.place.dsns)
        await databases.open()
        stack.push_async_callback(databases.close)
        http = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=_GATEWAY_SECONDS)))
        jobs = Jobs()
        stack.push_async_callback(jobs.close)
        gatherer = Gatherer(databases, settings.place)
        await stack.enter_async_context(gatherer.running())
        token = settings.operator_token.get_secret_value()
        desk = Desk(settings.place, databases, jobs, http, settings.payment_url, token, settings.data_dir)
        if access.api_keys is not None:
            await stack.enter_async_context(
                _reading_again(access.api_keys, settings.api_keys_interval_seconds)
            )
        app = _application(settings, desk, gatherer, live, access=access, health=health)
        port = await stack.enter_async_context(_listening(app, settings, live))
        health.started = True
        yield f"http://{settings.http_host}:{port}"
        health.stopping = True


def _access(settings: Settings, health: Health) -> Access:
    """Return who may log in."""
    token, file = settings.operator_token, settings.api_keys_file
    keys = None if file is None else ApiKeys(file, health=health)
    return Access(storefront=token, operator=token, api_keys=keys)


@asynccontextmanager
async def _reading_again(keys: ApiKeys, seconds: float) -> AsyncIterator[None]:
    """Look every so many seconds whether the file of API keys has changed."""

    async def look_for_ever() -> None:
        while True:
            await asyncio.sleep(seconds)
            await keys.tick()

    task = asyncio.create_task(look_for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _application(
    settings: Settings, desk: Desk, gatherer: Gatherer, live: Live, *, access: Access, health: Health
) -> web.Application:
    sessions, renderer = Sessions(settings.operator_token, seconds=SESSION_SECONDS), Renderer()
    app = make_app(
        # The frame knows its callers by their sessions, before any route.
        [
            web.RouteDef(route.method, route.path, public(route.handler), route.kwargs)
            for route in routes(desk, gatherer, live, renderer, access=access, sessions=sessions)
        ],
        access=access,
        health=health,
        database=desk.databases.of("order"),
        openapi=_OPENAPI,
        body_bytes_max=BODY_BYTES_MAX,
    )
    frame.install(app, sessions, renderer)
    return app


def routes(
    desk: Desk,
    gatherer: Gatherer,
    live: Live,
    renderer: Renderer,
    *,
    access: Access,
    sessions: Sessions,
) -> list[web.RouteDef]:
    """Return every page, and what can be done on it."""
    return [
        *Entrance(access, sessions, Attempts()).routes(),
        *OverviewPage(gatherer, live, renderer).routes(),
        *OrderPages(desk).routes(),
        *StockPages(desk).routes(),
        *PaymentPages(desk).routes(),
        *WebhookPages(desk).routes(),
        *DeadLetterPages(desk).routes(),
        *ReplayPages(desk, live, renderer).routes(),
        *AuditPages(desk, live, renderer).routes(),
    ]


@asynccontextmanager
async def _listening(app: web.Application, settings: Settings, live: Live) -> AsyncIterator[int]:
    """Answer HTTP, and lend the port."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        server = await listen(runner, settings.http_host, settings.http_port, connections_max=CONNECTIONS_MAX)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            live.end()
            server.close()
    finally:
        await runner.cleanup()
