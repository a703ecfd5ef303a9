"""Does an order end as it should, whatever its customer, its gateway and the clock do?"""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from tests.end_to_end.driver import FINAL, Driver, Refused
from tests.waiting import eventually


@dataclass(frozen=True, slots=True)
class WalkedAway:
    """An order whose customer started a payment and left."""

    sku: str
    order_id: UUID
    attempt: Mapping[str, Any]


async def test_a_paid_order_is_confirmed_and_its_units_are_sold(system: Driver) -> None:
    """Stock is held, the gateway pays, and the hold becomes a sale."""
    sku = await system.stock(5)

    order_id = await system.place(sku, quantity=2)
    await system.pay(order_id)

    assert await system.until(order_id, *FINAL) == "PROCESSING"
    assert await system.level(sku) == (3, 0, 2)
    history = await system.call("GET", f"{system.ready['order_url']}/orders/{order_id}/history")
    assert [item["status"] for item in history["items"]] == ["REQUESTED", "AWAITING_PAYMENT", "PROCESSING"]


async def test_an_order_by_kafka_takes_the_same_way(system: Driver) -> None:
    """A PlaceOrder command ends as the same order by HTTP does, and a CancelOrder command gives the units back."""
    sku = await system.stock(2)

    paid, cancelled = await system.place_by_kafka([[sku], [sku]])
    await system.pay(paid)
    await system.until(cancelled, "AWAITING_PAYMENT")
    await system.cancel_by_kafka(cancelled)

    assert await system.until(paid, *FINAL) == "PROCESSING"
    assert await system.until(cancelled, *FINAL) == "CANCELLED"
    await system.until_level(sku, (1, 0, 1))


async def test_short_stock_rejects_the_whole_order(system: Driver) -> None:
    """One missing unit rejects every line, says what is short, and holds nothing."""
    plenty, scarce = await system.stock(10), await system.stock(1)

    order_id = await system.place(plenty, scarce, quantity=2)

    assert await system.until(order_id, *FINAL) == "REJECTED"
    order = await system.order(order_id)
    assert order["reason"] == "insufficient_stock"
    assert order["details"]["shortages"] == [{"sku": scarce, "requested": 2, "available": 1}]
    assert await system.level(plenty) == (10, 0, 0)


async def test_two_orders_for_the_last_unit_sell_it_once(system: Driver) -> None:
    """Of many orders for one unit, exactly one gets it."""
    sku = await system.stock(1)

    orders = await asyncio.gather(*(system.place(sku) for _ in range(8)))
    ends = [await system.until(order_id, "AWAITING_PAYMENT", "REJECTED") for order_id in orders]

    assert sorted(ends) == ["AWAITING_PAYMENT"] + ["REJECTED"] * 7
    assert await system.level(sku) == (0, 1, 0)


async def test_the_last_decline_gives_the_units_back(system: Driver) -> None:
    """Three declined attempts of three end the order as PAYMENT_FAILED."""
    sku = await system.stock(1)
    order_id = await system.place(sku)

    for _ in range(3):
        attempt = await system.attempt(order_id)
        await system.settle(attempt, "failed")
        await _until_attempt(system, order_id, attempt["attempt_id"], "FAILED")

    assert await system.until(order_id, *FINAL) == "PAYMENT_FAILED"
    await system.until_level(sku, (1, 0, 0))


async def test_a_cancelled_order_gives_everything_back_at_each_stage(system: Driver) -> None:
    """Cancelled at once, while it awaits payment, or when it is paid: units back, money back."""
    sku = await system.stock(3)

    at_once, waiting, paid = [await system.place(sku) for _ in range(3)]
    await system.cancel(at_once)
    await system.until(waiting, "AWAITING_PAYMENT")
    await system.cancel(waiting)
    await system.pay(paid)
    await system.until(paid, "PROCESSING")
    await system.cancel(paid)

    assert await system.until(at_once, *FINAL) == "CANCELLED"
    assert await system.until(waiting, *FINAL) == "CANCELLED"
    assert await system.until(paid, "REFUNDED") == "REFUNDED"
    await system.until_level(sku, (3, 0, 0))


async def test_a_second_success_is_refunded_and_changes_nothing_else(system: Driver) -> None:
    """Two attempts that both succeed settle the order once; the second one's money goes back."""
    sku = await system.stock(1)
    order_id = await system.place(sku)
    first, second = [await system.attempt(order_id) for _ in range(2)]

    await system.settle(first, "succeeded")
    await system.until(order_id, "PROCESSING")
    await system.settle(second, "succeeded")

    async def refunded() -> bool:
        refunds = (await system.payment(order_id))["refunds"]
        return [(item["reason"], item["status"]) for item in refunds] == [("overpayment", "SUCCEEDED")]

    await eventually(refunded, what="the second payment refunded")
    assert await system.status(order_id) == "PROCESSING"
    assert await system.level(sku) == (0, 0, 1)


async def test_a_failure_of_the_first_attempt_never_undoes_the_success_of_the_second(system: Driver) -> None:
    """Attempts have states of their own: attempt 1 failing after attempt 2 has paid is no news."""
    sku = await system.stock(1)
    order_id = await system.place(sku)
    first, second = [await system.attempt(order_id) for _ in range(2)]

    await system.settle(second, "succeeded")
    await system.until(order_id, "PROCESSING")
    await system.settle(first, "failed")

    async def judged() -> bool:
        # The second attempt calls the first one back: whichever comes first, the other one is regressive.
        return await _verdicts(system, first["attempt_id"]) in (["applied"], ["regressive"])

    await eventually(judged, what="the verdict of the failure")
    payment = await system.payment(order_id)
    assert payment["status"] == "SUCCEEDED"
    assert payment["settled_attempt_id"] == second["attempt_id"]
    assert await system.status(order_id) == "PROCESSING"
    assert await system.level(sku) == (0, 0, 1)


async def test_a_webhook_delivered_twenty_times_at_once_counts_once(system: Driver) -> None:
    """Concurrent duplicates of one success are stored, judged, and change nothing but the first."""
    sku = await system.stock(5)
    order_id = await system.place(sku, quantity=2)
    attempt = await system.attempt(order_id)

    await system.settle(attempt, "succeeded", times=20)
    await system.until(order_id, "PROCESSING")

    async def judged() -> bool:
        verdicts = await _verdicts(system, attempt["attempt_id"])
        return sorted(verdicts) == ["applied"] + ["duplicate"] * 19

    await eventually(judged, what="one applied and nineteen duplicates")
    assert await system.level(sku) == (3, 0, 2)


async def test_a_wrong_amount_is_quarantined_and_never_applied(system: Driver) -> None:
    """A success over another amount than asked for confirms nothing and refunds nothing by itself."""
    sku = await system.stock(1)
    order_id = await system.place(sku)
    attempt = await system.attempt(order_id)

    await system.settle(attempt, "succeeded", amount_minor=1)
    await _until_attempt(system, order_id, attempt["attempt_id"], "QUARANTINED")

    assert (await system.payment(order_id))["status"] == "QUARANTINED"
    assert await system.level(sku) == (0, 1, 0)
    await system.cancel(order_id)
    await system.until(order_id, "CANCELLED")


async def test_a_free_order_needs_no_gateway(system: Driver) -> None:
    """An order whose total is 0 is settled at once."""
    sku = await system.stock(1, price_minor=0)

    order_id = await system.place(sku)

    assert await system.until(order_id, *FINAL) == "PROCESSING"


async def test_cancellation_and_payment_racing_end_with_goods_or_money_never_both(system: Driver) -> None:
    """Whoever is first, a cancelled order that was paid is refunded and its units come back."""
    count = 24
    sku = await system.stock(count)
    orders = await asyncio.gather(*(system.place(sku) for _ in range(count)))
    attempts = await asyncio.gather(*(system.attempt(order_id) for order_id in orders))
    order_of_events = random.Random(7)  # noqa: S311 (an example, not a secret)

    async def race(position: int) -> None:
        steps = [system.settle(attempts[position], "succeeded"), system.cancel(orders[position])]
        order_of_events.shuffle(steps)
        await asyncio.gather(*steps)

    await asyncio.gather(*(race(position) for position in range(count)))

    for order_id in orders:
        assert await system.until(order_id, "CANCELLED", "REFUNDED") in {"CANCELLED", "REFUNDED"}
        await system.until(order_id, "REFUNDED")
    await system.until_level(sku, (count, 0, 0))


async def test_the_same_command_again_changes_nothing_and_another_content_is_refused(system: Driver) -> None:
    """The order id is the storefront's idempotency key."""
    sku = await system.stock(5)
    order_id = await system.place(sku)
    body = {"order_id": str(order_id), "customer_id": "customer-1", "currency": "EUR"}
    url, headers = f"{system.ready['order_url']}/orders", {"Idempotency-Key": f"again-{order_id}"}

    again = await system.call(
        "POST", url, json={**body, "lines": [{"sku": sku, "quantity": 1}]}, headers=headers
    )
    with pytest.raises(Refused) as refused:
        await system.call(
            "POST",
            url,
            json={**body, "lines": [{"sku": sku, "quantity": 2}]},
            headers={"Idempotency-Key": "other"},
        )

    assert again["order_id"] == str(order_id)
    assert refused.value.status == 409


async def test_a_sold_out_product_is_shown_as_such_until_it_is_replenished(system: Driver) -> None:
    """The catalog follows the stock."""
    sku = await system.stock(1)

    async def product_status() -> str:
        return str((await system.call("GET", f"{system.ready['order_url']}/products/{sku}"))["status"])

    async def sold_out() -> bool:
        return await product_status() == "OUT_OF_STOCK"

    async def back() -> bool:
        return await product_status() == "ACTIVE"

    await system.place(sku)
    await eventually(sold_out, what="OUT_OF_STOCK")
    await system.receive(sku, 3)
    await eventually(back, what="ACTIVE")


# --- customers who walk away ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
async def walked_away(system: Driver) -> dict[str, WalkedAway]:
    """Orders of one unit each, made before the other tests: while those run, nobody pays, and the holds end."""

    async def walk_away() -> WalkedAway:
        sku = await system.stock(1)
        order_id = await system.place(sku, hold_seconds=10)
        return WalkedAway(sku, order_id, await system.attempt(order_id))

    names = ("unpaid", "paid late", "paid too late")
    return dict(zip(names, await asyncio.gather(*(walk_away() for _ in names)), strict=True))


async def test_a_hold_that_is_not_paid_ends(system: Driver, walked_away: dict[str, WalkedAway]) -> None:
    """The sweeper releases a hold whose customer walked away, though no gateway ever speaks."""
    hold = walked_away["unpaid"]

    assert await system.until(hold.order_id, *FINAL, timeout_seconds=30) == "EXPIRED"
    await system.until_level(hold.sku, (1, 0, 0))


async def test_late_money_takes_the_units_again_if_they_are_there(
    system: Driver, walked_away: dict[str, WalkedAway]
) -> None:
    """A success after expiry confirms the order when its units are still available."""
    hold = walked_away["paid late"]
    await system.until(hold.order_id, "EXPIRED", timeout_seconds=30)

    await system.settle(hold.attempt, "succeeded")

    assert await system.until(hold.order_id, "PROCESSING") == "PROCESSING"
    assert await system.level(hold.sku) == (0, 0, 1)


async def test_late_money_goes_back_if_the_units_are_gone(
    system: Driver, walked_away: dict[str, WalkedAway]
) -> None:
    """A success after expiry is refunded when somebody else has bought the units."""
    hold = walked_away["paid too late"]
    await system.until(hold.order_id, "EXPIRED", timeout_seconds=30)
    other = await system.place(hold.sku)
    await system.pay(other)
    await system.until(other, "PROCESSING")

    await system.settle(hold.attempt, "succeeded")

    assert await system.until(hold.order_id, "REFUNDED") == "REFUNDED"
    assert await system.level(hold.sku) == (0, 0, 1)


# --- looking --------------------------------------------------------------------------------------------------------


async def _until_attempt(system: Driver, order_id: object, attempt_id: str, status: str) -> None:
    async def reached() -> bool:
        payment = await system.call("GET", f"{system.ready['payment_url']}/payments/{order_id}")
        return any(
            item["attempt_id"] == attempt_id and item["status"] == status for item in payment["attempts"]
        )

    await eventually(reached, what=f"attempt {attempt_id} {status}")


async def _verdicts(system: Driver, attempt_id: str) -> list[str]:
    """Return the verdicts of the deliveries that name an attempt."""
    verdicts, after = [], ""
    while True:
        query = f"?limit=1000{f'&after={after}' if after else ''}"
        page = await system.call("GET", f"{system.ready['payment_url']}/webhooks{query}")
        verdicts += [item["verdict"] for item in page["items"] if item.get("attempt_id") == attempt_id]
        after = page["next"]
        if after is None:
            return verdicts
