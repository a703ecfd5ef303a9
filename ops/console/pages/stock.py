"""How much is there of each SKU, and which movements made it so?"""

import asyncio

from aiohttp import web

from ops.console import frame, store
from ops.console.desk import Desk, asked
from ops.console.pages.orders import asked_number
from ops.console.settings import ROWS
from shared.database import Row
from shared.errors import NotFound


class StockPages:
    """The levels, and one SKU with its ledger."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [web.get("/stock", self.show_all), web.get("/stock/{sku}", self.show)]

    async def show_all(self, request: web.Request) -> web.Response:
        """`GET /stock?q=&empty=1&after=`: SKUs that begin with some letters."""
        text, is_empty = asked(request, "q") or "", asked(request, "empty") == "1"
        async with self._desk.databases.reading("inventory") as connection:
            levels = await store.list_levels(
                connection,
                prefix=text,
                is_empty=is_empty,
                after=asked(request, "after") or "",
                limit=ROWS + 1,
            )
        more = levels[ROWS - 1]["sku"] if len(levels) > ROWS else None
        return frame.page(request, "stock.html", levels=levels[:ROWS], more=more, q=text, is_empty=is_empty)

    async def show(self, request: web.Request) -> web.Response:
        """`GET /stock/{sku}?before=`."""
        sku, before = request.match_info["sku"], asked_number(request, "before")
        (level, movements), product = await asyncio.gather(
            self._read_ledger(sku, before), self._find_product(sku)
        )
        if level is None and product is None:
            detail = f"Neither the stock nor the catalog knows {sku}."
            raise NotFound(detail)
        more = movements[ROWS - 1]["id"] if len(movements) > ROWS else None
        return frame.page(
            request, "sku.html", sku=sku, level=level, product=product, movements=movements[:ROWS], more=more
        )

    async def _read_ledger(self, sku: str, before: int | None) -> tuple[Row | None, list[Row]]:
        async with self._desk.databases.reading("inventory") as connection:
            level = await store.find_level(connection, sku)
            return level, await store.list_movements(connection, sku, before=before, limit=ROWS + 1)

    async def _find_product(self, sku: str) -> Row | None:
        async with self._desk.databases.reading("order") as connection:
            return await store.find_product(connection, sku)
