"""Start here: how is the sandbox put together, started and stopped?"""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from deploy.local.sandbox import problems
from deploy.local.sandbox.api import Api
from deploy.local.sandbox.deliveries import Deliveries
from deploy.local.sandbox.faults import Faults
from deploy.local.sandbox.gateway import Gateway
from deploy.local.sandbox.pay_page import PayPage
from deploy.local.sandbox.payments import Delivered
from deploy.local.sandbox.settings import Settings
from deploy.local.sandbox.store import Store

BODY_BYTES_MAX = 64 * 1024
CONNECTIONS_WAITING_MAX = 1_024
SHUTDOWN_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox: where it listens, and how to stop it."""

    url: str
    stop: Callable[[], Awaitable[None]]


async def start(settings: Settings) -> Sandbox:
    """Run the sandbox in this event loop; raises JournalError or OSError if the directory or the port is taken."""
    listener = _listener(settings.http_host, settings.http_port)
    url = _url(listener)
    try:
        store = Store(settings.data_dir)
    except BaseException:
        listener.close()
        raise
    deliveries = Deliveries(settings, lambda webhook_id: store.commit(Delivered(webhook_id=webhook_id)))
    faults = Faults()
    gateway = Gateway(store, deliveries)
    public_url = str(settings.public_url or url).rstrip("/")

    app = web.Application(middlewares=[problems.middleware], client_max_size=BODY_BYTES_MAX)
    app.add_routes(Api(gateway, faults, public_url).routes())
    app.add_routes(PayPage(gateway).routes())
    runner = _runner(app, faults)
    await deliveries.start(owed=store.webhooks())
    await runner.setup()
    await web.SockSite(runner, listener, backlog=CONNECTIONS_WAITING_MAX).start()

    async def stop() -> None:
        await runner.cleanup()
        await deliveries.stop()
        store.close()

    return Sandbox(url=url, stop=stop)


def _runner(app: web.Application, faults: Faults) -> web.AppRunner:
    async def let_go(_app: web.Application) -> None:
        faults.let_go()

    app.on_shutdown.append(let_go)
    # A caller that gives up must not leave its held-back answer waiting here.
    return web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS_MAX
    )


def _listener(host: str, port: int) -> socket.socket:
    """The listening socket, opened first: its port is part of every payment's URL."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=CONNECTIONS_WAITING_MAX)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104  (recognised, not bound)
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
