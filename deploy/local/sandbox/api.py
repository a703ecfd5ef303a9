"""Which JSON routes does the sandbox have? Each reads its request, asks the gateway, and writes the answer."""

from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from deploy.local.sandbox.faults import Faults, Knobs
from deploy.local.sandbox.gateway import Gateway, NewPayment, NewRefund, Settlement
from deploy.local.sandbox.payments import Payment, Refund
from deploy.local.sandbox.problems import Problem, invalid

IDEMPOTENCY_KEY_CHARACTERS_MAX = 255

BodyT = TypeVar("BodyT", bound=BaseModel)


class Api:
    """The JSON routes; `public_url` is where a browser finds the pay page."""

    def __init__(self, gateway: Gateway, faults: Faults, public_url: str) -> None:
        self._gateway = gateway
        self._faults = faults
        self._public_url = public_url

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [
            web.post("/payments", self.create_payment),
            web.get("/payments", self.list_payments),
            web.get("/payments/{payment_id}", self.get_payment),
            web.post("/payments/{payment_id}/cancel", self.cancel_payment),
            web.post("/payments/{payment_id}/settle", self.settle_payment),
            web.post("/payments/{payment_id}/refunds", self.create_refund),
            web.get("/payments/{payment_id}/refunds", self.list_refunds),
            web.get("/control", self.get_control),
            web.post("/control", self.turn_control),
            web.get("/livez", self.get_health),
            web.get("/readyz", self.get_health),
        ]

    async def create_payment(self, request: web.Request) -> web.Response:
        """`POST /payments`."""
        new = await _body(request, NewPayment)
        self._faults.before_creation()
        payment, created = self._gateway.create(new)
        await self._faults.before_creation_answer()
        return _json(self._shown(payment), HTTPStatus.CREATED if created else HTTPStatus.OK)

    async def list_payments(self, request: web.Request) -> web.Response:
        """`GET /payments?reference=`."""
        if "reference" not in request.query:
            raise Problem(HTTPStatus.BAD_REQUEST, "The query names no reference.")
        found = self._gateway.by_reference(request.query["reference"])
        return _json({"items": [self._shown(payment) for payment in found], "next": None})

    async def get_payment(self, request: web.Request) -> web.Response:
        """`GET /payments/{payment_id}`."""
        return _json(self._shown(self._gateway.payment(request.match_info["payment_id"])))

    async def cancel_payment(self, request: web.Request) -> web.Response:
        """`POST /payments/{payment_id}/cancel`."""
        return _json(self._shown(self._gateway.cancel(request.match_info["payment_id"])))

    async def settle_payment(self, request: web.Request) -> web.Response:
        """`POST /payments/{payment_id}/settle`."""
        settlement = await _body(request, Settlement)
        payment, webhook_id = self._gateway.settle(request.match_info["payment_id"], settlement)
        return _json({**self._shown(payment), "webhook_id": webhook_id}, HTTPStatus.ACCEPTED)

    async def create_refund(self, request: web.Request) -> web.Response:
        """`POST /payments/{payment_id}/refunds`."""
        new = await _body(request, NewRefund)
        key = _idempotency_key(request)
        self._faults.before_refund()
        refund, created = self._gateway.refund(request.match_info["payment_id"], key, new)
        await self._faults.before_refund_answer()
        return _json(_shown_refund(refund), HTTPStatus.CREATED if created else HTTPStatus.OK)

    async def list_refunds(self, request: web.Request) -> web.Response:
        """`GET /payments/{payment_id}/refunds`."""
        refunds = self._gateway.refunds(request.match_info["payment_id"])
        return _json({"items": [_shown_refund(refund) for refund in refunds], "next": None})

    async def get_control(self, _request: web.Request) -> web.Response:
        """`GET /control`: the knobs as they stand, and how much of everything there is."""
        return _json({**self._faults.knobs.model_dump(), **self._gateway.counts()})

    async def turn_control(self, request: web.Request) -> web.Response:
        """`POST /control`."""
        self._faults.turn(await _body(request, Knobs))
        return await self.get_control(request)

    async def get_health(self, _request: web.Request) -> web.Response:
        """`GET /livez`, `GET /readyz`: whoever gets this answer found it alive."""
        return _json({"status": "ok"})

    def _shown(self, payment: Payment) -> dict[str, Any]:
        return {
            "payment_id": payment.payment_id,
            "reference": payment.reference,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "status": payment.status,
            "payment_url": f"{self._public_url}/pay/{payment.payment_id}",
            "created_at": payment.created_at,
            "expires_at": payment.expires_at,
            "return_url": payment.return_url,
            "captured_minor": payment.captured_minor,
            "captured_currency": payment.captured_currency,
            "refunded_minor": payment.refunded_minor,
        }


def _shown_refund(refund: Refund) -> dict[str, Any]:
    return {
        "refund_id": refund.refund_id,
        "payment_id": refund.payment_id,
        "amount_minor": refund.amount_minor,
        "currency": refund.currency,
        "status": "succeeded",
        "created_at": refund.created_at,
    }


def _json(document: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")


async def _body(request: web.Request, model: type[BodyT]) -> BodyT:
    """The body as this model, no body at all as the empty object; raises Problem 400, 413 or 422."""
    raw = await request.read()
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise invalid(error) from error


def _idempotency_key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not key or len(key) > IDEMPOTENCY_KEY_CHARACTERS_MAX or not (key.isascii() and key.isprintable()):
        detail = (
            f"The header Idempotency-Key must hold 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} ASCII characters."
        )
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    return key
