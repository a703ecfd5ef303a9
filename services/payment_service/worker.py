"""What does the payment service do by itself: judge deliveries, ask gateways what is to be asked, and measure?

Every call to a gateway is made outside any transaction. What is to be asked is taken with a lease, so that a process
that dies on the way leaves it to be asked again; gateways are asked with keys that make asking twice harmless.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias
from uuid import UUID

from prometheus_client import Counter, Gauge

from services.payment_service import handlers, store
from services.payment_service.domain.answers import Unanswered
from services.payment_service.domain.attempts import Attempt, Notice, Task
from services.payment_service.domain.reconciling import Outcome
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways import Gateway, Gateways
from services.payment_service.handlers import (
    Asked,
    AttemptAnswered,
    Delivery,
    Judged,
    Question,
    RefundAnswered,
)
from services.payment_service.store import StoredWebhook
from shared.backoff import Backoff
from shared.batcher import Batcher
from shared.database import Database, is_transient
from shared.errors import Malformed
from shared.logging import get_logger
from shared.splitting import apply_splitting

_CAUSE = "timer:gateway"
# Taking more than can be asked at once keeps the calls going while earlier answers are being saved.
_CALLS_IN_TURN = 4
_REASON_CHARACTERS_MAX = 500
_LARGE_BATCH = 20
# A gauge that stands there means that there are at least so many.
_MEASURED_MAX = 10_000
_log = get_logger()

_Answers: TypeAlias = Mapping[int, Notice | Unanswered | None]

WEBHOOKS: Final = Counter(
    "holdfast_webhooks_total", "Deliveries of gateways by their verdict.", ["gateway", "verdict"]
)
RECONCILED: Final = Counter(
    "holdfast_reconciled_total",
    "Attempts that gateways were asked about, by outcome.",
    ["gateway", "outcome"],
)
REFUNDS_OPEN: Final = Gauge(
    "holdfast_refunds_open",
    "Refunds that are not made yet: FAILED ones need a person.",
    ["gateway", "status"],
)
REFUNDS_OLDEST_SECONDS: Final = Gauge(
    "holdfast_refunds_oldest_seconds", "Age of the oldest refund that is not made yet.", ["gateway", "status"]
)
QUARANTINE: Final = Gauge(
    "holdfast_quarantine", "Attempts that wait for an operator's decision.", ["gateway", "status"]
)


class Judge:
    """Gives stored deliveries their verdicts, in the order in which they came.

    Deliveries that came before their attempt are looked at again, less and less often, for `unmatched_seconds_max`; so
    are those that their gateway does not confirm. At most `calls_max` confirmations are under way at once.
    After a large batch it waits for `pause_seconds`, so that the next one is large too; a lone delivery waits for nobody.
    """

    def __init__(
        self,
        database: Database,
        gateways: Gateways,
        *,
        size_max: int,
        pause_seconds: float,
        unmatched_seconds_max: float,
        calls_max: int = 16,
    ) -> None:
        self._database = database
        self._gateways = gateways
        self._size_max = size_max
        self._pause_seconds = pause_seconds
        self._unmatched_seconds_max = unmatched_seconds_max
        self._backoff = Backoff(seconds_min=0.25, seconds_max=300.0)
        self._calls = asyncio.Semaphore(calls_max)

    async def tick(self) -> bool:
        """Judge what is due; return whether there is more."""
        async with self._database.connection() as connection:
            due = await store.list_webhooks_to_judge(connection, self._size_max)
        judged = 0

        async def judge(webhook_ids: Sequence[int]) -> None:
            nonlocal judged
            judged += await self._judge(webhook_ids)

        if due:
            await apply_splitting(due, judge, is_transient=is_transient, refuse=self._postpone)
        if _LARGE_BATCH <= judged < self._size_max:
            await asyncio.sleep(self._pause_seconds)
        # Where another process judges the same deliveries there is nothing to hurry for.
        return judged > 0 and len(due) == self._size_max

    async def _judge(self, webhook_ids: Sequence[int]) -> int:
        """Judge what counts by itself; then ask the gateways about the rest, between two transactions, and judge that."""
        count, judged = await self._judge_once(webhook_ids, {})
        if judged.questions:
            answers = await self._ask(judged.questions)
            await self._judge_once(list(answers), answers)
        return count

    async def _judge_once(self, webhook_ids: Sequence[int], answers: _Answers) -> tuple[int, Judged]:
        judged = Judged()
        async with self._database.transaction() as tx:
            webhooks = await store.lock_webhooks(tx, webhook_ids)
            if webhooks:
                judged = await handlers.judge(tx, [self._read(webhook, answers) for webhook in webhooks])
        for gateway, verdict in judged.verdicts:
            WEBHOOKS.labels(gateway, verdict).inc()
        return len(webhooks), judged

    async def _ask(self, questions: Sequence[Question]) -> _Answers:
        """Ask once for each attempt, however many deliveries speak of it, and for each delivery that names none."""
        asked = {_subject(question): question for question in questions}
        answers = await asyncio.gather(*(self._ask_about(question) for question in asked.values()))
        known: dict[UUID | int, Notice | Unanswered | None] = dict(zip(asked, answers, strict=True))
        return {question.webhook_id: known[_subject(question)] for question in questions}

    async def _ask_about(self, question: Question) -> Notice | Unanswered | None:
        gateway = self._gateways.get(question.gateway)
        async with self._calls:
            if isinstance(question.about, Notice):
                answer = await gateway.identify(question.about)
            else:
                answer = await gateway.ask(question.about)
        if isinstance(answer, Unanswered):
            _log.warning("gateway_unanswered", webhook_id=question.webhook_id, detail=answer.detail)
        return answer

    def _read(self, webhook: StoredWebhook, answers: _Answers) -> Delivery:
        notice: Notice | None = None
        problem: str | None = None
        gateway = self._gateways.find(webhook.gateway)
        if gateway is None:
            problem = "this gateway is no longer switched on"
        else:
            try:
                notice = gateway.read(webhook.body)
            except Malformed as error:
                problem = error.detail[:_REASON_CHARACTERS_MAX]
        is_old = webhook.age_seconds >= self._unmatched_seconds_max
        retry_seconds = None if is_old else self._backoff.seconds(webhook.tries + 1)
        return Delivery(
            webhook,
            notice,
            problem,
            retry_seconds,
            is_asked=webhook.webhook_id in answers,
            answer=answers.get(webhook.webhook_id),
        )

    async def _postpone(self, webhook_id: int, error: Exception) -> None:
        """Set aside a delivery that cannot be judged by itself: its neighbours go on, and a person sees why."""
        _log.error("webhook_not_judged", webhook_id=webhook_id, exc_info=error)
        async with self._database.transaction() as tx:
            await store.postpone_webhook(
                tx, webhook_id, f"not judged: {error!r}"[:_REASON_CHARACTERS_MAX], self._backoff.seconds_max
            )


def _subject(question: Question) -> UUID | int:
    return question.webhook_id if isinstance(question.about, Notice) else question.about.attempt_id


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls of a kind to one gateway are under way at once, and how long one keeps what it was taken for."""

    calls_max: int
    lease_seconds: float
    backoff: Backoff


class GatewayCaller:
    """Asks one gateway for what is due: attempts to create or to cancel, refunds, and where attempts stand."""

    def __init__(
        self,
        gateway: Gateway,
        database: Database,
        limits: CallLimits,
        *,
        attempts: Batcher[AttemptAnswered, Attempt],
        refunds: Batcher[RefundAnswered, None],
        asked: Batcher[Asked, Outcome],
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._limits = limits
        self._attempts = attempts
        self._refunds = refunds
        self._asked = asked
        self._take_max = limits.calls_max * _CALLS_IN_TURN
        self._lease_seconds = limits.lease_seconds * _CALLS_IN_TURN
        self._attempt_calls = asyncio.Semaphore(limits.calls_max)
        self._refund_calls = asyncio.Semaphore(limits.calls_max)
        self._asking_calls = asyncio.Semaphore(limits.calls_max)

    async def ask_about_attempts(self) -> bool:
        """Create or cancel the attempts that are due at the gateway; return whether there may be more."""
        async with self._database.transaction() as tx:
            due = await store.take_attempts(tx, self._gateway.name, self._take_max, self._lease_seconds)
        await _all(self._ask_about_attempt(attempt) for attempt in due)
        return bool(due)

    async def ask_for_refunds(self) -> bool:
        """Ask for the refunds that are due; return whether there may be more."""
        async with self._database.transaction() as tx:
            due = await store.take_refunds(tx, self._gateway.name, self._take_max, self._lease_seconds)
        await _all(self._ask_for_refund(refund, attempt) for refund, attempt in due)
        return bool(due)

    async def reconcile(self) -> bool:
        """Ask where the attempts stand of which nothing was heard for a while; return whether there may be more."""
        async with self._database.transaction() as tx:
            due = await store.take_attempts_to_ask_about(
                tx, self._gateway.name, self._take_max, self._lease_seconds
            )
        await _all(self._reconcile(attempt) for attempt in due)
        return bool(due)

    async def _reconcile(self, attempt: Attempt) -> None:
        async with self._asking_calls:
            answer = await self._gateway.ask(attempt)
        if isinstance(answer, Unanswered):
            _log.warning("gateway_unanswered", attempt_id=str(attempt.attempt_id), detail=answer.detail)
        retry_seconds = self._limits.backoff.seconds(attempt.asks)
        outcome = await self._asked.submit(Asked(attempt.order_id, attempt.attempt_id, answer, retry_seconds))
        RECONCILED.labels(self._gateway.name, outcome).inc()

    async def _ask_about_attempt(self, attempt: Attempt) -> None:
        ask = self._gateway.cancel if attempt.task is Task.CANCEL else self._gateway.create
        async with self._attempt_calls:
            answer = await ask(attempt)
        if isinstance(answer, Unanswered):
            _log.warning("gateway_unanswered", attempt_id=str(attempt.attempt_id), detail=answer.detail)
        retry_seconds = self._limits.backoff.seconds(attempt.tries)
        await self._attempts.submit(
            AttemptAnswered(attempt.order_id, attempt.attempt_id, answer, retry_seconds, _CAUSE)
        )

    async def _ask_for_refund(self, refund: Refund, attempt: Attempt) -> None:
        async with self._refund_calls:
            answer = await self._gateway.refund(refund, _where_the_money_is(attempt))
        if isinstance(answer, Unanswered):
            _log.warning("gateway_unanswered", refund_id=str(refund.refund_id), detail=answer.detail)
        retry_seconds = self._limits.backoff.seconds(refund.tries)
        await self._refunds.submit(
            RefundAnswered(refund.order_id, refund.refund_id, answer, retry_seconds, _CAUSE)
        )


class Measure:
    """Tells what waits for a gateway, or for a person, as metrics: every copy of the service tells the same."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tick(self) -> bool:
        """Count once."""
        async with self._database.connection() as connection:
            refunds = await store.count_open_refunds(connection, _MEASURED_MAX)
            attempts = await store.count_attempts_to_review(connection, _MEASURED_MAX)
        for gauge in (REFUNDS_OPEN, REFUNDS_OLDEST_SECONDS, QUARANTINE):
            gauge.clear()
        for row in refunds:
            REFUNDS_OPEN.labels(row["gateway"], row["status"]).set(row["refunds"])
            REFUNDS_OLDEST_SECONDS.labels(row["gateway"], row["status"]).set(row["oldest_seconds"])
        for row in attempts:
            QUARANTINE.labels(row["gateway"], row["status"]).set(row["attempts"])
        return False


def _where_the_money_is(attempt: Attempt) -> Attempt:
    """Return an attempt under the transaction in which its money came."""
    received = attempt.received_transaction_id
    return attempt if received is None else replace(attempt, gateway_transaction_id=received)


async def _all(calls: Iterable[Awaitable[None]]) -> None:
    """Wait for all calls, then raise what went wrong with the first that failed: the others' answers are kept."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
