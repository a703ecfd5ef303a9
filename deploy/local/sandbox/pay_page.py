"""What does a person see and click? One page for a payment, plain HTML and CSS, which works without JavaScript."""

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from deploy.local.sandbox.gateway import Gateway, Settlement
from deploy.local.sandbox.payments import Outcome, Payment, Status
from deploy.local.sandbox.problems import Problem

_HERE: Final = Path(__file__).parent
_PAGE: Final = Template((_HERE / "templates" / "page.html").read_text(encoding="utf-8"))
_PAYMENT: Final = Template((_HERE / "templates" / "payment.html").read_text(encoding="utf-8"))
_CHOICE: Final = (_HERE / "templates" / "choice.html").read_text(encoding="utf-8")
_MISSING: Final = (_HERE / "templates" / "missing.html").read_text(encoding="utf-8")
_STYLE: Final = (_HERE / "static" / "pay_page.css").read_bytes()

# ISO 4217: how many digits the minor unit has, where it is not two.
_NO_DIGITS: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DIGITS: Final = "BHD IQD JOD KWD LYD OMR TND"
_MINOR_DIGITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(_NO_DIGITS.split(), 0),
    **dict.fromkeys(_THREE_DIGITS.split(), 3),
}
# No script may run here at all. There is no form-action: browsers apply it to the way back to the shop, too.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_OUTCOMES: Final[Mapping[str, Outcome]] = {"pay": "succeeded", "decline": "failed"}
_TOLD: Final[Mapping[Status, tuple[str, str]]] = {
    "succeeded": ("Paid", "The shop is being told that the money is here."),
    "failed": ("Declined", "The shop is being told that this payment was declined. No money was taken."),
    "expired": ("Expired", "The time to pay is over. No money was taken."),
    "cancelled": ("Cancelled", "The shop has cancelled this payment. No money was taken."),
}


class PayPage:
    """The page's routes."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [
            web.get("/pay/{payment_id}", self.show),
            web.post("/pay/{payment_id}", self.choose),
            web.get("/static/pay_page.css", self.style),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """`GET /pay/{payment_id}`."""
        try:
            payment = self._gateway.payment(request.match_info["payment_id"])
        except Problem as problem:
            return _page("Not found", _MISSING, problem.status)
        return _page(*_about(payment, left="left" in request.query))

    async def choose(self, request: web.Request) -> web.Response:
        """`POST /pay/{payment_id}`: do what was clicked, once, and go back to the shop."""
        choice = parse_qs((await request.read()).decode("latin-1")).get("choice", [""])[0]
        if choice != "leave" and choice not in _OUTCOMES:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The choice is one of pay, decline and leave.")
        payment = self._gateway.payment(request.match_info["payment_id"])
        if choice in _OUTCOMES and _is_open(payment):
            self._gateway.settle(payment.payment_id, Settlement(outcome=_OUTCOMES[choice]))
        own_page = f"/pay/{payment.payment_id}" + ("?left" if choice == "leave" else "")
        return web.Response(
            status=HTTPStatus.SEE_OTHER, headers={"Location": payment.return_url or own_page, **_HEADERS}
        )

    async def style(self, _request: web.Request) -> web.Response:
        """`GET /static/pay_page.css`."""
        return web.Response(body=_STYLE, content_type="text/css", charset="utf-8")


def money(amount_minor: int, currency: str) -> str:
    """An amount as people write it: 1234567 JPY is "JPY 1,234,567", 1234567 EUR is "EUR 12,345.67"."""
    digits = _MINOR_DIGITS.get(currency, 2)
    whole, rest = divmod(amount_minor, 10**digits)
    return f"{currency} {whole:,}" + (f".{rest:0{digits}}" if digits else "")


def _is_open(payment: Payment) -> bool:
    return payment.status == "pending" and not _is_late(payment)


def _is_late(payment: Payment) -> bool:
    return payment.expires_at is not None and datetime.fromisoformat(payment.expires_at) <= datetime.now(UTC)


def _about(payment: Payment, *, left: bool) -> tuple[str, str]:
    """The title and the body of a payment's page."""
    status: Status = "expired" if payment.status == "pending" and _is_late(payment) else payment.status
    title, told = _TOLD.get(status, ("Payment", ""))
    if status != "pending":
        below = _note(status, title, told) + _way_back(payment)
    elif left:
        below = _note("left", "You walked away", "The shop was told nothing. You can still pay.") + _CHOICE
    else:
        below = _CHOICE
    body = _PAYMENT.substitute(
        label="Amount to pay" if status == "pending" else "Amount",
        # A very long amount may break after its commas.
        amount=escape(money(payment.amount_minor, payment.currency)).replace(",", ",<wbr>"),
        reference=escape(payment.reference),
        pay_by=_pay_by(payment) if status == "pending" else "",
        below=below,
    )
    return f"{title} · {money(payment.amount_minor, payment.currency)}", body


def _pay_by(payment: Payment) -> str:
    if payment.expires_at is None:
        return ""
    moment = datetime.fromisoformat(payment.expires_at)
    text = f"{moment.day} {moment:%B %Y, %H:%M} UTC"
    return f'<dt>Pay by</dt><dd><time datetime="{escape(payment.expires_at)}">{text}</time></dd>'


def _note(kind: str, title: str, text: str) -> str:
    return f'<div class="note {kind}" role="status"><h2>{escape(title)}</h2><p>{escape(text)}</p></div>'


def _way_back(payment: Payment) -> str:
    if payment.return_url is None:
        return ""
    return f'<a class="button primary" href="{escape(payment.return_url)}">Return to the shop</a>'


def _page(title: str, body: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(
        status=status,
        text=_PAGE.substitute(title=escape(title), body=body),
        content_type="text/html",
        headers=_HEADERS,
    )
