"""Which orders are there, and what is the story of one of them?"""

from uuid import UUID

from aiohttp import web

from ops.console import frame, store
from ops.console.desk import Desk, asked
from ops.console.pages.overview import STATUSES
from ops.console.settings import ROWS
from ops.timeline import TimelineLimits, read_timeline
from shared.errors import Invalid
from shared.web import path_uuid

_LINES_MAX = 500
#: A page is looked at by somebody who waits: the command looks further.
_LIMITS = TimelineLimits(records_max=50_000, kafka_seconds_max=8.0, statement_seconds_max=5.0)


class OrderPages:
    """The list, and one order."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [web.get("/orders", self.show_all), web.get("/orders/{order_id}", self.show)]

    async def show_all(self, request: web.Request) -> web.Response:
        """`GET /orders?q=&status=&before=`: an order's id leads to the order, anything else is a customer's."""
        text, status = asked(request, "q"), asked(request, "status")
        order_id = read_uuid(text)
        if order_id is not None:
            return frame.see_other(f"/orders/{order_id}")
        async with self._desk.databases.reading("order") as connection:
            orders = await store.list_orders(
                connection,
                customer_id=text,
                status=status,
                before=asked_uuid(request, "before"),
                limit=ROWS + 1,
            )
        return frame.page(
            request,
            "orders.html",
            orders=orders[:ROWS],
            more=str(orders[ROWS - 1]["order_id"]) if len(orders) > ROWS else None,
            q=text or "",
            status=status or "",
            statuses=STATUSES,
        )

    async def show(self, request: web.Request) -> web.Response:
        """`GET /orders/{order_id}?kafka=1`: where it stands and why, what it asked for, and what happened to it."""
        order_id = path_uuid(request, "order_id")
        in_topics = asked(request, "kafka") == "1"
        timeline = await read_timeline(self._desk.place, order_id, kafka=in_topics, limits=_LIMITS)
        lines = []
        if timeline.standing.order is not None:
            async with self._desk.databases.reading("order") as connection:
                lines = await store.list_lines(connection, order_id, _LINES_MAX)
        return frame.page(
            request, "order.html", timeline=timeline, lines=lines, in_topics=in_topics, order_id=order_id
        )


def read_uuid(text: str | None) -> UUID | None:
    """Return text as a UUID; None if it is none."""
    try:
        return UUID(text or "")
    except ValueError:
        return None


def asked_uuid(request: web.Request, name: str) -> UUID | None:
    """Return a UUID of the address, None if there is none; raise `Invalid` for anything else."""
    text = asked(request, name)
    found = read_uuid(text)
    if text is not None and found is None:
        detail = f"{name} is an id like 0198c0de-0000-7000-8000-000000000001."
        raise Invalid(detail)
    return found


def asked_number(request: web.Request, name: str) -> int | None:
    """Return a whole number of the address, None if there is none; raise `Invalid` for anything else."""
    text = asked(request, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):  # noqa: PLR2004 (fits a bigint)
        detail = f"{name} is a whole number."
        raise Invalid(detail)
    return int(text)
