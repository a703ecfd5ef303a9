"""Do two copies of each service share the work, and does either go on when the other dies, freezes or is restarted?"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from tests.end_to_end import faults, load
from tests.end_to_end.driver import Driver, running
from tests.end_to_end.load import tell
from tests.waiting import eventually

_QUICK = aiohttp.ClientTimeout(total=1)
SERVICES = ("order", "inventory", "payment")
DRAIN_SECONDS_MAX = 10.0
SHORT = round(10 * load.PER_SECOND)
LENGTHS = [
    SHORT,
    pytest.param(round(30 * load.PER_SECOND), marks=[pytest.mark.long, pytest.mark.timeout(300)]),
]

# One line for every connection that is refused would bury everything else.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
async def pair(parts_folder: Path) -> AsyncIterator[Driver]:
    """A system with two copies of each service, which soon take a silent one for dead."""
    async with running(
        parts_folder / "pair",
        "--copies",
        "2",
        HOLDFAST_SESSION_TIMEOUT_SECONDS="6",
        HOLDFAST_KAFKA_REQUEST_TIMEOUT_SECONDS="3",
        HOLDFAST_DRAIN_SECONDS_MAX=str(DRAIN_SECONDS_MAX),
    ) as driver:
        yield driver


async def test_when_the_relay_leaders_die_the_other_copies_take_over_within_seconds(
    pair: Driver, record_property: load.RecordProperty
) -> None:
    """Each database has one leader; killed with its half of the partitions, it is followed, and nothing is lost or doubled."""
    async with load.at_work(pair) as shop:
        await eventually(lambda: _all_handle(pair), timeout_seconds=60, what="messages handled by every copy")
        before = {service: await _leader(pair, service) for service in SERVICES}
        for leader in before.values():
            await pair.kill(leader)
        killed_at = load.now()
        after = {service: await _leader(pair, service, besides=before[service]) for service in SERVICES}
        led_at = load.now()
        await shop.until_asked_for(round(load.PER_SECOND))
        await shop.check_books(pair)

    tell(
        record_property, "relay leaders killed", shop.recovery(killed_at), takeover_seconds=led_at - killed_at
    )
    assert led_at - killed_at < 10
    assert all(after[service] != before[service] for service in SERVICES)


@pytest.mark.parametrize("orders", LENGTHS)
@pytest.mark.parametrize(
    "services",
    [SERVICES, *(pytest.param((service,), marks=pytest.mark.long) for service in SERVICES)],
    ids=["all", *SERVICES],
)
async def test_what_a_frozen_copy_does_when_it_wakes_comes_to_nothing(
    pair: Driver, services: Sequence[str], orders: int, record_property: load.RecordProperty
) -> None:
    """Stopped for longer than the session time-out, a copy loses its partitions; woken up, it doubles and undoes nothing."""
    for service in services:
        await _lead(pair, service, f"{service}_service_2")
    pids = [pair.current_pid(f"{service}_service_2") for service in services]
    async with load.at_work(pair) as shop:
        with faults.frozen(*pids):
            frozen_at = load.now()
            await asyncio.gather(
                *(_leader(pair, service, besides=f"{service}_service_2") for service in services)
            )
            led_at = load.now()
            await shop.until_asked_for(orders, since=frozen_at)
            await shop.until_ended([item for item in shop.since(frozen_at) if item.asked_at < led_at])
        woken_at = load.now()
        await shop.until_asked_for(round(2 * load.PER_SECOND))
        await shop.check_books(pair)

    tell(
        record_property,
        f"second copy of {', '.join(services)} frozen",
        shop.recovery(frozen_at),
        frozen_seconds=woken_at - frozen_at,
        takeover_seconds=led_at - frozen_at,
    )


async def test_a_rolling_restart_costs_no_order_and_every_copy_drains_in_its_time(
    pair: Driver, record_property: load.RecordProperty
) -> None:
    """Under load, SIGTERM ends each copy within HOLDFAST_DRAIN_SECONDS_MAX, with status 0, and `up` starts it again."""
    drained: dict[str, float] = {}

    async def restart(part: str) -> None:
        pid, told_at = pair.current_pid(part), load.now()
        await pair.kill(part, signal.SIGTERM)
        await faults.until_gone(pid, timeout_seconds=60)
        drained[part] = load.now() - told_at
        await _until_back(pair, part)

    async with load.at_work(pair) as shop:
        began_at = load.now()
        for copy in ("", "_2"):
            await asyncio.gather(*(restart(f"{service}_service{copy}") for service in SERVICES))
        await shop.until_asked_for(round(load.PER_SECOND))
        await shop.check_books(pair)

    tell(record_property, "rolling restart", shop.recovery(began_at), **drained)
    assert max(drained.values()) < DRAIN_SECONDS_MAX
    assert not shop.refusals
    ends = pair.up.log_file.read_text()
    assert all(f"{part} died (exit code 0)" in ends for part in drained)


def _url(driver: Driver, part: str) -> str:
    service, _, copy = part.partition("_service")
    return driver.urls(service)[int(copy.removeprefix("_") or 1) - 1]


async def _metric(driver: Driver, part: str, name: str, label: str = "") -> float:
    """Return the sum of a metric of one process; 0 while it does not answer."""
    try:
        async with driver.session.get(f"{_url(driver, part)}/metrics", timeout=_QUICK) as response:
            lines = (await response.text()).splitlines()
    except (aiohttp.ClientError, TimeoutError):
        return 0.0
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and label in line)


async def _all_handle(driver: Driver) -> bool:
    """Tell whether every copy has handled messages: both members of each group have partitions."""
    parts = [f"{service}_service{copy}" for service in SERVICES for copy in ("", "_2")]
    name = "holdfast_messages_total"
    return all([await _metric(driver, part, name, 'outcome="handled"') > 0 for part in parts])


async def _leads(driver: Driver, part: str) -> bool:
    return await _metric(driver, part, "holdfast_relay_leader") == 1


async def _leader(driver: Driver, service: str, *, besides: str = "") -> str:
    """Wait until exactly one copy of a service says that it leads, and it is not a certain one; return which."""

    async def found() -> str | None:
        copies = [f"{service}_service", f"{service}_service_2"]
        leaders = [part for part in copies if await _leads(driver, part)]
        return leaders[0] if len(leaders) == 1 and leaders != [besides] else None

    return str(await eventually(found, timeout_seconds=60, what=f"one leader of {service} but {besides}"))


async def _lead(driver: Driver, service: str, wanted: str) -> None:
    """Have a certain copy lead, by restarting the other until it does."""
    leader = await _leader(driver, service)
    while leader != wanted:
        await driver.kill(leader)
        await _until_back(driver, leader)
        leader = await _leader(driver, service)


async def _until_back(driver: Driver, part: str) -> None:
    async def ready() -> bool:
        try:
            async with driver.session.get(f"{_url(driver, part)}/readyz", timeout=_QUICK) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    await eventually(ready, timeout_seconds=60, what=f"{part} ready")
