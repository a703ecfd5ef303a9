"""What became of the attempts to pay, what must a person decide, and which refunds are still due?"""

from http import HTTPStatus
from typing import Any

from aiohttp import ClientError, web

from ops.console import frame, store
from ops.console.desk import Desk, asked, reason_of, session_of
from ops.console.pages.orders import asked_uuid, read_uuid
from ops.console.settings import GATEWAYS, ROWS
from ops.timeline import store as timeline
from services.payment_service.api import OPERATOR_CHARACTERS_MAX
from services.payment_service.domain.attempts import AttemptStatus
from shared.database import Row
from shared.errors import Conflict, Invalid, NotFound, Unavailable
from shared.web import path_uuid

_ACTIONS = {"accept": "Accept the money as it came", "refund": "Give the money back"}


class PaymentPages:
    """Attempts, quarantine with decisions, refunds."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        path = "/payments/{order_id}/attempts/{attempt_id}/resolve"
        return [
            web.get("/payments", self.show_attempts),
            web.get("/payments/quarantine", self.show_quarantine),
            web.get("/payments/refunds", self.show_refunds),
            web.get("/payments/{order_id}", self.show),
            web.get(path, self.plan),
            web.post(path, self.resolve),
        ]

    async def show_attempts(self, request: web.Request) -> web.Response:
        """`GET /payments?q=&status=&gateway=&before=`: an order's id leads to its payment."""
        text = asked(request, "q")
        if text is not None:
            order_id = read_uuid(text)
            if order_id is None:
                raise Invalid("The id of an order looks like 0198c0de-0000-7000-8000-000000000001.")
            return frame.see_other(f"/payments/{order_id}")
        status, gateway = asked(request, "status"), asked(request, "gateway")
        async with self._desk.databases.reading("payment") as connection:
            attempts = await store.list_attempts(
                connection,
                status=status,
                gateway=gateway,
                before=asked_uuid(request, "before"),
                limit=ROWS + 1,
            )
        return frame.page(
            request,
            "payments.html",
            attempts=attempts[:ROWS],
            more=str(attempts[ROWS - 1]["attempt_id"]) if len(attempts) > ROWS else None,
            status=status or "",
            gateway=gateway or "",
            statuses=[item.value for item in AttemptStatus],
            gateways=GATEWAYS,
        )

    async def show(self, request: web.Request) -> web.Response:
        """`GET /payments/{order_id}`: one payment with its attempts, refunds and decisions."""
        order_id = path_uuid(request, "order_id")
        async with self._desk.databases.reading("payment") as connection:
            payment = await timeline.find_payment(connection, order_id)
            if payment is None:
                raise NotFound("The payment service has not heard of this order.")
            return frame.page(
                request,
                "payment.html",
                order_id=order_id,
                payment=payment,
                attempts=await timeline.list_attempts(connection, order_id),
                refunds=await timeline.list_refunds(connection, order_id),
                resolutions=await timeline.list_resolutions(connection, order_id),
                actions=_ACTIONS,
            )

    async def show_quarantine(self, request: web.Request) -> web.Response:
        """`GET /payments/quarantine?after=`."""
        async with self._desk.databases.reading("payment") as connection:
            rows = await store.list_reviews(connection, after=asked_uuid(request, "after"), limit=ROWS + 1)
        more = str(rows[ROWS - 1]["attempt_id"]) if len(rows) > ROWS else None
        return frame.page(request, "quarantine.html", attempts=rows[:ROWS], more=more, actions=_ACTIONS)

    async def show_refunds(self, request: web.Request) -> web.Response:
        """`GET /payments/refunds?after=`."""
        async with self._desk.databases.reading("payment") as connection:
            rows = await store.list_refunds_due(
                connection, after=asked_uuid(request, "after"), limit=ROWS + 1
            )
        more = str(rows[ROWS - 1]["refund_id"]) if len(rows) > ROWS else None
        return frame.page(request, "refunds.html", refunds=rows[:ROWS], more=more)

    async def plan(self, request: web.Request) -> web.Response:
        """`GET …/resolve?action=`: what would be decided about which money; nothing is."""
        attempt = await self._attempt(request)
        action = asked(request, "action") or ""
        _check(action)
        return frame.page(
            request, "resolve.html", attempt=attempt, action=action, title=_ACTIONS[action], decided=None
        )

    async def resolve(self, request: web.Request) -> web.Response:
        """`POST …/resolve`: have the payment service decide, and show what it says."""
        attempt = await self._attempt(request)
        action = request[frame.FORM].get("action", "")
        _check(action)
        decided = await self._ask(request, action, reason_of(request))
        return frame.page(
            request, "resolve.html", attempt=attempt, action=action, title=_ACTIONS[action], decided=decided
        )

    async def _attempt(self, request: web.Request) -> Row:
        order_id, attempt_id = path_uuid(request, "order_id"), path_uuid(request, "attempt_id")
        async with self._desk.databases.reading("payment") as connection:
            attempt = await store.find_attempt(connection, order_id, attempt_id)
        if attempt is None:
            raise NotFound("That order has no such attempt.")
        return attempt

    async def _ask(self, request: web.Request, action: str, reason: str) -> dict[str, Any]:
        """Ask the payment service; a refusal is told in its own words."""
        order_id, attempt_id = path_uuid(request, "order_id"), path_uuid(request, "attempt_id")
        url = f"{self._desk.payment_url}/payments/{order_id}/attempts/{attempt_id}/resolve"
        headers = {
            "Authorization": f"Bearer {self._desk.operator_token}",
            "X-Operator": _ascii(session_of(request).name)[:OPERATOR_CHARACTERS_MAX],
        }
        try:
            async with self._desk.http.post(
                url, json={"action": action, "reason": reason}, headers=headers
            ) as response:
                answer: dict[str, Any] = await response.json(content_type=None)
        except (ClientError, TimeoutError, ValueError) as error:
            detail = f"The payment service does not answer: {error!r}. Doing the same again is safe."
            raise Unavailable(detail) from error
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable(str(answer.get("detail", "The payment service failed.")))
        if response.status >= HTTPStatus.BAD_REQUEST:
            detail = f"The payment service refuses: {answer.get('detail', '')}"
            raise Conflict(detail)
        return answer


def _ascii(text: str) -> str:
    """Return text as a header can carry it."""
    return text.encode("ascii", "backslashreplace").decode()


def _check(action: str) -> None:
    if action not in _ACTIONS:
        raise Invalid("What can be decided is accept or refund.")
