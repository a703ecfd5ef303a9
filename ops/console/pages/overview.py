"""Is everything right, at a glance? The picture of the flow, rates, what waits, and how many orders have each status."""

from aiohttp import web

from ops.console import frame
from ops.console.gathering import Gatherer, Overview
from ops.console.live import Live
from ops.console.picture import share
from ops.console.rendering import Renderer, age
from ops.lag import Measure
from shared.events import OrderStatus

#: Statuses in the order in which orders pass through them.
STATUSES = tuple(status.value for status in OrderStatus)
#: Where an operator goes who wants to know more about a measure.
_ADDRESSES = {
    "dead letters not redriven": "/dead-letters",
    "oldest open order": "/orders?status=AWAITING_PAYMENT",
    "unmatched webhooks": "/webhooks?verdict=unmatched",
    "oldest refund due": "/payments/refunds",
}


class OverviewPage:
    """The overview and its stream."""

    def __init__(self, gatherer: Gatherer, live: Live, renderer: Renderer) -> None:
        self._gatherer = gatherer
        self._live = live
        self._renderer = renderer
        self._rendered: tuple[Overview | None, str] = (None, "")

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [web.get("/", self.show), web.get("/live/overview", self.follow)]

    async def show(self, request: web.Request) -> web.Response:
        """`GET /`."""
        part = self._render(await self._gatherer.look())
        return frame.page(request, "overview.html", part=part)

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """`GET /live/overview`: the same again whenever it has changed."""

        async def next_part() -> str:
            return self._render(await self._gatherer.changed())

        return await self._live.send(request, next_part)

    def _render(self, overview: Overview) -> str:
        """Return the overview as HTML, made once for all who look."""
        if self._rendered[0] is not overview:
            statuses = overview.statuses
            largest = max(statuses.values(), default=0) if statuses else 0
            bars = [
                (status, (statuses or {}).get(status, 0), share((statuses or {}).get(status, 0), largest))
                for status in STATUSES
            ]
            measures = overview.lag.measures if overview.lag is not None else ()
            shown = [measure for measure in measures if measure.value or not measure.ok]
            text = self._renderer.render(
                "_overview.html",
                o=overview,
                bars=bars,
                attention=_attention(overview),
                shown=shown,
                still=len(measures) - len(shown),
            )
            self._rendered = (overview, text)
        return self._rendered[1]


def _attention(overview: Overview) -> list[tuple[str, str | None]]:
    """Return what wants an operator's attention, each with where to go for it."""
    measures = overview.lag.measures if overview.lag is not None else ()
    found = [(text, None) for text in overview.problems]
    over = [(_sentence(measure), _ADDRESSES.get(measure.what)) for measure in measures if not measure.ok]
    reviews = [(f"attempts to pay that wait for a decision: {overview.reviews:,}", "/payments/quarantine")]
    return [*found, *over, *(reviews if overview.reviews else ())]


def _sentence(measure: Measure) -> str:
    if measure.unit == "seconds":
        return f"{measure.what} ({measure.of}): {age(measure.value)}, allowed are {age(measure.limit or 0)}"
    return f"{measure.what} ({measure.of}): {measure.value:,.0f}, allowed are {measure.limit or 0:,.0f}"
