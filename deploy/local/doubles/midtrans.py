"""How does Midtrans behave? A double of its Snap and Core API and of its notifications, which does what it is told.

What it answers is what Midtrans documents (docs.midtrans.com: "Backend Integration", "Cancel a Snap Session", "Get
Transaction Status", "Cancel Transaction", "Expire Transaction", "Refund Transactions", "HTTP(S) Notification"): 404 until
a method is chosen, no notification when a page ends, two of them for a refund, amounts as texts, times without a zone.

The customer and the banks are played by methods (`choose`, `settle`, `capture`, `deny`, `expire`, `charge_back` …). Going
wrong is asked for by attributes and by `misbehave`, `hold_back` and `deliver`, and `forge`.
"""

import asyncio
import base64
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import aiohttp
import orjson
from aiohttp import web

from deploy.local.doubles.midtrans_payments import Page, Payment, describe, page_end, written
from deploy.local.doubles.pages import Pages, turning

_DELIVERIES_MAX: Final = 6
_PAGE_PATH: Final = "/snap/v4/redirection"
_CONTROL_PATH: Final = "/double"
_CANNOT_MODIFY: Final = "Merchant cannot modify the status of the transaction"


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """What one call meets: a wait, then this answer instead of the right one, or the right one that gets lost.

    With neither, the right answer comes late. A wait ends when the double is closed.
    """

    status: int | None = None
    body: bytes = b""
    is_lost: bool = False
    wait_seconds: float = 0.0


class MidtransDouble:
    """Midtrans on a free port of this machine; `url` is both its Snap and its Core API.

    `not_found_status` is what HTTP says beside the "404" in the body. `bank_confirms` has refunds confirmed at once,
    `bank_denies` refused. Notifications go to `notification_url`, each `deliveries` times, again if it is refused; 0
    loses them.
    """

    def __init__(
        self, server_keys: Sequence[str], *, notification_url: str | None = None, port: int = 0
    ) -> None:
        self.server_keys = list(server_keys)
        self.notification_url = notification_url
        self.not_found_status = HTTPStatus.NOT_FOUND
        self.bank_confirms = True
        self.bank_denies = False
        self.deliveries = 1
        self.delay_seconds = 0.0
        self.retry_seconds = 0.2
        self.pages: dict[str, Page] = {}
        self.payments: dict[str, Payment] = {}
        #: The calls that came: method, path and body.
        self.calls: list[tuple[str, str, bytes]] = []
        #: The notifications that were made, also those held back.
        self.notifications: list[bytes] = []
        self.url = ""
        self._port = port
        self._misbehaviour: deque[Misbehaviour] = deque()
        self._held: list[bytes] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._meet])
        app.router.add_post("/snap/v1/transactions", self._create)
        app.router.add_post("/snap/v1/transactions/{token}/cancel", self._cancel_page)
        app.router.add_get("/v2/{order_id}/status", self._with_payment(self._status))
        app.router.add_post("/v2/{order_id}/cancel", self._with_payment(self._cancel))
        app.router.add_post("/v2/{order_id}/expire", self._with_payment(self._expire))
        app.router.add_post("/v2/{order_id}/refund", self._with_payment(self._refund))
        pages = Pages("Midtrans", self._describe, self._acts())
        app.router.add_get(f"{_PAGE_PATH}/{{id}}", pages.show)
        app.router.add_post(f"{_PAGE_PATH}/{{id}}", pages.act)
        app.router.add_post(_CONTROL_PATH, turning(self))
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._runner.cleanup()
        await self._session.close()

    # --- the customer and the banks -----------------------------------------------------------------------------

    def choose(self, order_id: str, payment_type: str = "bank_transfer") -> Payment:
        """Have the customer choose a method on an open page: only now is there a payment, and it is pending."""
        now = datetime.now(UTC)
        open_pages = [
            page
            for page in self.pages.values()
            if page.order_id == order_id and not page.is_cancelled and page.ends_at > now
        ]
        if not open_pages:
            detail = f"no page is open for {order_id}"
            raise LookupError(detail)
        payment = Payment(order_id, open_pages[-1].gross_amount, payment_type, str(uuid4()), now)
        self.payments[order_id] = payment
        self._notify(payment)
        return payment

    def settle(self, order_id: str, payment_type: str = "bank_transfer") -> None:
        """Have the money arrive; the method is chosen first if it was not."""
        payment = self.payments.get(order_id) or self.choose(order_id, payment_type)
        payment.settlement_time = datetime.now(UTC)
        self.change(order_id, "settlement", fraud_status="accept")

    def capture(self, order_id: str, *, fraud_status: str | None = "accept") -> None:
        """Charge a card; `challenge` has it wait for the merchant's review."""
        if order_id not in self.payments:
            self.choose(order_id, "credit_card")
        self.change(order_id, "capture", fraud_status=fraud_status)

    def deny(self, order_id: str) -> None:
        """Refuse a payment, or take back one that was settled."""
        self.change(order_id, "deny")

    def expire(self, order_id: str) -> None:
        """End a payment for which the customer has not paid in time; one without a method ends in silence."""
        for page in self.pages.values():
            if page.order_id == order_id:
                page.ends_at = datetime.now(UTC)
        if order_id in self.payments:
            self.change(order_id, "expire")

    def charge_back(self, order_id: str, *, is_partial: bool = False) -> None:
        """Have the customer contest the charge."""
        self.change(order_id, "partial_chargeback" if is_partial else "chargeback")

    def confirm_refunds(self, order_id: str) -> None:
        """Have the bank confirm what went back, and tell of it a second time."""
        payment = self.payments[order_id]
        for entry in payment.refunds:
            entry.setdefault("bank_confirmed_at", written(datetime.now(UTC)))
        self._notify(payment)

    def change(self, order_id: str, status: str, *, fraud_status: str | None = "accept") -> None:
        """Give a payment any status, and notify."""
        payment = self.payments[order_id]
        payment.status, payment.fraud_status = status, fraud_status
        self._notify(payment)

    # --- going wrong --------------------------------------------------------------------------------------------

    def misbehave(self, misbehaviour: Misbehaviour, *, times: int = 1) -> None:
        """Have the next calls meet something else than the right answer in time."""
        self._misbehaviour.extend([misbehaviour] * times)

    def forget_misbehaviour(self) -> None:
        """Have the next calls meet the right answer, whatever they were to meet."""
        self._misbehaviour.clear()

    def hold_back(self) -> None:
        """Keep notifications back from now on."""
        self._held = self._held or []

    def deliver(self, order: Callable[[list[bytes]], Sequence[bytes]] = list) -> None:
        """Send what was kept back, in any order, repeated or with gaps, and keep back nothing more."""
        held, self._held = self._held or [], None
        for body in order(held):
            self.send(body)

    def forge(self, order_id: str, **lies: Any) -> bytes:
        """Send a notification that lies in some fields under the signature of the truth, which does not cover them."""
        document = {**self.document(self.payments[order_id], is_notification=True), **lies}
        body = orjson.dumps(document)
        self.send(body)
        return body

    def document(self, payment: Payment, *, is_notification: bool = False) -> dict[str, Any]:
        """Return what Midtrans says of a payment, signed with the first key."""
        return describe(payment, self.server_keys[0], is_notification=is_notification)

    # --- notifications ------------------------------------------------------------------------------------------

    def _notify(self, payment: Payment) -> None:
        body = orjson.dumps(self.document(payment, is_notification=True))
        self.notifications.append(body)
        if self._held is not None:
            self._held.append(body)
        else:
            self.send(body)

    @property
    def deliveries_pending(self) -> int:
        """How many deliveries are under way."""
        return len(self._sending)

    def send(self, body: bytes) -> None:
        """Send a body that was made before, or not at all where `deliveries` is 0."""
        if self.notification_url is not None:
            for _ in range(self.deliveries):
                task = asyncio.create_task(self._post(self.notification_url, body, self.delay_seconds))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _post(self, url: str, body: bytes, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        for _ in range(_DELIVERIES_MAX):
            try:
                async with self._session.post(url, data=body, headers=headers) as response:
                    if response.ok:
                        return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass  # the endpoint is away: like any refusal it is tried again
            await asyncio.sleep(self.retry_seconds)

    # --- the page ---------------------------------------------------------------------------------------------------

    def _describe(self, token: str) -> str:
        page = self.pages[token]
        payment = self.payments.get(page.order_id)
        status = payment.status if payment else "cancelled" if page.is_cancelled else "no method chosen yet"
        return f"Order {page.order_id}: Rp {page.gross_amount:,}, {status}"

    def _acts(self) -> dict[tuple[str, str], Callable[[str], object]]:
        return {
            ("pay", "Pay by bank transfer"): self._on_page(self.settle),
            ("choose", "Choose a bank transfer, and pay later"): self._on_page(self.choose),
            ("deny", "Have a card denied"): self._on_page(self._deny_card),
            ("expire", "Let the time to pay pass"): self._on_page(self.expire),
        }

    def _on_page(self, act: Callable[[str], object]) -> Callable[[str], object]:
        """Have something happen to what is not paid and not over."""

        def do(token: str) -> None:
            page = self.pages[token]
            payment = self.payments.get(page.order_id)
            if page.is_cancelled or (payment and payment.status not in {"pending", "deny"}):
                detail = f"the payment is {payment.status if payment else 'cancelled'}"
                raise LookupError(detail)
            act(page.order_id)

        return do

    def _deny_card(self, order_id: str) -> None:
        self.choose(order_id, "credit_card")
        self.deny(order_id)

    # --- the API ------------------------------------------------------------------------------------------------

    @web.middleware
    async def _meet(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.calls.append((request.method, request.path, await request.read()))
        met = self._misbehaviour.popleft() if self._misbehaviour else Misbehaviour()
        if met.wait_seconds:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), met.wait_seconds)
        if met.status is not None:
            return web.Response(status=met.status, body=met.body, content_type="application/json")
        is_open = request.path.startswith((_PAGE_PATH, _CONTROL_PATH))
        answer = await handler(request) if is_open or self._is_known(request) else _unauthorized(request)
        if met.is_lost and request.transport is not None:
            request.transport.abort()
        return answer

    def _is_known(self, request: web.Request) -> bool:
        tokens = [base64.b64encode(f"{key}:".encode()).decode() for key in self.server_keys]
        return request.headers.get("Authorization", "") in {f"Basic {token}" for token in tokens}

    def _with_payment(
        self, act: Callable[[Payment, dict[str, Any]], web.Response]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            payment = self.payments.get(request.match_info["order_id"])
            if payment is None:
                missing = {"status_code": "404", "status_message": "Transaction doesn't exist."}
                return _json({**missing, "id": str(uuid4())}, self.not_found_status)
            return act(payment, orjson.loads(await request.read() or b"{}"))

        return answer

    async def _create(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        details = body["transaction_details"]
        order_id, gross_amount = details["order_id"], details["gross_amount"]
        if not isinstance(gross_amount, int) or gross_amount < 1:
            return _snap_error("transaction_details.gross_amount must be greater than or equal to 1")
        if order_id in self.payments:
            return _snap_error("transaction_details.order_id has already been taken")
        token = str(uuid4())
        ends_at = page_end(body.get("expiry"))
        if ends_at is None:
            return _snap_error("expiry is not between 5 minutes and 7 days")
        self.pages[token] = Page(token, order_id, gross_amount, ends_at, body)
        page_url = f"{self.url}{_PAGE_PATH}/{token}"
        return _json({"token": token, "redirect_url": page_url}, HTTPStatus.CREATED)

    async def _cancel_page(self, request: web.Request) -> web.Response:
        page = self.pages.get(request.match_info["token"])
        if page is None:
            return _snap_error("token not found", HTTPStatus.NOT_FOUND)
        if page.is_cancelled:
            return _snap_error("token already canceled")
        if page.order_id in self.payments:
            return _snap_error("Transaction is on progress")
        page.is_cancelled = True
        return _json({"canceled_at": datetime.now(UTC).isoformat()})

    def _status(self, payment: Payment, _: dict[str, Any]) -> web.Response:
        return _json(self.document(payment))

    def _cancel(self, payment: Payment, _: dict[str, Any]) -> web.Response:
        if payment.status not in {"pending", "authorize", "capture"}:
            return _refusal("412", _CANNOT_MODIFY)
        self.change(payment.order_id, "cancel")
        return _json(self._unsigned(payment))

    def _expire(self, payment: Payment, _: dict[str, Any]) -> web.Response:
        if payment.status != "pending":
            return _refusal("412", _CANNOT_MODIFY)
        self.change(payment.order_id, "expire")
        return _json(self._unsigned(payment))

    def _refund(self, payment: Payment, body: dict[str, Any]) -> web.Response:
        key, amount = body.get("refund_key") or str(uuid4()), body.get("amount", payment.gross_amount)
        if any(entry["refund_key"] == key for entry in payment.refunds):
            return _refusal("406", "Duplicate refund ID")
        if payment.status not in {"settlement", "partial_refund"}:
            return _refusal("412", _CANNOT_MODIFY)
        if payment.refunded + amount > payment.gross_amount:
            return _refusal("414", "Refund request is rejected due to invalid amount")
        taken = {"refund_key": key, "refund_chargeback_id": 47_594 + len(payment.refunds)}
        if self.bank_denies:
            denied = {"status_code": "202", "status_message": "Refund denied by the bank"}
            return _json({**self._unsigned(payment), **denied, **taken, "refund_amount": "0.00"})
        entry = {"refund_amount": f"{amount}.00", "created_at": written(datetime.now(UTC)), **taken}
        payment.refunds.append({**entry, "reason": body.get("reason", ""), "refund_method": "online"})
        self.change(
            payment.order_id, "refund" if payment.refunded == payment.gross_amount else "partial_refund"
        )
        answer = _json({**self._unsigned(payment), **taken})
        if self.bank_confirms:
            self.confirm_refunds(payment.order_id)
        return answer

    def _unsigned(self, payment: Payment) -> dict[str, Any]:
        document = self.document(payment)
        return {name: value for name, value in document.items() if name not in {"signature_key", "refunds"}}


def _json(document: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")


def _refusal(code: str, message: str) -> web.Response:
    return _json({"status_code": code, "status_message": message, "id": str(uuid4())})


def _snap_error(message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> web.Response:
    return _json({"error_messages": [message]}, status)


def _unauthorized(request: web.Request) -> web.Response:
    if request.path.startswith("/snap/"):
        message = "Access denied due to unauthorized transaction, please check client or server key"
        return _snap_error(message, HTTPStatus.UNAUTHORIZED)
    denied = {
        "status_code": "401",
        "status_message": "Transaction cannot be authorized with the current key.",
    }
    return _json(denied, HTTPStatus.UNAUTHORIZED)
