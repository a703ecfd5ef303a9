"""How are deliveries kept, and how does each get its verdict?

What a delivery says counts unasked only if its signature covers it. Else its gateway is asked, outside any transaction,
and what that answers is judged in its place.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from services.payment_service import store
from services.payment_service.domain import attempts as attempt_rules
from services.payment_service.domain import paying
from services.payment_service.domain.answers import Unanswered
from services.payment_service.domain.attempts import Attempt, Judgement, Notice, Verdict
from services.payment_service.domain.payments import Payment
from services.payment_service.handlers.saving import save
from services.payment_service.store import JudgedWebhook, NewWebhook, StoredWebhook
from shared.database import Connection

#: Verdicts that are those of their event: all its other deliveries are duplicates.
_DECIDED = frozenset({Verdict.APPLIED, Verdict.REGRESSIVE, Verdict.MISMATCH})
#: To which attempt and order a gateway's reference or transaction belongs.
_Known: TypeAlias = Mapping[tuple[str, UUID | str], tuple[UUID, UUID]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stored delivery with what its gateway's reader made of it; `problem` says why there is nothing.

    `retry_seconds` is None if it is not looked at again. `answer` is what the gateway said when it `is_asked` about it,
    None if it knows no such payment: whose it is, where the notice has an alias, else where the attempt stands.
    """

    webhook: StoredWebhook
    notice: Notice | None
    problem: str | None
    retry_seconds: float | None
    is_asked: bool = False
    answer: Notice | Unanswered | None = None

    @property
    def is_named_by_alias(self) -> bool:
        """Whether only the gateway can tell which attempt is meant."""
        return self.notice is not None and self.notice.alias is not None

    @property
    def identified(self) -> Notice | None:
        """What is said, as far as it is known of whom: under its alias only once the gateway has told."""
        if not self.is_named_by_alias:
            return self.notice
        return self.answer if isinstance(self.answer, Notice) else None

    @property
    def cause(self) -> str:
        """What the events that follow from it name as their cause."""
        return f"webhook:{self.webhook.webhook_id}"


@dataclass(frozen=True, slots=True)
class Question:
    """A delivery that has no verdict yet: the gateway must say itself where the attempt stands, or whose the payment is."""

    webhook_id: int
    gateway: str
    about: Attempt | Notice


@dataclass(frozen=True, slots=True)
class _Unconfirmed:
    """The gateway has not said itself what a delivery says: it is asked again, and in the end it is unmatched."""

    reason: str


@dataclass(frozen=True, slots=True)
class Judged:
    """How often each gateway's deliveries got each verdict, and what must be asked before the others get theirs."""

    verdicts: Sequence[tuple[str, Verdict]] = ()
    questions: list[Question] = field(default_factory=list)


async def keep_webhooks(tx: Connection, webhooks: Sequence[NewWebhook]) -> Sequence[None]:
    """Store deliveries as they came; they are judged afterwards."""
    await store.insert_webhooks(tx, webhooks)
    return [None] * len(webhooks)


async def judge(tx: Connection, deliveries: Sequence[Delivery]) -> Judged:
    """Give every delivery its verdict, in order, and let payments follow those that are news.

    Those whose gateway must be asked first are left as they are, and returned as questions.
    """
    at = await store.get_now(tx)
    notices = [delivery.identified for delivery in deliveries if delivery.identified is not None]
    known = await _find_attempts(tx, notices, {delivery.webhook.gateway for delivery in deliveries})
    payments = await store.lock(tx, {order_id for _, order_id in known.values()})
    # Read under the locks: what another process judged meanwhile is committed by now.
    judged = await store.find_judged_events(tx, {delivery.webhook.event_id for delivery in deliveries})
    verdicts: list[JudgedWebhook] = []
    questions: list[Question] = []
    for delivery in deliveries:
        event = (delivery.webhook.gateway, delivery.webhook.event_id)
        verdict = _judge(delivery, known, payments, at, is_repeated=event in judged)
        if isinstance(verdict, Question):
            questions.append(verdict)
            continue
        if verdict.is_decisive and verdict.verdict in _DECIDED:
            judged.add(event)
        verdicts.append(verdict)
    await save(tx, payments, at)
    await store.update_webhooks(tx, verdicts)
    gateways = {delivery.webhook.webhook_id: delivery.webhook.gateway for delivery in deliveries}
    given = [(gateways[item.webhook_id], item.verdict) for item in verdicts if item.verdict is not None]
    return Judged(given, questions)


async def _find_attempts(tx: Connection, notices: Sequence[Notice], gateways: Collection[str]) -> _Known:
    known: dict[tuple[str, UUID | str], tuple[UUID, UUID]] = {}
    references = {notice.attempt_id for notice in notices if notice.attempt_id is not None}
    for row in await store.find_orders_of_attempts(tx, sorted(references)) if references else ():
        known[row["gateway"], row["attempt_id"]] = (row["attempt_id"], row["order_id"])
    transactions = {
        n.transaction_id for n in notices if n.attempt_id is None and n.transaction_id is not None
    }
    if transactions:
        for row in await store.find_orders_of_transactions(tx, sorted(gateways), sorted(transactions)):
            known[row["gateway"], row["gateway_transaction_id"]] = (row["attempt_id"], row["order_id"])
    return known


def _judge(
    delivery: Delivery, known: _Known, payments: Mapping[UUID, Payment], at: datetime, *, is_repeated: bool
) -> JudgedWebhook | Question:
    webhook, notice = delivery.webhook, delivery.notice
    judged = JudgedWebhook(webhook.webhook_id, Verdict.IGNORED, delivery.problem)
    if notice is None:
        return judged
    judged.attempt_id, judged.transaction_id = notice.attempt_id, notice.transaction_id or notice.alias
    judgement: Judgement | Question | _Unconfirmed
    if notice.status is None and notice.refund is None and notice.dispute is None:
        judgement = Judgement(Verdict.IGNORED, f"{notice.native_status} is of no interest")
    elif is_repeated:
        judgement = Judgement(Verdict.DUPLICATE, "this event was delivered before")
    elif delivery.is_named_by_alias and not delivery.is_asked:
        judgement = Question(webhook.webhook_id, webhook.gateway, notice)
    else:
        judgement = _hear(delivery, judged, known, payments, at)
    if isinstance(judgement, Question):
        return judgement
    judged.verdict, judged.reason = Verdict.UNMATCHED, judgement.reason
    if isinstance(judgement, Judgement):
        judged.verdict = judgement.verdict
    # Whom the gateway does not know, or names and we do not, nobody will know later: attempts are stored first.
    is_strange = delivery.is_named_by_alias and judged.order_id is None and isinstance(judgement, Judgement)
    if judged.verdict is Verdict.UNMATCHED and delivery.retry_seconds is not None and not is_strange:
        judged.judge_at = at + timedelta(seconds=delivery.retry_seconds)
        if isinstance(judgement, _Unconfirmed):
            judged.verdict = None
    return judged


def _hear(
    delivery: Delivery,
    judged: JudgedWebhook,
    known: _Known,
    payments: Mapping[UUID, Payment],
    at: datetime,
) -> Judgement | Question | _Unconfirmed:
    """Let the payment hear what is said about one of its attempts, and note in `judged` which one that is."""
    said = delivery.identified
    if said is None:
        if isinstance(delivery.answer, Unanswered):
            return _Unconfirmed(f"whose payment it is, is not known: {delivery.answer.detail}")
        return Judgement(Verdict.UNMATCHED, "the gateway knows no attempt of ours under this name")
    judged.attempt_id = said.attempt_id
    name = said.attempt_id or said.transaction_id
    attempt_id, judged.order_id = (
        known.get((delivery.webhook.gateway, name), (None, None)) if name else (None, None)
    )
    if attempt_id is None or judged.order_id is None:
        return Judgement(Verdict.UNMATCHED, "no attempt of ours is known to be meant")
    payment = payments[judged.order_id]
    attempt = payment.attempts[attempt_id]
    if said.is_confirmed:
        return paying.hear(payment, attempt, said, cause=delivery.cause, at=at)
    return _hear_unconfirmed(delivery, said, judged, payment, attempt=attempt, at=at)


def _hear_unconfirmed(
    delivery: Delivery,
    notice: Notice,
    judged: JudgedWebhook,
    payment: Payment,
    *,
    attempt: Attempt,
    at: datetime,
) -> Judgement | Question | _Unconfirmed:
    """Apply what the gateway answers in the place of a notice that would change something.

    Whoever saw one signed notification can make others. Unless the gateway says the same, the verdict is this delivery's
    alone: the true one of the same content may be still to come.
    """
    judged.is_decisive = False
    if not _would_move(attempt, notice):
        return paying.hear(payment, attempt, notice, cause=delivery.cause, at=at)
    if not delivery.is_asked:
        named = attempt.gateway_transaction_id or notice.transaction_id
        asked = replace(attempt, gateway_transaction_id=named)
        return Question(delivery.webhook.webhook_id, delivery.webhook.gateway, asked)
    match delivery.answer:
        case Notice() as answer:
            judged.is_decisive = notice.is_repeated_by(answer)
            occurred_at = answer.occurred_at or notice.occurred_at
            said = replace(answer, occurred_at=occurred_at)
            return paying.hear(payment, attempt, said, cause=delivery.cause, at=at)
        case Unanswered(detail):
            return _Unconfirmed(f"{notice.native_status} is not confirmed: {detail}")
        case None:
            return _Unconfirmed(f"{notice.native_status} is not confirmed: the gateway knows no such payment")


def _would_move(attempt: Attempt, notice: Notice) -> bool:
    return notice.refund is not None or attempt_rules.judge(attempt, notice).moves
