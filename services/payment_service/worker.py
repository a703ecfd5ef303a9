"""What does the payment service do by itself: judge deliveries, and ask gateways what is still to be asked?

Every call to a gateway is made outside any transaction. What is to be asked is taken with a lease, so that a process
that dies on the way leaves it to be asked again; gateways are asked with keys that make asking twice harmless.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass

from services.payment_service import handlers, store
from services.payment_service.domain.answers import Unanswered
from services.payment_service.domain.attempts import Attempt, Notice, Task
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways import Gateway, Gateways
from services.payment_service.handlers import AttemptAnswered, Delivery, RefundAnswered
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
_log = get_logger()


class Judge:
    """Gives stored deliveries their verdicts, in the order in which they came.

    Deliveries that came before their attempt are looked at again, less and less often, for `unmatched_seconds_max`.
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
    ) -> None:
        self._database = database
        self._gateways = gateways
        self._size_max = size_max
        self._pause_seconds = pause_seconds
        self._unmatched_seconds_max = unmatched_seconds_max
        self._backoff = Backoff(seconds_min=0.25, seconds_max=300.0)

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
        async with self._database.transaction() as tx:
            webhooks = await store.lock_webhooks(tx, webhook_ids)
            if webhooks:
                await handlers.judge(tx, [self._read(webhook) for webhook in webhooks])
        return len(webhooks)

    def _read(self, webhook: StoredWebhook) -> Delivery:
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
        return Delivery(webhook, notice, problem, retry_seconds)

    async def _postpone(self, webhook_id: int, error: Exception) -> None:
        """Set aside a delivery that cannot be judged by itself: its neighbours go on, and a person sees why."""
        _log.error("webhook_not_judged", webhook_id=webhook_id, exc_info=error)
        async with self._database.transaction() as tx:
            await store.postpone_webhook(
                tx, webhook_id, f"not judged: {error!r}"[:_REASON_CHARACTERS_MAX], self._backoff.seconds_max
            )


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls of a kind to one gateway are under way at once, and how long one keeps what it was taken for."""

    calls_max: int
    lease_seconds: float
    backoff: Backoff


class GatewayCaller:
    """Asks one gateway for what is due: attempts to create or to cancel, and refunds."""

    def __init__(
        self,
        gateway: Gateway,
        database: Database,
        limits: CallLimits,
        *,
        attempts: Batcher[AttemptAnswered, Attempt],
        refunds: Batcher[RefundAnswered, None],
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._limits = limits
        self._attempts = attempts
        self._refunds = refunds
        self._take_max = limits.calls_max * _CALLS_IN_TURN
        self._lease_seconds = limits.lease_seconds * _CALLS_IN_TURN
        self._attempt_calls = asyncio.Semaphore(limits.calls_max)
        self._refund_calls = asyncio.Semaphore(limits.calls_max)

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
            answer = await self._gateway.refund(refund, attempt)
        if isinstance(answer, Unanswered):
            _log.warning("gateway_unanswered", refund_id=str(refund.refund_id), detail=answer.detail)
        retry_seconds = self._limits.backoff.seconds(refund.tries)
        await self._refunds.submit(
            RefundAnswered(refund.order_id, refund.refund_id, answer, retry_seconds, _CAUSE)
        )


async def _all(calls: Iterable[Awaitable[None]]) -> None:
    """Wait for all calls, then raise what went wrong with the first that failed: the others' answers are kept."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
