"""How do tests use the Stripe gateway over real HTTP?"""

from typing import Any

import orjson

from deploy.local.doubles.stripe import Misbehaviour, StripeDouble
from services.payment_service.domain.answers import Created
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice
from services.payment_service.gateways.stripe import Stripe
from tests.stripe_building import an_attempt


async def created(gateway: Stripe, **changes: Any) -> Attempt:
    """Return an attempt that Stripe has."""
    attempt = an_attempt(**changes)
    answer = await gateway.create(attempt)
    assert isinstance(answer, Created), answer
    attempt.gateway_transaction_id = answer.transaction_id
    return attempt


def session_of(attempt: Attempt) -> str:
    """Return the id of an attempt's session."""
    assert attempt.gateway_transaction_id is not None
    return attempt.gateway_transaction_id


def status_of(answer: object) -> AttemptStatus | None:
    """Return what a notice says."""
    assert isinstance(answer, Notice), answer
    return answer.status


async def paid(gateway: Stripe, double: StripeDouble) -> Attempt:
    """Return an attempt that was paid."""
    attempt = await created(gateway)
    double.pay(session_of(attempt))
    return attempt


def wrong(status: int, kind: str = "api_error", **more: str) -> Misbehaviour:
    """Return an answer in the shape of Stripe's errors."""
    return Misbehaviour(status=status, body=orjson.dumps({"error": {"type": kind, "message": "no", **more}}))
