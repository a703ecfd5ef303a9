"""What does a shop at work ask of the system, and did every order end as its customer meant it to?

An open load: orders come at their pace whether the system answers or not, half of them by HTTP and half by Kafka. Who gets
no answer asks again, with the same key, and at the next copy of the service if there is one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import aiohttp
import orjson

from shared.commands import OutgoingCommand, command, send
from shared.errors import Unavailable
from shared.events import OrderedLine, PlaceOrder
from shared.ids import new_id
from shared.kafka import is_kafka_error
from shared.settings import KafkaSettings
from tests.end_to_end.driver import Driver, Refused
from tests.waiting import eventually

#: pytest's fixture `record_property`.
RecordProperty = Callable[[str, object], None]

PER_SECOND = 8.0
_UNITS = 1_000_000
_ANSWER_SECONDS_MAX = 5.0
_LOOK_SECONDS = 0.25
#: How the orders of a load are meant to end, in turn.
_PLANS = ("PROCESSING", "PROCESSING", "CANCELLED", "PROCESSING", "PROCESSING", "PAYMENT_FAILED", "PROCESSING")


@dataclass(eq=False, slots=True)
class Purchase:
    """One order of the load; times are those of the event loop."""

    order_id: UUID
    plan: str
    by_kafka: bool
    lines: tuple[OrderedLine, ...]
    asked_at: float
    accepted_at: float | None = None
    ended_at: float | None = None
    status: str | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took from a moment until a new order had ended, and until every order that was caught had."""

    first_seconds: float
    caught: int
    caught_seconds: float

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"a new order ended after {self.first_seconds:.1f} s, "
            f"the {self.caught} that were under way after {self.caught_seconds:.1f} s"
        )


class Load:
    """Orders under way; `refusals` counts the answers that were errors, by status and by what was asked."""

    def __init__(self, driver: Driver, session: aiohttp.ClientSession) -> None:
        self.refusals: Counter[tuple[int, str]] = Counter()
        self.without_retry_after = 0
        self.purchases: list[Purchase] = []
        self._tokens = driver.ready["tokens"]
        self._urls = {name: driver.urls(name) for name in ("order", "inventory", "payment")}
        self._urls["gateway"] = [driver.ready["gateway_url"]]
        self._kafka = KafkaSettings(
            bootstrap_servers=driver.ready["kafka_bootstrap_servers"], request_timeout_seconds=3
        )
        self._session = session
        self._customer_id = f"customer-{new_id().hex}"
        self._skus: list[str] = []
        self._commands: list[OutgoingCommand] = []
        self._customers: list[asyncio.Task[None]] = []
        self._shop: list[asyncio.Task[None]] = []

    @property
    def open(self) -> list[Purchase]:
        """The orders that have not ended yet."""
        return [purchase for purchase in self.purchases if purchase.ended_at is None]

    async def until_asked_for(self, number: int, *, since: float | None = None) -> None:
        """Wait until so many orders more have been asked for, from now or a moment on: how long a load lasts."""
        before = [item for item in self.purchases if since is None or item.asked_at < since]
        wanted = len(before) + number

        def asked_for() -> bool:
            self._raise_failures()
            return len(self.purchases) >= wanted

        await eventually(asked_for, timeout_seconds=300, what=f"{number} more orders")

    async def until_ended(
        self, purchases: Collection[Purchase], *, timeout_seconds: float = 60.0, least: int | None = None
    ) -> None:
        """Wait until orders have ended: all of them, or `least`."""
        wanted = len(purchases) if least is None else least

        def ended() -> bool:
            self._raise_failures()
            return sum(purchase.ended_at is not None for purchase in purchases) >= wanted

        try:
            await eventually(ended, timeout_seconds=timeout_seconds, what=f"{wanted} orders ended")
        except AssertionError as error:
            stuck = [(str(item.order_id), item.plan, item.status) for item in purchases if not item.ended_at]
            message = f"{error}; open: {stuck[:10]}; refusals: {dict(self.refusals)}"
            raise AssertionError(message) from error

    def since(self, moment: float) -> list[Purchase]:
        """Return the orders that were asked for since a moment."""
        return [purchase for purchase in self.purchases if purchase.asked_at >= moment]

    def recovery(self, moment: float) -> Recovery:
        """Return how long the load took to go on from a moment on; every order must have ended."""
        new = [item.ended_at for item in self.purchases if item.asked_at >= moment and item.ended_at]
        caught = [
            item.ended_at
            for item in self.purchases
            if item.asked_at < moment and item.ended_at and item.ended_at > moment
        ]
        return Recovery(min(new) - moment, len(caught), max(caught, default=moment) - moment)

    # --- the shop ---------------------------------------------------------------------------------------------------

    async def _order_steadily(self, per_second: float) -> None:
        """Have customers come at an even pace, for ever."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for position in count():
            # The pace is the load's own: nothing is waited for here.
            await asyncio.sleep(max(0.0, began + position / per_second - loop.time()))
            purchase = Purchase(
                order_id=new_id(),
                plan=_PLANS[position % len(_PLANS)],
                by_kafka=position % 2 == 0,
                lines=(
                    OrderedLine(sku=self._skus[0], quantity=1),
                    OrderedLine(sku=self._skus[1 + position % (len(self._skus) - 1)], quantity=2),
                ),
                asked_at=loop.time(),
            )
            self.purchases.append(purchase)
            self._customers.append(asyncio.create_task(self._buy(purchase), name=str(purchase.order_id)))

    async def _publish(self) -> None:
        """Publish the commands that have gathered, again and again until Kafka has them, for ever."""
        while True:
            commands, self._commands = self._commands, []
            try:
                if commands:
                    await send(self._kafka, commands)
            except Exception as error:
                if not (isinstance(error, Unavailable) or is_kafka_error(error)):
                    raise
                self._commands = commands + self._commands
            await asyncio.sleep(_LOOK_SECONDS)

    async def _watch(self) -> None:
        """Look at the orders that have not ended, all in one question, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            query: dict[str, str | int] = {"customer_id": self._customer_id, "limit": 1_000}
            ended = [item.order_id for item in self.purchases]
            if self.open:
                ended = [item for item in ended if item < min(purchase.order_id for purchase in self.open)]
            if ended:
                query["after"] = str(max(ended))
            page = await self._ask("order", "GET", "/orders", params=query)
            found = {UUID(item["order_id"]): item["status"] for item in page["items"]}
            for purchase in self.open:
                status = found.get(purchase.order_id)
                if status != purchase.status:
                    purchase.status = status
                    purchase.moved.set()
                if status == purchase.plan:
                    purchase.ended_at = loop.time()

    # --- a customer -------------------------------------------------------------------------------------------------

    async def _buy(self, purchase: Purchase) -> None:
        await self._place(purchase)
        await self._reach(purchase, "AWAITING_PAYMENT")
        if purchase.plan == "CANCELLED":
            await self._ask("order", "POST", f"/orders/{purchase.order_id}/cancel", json={"reason": "load"})
        else:
            await self._pay(purchase)
        await self._reach(purchase, purchase.plan)

    async def _place(self, purchase: Purchase) -> None:
        order = PlaceOrder(
            order_id=purchase.order_id,
            customer_id=self._customer_id,
            currency="EUR",
            lines=purchase.lines,
        )
        if purchase.by_kafka:
            self._commands.append(command(order))
            return
        body = order.model_dump_json(exclude_none=True)
        headers = {"Idempotency-Key": str(purchase.order_id), "Content-Type": "application/json"}
        await self._ask("order", "POST", "/orders", data=body, headers=headers)
        purchase.accepted_at = asyncio.get_running_loop().time()

    async def _pay(self, purchase: Purchase) -> None:
        """Start an attempt, ask again until the gateway has answered, and have the gateway tell twice how it ended."""
        path, headers = f"/payments/{purchase.order_id}/attempts", {"Idempotency-Key": str(purchase.order_id)}
        attempt: Mapping[str, Any] = {"gateway_transaction_id": None}
        while attempt["gateway_transaction_id"] is None:
            attempt = await self._ask("payment", "POST", path, passing={404, 503}, json={}, headers=headers)
        outcome = "succeeded" if purchase.plan == "PROCESSING" else "failed"
        settle = f"/payments/{attempt['gateway_transaction_id']}/settle"
        await self._ask("gateway", "POST", settle, json={"outcome": outcome, "times": 2})

    async def _reach(self, purchase: Purchase, *statuses: str) -> None:
        while purchase.status not in statuses:
            purchase.moved.clear()
            await purchase.moved.wait()

    async def _ask(
        self,
        service: str,
        method: str,
        path: str,
        *,
        passing: Collection[int] = (503,),
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """Ask one copy after the other until one answers with more than an error that passes."""
        urls = self._urls[service]
        headers = {"Authorization": f"Bearer {self._tokens['storefront']}", **(headers or {})}
        for tries in count():
            url = urls[tries % len(urls)] + path
            try:
                async with self._session.request(method, url, headers=headers, **options) as response:
                    body = await response.read()
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            if response.status < 400:
                return orjson.loads(body)
            self._note(response, f"{method} /{path.split('/')[1]}")
            if response.status not in passing:
                raise Refused(response.status, f"{method} {path}: {body.decode()}")
            await asyncio.sleep(_LOOK_SECONDS)
        return None

    def _note(self, response: aiohttp.ClientResponse, asked: str) -> None:
        if response.status != 404:
            self.refusals[response.status, asked] += 1
        if response.status == 503 and "Retry-After" not in response.headers:
            self.without_retry_after += 1

    # --- from opening to closing time -------------------------------------------------------------------------------

    async def begin(self, driver: Driver, per_second: float) -> None:
        """Put what is ordered on sale, one SKU that everybody wants and a few others, and let the customers in."""
        self._skus = [await driver.stock(_UNITS) for _ in range(5)]
        work = (self._order_steadily(per_second), self._publish(), self._watch())
        self._shop = [asyncio.create_task(part) for part in work]

    async def stop_ordering(self) -> None:
        """Let nobody in any more; who is inside goes on."""
        await _cancel(self._shop[:1])

    async def end(self) -> None:
        """End everything that still runs: the test is over."""
        await _cancel([*self._customers, *self._shop])

    async def check_books(self, driver: Driver) -> None:
        """Assert that every order ended as it was meant to, that nothing is lost or doubled, and that the audit is clean."""
        await self.stop_ordering()
        await self.until_ended(self.purchases)
        await asyncio.gather(*self._customers)

        sold = sum(purchase.plan == "PROCESSING" for purchase in self.purchases)
        await driver.until_level(self._skus[0], (_UNITS - sold, 0, sold))
        assert {status for status, _ in self.refusals} <= {503}, self.refusals
        assert self.without_retry_after == 0
        report = await driver.audit()
        assert report.ok, report.findings
        assert report.counted["dead_letters"] == 0

    def _raise_failures(self) -> None:
        for task in (*self._shop, *self._customers):
            if task.done() and not task.cancelled():
                task.result()


@asynccontextmanager
async def at_work(driver: Driver, *, per_second: float = PER_SECOND) -> AsyncIterator[Load]:
    """Lend a load that is under way: its first orders have ended already."""
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS_MAX)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        load = Load(driver, session)
        try:
            await load.begin(driver, per_second)
            await load.until_asked_for(round(per_second))
            await load.until_ended(load.purchases[: round(per_second)])
            yield load
        finally:
            await load.end()


class Crowd:
    """People who look at what there is, all at once and without a pause; `answers` counts statuses."""

    def __init__(self, driver: Driver, session: aiohttp.ClientSession) -> None:
        self.answers: Counter[int] = Counter()
        self._seen: set[tuple[str, int]] = set()
        self._headers = {"Authorization": f"Bearer {driver.ready['tokens']['operator']}"}
        self._urls = {
            "order": f"{driver.ready['order_url']}/orders?limit=1",
            "inventory": f"{driver.ready['inventory_url']}/stock?limit=1",
            "payment": f"{driver.ready['payment_url']}/payments/{new_id()}",
        }
        self._session = session

    async def look(self, service: str) -> None:
        """Look at one service again and again, for ever."""
        while True:
            async with self._session.get(self._urls[service], headers=self._headers) as response:
                await response.read()
            self.answers[response.status] += 1
            self._seen.add((service, response.status))
            # As many as there are of them would leave no time for anybody else.
            await asyncio.sleep(_LOOK_SECONDS)

    async def until_refused(self) -> None:
        """Wait until every service has answered somebody with 503."""
        await eventually(
            lambda: all((service, 503) in self._seen for service in self._urls),
            timeout_seconds=60,
            what="503 from every service",
        )


@asynccontextmanager
async def crowd(driver: Driver, size: int) -> AsyncIterator[Crowd]:
    """Lend a crowd of so many before each service."""
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        people = Crowd(driver, session)
        services = ("order", "inventory", "payment") * size
        tasks = [asyncio.create_task(people.look(service)) for service in services]
        try:
            yield people
        finally:
            await _cancel(tasks)


def now() -> float:
    """Return the time of the event loop, in seconds."""
    return asyncio.get_running_loop().time()


def tell(record_property: RecordProperty, what: str, recovery: Recovery, **figures: float) -> None:
    """Keep in the test's record how long a recovery took; it is printed at the end of the run."""
    rest = "".join(f", {name} {value:.1f}" for name, value in figures.items())
    record_property(what, f"{recovery}{rest}")


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
