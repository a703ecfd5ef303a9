"""What does a part that goes away under load cost? Time, and nothing else."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import SERVICES, EmbeddedPostgres
from tests.end_to_end import faults, load
from tests.end_to_end.driver import FINAL, Driver, Refused, running
from tests.end_to_end.load import Load, tell
from tests.waiting import eventually

DRAIN_SECONDS_MAX = 10.0
#: How many orders come while a part is away, which is for how long it is away.
SHORT = round(8 * load.PER_SECOND)
LENGTHS = [
    SHORT,
    pytest.param(round(30 * load.PER_SECOND), marks=[pytest.mark.long, pytest.mark.timeout(300)]),
]


# One line for every connection that is refused would bury everything else.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class MachineRoom:
    """A system whose Postgres and Kafka are the test's own: it takes them away and gives them back."""

    driver: Driver
    postgres: EmbeddedPostgres
    kafka: EmbeddedKafka


@pytest.fixture(scope="module")
async def room(parts_folder: Path) -> AsyncIterator[MachineRoom]:
    """One machine room for all outages of a part."""
    async with AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(parts_folder / "room-postgres")
        kafka = EmbeddedKafka(parts_folder / "room-kafka")
        await asyncio.gather(*(stack.enter_async_context(part) for part in (postgres, kafka)))
        elsewhere = {f"HOLDFAST_{name.upper()}_DATABASE_DSN": postgres.dsn(name) for name in SERVICES}
        driver = await stack.enter_async_context(
            running(
                parts_folder / "room",
                HOLDFAST_KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers,
                HOLDFAST_DRAIN_SECONDS_MAX=str(DRAIN_SECONDS_MAX),
                # Short enough that even the shortest outage outlasts every patience.
                HOLDFAST_SESSION_TIMEOUT_SECONDS="6",
                HOLDFAST_KAFKA_REQUEST_TIMEOUT_SECONDS="3",
                HOLDFAST_GATEWAY_TIMEOUT_SECONDS="1.5",
                HOLDFAST_GATEWAY_RETRY_SECONDS_MAX="2",
                **elsewhere,
            )
        )
        yield MachineRoom(driver, postgres, kafka)


@pytest.mark.parametrize("orders", LENGTHS)
async def test_while_kafka_is_away_orders_are_accepted_and_flow_later(
    room: MachineRoom, orders: int, record_property: load.RecordProperty
) -> None:
    """HTTP orders get their 202, every service stays ready and says what it misses, and all ends well when Kafka is back."""
    async with load.at_work(room.driver) as shop:
        await faults.crash(room.kafka)
        gone_at = load.now()
        await _until_readiness(room.driver, 200, "degraded")
        await shop.until_asked_for(orders, since=gone_at)
        accepted = [item for item in shop.since(gone_at) if item.accepted_at is not None]
        await faults.bring_back(room.kafka)
        back_at = load.now()
        await _go_on(shop, room.driver, back_at)
        await _until_readiness(room.driver, 200, "ok")

    tell(record_property, "Kafka killed and away", shop.recovery(back_at), away_seconds=back_at - gone_at)
    assert len(accepted) >= orders // 2 - load.PER_SECOND
    assert not shop.refusals


@pytest.mark.parametrize("orders", LENGTHS)
async def test_while_postgres_is_away_requests_are_refused_and_webhooks_wait(
    room: MachineRoom, orders: int, record_property: load.RecordProperty
) -> None:
    """Each HTTP request gets a 503 with Retry-After, the gateway delivers its webhooks again, and everything recovers."""
    sku = await room.driver.stock(1)
    order_id = await room.driver.place(sku)
    attempt = await room.driver.attempt(order_id)
    async with load.at_work(room.driver) as shop:
        await faults.crash(room.postgres)
        gone_at = load.now()
        await room.driver.settle(attempt, "succeeded")
        await _until_readiness(room.driver, 503)
        await shop.until_asked_for(orders, since=gone_at)
        with pytest.raises(Refused) as refused:
            await room.driver.order(order_id)
        refused_webhooks = await _webhooks_answered(room.driver, 503)
        await faults.bring_back(room.postgres)
        back_at = load.now()
        await _go_on(shop, room.driver, back_at)
        await room.driver.until(order_id, "PROCESSING")
        await _until_readiness(room.driver, 200, "ok")

    tell(record_property, "Postgres killed and away", shop.recovery(back_at), away_seconds=back_at - gone_at)
    assert refused.value.status == 503
    assert refused_webhooks > 0
    assert shop.refusals[503, "POST /orders"] > 0


async def test_services_end_in_time_while_kafka_and_postgres_are_frozen(
    room: MachineRoom, record_property: load.RecordProperty
) -> None:
    """Nobody answers and nobody refuses: SIGTERM still ends each service in the promised time, and nothing is lost."""
    pids = {service: room.driver.current_pid(f"{service}_service") for service in SERVICES}
    assert room.postgres.pid is not None
    assert room.kafka.pid is not None
    drained: dict[str, float] = {}
    async with load.at_work(room.driver) as shop:
        with faults.frozen(room.postgres.pid, room.kafka.pid):
            frozen_at = load.now()
            await shop.until_asked_for(round(2 * load.PER_SECOND))

            async def end(service: str) -> None:
                told_at = load.now()
                await room.driver.kill(f"{service}_service", signal.SIGTERM)
                await faults.until_gone(pids[service], timeout_seconds=60)
                drained[service] = load.now() - told_at

            await asyncio.gather(*map(end, SERVICES))
        back_at = load.now()
        await _go_on(shop, room.driver, back_at)

    tell(
        record_property,
        "Kafka and Postgres frozen",
        shop.recovery(back_at),
        away_seconds=back_at - frozen_at,
        **drained,
    )
    assert max(drained.values()) < DRAIN_SECONDS_MAX


async def test_what_a_gateway_does_not_answer_in_time_is_settled_later(
    room: MachineRoom, record_property: load.RecordProperty
) -> None:
    """Attempts are UNKNOWN, never failed; money that came all the same counts, and the rest is asked for again."""
    driver = room.driver
    sku = await driver.stock(2)
    orders = [await driver.place(sku) for _ in range(2)]
    for order_id in orders:
        await driver.until(order_id, "AWAITING_PAYMENT")
    async with load.at_work(driver) as shop:
        turned_at = load.now()
        await _control(driver, {"create_delay_ms": 6_000})
        slow = await _start_attempt(driver, orders[0])
        await _control(driver, {"create_delay_ms": 0, "silent": True})
        silent = await _start_attempt(driver, orders[1])
        await shop.until_asked_for(SHORT // 2, since=turned_at)
        for attempt in (slow, silent):
            await driver.settle(await _known_to_the_gateway(driver, attempt), "succeeded")
        ends = [await driver.until(order_id, *FINAL) for order_id in orders]
        await _control(driver, {"silent": False})
        back_at = load.now()
        await _go_on(shop, driver, back_at)

    tell(
        record_property, "gateway slow, then silent", shop.recovery(back_at), away_seconds=back_at - turned_at
    )
    assert [(item["status"], item["gateway_transaction_id"]) for item in (slow, silent)] == [
        ("UNKNOWN", None)
    ] * 2
    assert ends == ["PROCESSING"] * 2


@dataclass(frozen=True, slots=True)
class NarrowRoom:
    """A system with two connections a service, and a small disk for Postgres, unless there is a reason against it."""

    driver: Driver
    no_disk: str | None


@pytest.fixture(scope="module")
async def narrow(parts_folder: Path) -> AsyncIterator[NarrowRoom]:
    """One system for everything that can run short."""
    data_dir = parts_folder / "narrow"
    with faults.small_disk(data_dir / "postgres") as no_disk:
        async with running(
            data_dir,
            HOLDFAST_DATABASE_POOL_SIZE_MAX="2",
            HOLDFAST_DATABASE_ACQUIRE_TIMEOUT_SECONDS="1",
            HOLDFAST_DATABASE_LOCK_TIMEOUT_SECONDS="2",
        ) as driver:
            yield NarrowRoom(driver, no_disk)


async def test_a_load_survives_the_stop_and_the_next_start_of_the_whole_system(
    narrow: NarrowRoom, record_property: load.RecordProperty
) -> None:
    """`up`, stopped in mid-load and started again on the same data, brings every order to its end."""
    up = narrow.driver.up
    async with load.at_work(narrow.driver) as shop:
        status = await up.stop()
        stopped_at = load.now()
        caught = len(shop.open)
        await up.start()
        back_at = load.now()
        await _go_on(shop, narrow.driver, back_at)

    tell(record_property, "up restarted", shop.recovery(back_at), away_seconds=back_at - stopped_at)
    assert status == 0
    assert caught > 0


async def test_an_exhausted_connection_pool_refuses_and_recovers(
    narrow: NarrowRoom, record_property: load.RecordProperty
) -> None:
    """With every connection held up, requests get 503 and nothing deadlocks; once they are free, all goes on."""
    driver = narrow.driver
    tables = {"order": "orders", "inventory": "stock_levels", "payment": "payments"}
    async with load.at_work(driver, per_second=2 * load.PER_SECOND) as shop, load.crowd(driver, 40) as crowd:
        async with AsyncExitStack() as stack:
            for service, table in tables.items():
                await stack.enter_async_context(faults.locked(driver.ready["postgres"][service], table))
            held_at = load.now()
            await crowd.until_refused()
            await shop.until_asked_for(SHORT, since=held_at)
        back_at = load.now()
        await _go_on(shop, driver, back_at)

    tell(record_property, "pool exhausted", shop.recovery(back_at), away_seconds=back_at - held_at)
    assert set(crowd.answers) <= {200, 404, 503}


@pytest.mark.mounts
async def test_a_full_disk_is_answered_by_503_and_heals(
    narrow: NarrowRoom, record_property: load.RecordProperty
) -> None:
    """Orders are refused while Postgres can write no rows, and then dies for want of its log; with room again, all goes on."""
    assert narrow.no_disk is None, f"no small file system can be mounted here: {narrow.no_disk}"
    driver = narrow.driver
    postgres = Path(driver.ready["data_dir"]) / "postgres"
    async with (
        load.at_work(driver) as shop,
        faults.superuser(driver.ready["postgres"]["order"], postgres) as admin,
    ):
        with faults.full(postgres):
            full_at = load.now()
            await _until_refused(shop, round(load.PER_SECOND))
            await faults.die_for_want_of_log(admin)
            await _until_refused(shop, 2 * round(load.PER_SECOND))
        back_at = load.now()
        await _go_on(shop, driver, back_at)

    tell(record_property, "disk full", shop.recovery(back_at), away_seconds=back_at - full_at)


async def _until_refused(shop: Load, number: int) -> None:
    """Wait until so many further orders have been answered with 503."""
    before = shop.refusals[503, "POST /orders"]
    await eventually(
        lambda: shop.refusals[503, "POST /orders"] >= before + number,
        timeout_seconds=60,
        what="orders refused",
    )


async def _control(driver: Driver, knobs: Mapping[str, object]) -> None:
    await driver.call("POST", f"{driver.ready['gateway_url']}/control", json=knobs)


async def _start_attempt(driver: Driver, order_id: UUID) -> dict[str, Any]:
    """Start an attempt and return the first answer, whatever it says."""
    url = f"{driver.ready['payment_url']}/payments/{order_id}/attempts"
    headers = {"Idempotency-Key": str(order_id)}
    answer: dict[str, Any] = await driver.call("POST", url, token="storefront", json={}, headers=headers)
    return answer


async def _known_to_the_gateway(driver: Driver, attempt: Mapping[str, Any]) -> dict[str, Any]:
    """Return an attempt with the id that the gateway has given it without our hearing of it."""
    url = f"{driver.ready['gateway_url']}/payments?reference={attempt['attempt_id']}"
    found = await driver.call("GET", url)
    return {**attempt, "gateway_transaction_id": found["items"][0]["payment_id"]}


async def _go_on(shop: Load, driver: Driver, moment: float) -> None:
    """Wait until orders that came after a moment have ended, then for all others, and check the books."""
    await shop.until_asked_for(round(load.PER_SECOND))
    await shop.until_ended(shop.since(moment), least=1)
    await shop.check_books(driver)


async def _until_readiness(driver: Driver, status: int, says: str | None = None) -> None:
    """Wait until every service answers `/readyz` with a status, and with a word if one is given."""

    async def readiness(url: str) -> tuple[int, str | None]:
        async with driver.session.get(f"{url}/readyz") as response:
            answer = await response.json(content_type=None)
            return response.status, answer["status"] if response.status == 200 else None

    async def reached() -> bool:
        urls = [url for service in SERVICES for url in driver.urls(service)]
        answers = await asyncio.gather(*map(readiness, urls))
        return set(answers) == {(status, says)}

    await eventually(reached, timeout_seconds=60, what=f"/readyz everywhere {status} {says or ''}")


async def _webhooks_answered(driver: Driver, status: int) -> int:
    """Return how many webhook deliveries the payment service has answered with a status."""
    async with driver.session.get(f"{driver.ready['payment_url']}/metrics") as response:
        lines = (await response.text()).splitlines()
    wanted = f'route="/webhooks/{{gateway}}",status="{status}"'
    counts = [line.rsplit(" ", 1)[1] for line in lines if "request_seconds_count" in line and wanted in line]
    return round(sum(map(float, counts)))
