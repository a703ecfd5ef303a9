"""How is a decision about quarantined or disputed money made, and what would it change?

The payment service's own handler decides, in one transaction on its database, as if the request had come by HTTP. To
show what would happen it is let, and undone.
"""

from dataclasses import dataclass
from uuid import UUID

from ops.actions import connected, operator_name, record_action
from ops.place import Place
from services.payment_service import handlers, store
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunds import Refund
from services.payment_service.domain.resolving import Action, Decision, Resolution
from shared.database import Connection
from shared.errors import HoldfastError, NotFound
from shared.events import PaymentStatus
from shared.ids import new_id

COMMAND = "quarantine resolve"
_SERVICE = "payment"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a decision changes: the payment's status before and after, and the refund that gives the money back.

    `is_known` says that the same decision was made before, so that nothing changes.
    """

    resolution: Resolution
    before: PaymentStatus
    after: PaymentStatus
    refund: Refund | None
    is_known: bool


async def try_out(place: Place, attempt_id: UUID, action: Action, reason: str) -> Outcome:
    """Return what a decision would change; nothing is kept.

    Raises:
        NotFound: there is no such attempt.
        Conflict: nothing is to be decided about it, or something else was decided before.
        Unavailable: the payment service's database does not answer.
    """
    async with connected(_SERVICE, place.dsns[_SERVICE]) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            return await _decide(connection, attempt_id, action, reason)
        finally:
            await transaction.rollback()


async def decide(place: Place, attempt_id: UUID, action: Action, reason: str) -> Outcome:
    """Make a decision, and keep who made it, when and why; the payment service does what follows from it.

    Raises:
        NotFound: there is no such attempt.
        Conflict: nothing is to be decided about it, or something else was decided before.
        Unavailable: the payment service's database does not answer.
        Misconfigured: it cannot be told who decides.
    """
    async with connected(_SERVICE, place.dsns[_SERVICE]) as connection, connection.transaction():
        outcome = await _decide(connection, attempt_id, action, reason)
        await record_action(
            connection,
            command=COMMAND,
            details={"attempt_id": str(attempt_id), "action": action.value},
            counts={"decisions": 0 if outcome.is_known else 1},
            reason=reason,
        )
        return outcome


async def _decide(tx: Connection, attempt_id: UUID, action: Action, reason: str) -> Outcome:
    found = await store.find_orders_of_attempts(tx, [attempt_id])
    if not found:
        detail = f"There is no attempt {attempt_id}. `holdfast quarantine list` tells what is to be decided."
        raise NotFound(detail)
    order_id: UUID = found[0]["order_id"]
    before = await _payment(tx, order_id)
    decision = Decision(new_id(), action, reason, operator_name(), None, f"operator:{COMMAND}")
    (resolved,) = await handlers.resolve(tx, [handlers.Resolve(order_id, attempt_id, decision)])
    if isinstance(resolved, HoldfastError):
        raise resolved
    after = await _payment(tx, order_id)
    refund_id = resolved.resolution.refund_id
    refund = None if refund_id is None else after.refunds.get(refund_id)
    return Outcome(resolved.resolution, before.status, after.status, refund, resolved.replayed)


async def _payment(tx: Connection, order_id: UUID) -> Payment:
    payment = await store.get(tx, order_id)
    if payment is None:
        raise NotFound("The payment service has not heard of this order.")
    return payment
