"""Can a storefront rely on the running system: carts, keys, waiting, and the page that explains them?"""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from shared.commands import command, send
from shared.events import PlaceOrder
from shared.ids import new_id
from tests.end_to_end.driver import FINAL, Driver
from tests.waiting import eventually

PAGE = Path(__file__).parent.parent.parent / "docs" / "storefront.md"


async def ask(
    system: Driver, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Ask the order service as a storefront; header names are written with underscores."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent["Authorization"] = f"Bearer {system.ready['tokens']['storefront']}"
    url = f"{system.ready['order_url']}{path}"
    async with system.session.request(method, url, json=body, headers=sent) as response:
        return response.status, await response.json(), dict(response.headers)


async def fill_cart(system: Driver, *skus: str) -> str:
    """Put one unit of each SKU in a new cart, and return its id."""
    cart_id = f"cart-{new_id().hex}"
    for sku in skus:
        assert (await ask(system, "PUT", f"/carts/{cart_id}/items/{sku}", {"quantity": 1}))[0] == 201
    return cart_id


async def cart_of(system: Driver, cart_id: str) -> tuple[list[str], str]:
    """Return the SKUs in a cart, and its status."""
    _, cart, _ = await ask(system, "GET", f"/carts/{cart_id}")
    return [item["sku"] for item in cart["items"]], cart["status"]


def body_of(**fields: Any) -> dict[str, Any]:
    """Return the body of an order."""
    return {"customer_id": f"customer-{new_id().hex}", "currency": "EUR", **fields}


async def test_an_order_from_a_cart_takes_the_whole_way_and_empties_it(system: Driver) -> None:
    """Placed by HTTP, answered when its stock is held, paid and sold; the cart is open and empty from then on."""
    first, second = sorted([await system.stock(5), await system.stock(5)])
    cart_id = await fill_cart(system, first, second)

    status, order, _ = await ask(
        system, "POST", "/orders", body_of(cart_id=cart_id), Idempotency_Key=cart_id, Prefer="wait=20"
    )
    decided = await cart_of(system, cart_id)
    await system.pay(UUID(order["order_id"]))

    assert (status, order["status"]) == (201, "AWAITING_PAYMENT")
    assert [line["sku"] for line in order["lines"]] == [first, second]
    assert decided == ([], "OPEN")
    assert await system.until(UUID(order["order_id"]), *FINAL) == "PROCESSING"
    await system.until_level(first, (4, 0, 1))


async def test_a_cart_comes_back_from_an_order_that_is_rejected(system: Driver) -> None:
    """Short stock answers 201 with the shortages, and the cart is open with its items: the rest can be ordered."""
    there, gone = sorted([await system.stock(1), await system.stock(0)])
    cart_id = await fill_cart(system, there, gone)

    status, order, _ = await ask(
        system, "POST", "/orders", body_of(cart_id=cart_id), Idempotency_Key=cart_id, Prefer="wait=20"
    )
    back = await cart_of(system, cart_id)
    short = order["details"]["shortages"][0]["sku"]
    await ask(system, "DELETE", f"/carts/{cart_id}/items/{short}")
    _, second, _ = await ask(
        system, "POST", "/orders", body_of(cart_id=cart_id), Idempotency_Key="2" + cart_id, Prefer="wait=20"
    )

    assert (status, order["status"], order["reason"]) == (201, "REJECTED", "insufficient_stock")
    assert back == ([there, gone], "OPEN")
    assert second["status"] == "AWAITING_PAYMENT"


async def test_a_cart_is_ordered_by_kafka_once(system: Driver) -> None:
    """The first command empties the cart when its stock is held; a second one finds it empty and is REJECTED."""
    sku = await system.stock(5)
    cart_id = await fill_cart(system, sku)
    models = [
        PlaceOrder(order_id=new_id(), customer_id="customer-1", currency="EUR", cart_id=cart_id)
        for _ in range(2)
    ]

    await send(system.kafka, [command(model) for model in models[:1]])
    first = await system.until(models[0].order_id, "AWAITING_PAYMENT")
    await send(system.kafka, [command(model) for model in models[1:]])
    second = await system.until(models[1].order_id, *FINAL)

    assert (first, second) == ("AWAITING_PAYMENT", "REJECTED")
    assert (await system.order(models[1].order_id))["reason"] == "empty_cart"
    assert await cart_of(system, cart_id) == ([], "OPEN")
    assert await system.level(sku) == (4, 1, 0)


async def test_twenty_first_calls_with_one_key_are_one_order_and_one_attempt(system: Driver) -> None:
    """Placed, and then paid for, by twenty impatient requests at once: one order, one answer, one payment."""
    sku = await system.stock(50)
    key, body = str(new_id()), body_of(lines=[{"sku": sku, "quantity": 1}])

    placed = await asyncio.gather(
        *(ask(system, "POST", "/orders", body, Idempotency_Key=key, Prefer="wait=20") for _ in range(20))
    )
    order_id = UUID(placed[0][1]["order_id"])
    first = await system.attempt(order_id)
    attempts = await asyncio.gather(*(start_attempt(system, order_id, key) for _ in range(20)))

    assert {status for status, _, _ in placed} == {201}
    assert all(order == placed[0][1] for _, order, _ in placed)
    assert sum("Idempotency-Replayed" not in headers for _, _, headers in placed) == 1
    assert await system.level(sku) == (49, 1, 0)
    assert len({attempt["attempt_id"] for attempt in attempts} - {first["attempt_id"]}) == 1
    assert len((await system.payment(order_id))["attempts"]) == 2


async def start_attempt(system: Driver, order_id: UUID, key: str) -> Any:
    """Start a payment attempt under a key."""
    return await system.call(
        "POST",
        f"{system.ready['payment_url']}/payments/{order_id}/attempts",
        token="storefront",
        json={},
        headers={"Idempotency-Key": key},
    )


async def test_an_order_is_followed_without_polling(system: Driver) -> None:
    """Each request waits for the next version: from placed to sold, every step is seen as it is made."""
    sku = await system.stock(5)
    order_id = await system.place(sku)
    seen: list[str] = []

    async def follow() -> None:
        version = 0
        while not seen or seen[-1] not in FINAL:
            path = f"/orders/{order_id}?after_version={version}&wait=30"
            _, order, _ = await ask(system, "GET", path)
            version = order["version"]
            seen.append(order["status"])

    following = asyncio.create_task(follow())
    await system.pay(order_id)
    async with asyncio.timeout(20):
        await following

    assert seen[-1] == "PROCESSING"
    assert 2 <= len(seen) <= 3


async def test_a_customer_finds_all_orders_page_by_page(system: Driver) -> None:
    """The list has a customer's orders alone, page by page without gap or repetition."""
    sku = await system.stock(20)
    body = body_of(lines=[{"sku": sku, "quantity": 1}])
    placed = [
        (await ask(system, "POST", "/orders", body, Idempotency_Key=str(new_id())))[1]["order_id"]
        for _ in range(5)
    ]

    found: list[str] = []
    after = ""
    while True:
        path = f"/orders?customer_id={body['customer_id']}&limit=2{after}"
        _, part, _ = await ask(system, "GET", path)
        found += [order["order_id"] for order in part["items"]]
        if part["next"] is None:
            break
        after = f"&after={part['next']}"

    assert found == placed


async def test_the_storefront_page_runs_as_it_stands(system: Driver, tmp_path: Path) -> None:
    """Its Python blocks, one after the other in a fresh process, place, pay and follow an order in both ways."""
    script = "\n\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    (tmp_path / "shop.py").write_text(script)
    (tmp_path / ".holdfast").symlink_to(system.ready["data_dir"])

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "shop.py"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()

    said = output.decode().splitlines()
    assert process.returncode == 0, errors.decode()
    assert said[1].startswith("201 AWAITING_PAYMENT ")
    assert "3 PROCESSING" in said
    assert said[-1] == "OrderConfirmed.v1"


async def test_the_system_is_consistent_after_all_that(system: Driver) -> None:
    """The audit finds nothing, as soon as what is under way has settled."""

    async def is_clean() -> bool:
        return (await system.audit()).ok

    await eventually(is_clean, timeout_seconds=30)
