"""How does the demo reach the system? From outside only: HTTP as a storefront and an operator, commands on Kafka."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import count, islice
from typing import Any, Literal, Self, TypeVar
from uuid import UUID

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.baskets import QUANTITY_MAX
from deploy.local.ready import ReadyLine
from ops.demo.market import GatewayName, Offer
from shared.backoff import Backoff
from shared.commands import OutgoingCommand, publish_all
from shared.errors import HoldfastError, Unavailable
from shared.ids import new_id
from shared.kafka import Publisher, is_kafka_error
from shared.settings import KafkaSettings

CONNECTIONS_MAX = 64
_LINES_AT_ONCE = 5_000
_PAGE_ROWS = 1_000
_REQUEST_SECONDS_MAX = 30.0
_TRY_SECONDS_MAX = 120.0
_LOOK_AGAIN_SECONDS = 0.2
_RECONCILED = "holdfast_reconciled_total"
_LIVE = {"PENDING", "UNKNOWN", "AUTHORIZED"}
_BACKOFF = Backoff(seconds_min=0.05, seconds_max=1.0)

T = TypeVar("T")


class Refused(HoldfastError):
    """The system did not do what the demo asked it for."""

    reason = "refused"


class Shop:
    """The system as its users see it. At most `CONNECTIONS_MAX` requests are under way at once; the others wait.

    `at_till` customers are waiting for the answer to an attempt to pay.
    """

    def __init__(self, system: ReadyLine, kafka: KafkaSettings) -> None:
        self._system = system
        self._kafka = kafka
        self.at_till = 0
        self._publisher: Publisher | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(sock_connect=_REQUEST_SECONDS_MAX, sock_read=_REQUEST_SECONDS_MAX),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._session.close()
        await self._close_publisher()

    # --- as an operator ---------------------------------------------------------------------------------------------

    async def import_catalog(self, offers: Iterable[Offer]) -> None:
        """Put products and their prices on offer."""
        for some in _chunks(offers, _LINES_AT_ONCE):
            body = b"\n".join(map(orjson.dumps, some))
            await self.ask("POST", f"{self._system.order_url}/products/import", "operator", body=body)

    async def receive_stock(self, units: Mapping[str, int]) -> None:
        """Put units on the shelves."""
        for some in _chunks(_receipt_lines(units), _LINES_AT_ONCE):
            lines = [{"sku": sku, "quantity": quantity} for sku, quantity in some]
            receipt = orjson.dumps({"receipt_id": str(new_id()), "lines": lines})
            await self.ask("POST", f"{self._system.inventory_url}/stock/receipts", "operator", body=receipt)

    async def units_sold(self) -> int:
        """Return how many units the inventory service says are sold, of all SKUs."""
        return sum([level["sold"] async for level in self._list(f"{self._system.inventory_url}/stock")])

    async def webhook_verdicts(self) -> Counter[tuple[str, str | None]]:
        """Return how many deliveries of each gateway's webhooks got each verdict (None: not judged yet)."""
        rows = self._list(f"{self._system.payment_url}/webhooks")
        return Counter([(row["gateway"], row["verdict"]) async for row in rows])

    async def found_by_asking(self) -> Counter[str]:
        """Return of how many payments at each gateway the service learned by asking, by its own metrics.

        They begin anew when the service is started again.
        """
        url = f"{self._system.payment_url}/metrics"
        try:
            async with self._session.get(url) as answer:
                families = list(text_string_to_metric_families(await answer.text()))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Refused(f"GET {url}: {error!r}") from error
        found = Counter[str]()
        for sample in (sample for family in families for sample in family.samples):
            if sample.name == _RECONCILED and sample.labels["outcome"] == "repaired":
                found[sample.labels["gateway"]] += int(sample.value)
        return found

    async def decide(self, order_id: UUID, attempt_id: UUID, action: Literal["accept", "refund"]) -> None:
        """Decide about money that came otherwise than asked for."""
        url = f"{self._system.payment_url}/payments/{order_id}/attempts/{attempt_id}/resolve"
        body = orjson.dumps({"action": action, "reason": "seen in the demo"})
        headers = {"Idempotency-Key": f"{attempt_id}-{action}", "X-Operator": "the demo"}
        await self.ask("POST", url, "operator", body=body, headers=headers)

    # --- as a storefront --------------------------------------------------------------------------------------------

    async def publish(self, commands: Sequence[OutgoingCommand]) -> None:
        """Send commands by Kafka, again by a new publisher when it is not known what became of them.

        Raises:
            Invalid: Kafka refuses a command for good.
            Unavailable, KafkaError, OSError, TimeoutError: Kafka stays away.
        """
        began = time.monotonic()
        for tries in count(1):
            try:
                if self._publisher is None:
                    self._publisher = await self._open_publisher()
                await publish_all(self._publisher, commands)
            except Exception as error:
                is_lasting = not (isinstance(error, Unavailable) or is_kafka_error(error))
                if is_lasting or time.monotonic() - began > _TRY_SECONDS_MAX:
                    raise
            else:
                return
            await self._close_publisher()
            await asyncio.sleep(_BACKOFF.seconds(tries))

    async def go_to_till(self, order_id: UUID, gateway: GatewayName, number: int) -> str | None:
        """Start an attempt to pay; return the gateway's id of it, or None if the order can no longer be paid."""
        self.at_till += 1
        try:
            return await self._start_attempt(order_id, gateway, number)
        finally:
            self.at_till -= 1

    async def _start_attempt(self, order_id: UUID, gateway: GatewayName, number: int) -> str | None:
        url = f"{self._system.payment_url}/payments/{order_id}/attempts"
        payment_id: str | None = None
        while payment_id is None:
            # The same key asks about the same attempt. 404: the payment service has not heard of the order yet; 202, or
            # no id: the gateway has not answered yet.
            status, attempt = await self.ask(
                "POST",
                url,
                "storefront",
                body=orjson.dumps({"gateway": gateway}),
                headers={"Idempotency-Key": f"{order_id}-{number}"},
                taken={HTTPStatus.CREATED, HTTPStatus.CONFLICT},
                retried={HTTPStatus.ACCEPTED, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE},
            )
            if status == HTTPStatus.CONFLICT:
                return None
            payment_id = attempt["gateway_transaction_id"]
            await asyncio.sleep(0 if payment_id else _BACKOFF.seconds_max)
        return payment_id

    async def until_called_back(self, order_id: UUID) -> None:
        """Wait until no attempt to pay an order is wanted any more, and its gateway knows that."""
        url = f"{self._system.payment_url}/payments/{order_id}"
        while True:
            _, payment = await self.ask("GET", url, "storefront")
            if all(attempt["status"] not in _LIVE for attempt in payment["attempts"]):
                return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def cancel(self, order_id: UUID) -> None:
        """Cancel an order."""
        url = f"{self._system.order_url}/orders/{order_id}/cancel"
        await self.ask("POST", url, "storefront", body=orjson.dumps({"reason": "changed my mind"}))

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _open_publisher(self) -> Publisher:
        publisher = Publisher(self._kafka, client_id="holdfast-demo")
        await publisher.open()
        return publisher

    async def _close_publisher(self) -> None:
        if self._publisher is not None:
            await self._publisher.close()
        self._publisher = None

    async def _list(self, url: str) -> AsyncIterator[Any]:
        after = ""
        while True:
            query = f"?limit={_PAGE_ROWS}" + (f"&after={after}" if after else "")
            _, page = await self.ask("GET", url + query, "operator")
            for item in page["items"]:
                yield item
            if page["next"] is None:
                return
            after = page["next"]

    async def ask(
        self,
        method: str,
        url: str,
        scope: str | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        taken: frozenset[int] | set[HTTPStatus] = frozenset(range(200, 300)),
        retried: frozenset[int] | set[HTTPStatus] = frozenset({HTTPStatus.SERVICE_UNAVAILABLE}),
    ) -> tuple[int, Any]:
        """Return the status and the JSON of an answer, asking again while the system is away or busy.

        Raises:
            Refused: another answer, or none in time.
        """
        all_headers = {"content-type": "application/json", **(headers or {})}
        if scope is not None:
            all_headers["authorization"] = f"Bearer {self._system.tokens[scope]}"
        began, tries, heard = time.monotonic(), 0, "no answer"
        while time.monotonic() - began < _TRY_SECONDS_MAX:
            tries += 1
            try:
                async with self._session.request(method, url, data=body, headers=all_headers) as answer:
                    content = await answer.read()
                    if answer.status in taken:
                        return answer.status, orjson.loads(content)
                    heard = f"{answer.status} {content[:300].decode(errors='replace')}"
                    if answer.status not in retried:
                        break
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                heard = repr(error)
            await asyncio.sleep(_BACKOFF.seconds(tries))
        raise Refused(f"{method} {url}: {heard}")


def _receipt_lines(units: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield how many units of each SKU came, on several lines where one cannot say it."""
    for sku, quantity in units.items():
        for counted in range(0, quantity, QUANTITY_MAX):
            yield sku, min(QUANTITY_MAX, quantity - counted)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
