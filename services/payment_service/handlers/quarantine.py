"""How do operators decide about quarantined and disputed attempts, each once?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.payment_service import store
from services.payment_service.domain import resolving
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.resolving import Decision, Resolution
from services.payment_service.handlers.saving import save
from shared.database import Connection
from shared.errors import Conflict, HoldfastError, Invalid, NotFound


@dataclass(frozen=True, slots=True)
class Resolve:
    """An operator decides about an attempt."""

    order_id: UUID
    attempt_id: UUID
    decision: Decision


@dataclass(frozen=True, slots=True)
class Resolved:
    """The decision that holds, and the gateway to wake for its refund; `replayed` if it was made before."""

    resolution: Resolution
    gateway: str
    replayed: bool


async def resolve(tx: Connection, requests: Sequence[Resolve]) -> Sequence[Resolved | HoldfastError]:
    """Apply decisions and keep them, with who made them, when and why."""
    at = await store.get_now(tx)
    payments = await store.lock(tx, {request.order_id for request in requests})
    # Read under the locks: what another process decided meanwhile is committed by now.
    known = await store.list_resolutions(tx, [request.attempt_id for request in requests])
    made: list[Resolution] = []
    results: list[Resolved | HoldfastError] = []
    for request in requests:
        result = _resolve(payments.get(request.order_id), request, [*known, *made], at)
        if isinstance(result, Resolved) and not result.replayed:
            made.append(result.resolution)
        results.append(result)
    await save(tx, payments, at)
    await store.insert_resolutions(tx, made)
    return results


def _resolve(
    payment: Payment | None, request: Resolve, known: Sequence[Resolution], at: datetime
) -> Resolved | HoldfastError:
    attempt = None if payment is None else payment.attempts.get(request.attempt_id)
    if payment is None or attempt is None:
        return NotFound("There is no such attempt.")
    own = [resolution for resolution in known if resolution.attempt_id == request.attempt_id]
    decision = request.decision
    for resolution in own:
        if decision.request_key is not None and resolution.request_key == decision.request_key:
            if (resolution.action, resolution.reason) != (decision.action, decision.reason):
                return Invalid("This Idempotency-Key came with another body.")
            return Resolved(resolution, attempt.gateway, replayed=True)
    if attempt.review_at is None and own:
        if own[-1].action is decision.action:
            return Resolved(own[-1], attempt.gateway, replayed=True)
        return Conflict(f"another decision was made before: {own[-1].action} by {own[-1].decided_by}")
    result = resolving.resolve(payment, attempt, decision, at=at)
    return result if isinstance(result, Conflict) else Resolved(result, attempt.gateway, replayed=False)
