"""What can be asked of the inventory service by HTTP? Receipts, adjustments, levels, movements and reservations."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.inventory_service import store
from services.inventory_service.domain.ledger import Change
from services.inventory_service.domain.stock import Adjustment, Receipt, add_up
from shared.batcher import Batcher
from shared.database import Database, Row
from shared.errors import NotFound
from shared.events import Identifier, OrderedLine, Sku
from shared.web import (
    operator,
    page,
    path_identifier,
    path_uuid,
    read_json,
    read_query,
    request_cause,
    respond,
    storefront,
)

RECEIPT_LINES_MAX = 10_000
_ADJUSTED_UNITS_MAX = 1_000_000
_ID_MAX = 2**63 - 1

# Postgres keeps no NUL characters in text.
_Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
_Limit = Annotated[int, Field(ge=1, le=1_000)]


def _not_zero(number: int) -> int:
    if number == 0:
        message = "must not be 0"
        raise ValueError(message)
    return number


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class ReceiptBody(_Body):
    """Units that arrived; the same SKU on several lines is added up."""

    receipt_id: Identifier
    lines: Annotated[tuple[OrderedLine, ...], Field(min_length=1, max_length=RECEIPT_LINES_MAX, strict=False)]


class AdjustmentBody(_Body):
    """Available units that were found (above zero), or found missing (below)."""

    adjustment_id: Identifier
    sku: Sku
    quantity_delta: Annotated[
        int, Field(ge=-_ADJUSTED_UNITS_MAX, le=_ADJUSTED_UNITS_MAX), AfterValidator(_not_zero)
    ]
    reason: _Reason


class _Query(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: _Limit = 100


class LevelsQuery(_Query):
    """The SKUs that follow one."""

    after: Sku | None = None


class MovementsQuery(_Query):
    """The movements that follow one."""

    after: Annotated[int, Field(ge=0, le=_ID_MAX)] = 0


class Api:
    """The routes of the inventory service; what changes stock goes through one batcher."""

    def __init__(self, database: Database, changes: Batcher[Change, bool], *, receipt_bytes_max: int) -> None:
        self._database = database
        self._changes = changes
        self._receipt_bytes_max = receipt_bytes_max

    def routes(self) -> list[web.RouteDef]:
        """Return the routes with their scopes."""
        return [
            web.post("/stock/receipts", operator(self.receive)),
            web.post("/stock/adjustments", operator(self.adjust)),
            web.get("/stock/{sku}", storefront(self.get_level)),
            web.get("/stock", storefront(self.list_levels)),
            web.get("/stock/{sku}/movements", storefront(self.list_movements)),
            web.get("/reservations/{order_id}", storefront(self.get_reservation)),
        ]

    async def receive(self, request: web.Request) -> web.Response:
        """Add units that arrived: 201, and 200 when the receipt was booked before."""
        body = await read_json(request, ReceiptBody, self._receipt_bytes_max)
        receipt = Receipt(body.receipt_id, add_up(body.lines), request_cause(request))
        is_new = await self._changes.submit(receipt)
        answer = {"receipt_id": receipt.receipt_id, "lines": _lines(receipt.lines)}
        return respond(answer, status=201 if is_new else 200)

    async def adjust(self, request: web.Request) -> web.Response:
        """Correct the available units of a SKU: 201, and 200 when the adjustment was booked before."""
        body = await read_json(request, AdjustmentBody)
        adjustment = Adjustment(
            body.adjustment_id, body.sku, body.quantity_delta, body.reason, request_cause(request)
        )
        is_new = await self._changes.submit(adjustment)
        return respond(body, status=201 if is_new else 200)

    async def get_level(self, request: web.Request) -> web.Response:
        """Return the counters of a SKU."""
        async with self._database.connection() as connection:
            level = await store.get_level(connection, path_identifier(request, "sku"))
        if level is None:
            raise NotFound
        return respond(dict(level))

    async def list_levels(self, request: web.Request) -> web.Response:
        """Return the counters of SKUs by SKU."""
        query = read_query(request, LevelsQuery)
        async with self._database.connection() as connection:
            levels = await store.list_levels(connection, query.after or "", query.limit + 1)
        return _page(levels, query.limit, key="sku")

    async def list_movements(self, request: web.Request) -> web.Response:
        """Return what moved the units of a SKU, the oldest first."""
        query, sku = read_query(request, MovementsQuery), path_identifier(request, "sku")
        async with self._database.connection() as connection:
            movements = await store.list_movements(connection, sku, query.after, query.limit + 1)
            if not movements and await store.get_level(connection, sku) is None:
                raise NotFound
        return _page(movements, query.limit, key="id")

    async def get_reservation(self, request: web.Request) -> web.Response:
        """Return where the units of an order stand."""
        order_id = path_uuid(request, "order_id")
        async with self._database.connection() as connection:
            reservation = await store.get_reservation(connection, order_id)
            lines = await store.list_lines(connection, [order_id])
        if reservation is None:
            raise NotFound
        return respond({**reservation, "lines": _lines({line["sku"]: line["quantity"] for line in lines})})


def _lines(lines: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"sku": sku, "quantity": quantity} for sku, quantity in lines.items()]


def _page(rows: Sequence[Row], limit: int, *, key: str) -> web.Response:
    """Answer with the first rows of one more than asked for: the one too many says that the list goes on."""
    items = [dict(row) for row in rows[:limit]]
    return page(items, str(items[-1][key]) if len(rows) > limit else None)
