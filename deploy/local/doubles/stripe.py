"""How does Stripe behave? A double of its API and of its webhooks, which does what it is told.

What it answers is what Stripe documents (docs.stripe.com: "API reference" for sessions, intents, refunds, errors and
idempotent requests, "Receive Stripe events in your webhook endpoint" for signatures). The customer and the banks are
played by methods (`pay`, `decline`, `expire`, `dispute` …), which take the id of a Checkout Session. Going wrong is asked
for by attributes and by `misbehave`, `hold_back` and `deliver`.
"""

import asyncio
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qsl

import aiohttp
import orjson
from aiohttp import web

from deploy.local.doubles.pages import Pages, turning
from deploy.local.doubles.stripe_account import StripeAccount
from deploy.local.doubles.stripe_objects import Object, nested

_DELIVERIES_MAX: Final = 6
_OPEN_SECONDS_MIN: Final = 1_800
_OPEN_SECONDS_MAX: Final = 86_400
_CANCELABLE: Final = {
    *("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action")
}

Call = Callable[[web.Request, dict[str, str]], tuple[int, Object]]


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """What one call meets: a wait, then this answer instead of the right one, or the right one that gets lost.

    With neither, the right answer comes late. A wait ends when the double is closed.
    """

    status: int | None = None
    body: bytes = b""
    is_lost: bool = False
    wait_seconds: float = 0.0


class StripeDouble(StripeAccount):
    """Stripe on a free port of this machine, at `url`.

    Webhooks go to `webhook_url`, signed with the first of the secrets,
    each `deliveries` times over, after `delay_seconds`, and again if they are refused; 0 loses them.
    `enabled_events` are the types that the endpoint is subscribed to, None: all. `page_items_max` shortens lists.
    """

    def __init__(
        self,
        secret_key: str,
        webhook_secrets: Sequence[str],
        *,
        webhook_url: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(self._on_event)
        self.secret_key = secret_key
        self.webhook_secrets = list(webhook_secrets)
        self.webhook_url = webhook_url
        self.deliveries = 1
        self.delay_seconds = 0.0
        self.retry_seconds = 0.2
        self.enabled_events: frozenset[str] | None = None
        self.page_items_max = 100
        #: The calls that came: method, path, Idempotency-Key and form.
        self.calls: list[tuple[str, str, str | None, dict[str, str]]] = []
        #: The headers of the last call.
        self.headers: dict[str, str] = {}
        self.url = ""
        self._port = port
        self._saved: dict[str, tuple[tuple[str, dict[str, str]], tuple[int, Object]]] = {}
        self._misbehaviour: deque[Misbehaviour] = deque()
        self._held: list[bytes] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._meet])
        routes: list[tuple[str, str, Call]] = [
            ("POST", "/v1/checkout/sessions", self._create_session),
            ("GET", "/v1/checkout/sessions", self._list_sessions),
            ("GET", "/v1/checkout/sessions/{id}", self._get_session),
            ("POST", "/v1/checkout/sessions/{id}/expire", self._expire_session),
            ("GET", "/v1/payment_intents/{id}", self._get_intent),
            ("POST", "/v1/payment_intents/{id}/cancel", self._cancel_intent),
            ("POST", "/v1/refunds", self._create_refund),
            ("GET", "/v1/refunds", self._list_refunds),
        ]
        for method, path, call in routes:
            app.router.add_route(method, path, self._answering(call))
        pages = Pages("Stripe", self._describe, self._acts())
        app.router.add_get("/c/pay/{id}", pages.show)
        app.router.add_post("/c/pay/{id}", pages.act)
        app.router.add_post("/double", turning(self))
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

    # --- going wrong --------------------------------------------------------------------------------------------

    def misbehave(self, misbehaviour: Misbehaviour, *, times: int = 1) -> None:
        """Have the next calls meet something else than the right answer in time."""
        self._misbehaviour.extend([misbehaviour] * times)

    def forget_keys(self) -> None:
        """Forget all idempotency keys, as Stripe does after a day."""
        self._saved.clear()

    def hold_back(self) -> None:
        """Keep webhooks back from now on."""
        self._held = self._held or []

    def deliver(self, order: Callable[[list[bytes]], Sequence[bytes]] = list) -> None:
        """Send what was kept back, in any order, repeated or with gaps, and keep back nothing more."""
        held, self._held = self._held or [], None
        for body in order(held):
            self.send(body)

    # --- webhooks -----------------------------------------------------------------------------------------------

    def sign(self, body: bytes, *, secret: str | None = None, at: float | None = None) -> str:
        """Return the header Stripe-Signature of a delivery."""
        stamp = int(time.time() if at is None else at)
        key = (secret or self.webhook_secrets[0]).encode()
        signature = hmac.new(key, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        return f"t={stamp},v1={signature},v0={hashlib.sha256(body).hexdigest()}"

    @property
    def deliveries_pending(self) -> int:
        """How many deliveries are under way."""
        return len(self._sending)

    def _on_event(self, body: bytes) -> None:
        if self.enabled_events is not None and orjson.loads(body)["type"] not in self.enabled_events:
            return
        if self._held is not None:
            self._held.append(body)
        else:
            self.send(body)

    def send(self, body: bytes) -> None:
        """Send a body that was made before, or not at all where `deliveries` is 0."""
        if self.webhook_url is not None:
            for _ in range(self.deliveries):
                task = asyncio.create_task(self._post(self.webhook_url, body, self.delay_seconds))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _post(self, url: str, body: bytes, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        for _ in range(_DELIVERIES_MAX):
            headers = {"Content-Type": "application/json", "Stripe-Signature": self.sign(body)}
            try:
                async with self._session.post(url, data=body, headers=headers) as response:
                    if response.ok:
                        return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass  # the endpoint is away: like any refusal it is tried again
            await asyncio.sleep(self.retry_seconds)

    # --- the page ---------------------------------------------------------------------------------------------------

    def _describe(self, session_id: str) -> str:
        session = self.sessions[session_id]
        money = f"{session['amount_total']} {session['currency']} (in Stripe's units)"
        return f"Checkout Session {session_id}: {money}, {session['status']}, {session['payment_status']}"

    def _acts(self) -> dict[tuple[str, str], Callable[[str], object]]:
        return {
            ("pay", "Pay by card"): self._on("open", self.pay),
            ("decline", "Have the card declined"): self._on("open", self.decline),
            ("debit", "Pay by a bank debit, which takes days"): self._on("open", self.pay_later),
            ("arrive", "Have the debit arrive"): self._on("complete", self.arrive),
            ("bounce", "Have the debit bounce"): self._on("complete", self.fail),
        }

    def _on(self, status: str, act: Callable[[str], object]) -> Callable[[str], object]:
        """Have something happen to unpaid sessions of a status alone."""

        def do(session_id: str) -> None:
            session = self.sessions[session_id]
            if (session["status"], session["payment_status"]) != (status, "unpaid"):
                detail = f"the session is {session['status']}, {session['payment_status']}"
                raise LookupError(detail)
            act(session_id)

        return do

    # --- the API ------------------------------------------------------------------------------------------------

    @web.middleware
    async def _meet(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        form = dict(parse_qsl((await request.read()).decode(), keep_blank_values=True))
        self.calls.append((request.method, request.path, request.headers.get("Idempotency-Key"), form))
        self.headers = dict(request.headers)
        met = self._misbehaviour.popleft() if self._misbehaviour else Misbehaviour()
        if met.wait_seconds:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), met.wait_seconds)
        if met.status is not None:
            return web.Response(status=met.status, body=met.body, content_type="application/json")
        answer = await handler(request)
        if met.is_lost and request.transport is not None:
            request.transport.abort()
        return answer

    def _answering(self, call: Call) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            form = dict(parse_qsl((await request.read()).decode(), keep_blank_values=True))
            if request.headers.get("Authorization") != f"Bearer {self.secret_key}":
                return _json(error(401, "Invalid API Key provided", "invalid_request_error"))
            key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
            if key is None:
                return _json(call(request, form))
            return self._answer_once(key, (request.path, form), lambda: call(request, form))

        return answer

    def _answer_once(
        self, key: str, asked: tuple[str, dict[str, str]], call: Callable[[], tuple[int, Object]]
    ) -> web.Response:
        """Answer as before what was asked before under this key; a request that was not valid leaves no trace."""
        if key in self._saved:
            before, answered = self._saved[key]
            if before == asked:
                return _json(answered, {"Idempotent-Replayed": "true"})
            message = "Keys for idempotent requests can only be used with the same parameters"
            return _json(error(400, message, "idempotency_error"))
        answered = call()
        if "param" not in answered[1].get("error", {}):
            self._saved[key] = (asked, answered)
        return _json(answered)

    def _create_session(self, _: web.Request, form: dict[str, str]) -> tuple[int, Object]:
        now = int(time.time())
        if not form.get("success_url"):
            return error(400, "Missing required param", code="parameter_missing", param="success_url")
        ends_at = int(form.get("expires_at", now + _OPEN_SECONDS_MAX))
        if not now + _OPEN_SECONDS_MIN <= ends_at <= now + _OPEN_SECONDS_MAX:
            return error(400, "The `expires_at` timestamp is out of bounds", param="expires_at")
        return 200, dict(self.open(form, f"{self.url}/c/pay"))

    def _get_session(self, request: web.Request, _: dict[str, str]) -> tuple[int, Object]:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            return missing("checkout.session", request)
        if "payment_intent" in request.query.getall("expand[]", []) and session["payment_intent"]:
            return 200, {**session, "payment_intent": self.intents[session["payment_intent"]]}
        return 200, dict(session)

    def _list_sessions(self, request: web.Request, _: dict[str, str]) -> tuple[int, Object]:
        first = int(request.query.get("created[gte]", 0))
        last = int(request.query.get("created[lte]", 2**53))
        return self._list(request, [s for s in self.sessions.values() if first <= s["created"] <= last])

    def _expire_session(self, request: web.Request, _: dict[str, str]) -> tuple[int, Object]:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            return missing("checkout.session", request)
        if session["status"] != "open":
            return error(400, 'Only Checkout Sessions with a status in ["open"] can be expired.')
        self.close(session)
        return 200, dict(session)

    def _get_intent(self, request: web.Request, _: dict[str, str]) -> tuple[int, Object]:
        intent = self.intents.get(request.match_info["id"])
        return missing("payment_intent", request) if intent is None else (200, dict(intent))

    def _cancel_intent(self, request: web.Request, _: dict[str, str]) -> tuple[int, Object]:
        intent = self.intents.get(request.match_info["id"])
        if intent is None:
            return missing("payment_intent", request)
        if intent["status"] not in _CANCELABLE:
            return error(400, "You cannot cancel this PaymentIntent", code="payment_intent_unexpected_state")
        self.cancel(intent)
        return 200, dict(intent)

    def _create_refund(self, _: web.Request, form: dict[str, str]) -> tuple[int, Object]:
        intent = self.intents.get(form["payment_intent"])
        if intent is None or intent["latest_charge"] is None:
            return error(400, "This PaymentIntent does not have a successful charge to refund.")
        charge = self.charges[intent["latest_charge"]]
        left = self.left_of(charge)
        amount = int(form.get("amount", left))
        if left == 0:
            return error(400, "Charge has already been refunded.", code="charge_already_refunded")
        if not 0 < amount <= left:
            return error(400, f"Refund amount is greater than unrefunded amount ({left})", param="amount")
        return 200, dict(self.give_back(charge, amount, nested(form, "metadata")))

    def _list_refunds(self, request: web.Request, _: dict[str, str]) -> tuple[int, Object]:
        intent_id = request.query.get("payment_intent")
        return self._list(request, [r for r in self.refunds.values() if r["payment_intent"] == intent_id])

    def _list(self, request: web.Request, oldest_first: Sequence[Object]) -> tuple[int, Object]:
        items = list(reversed(oldest_first))
        after = request.query.get("starting_after")
        if after is not None:
            items = items[1 + [item["id"] for item in items].index(after) :]
        count = min(int(request.query.get("limit", 10)), self.page_items_max)
        page = {"object": "list", "url": request.path, "has_more": len(items) > count, "data": items[:count]}
        return 200, page


def error(status: int, message: str, kind: str = "invalid_request_error", **more: str) -> tuple[int, Object]:
    """Return an error in the shape of the page "API reference, Errors"."""
    return status, {"error": {"type": kind, "message": message, **more}}


def missing(what: str, request: web.Request) -> tuple[int, Object]:
    """Return the error of an id that nothing has."""
    message = f"No such {what}: '{request.match_info['id']}'"
    return error(404, message, code="resource_missing", param="id")


def _json(answered: tuple[int, Object], headers: dict[str, str] | None = None) -> web.Response:
    status, document = answered
    return web.Response(
        status=status, body=orjson.dumps(document), content_type="application/json", headers=headers
    )
