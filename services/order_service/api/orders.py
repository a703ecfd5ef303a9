"""What can be asked of orders by HTTP?"""

from dataclasses import dataclass, replace
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.order_service import store
from services.order_service.api.bodies import Body
from services.order_service.api.waiting import WAIT_SECONDS_MAX, Waiting, preferred_wait
from services.order_service.domain.answers import show_order
from services.order_service.domain.book import Decided
from services.order_service.domain.order import Order
from services.order_service.domain.placing import fingerprint_of
from services.order_service.domain.refusals import UnknownOrder
from services.order_service.handlers import Answered, LaterAnswer, Placement, Withdrawal
from services.order_service.store import KeptAnswer
from shared.batcher import Batcher
from shared.database import Database
from shared.errors import Fault, Forbidden, HoldfastError, Invalid
from shared.events import (
    INTEGER_MAX,
    CancelOrder,
    Currency,
    HoldSeconds,
    Identifier,
    Minor,
    OrderedLine,
    OrderStatus,
    PaymentMethod,
    PlaceOrder,
    Text,
)
from shared.ids import new_id
from shared.web import (
    Page,
    caller_of,
    customer,
    customer_of,
    dump,
    idempotency_key,
    page,
    parse_json,
    path_uuid,
    read_bytes,
    read_json,
    read_query,
    request_cause,
    respond,
)

ORDER_BYTES_MAX = 256 * 1024


class OrderBody(Body):
    """`PlaceOrder.v1`, where the order id may be left out."""

    order_id: UUID | None = None
    customer_id: Identifier
    lines: Annotated[tuple[OrderedLine, ...], Field(min_length=1, max_length=500, strict=False)] | None = None
    cart_id: Identifier | None = None
    currency: Currency
    expected_total_minor: Minor | None = None
    hold_seconds: HoldSeconds | None = None
    payment_method: PaymentMethod | None = None

    @model_validator(mode="after")
    def _lines_or_cart(self) -> "OrderBody":
        if (self.lines is None) == (self.cart_id is None):
            message = "exactly one of lines and cart_id is needed"
            raise ValueError(message)
        return self

    def fingerprint(self, command: PlaceOrder) -> bytes:
        """Return a digest of the body: requests under one key are the same if it is the same."""
        return sha256(str(self.order_id).encode() + fingerprint_of(command)).digest()

    def command(self, order_id: UUID) -> PlaceOrder:
        """Return the command to place this order under an id."""
        return PlaceOrder(
            order_id=order_id,
            customer_id=self.customer_id,
            lines=self.lines,
            cart_id=self.cart_id,
            currency=self.currency,
            expected_total_minor=self.expected_total_minor,
            hold_seconds=self.hold_seconds,
            payment_method=self.payment_method,
        )


class CancelBody(Body):
    """Why an order is cancelled."""

    reason: Text | None = None


class OrderQuery(BaseModel):
    """Until when to wait for an order: for a later version than one that is known, but only so long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_version: Annotated[int, Field(ge=0, le=INTEGER_MAX)] | None = None
    wait: Annotated[int, Field(ge=0, le=WAIT_SECONDS_MAX)] = 0

    @model_validator(mode="after")
    def _wait_for_something(self) -> "OrderQuery":
        if self.wait and self.after_version is None:
            message = "wait needs after_version: the version that is known"
            raise ValueError(message)
        return self


class OrdersQuery(Page):
    """Which orders to list."""

    customer_id: Identifier | None = None
    status: OrderStatus | None = None


@dataclass(frozen=True, slots=True)
class OrderEdges:
    """Where requests about orders become transactions."""

    placements: Batcher[Placement, Answered]
    later_answers: Batcher[LaterAnswer, KeptAnswer]
    withdrawals: Batcher[Withdrawal, Decided]


class OrderApi:
    """The routes of orders."""

    def __init__(self, database: Database, edges: OrderEdges, waiting: Waiting) -> None:
        self._database = database
        self._edges = edges
        self._waiting = waiting

    def routes(self) -> list[web.RouteDef]:
        """Return every route with the scope it needs."""
        return [
            web.post("/orders", customer(self.place_order)),
            web.get("/orders", customer(self.list_orders)),
            web.get("/orders/{order_id}", customer(self.get_order)),
            web.get("/orders/{order_id}/history", customer(self.get_history)),
            web.post("/orders/{order_id}/cancel", customer(self.cancel_order)),
        ]

    async def place_order(self, request: web.Request) -> web.Response:
        """Place an order: 202 while it waits for its stock, 201 for who prefers to wait until that is decided.

        The same request under the same key is given the same answer again.
        """
        key = (caller_of(request).name, idempotency_key(request))
        body = await read_json(request, OrderBody, ORDER_BYTES_MAX)
        own = customer_of(request)
        if own is not None:
            _refuse_what_customers_may_not_say(body, own)
        command = body.command(body.order_id or new_id())
        placement = Placement(
            command, request_cause(request), key, body.fingerprint(command), by_customer=own is not None
        )
        answered = await self._edges.placements.submit(placement)
        answer, seconds = answered.answer, preferred_wait(request)
        if seconds and answer.status == HTTPStatus.ACCEPTED:
            answer = await self._decided(placement, answer, seconds)
        headers = {"Location": f"/orders/{answer.order_id}"}
        if answered.replayed:
            headers["Idempotency-Replayed"] = "true"
        if seconds is not None:
            headers["Preference-Applied"] = f"wait={seconds}"
        return web.Response(
            body=answer.body, status=answer.status, headers=headers, content_type="application/json"
        )

    async def _decided(self, placement: Placement, answer: KeptAnswer, seconds: int) -> KeptAnswer:
        """Return what to answer once the stock is decided; `answer` if that does not come in time."""
        try:
            order = await self._waiting.find_when(
                answer.order_id, None, _has_its_stock_decided, seconds=seconds
            )
            if not _has_its_stock_decided(order):
                return answer
            later = replace(answer, status=HTTPStatus.CREATED, body=dump(show_order(order)))
            return await self._edges.later_answers.submit(LaterAnswer(placement.key, later))
        except HoldfastError as error:
            if not error.transient:
                raise
            return answer  # the order is placed, whatever is away now

    async def get_order(self, request: web.Request) -> web.Response:
        """Return an order as it stands, or as soon as its version has passed a known one."""
        order_id, query = path_uuid(request, "order_id"), read_query(request, OrderQuery)
        known, own = query.after_version, customer_of(request)
        if known is None or not query.wait:
            order = await self._waiting.find(order_id, own)
        else:
            order = await self._waiting.find_when(
                order_id, own, lambda order: order.version > known, seconds=query.wait
            )
        tag = f"{order.version}-{order.updated_at.timestamp():.6f}"
        headers = {"ETag": f'"{tag}"'}
        if any(etag.value in {tag, "*"} for etag in request.if_none_match or ()):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return respond(show_order(order), headers=headers)

    async def list_orders(self, request: web.Request) -> web.Response:
        """Return orders by id, of one customer or in one status if asked so; to a customer its own."""
        query, own = read_query(request, OrdersQuery), customer_of(request)
        if own is not None and query.customer_id not in {None, own}:
            return page([], None)
        async with self._database.connection() as connection:
            found = await store.list_orders(
                connection,
                customer_id=own or query.customer_id,
                status=query.status,
                after=_after(query),
                limit=query.limit + 1,
            )
        orders = found[: query.limit]
        return page(
            [show_order(order) for order in orders],
            str(orders[-1].order_id) if len(found) > query.limit else None,
        )

    async def get_history(self, request: web.Request) -> web.Response:
        """Return every step of an order, the first one first."""
        order_id = path_uuid(request, "order_id")
        async with self._database.connection() as connection:
            steps = await store.list_history(connection, order_id, customer_id=customer_of(request))
        if not steps:
            raise UnknownOrder
        return page(steps, None)

    async def cancel_order(self, request: web.Request) -> web.Response:
        """Cancel an order: 202, and 200 when it was cancelled before."""
        order_id = path_uuid(request, "order_id")
        raw = await read_bytes(request)
        body = parse_json(raw, CancelBody) if raw else CancelBody()
        command = CancelOrder(order_id=order_id, reason=body.reason)
        own = customer_of(request)
        withdrawal = Withdrawal(command, request_cause(request), caller_of(request).name, own)
        decided = await self._edges.withdrawals.submit(withdrawal)
        order = await self._waiting.find(order_id, own)
        return respond(show_order(order), status=202 if decided.changed else 200)


def _refuse_what_customers_may_not_say(body: OrderBody, customer_id: str) -> None:
    """Raise `Forbidden` if a customer orders for another one, or keeps units from others for as long as it likes."""
    if body.customer_id != customer_id:
        raise Forbidden("This token places orders of its own customer alone.")
    if body.hold_seconds is not None:
        raise Forbidden("How long units are held is not for a customer to say.")


def _has_its_stock_decided(order: Order) -> bool:
    return order.status is not OrderStatus.REQUESTED


def _after(query: Page) -> UUID | None:
    if query.after is None:
        return None
    try:
        return UUID(query.after)
    except ValueError as error:
        raise Invalid("The query does not fit.", faults=[Fault("/after", "not an order id")]) from error
