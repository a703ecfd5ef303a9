"""Does anything get lost, doubled or stuck when a part dies in the middle of its work?"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from tests.end_to_end.driver import Driver
from tests.waiting import eventually

_ORDERS = 150


@pytest.mark.parametrize(
    "parts",
    [
        ["order_service"],
        ["inventory_service"],
        ["payment_service"],
        pytest.param(["kafka", "postgres", "sandbox"], id="what the services stand on"),
    ],
    ids="".join,
)
async def test_what_is_killed_under_load_comes_back_and_nothing_is_lost_or_doubled(
    system: Driver, parts: Sequence[str]
) -> None:
    """With orders under way in every stage, kill -9 costs time and nothing else; `up` starts again what died."""
    sku = await system.stock(_ORDERS)
    orders = await system.place_by_kafka([[sku]] * _ORDERS)
    customers = [asyncio.create_task(_buy(system, order_id)) for order_id in orders]
    await _until_some_are_paid(system, sku)

    for part in parts:
        await system.kill(part)
    ends = await asyncio.gather(*customers)

    assert set(ends) == {"PROCESSING"}
    assert await system.level(sku) == (0, 0, _ORDERS)
    report = await system.audit()
    assert report.ok, report.findings


async def _buy(system: Driver, order_id: UUID) -> str:
    attempt = await system.attempt(order_id, timeout_seconds=60)
    await system.settle(attempt, "succeeded", times=2)
    return await system.until(
        order_id, "PROCESSING", "REJECTED", "EXPIRED", "PAYMENT_FAILED", timeout_seconds=60
    )


async def _until_some_are_paid(system: Driver, sku: str) -> None:
    async def some() -> bool:
        return (await system.level(sku))[2] > _ORDERS // 10

    await eventually(some, timeout_seconds=30, what="a tenth of the orders paid")
