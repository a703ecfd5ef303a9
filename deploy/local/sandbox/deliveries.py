"""How does a webhook reach the merchant? Signed, by a bounded number of workers, again and again until the answer is 2xx."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import standardwebhooks

from deploy.local.sandbox.payments import Webhook
from deploy.local.sandbox.settings import Settings

logger = logging.getLogger(__name__)

RETRY_PAUSE_SECONDS_FIRST = 0.1
RECEIVER_AWAY_PAUSE_SECONDS_MAX = 1.0
_DOUBLINGS_MAX = 30


@dataclass(slots=True)
class _Delivery:
    """One of the deliveries that a webhook is owed."""

    webhook: Webhook
    refusals: int = 0


class Deliveries:
    """Sends webhooks. `on_delivered` is called with the webhook's id once for each delivery that was answered with 2xx.

    A delivery that is refused waits by itself, longer each time. While nothing listens at all, everything waits together
    and a few workers knock, at least once a second: thousands of webhooks must not drum on a receiver that is starting.
    """

    def __init__(self, settings: Settings, on_delivered: Callable[[str], None]) -> None:
        self._settings = settings
        self._url = str(settings.webhook_url)
        self._signer = standardwebhooks.Webhook(settings.webhook_secrets[0])
        self._on_delivered = on_delivered
        self._queue: asyncio.Queue[_Delivery] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._away_until = 0.0
        self._away_pause_seconds = 0.0
        self._last_result = ""

    async def start(self, owed: Iterable[Webhook]) -> None:
        """Open the connections and take up what is owed from before."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._settings.deliveries_max),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._settings.delivery_timeout_seconds),
            headers={"content-type": "application/json", "user-agent": "holdfast-sandbox"},
            skip_auto_headers=("accept", "accept-encoding"),
        )
        for webhook in owed:
            self.send(webhook)
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._settings.deliveries_max)]

    async def stop(self) -> None:
        """Stop sending; what was not answered stays owed."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._session.close()

    def send(self, webhook: Webhook) -> None:
        """Deliver the webhook as often as it is owed, all of it at once when it is due."""
        delay_seconds = webhook.due_at - time.time()
        for _ in range(webhook.deliveries_left):
            self._enqueue(_Delivery(webhook), delay_seconds)

    def _enqueue(self, delivery: _Delivery, delay_seconds: float) -> None:
        if delay_seconds > 0:
            asyncio.get_running_loop().call_later(delay_seconds, self._queue.put_nowait, delivery)
        else:
            self._queue.put_nowait(delivery)

    async def _work(self) -> None:
        while True:
            delivery = await self._queue.get()
            await self._receiver_is_back()
            await self._deliver(delivery)

    async def _deliver(self, delivery: _Delivery) -> None:
        try:
            status = await self._post(delivery.webhook)
            if status // 100 == 2:  # noqa: PLR2004  (the class of successful answers)
                self._on_delivered(delivery.webhook.webhook_id)
                self._away_until = self._away_pause_seconds = 0.0
                self._note("accepted")
                return
            self._note(f"answered with {status}")
        except aiohttp.ClientConnectorError as error:
            self._receiver_is_away()
            self._note(f"not reachable: {error}")
            self._enqueue(delivery, 0)
            return
        except (aiohttp.ClientError, OSError) as error:
            self._note(f"not delivered: {error!r}")
        delivery.refusals += 1
        self._enqueue(delivery, self._pause_seconds(delivery.refusals))

    async def _post(self, webhook: Webhook) -> int:
        """Send it once, with a fresh time and signature; the status of the answer."""
        now = datetime.now(UTC)
        headers = {
            "webhook-id": webhook.webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(webhook.webhook_id, now, webhook.body),
        }
        request = self._session.post(
            self._url, data=webhook.body.encode(), headers=headers, allow_redirects=False
        )
        async with request as response:
            return response.status

    def _pause_seconds(self, refusals: int) -> float:
        longest = RETRY_PAUSE_SECONDS_FIRST * 2.0 ** min(refusals, _DOUBLINGS_MAX)
        jitter = random.uniform(0.5, 1)  # noqa: S311  (spreads the load, guards nothing)
        return jitter * min(longest, self._settings.retry_pause_seconds_max)

    def _receiver_is_away(self) -> None:
        """Let everything wait; only the first of those that knocked together makes the pause longer."""
        now = time.monotonic()
        if now >= self._away_until:
            longer = max(RETRY_PAUSE_SECONDS_FIRST, 2 * self._away_pause_seconds)
            self._away_pause_seconds = min(longer, RECEIVER_AWAY_PAUSE_SECONDS_MAX)
            self._away_until = now + self._away_pause_seconds

    async def _receiver_is_back(self) -> None:
        while (pause_seconds := self._away_until - time.monotonic()) > 0:
            await asyncio.sleep(pause_seconds)

    def _note(self, result: str) -> None:
        """Say how deliveries go whenever that changes: one line, however many webhooks it concerns."""
        if result != self._last_result:
            level = logging.INFO if result == "accepted" else logging.WARNING
            logger.log(level, "webhooks to %s: %s", self._url, result)
            self._last_result = result
