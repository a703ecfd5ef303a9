"""How does a test act as a storefront, a customer, a gateway and an operator of a running system, from outside?"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID

import aiohttp
import orjson

from ops.audit import AuditReport, audit
from shared.commands import command, send
from shared.events import CancelOrder, OrderedLine, PlaceOrder
from shared.ids import new_id
from shared.settings import KafkaSettings
from tests.waiting import eventually

T = TypeVar("T")

HOLDFAST = Path(sys.executable).with_name("holdfast")
_READY_SECONDS_MAX = 60.0
FINAL = frozenset({"PROCESSING", "REJECTED", "PAYMENT_FAILED", "EXPIRED", "CANCELLED", "REFUNDED"})


class Refused(Exception):
    """The system answered with an error."""

    def __init__(self, status: int, problem: Any) -> None:
        super().__init__(f"{status}: {problem}")
        self.status = status
        self.problem = problem


class Driver:
    """Everything that the outside world does to one running system."""

    def __init__(self, up: "Up", ready: Mapping[str, Any], session: aiohttp.ClientSession) -> None:
        self.up = up
        self.ready = ready
        self.session = session
        self.kafka = KafkaSettings(bootstrap_servers=ready["kafka_bootstrap_servers"])

    # --- storefront -------------------------------------------------------------------------------------------------

    async def call(self, method: str, url: str, *, token: str = "operator", **options: Any) -> Any:  # noqa: S107
        """Send a request and return the JSON of its answer; raise `Refused` for 4xx and 5xx."""
        headers = {"Authorization": f"Bearer {self.ready['tokens'][token]}", **options.pop("headers", {})}
        async with self.session.request(method, url, headers=headers, **options) as response:
            body = await response.read()
            answer = orjson.loads(body) if body else None
            if response.status >= 400:
                raise Refused(response.status, answer)
            return answer

    async def stock(self, quantity: int, *, price_minor: int = 1_000, sku: str | None = None) -> str:
        """Put a product on sale with so many units of stock (0: none) and return its SKU."""
        sku = sku or f"sku-{new_id().hex}"
        product = {"name": sku, "price_minor": price_minor, "currency": "EUR"}
        await self.call("PUT", f"{self.ready['order_url']}/products/{sku}", json=product)
        if quantity:
            await self.receive(sku, quantity)
        return sku

    async def receive(self, sku: str, quantity: int) -> None:
        """Receive units of a SKU."""
        receipt = {"receipt_id": f"receipt-{new_id().hex}", "lines": [{"sku": sku, "quantity": quantity}]}
        await self.call("POST", f"{self.ready['inventory_url']}/stock/receipts", json=receipt)

    async def place(self, *skus: str, quantity: int = 1, hold_seconds: int | None = None) -> UUID:
        """Place an order by HTTP and return its id."""
        order_id = new_id()
        body: dict[str, Any] = {
            "order_id": str(order_id),
            "customer_id": "customer-1",
            "currency": "EUR",
            "lines": [{"sku": sku, "quantity": quantity} for sku in skus],
        }
        if hold_seconds is not None:
            body["hold_seconds"] = hold_seconds
        await self.call(
            "POST",
            f"{self.ready['order_url']}/orders",
            token="storefront",
            json=body,
            headers={"Idempotency-Key": str(order_id)},
        )
        return order_id

    async def place_by_kafka(
        self, orders: Sequence[Sequence[str]], *, hold_seconds: int | None = None
    ) -> list[UUID]:
        """Publish a PlaceOrder command for each list of SKUs and return the order ids."""
        models = [
            PlaceOrder(
                order_id=new_id(),
                customer_id="customer-1",
                currency="EUR",
                lines=tuple(OrderedLine(sku=sku, quantity=1) for sku in skus),
                hold_seconds=hold_seconds,
            )
            for skus in orders
        ]
        await send(self.kafka, [command(model) for model in models])
        return [model.order_id for model in models]

    async def cancel(self, order_id: UUID) -> None:
        """Cancel an order by HTTP."""
        url = f"{self.ready['order_url']}/orders/{order_id}/cancel"
        await self.call("POST", url, token="storefront", json={"reason": "changed my mind"})

    async def cancel_by_kafka(self, order_id: UUID) -> None:
        """Publish a CancelOrder command."""
        await send(self.kafka, [command(CancelOrder(order_id=order_id, reason="changed my mind"))])

    async def order(self, order_id: UUID) -> dict[str, Any]:
        """Return the order as its customer sees it."""
        answer: dict[str, Any] = await self.call(
            "GET", f"{self.ready['order_url']}/orders/{order_id}", token="storefront"
        )
        return answer

    async def status(self, order_id: UUID) -> str | None:
        """Return the status of an order; None if it is not known (yet)."""
        try:
            return str((await self.order(order_id))["status"])
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def until(self, order_id: UUID, *statuses: str, timeout_seconds: float = 20.0) -> str:
        """Wait until an order has one of the statuses, and return which."""

        async def reached() -> str | None:
            status = await self.status(order_id)
            return status if status in statuses else None

        what = f"order {order_id} in {', '.join(statuses)}"
        return await self._persist(reached, what, timeout_seconds, passing={503}) or ""

    # --- customer and gateway ---------------------------------------------------------------------------------------

    async def attempt(self, order_id: UUID, *, timeout_seconds: float = 20.0) -> dict[str, Any]:
        """Start a payment attempt as soon as the order may be paid, however often the service is away meanwhile."""
        key = str(new_id())
        url = f"{self.ready['payment_url']}/payments/{order_id}/attempts"

        async def started() -> dict[str, Any] | None:
            answer: dict[str, Any] = await self.call(
                "POST", url, token="storefront", json={}, headers={"Idempotency-Key": key}
            )
            return answer if answer["gateway_transaction_id"] else None

        attempt = await self._persist(
            started, f"an attempt for {order_id}", timeout_seconds, passing={404, 503}
        )
        assert attempt is not None
        return attempt

    async def settle(self, attempt: Mapping[str, Any], outcome: str, **options: Any) -> None:
        """Have the gateway send its webhook about an attempt, however often the gateway is away meanwhile."""
        payment = attempt["gateway_transaction_id"]
        url = f"{self.ready['gateway_url']}/payments/{payment}/settle"

        async def settled() -> bool:
            await self.call("POST", url, json={"outcome": outcome, **options})
            return True

        await self._persist(settled, f"{payment} {outcome}", 30.0, passing={503})

    async def _persist(
        self,
        action: Callable[[], Awaitable[T]],
        what: str,
        timeout_seconds: float,
        *,
        passing: Collection[int],
    ) -> T:
        """Do something again as long as nobody answers, or with an error that passes by itself."""
        last: object = None

        async def tried() -> T | None:
            nonlocal last
            try:
                return await action()
            except (aiohttp.ClientError, TimeoutError) as error:
                last = error
            except Refused as refused:
                if refused.status not in passing:
                    raise
                last = refused
            return None

        done = await eventually(tried, timeout_seconds=timeout_seconds, what=f"{what} (last: {last!r})")
        assert done is not None
        return done

    async def pay(self, order_id: UUID) -> dict[str, Any]:
        """Pay an order and return the attempt."""
        attempt = await self.attempt(order_id)
        await self.settle(attempt, "succeeded")
        return attempt

    async def payment(self, order_id: UUID) -> dict[str, Any]:
        """Return the payment of an order with its attempts and refunds."""
        answer: dict[str, Any] = await self.call("GET", f"{self.ready['payment_url']}/payments/{order_id}")
        return answer

    # --- operator ---------------------------------------------------------------------------------------------------

    async def level(self, sku: str) -> tuple[int, int, int]:
        """Return available, reserved and sold units of a SKU."""
        answer = await self.call("GET", f"{self.ready['inventory_url']}/stock/{sku}")
        return answer["available"], answer["reserved"], answer["sold"]

    async def until_level(self, sku: str, level: tuple[int, int, int]) -> None:
        """Wait until a SKU stands at (available, reserved, sold)."""

        async def reached() -> bool:
            return await self.level(sku) == level

        await eventually(reached, what=f"{sku} at {level}")

    async def audit(self) -> AuditReport:
        """Audit the three databases."""
        return await audit(self.ready["postgres"])

    async def kill(self, part: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a part; `up` starts it again."""
        pid = self.current_pid(part)
        os.kill(pid, number)

    def current_pid(self, part: str) -> int:
        """Return the process id of a part as it runs now: its pid file is written anew at each of its starts."""
        data_dir = Path(self.ready["data_dir"])
        folder = part if part in {"postgres", "kafka"} else "run"
        return int((data_dir / folder / f"{part}.pid").read_text().split()[0])

    def urls(self, service: str) -> list[str]:
        """Return where each copy of a service (`order`, `inventory`, `payment`) answers, the first copy first."""
        ports = orjson.loads((Path(self.ready["data_dir"]) / "ports.json").read_bytes())
        first = f"{service}_service"
        copies = sorted(name for name in self.ready["pids"] if name == first or name.startswith(f"{first}_"))
        return [f"http://127.0.0.1:{ports[name]}" for name in copies]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()


class Up:
    """A `holdfast up` in a process of its own, which may be stopped and started again on its data."""

    def __init__(self, data_dir: Path, options: Sequence[str], settings: Mapping[str, str]) -> None:
        self.log_file = data_dir.with_suffix(".log")
        # A process less to start, where nobody looks at it.
        console = [] if "--console" in options else ["--no-console"]
        self._command = [
            str(HOLDFAST),
            "up",
            "--ports",
            "auto",
            "--data-dir",
            str(data_dir),
            *console,
            *options,
        ]
        self._environment = {**os.environ, **settings}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> dict[str, Any]:
        """Start it and return its ready line."""
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=asyncio.subprocess.PIPE, stderr=log, env=self._environment
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(_READY_SECONDS_MAX):
            line = await self._process.stdout.readline()
        assert line, f"up ended: {self.log_file.read_text()[-4_000:]}"
        ready: dict[str, Any] = orjson.loads(line)
        return ready

    async def stop(self) -> int:
        """Stop it in order and return its exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()


@asynccontextmanager
async def running(data_dir: Path, *options: str, **settings: str) -> AsyncIterator[Driver]:
    """Run `holdfast up` with options and settings, and lend a driver; stop it in order at the end."""
    up = Up(data_dir, options, settings)
    try:
        ready = await up.start()
        timeout = aiohttp.ClientTimeout(total=30)
        async with Driver(up, ready, aiohttp.ClientSession(timeout=timeout)) as driver:
            yield driver
    finally:
        await up.stop()
