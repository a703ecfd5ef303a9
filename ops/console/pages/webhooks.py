"""What did the gateways deliver, and how was it judged?"""

import hashlib
from typing import cast, get_args

from aiohttp import web

from ops.bodies import body_lines
from ops.console import frame, store
from ops.console.desk import Desk, asked, reason_of, signed_name
from ops.console.pages.orders import asked_number, asked_uuid
from ops.console.settings import GATEWAYS, ROWS
from ops.webhooks import DeliveryFilters, find_delivery, plan_retry, retry, wait_for_verdicts
from ops.webhooks.rendering import delivery_in_full
from ops.webhooks.store import VerdictName
from shared.errors import Invalid, NotFound

_VERDICTS: tuple[str, ...] = get_args(VerdictName)
_JUDGING_SECONDS = 5.0


class WebhookPages:
    """The list, one delivery, and judging it again."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [
            web.get("/webhooks", self.show_all),
            web.get("/webhooks/{webhook_id:[0-9]{1,18}}", self.show),
            web.post("/webhooks/{webhook_id:[0-9]{1,18}}/retry", self.judge_again),
        ]

    async def show_all(self, request: web.Request) -> web.Response:
        """`GET /webhooks?verdict=&gateway=&order_id=&before=`."""
        verdict = asked(request, "verdict")
        if verdict not in {None, *_VERDICTS}:
            detail = f"A verdict is one of {', '.join(_VERDICTS)}."
            raise Invalid(detail)
        filters = DeliveryFilters(
            verdict=cast("VerdictName | None", verdict),
            gateway=asked(request, "gateway"),
            order_id=asked_uuid(request, "order_id"),
        )
        async with self._desk.databases.reading("payment") as connection:
            deliveries = await store.list_newest_deliveries(
                connection, filters, before=asked_number(request, "before"), limit=ROWS + 1
            )
        return frame.page(
            request,
            "webhooks.html",
            deliveries=deliveries[:ROWS],
            more=deliveries[ROWS - 1].id if len(deliveries) > ROWS else None,
            filters=filters,
            verdicts=_VERDICTS,
            gateways=GATEWAYS,
        )

    async def show(self, request: web.Request) -> web.Response:
        """`GET /webhooks/{webhook_id}`: its verdict and why, and what it said, without secrets and card numbers."""
        return await self._page(request, results=None)

    async def judge_again(self, request: web.Request) -> web.Response:
        """`POST /webhooks/{webhook_id}/retry`: have it judged again, and show what came of it."""
        plan = await plan_retry(
            self._desk.place, [int(request.match_info["webhook_id"])], DeliveryFilters(), limit=1
        )
        if not plan.deliveries:
            raise Invalid("; ".join(why for _, why in plan.problems))
        retried = await retry(self._desk.place, plan, reason=reason_of(request), who=signed_name(request))
        results = await wait_for_verdicts(self._desk.place, retried, timeout_seconds=_JUDGING_SECONDS)
        return await self._page(request, results=results)

    async def _page(self, request: web.Request, *, results: list[dict[str, object]] | None) -> web.Response:
        webhook_id = int(request.match_info["webhook_id"])
        async with self._desk.databases.reading("payment") as connection:
            found = await find_delivery(connection, webhook_id)
        if found is None:
            detail = f"There is no delivery {webhook_id}."
            raise NotFound(detail)
        delivery, headers, body = found
        shown = delivery_in_full(delivery, headers, body)
        plan = await plan_retry(self._desk.place, [webhook_id], DeliveryFilters(), limit=1)
        return frame.page(
            request,
            "webhook.html",
            delivery=delivery,
            shown=shown,
            body="\n".join(body_lines(shown["body_kind"], shown["body"])),
            digest=hashlib.sha256(body).hexdigest(),
            plan=plan,
            results=results,
        )
