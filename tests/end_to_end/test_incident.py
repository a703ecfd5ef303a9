"""Do operators get through an incident? A bug poisons 500 events; it is fixed, they are sent again, and all is right."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.database import connect
from tests.end_to_end.driver import Driver
from tests.end_to_end.test_commands import on_the_system
from tests.waiting import eventually

_POISONED = 500
_NEIGHBOURS = 100
#: Of the poisoned orders, how many customers still want theirs.
_PAID = 100
_LETTERS = "order.events.inventory-service.dlq"


async def test_a_bug_that_poisons_500_events_is_survived(system: Driver) -> None:
    """The poisoned become dead letters and their neighbours are sold; fixed and redriven, nothing is lost or doubled."""
    since = ["--since", datetime.now(UTC).isoformat()]
    poisoned_sku, sound_sku = await system.stock(_POISONED), await system.stock(_NEIGHBOURS)

    async with a_bug(system, poisoned_sku):
        poisoned, sound = await place_mixed(system, poisoned_sku, sound_sku)
        await pay_all(system, sound)
        await until_waiting(system, since)
        await system.until_level(sound_sku, (0, 0, _NEIGHBOURS))
        untouched = await system.level(poisoned_sku)

    assert untouched == (_POISONED, 0, 0)
    lag_status, lag = await on_the_system(system, "lag")
    explained = await on_the_system(system, "audit", "--explain", str(poisoned[0]))
    letters = ["dlq", "redrive", _LETTERS, "--reason", "handler_failed", *since]
    planned = await on_the_system(system, *letters)

    redriven = await on_the_system(system, *letters, "--because", "the bug is fixed", "--execute", "--yes")
    await system.until_level(poisoned_sku, (0, _POISONED, 0))
    await pay_all(system, poisoned[:_PAID])
    await system.until_level(poisoned_sku, (0, _POISONED - _PAID, _PAID))
    replayed = await on_the_system(
        system, "replay", "--topic", "order.events", "--sku", poisoned_sku, "--execute", "--yes"
    )
    await until_read(system)
    left = await on_the_system(system, "dlq", "list", _LETTERS, *since)
    audited = await on_the_system(system, "audit", "--kafka")

    # While it lasts, every tool points at it; nothing that looks changes anything.
    assert lag_status == 1
    assert [measure["what"] for measure in lag["measures"] if not measure["ok"]] == [
        "dead letters not redriven"
    ]
    assert any("a bug" in fact for check in explained[1]["checks"] for fact in check["facts"])
    assert (planned[1]["executed"], len(planned[1]["letters"])) == (False, _POISONED)
    # Sent again, each is handled once; heard once more, none changes anything.
    assert (redriven[0], [result["published"] for result in redriven[1]["results"]]) == (0, [_POISONED])
    assert replayed[0] == 0
    inventory = next(item for item in replayed[1]["consumers"] if item["consumer"] == "inventory-service")
    assert (inventory["applied"], inventory["refused"]) == (0, 0)
    assert await system.level(poisoned_sku) == (0, _POISONED - _PAID, _PAID)
    assert (left[0], waiting_of(left[1])) == (0, 0)
    assert audited == (0, {**audited[1], "ok": True, "findings": []})


@asynccontextmanager
async def a_bug(system: Driver, sku: str) -> AsyncIterator[None]:
    """Have inventory fail at whatever it is asked of one SKU, until the bug is fixed."""
    connection = await connect(system.ready["postgres"]["inventory"])
    try:
        await connection.execute(
            "CREATE FUNCTION a_bug() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'a bug'; END $$"
        )
        # The SKU is one that the test has just made of hexadecimal digits.
        await connection.execute(
            f"CREATE TRIGGER a_bug BEFORE INSERT ON reservation_lines FOR EACH ROW WHEN (NEW.sku = '{sku}') "
            "EXECUTE FUNCTION a_bug()"
        )
        yield
        await connection.execute("DROP TRIGGER a_bug ON reservation_lines")
        await connection.execute("DROP FUNCTION a_bug")
    finally:
        await connection.close()


async def place_mixed(
    system: Driver, poisoned_sku: str, sound_sku: str
) -> tuple[Sequence[UUID], Sequence[UUID]]:
    """Place orders of both kinds, one among five of the other, so that every batch has both."""
    every = (_POISONED + _NEIGHBOURS) // _NEIGHBOURS
    skus = [
        [sound_sku] if number % every == 0 else [poisoned_sku] for number in range(_POISONED + _NEIGHBOURS)
    ]
    ids = await system.place_by_kafka(skus)
    return (
        [order_id for order_id, (sku,) in zip(ids, skus, strict=True) if sku == poisoned_sku],
        [order_id for order_id, (sku,) in zip(ids, skus, strict=True) if sku == sound_sku],
    )


def waiting_of(listed: Any) -> int:
    """Return how many dead letters of a list wait for somebody."""
    return sum(group["waiting"] for group in listed["summary"])


async def until_waiting(system: Driver, since: Sequence[str]) -> None:
    """Wait until every poisoned event is a dead letter."""

    async def waiting() -> bool:
        _, listed = await on_the_system(system, "dlq", "list", _LETTERS, *since, "--limit", "1")
        return waiting_of(listed) == _POISONED

    await eventually(waiting, timeout_seconds=60, what=f"{_POISONED} dead letters")


async def pay_all(system: Driver, orders: Sequence[UUID]) -> None:
    """Have every order paid, some at a time."""
    some = asyncio.Semaphore(50)

    async def pay(order_id: UUID) -> None:
        async with some:
            await system.pay(order_id)

    await asyncio.gather(*(pay(order_id) for order_id in orders))


async def until_read(system: Driver) -> None:
    """Wait until every group has read its topics to their ends."""

    async def is_read() -> bool:
        _, lag = await on_the_system(system, "lag")
        behind = [measure["value"] for measure in lag["measures"] if measure["what"] == "consumer lag"]
        return not any(behind)

    await eventually(is_read, timeout_seconds=30, what="everything is read")
