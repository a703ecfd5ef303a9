"""Does `up` run the operators' console, and the shop without it?"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local import ready
from tests.end_to_end.driver import Driver, running
from tests.integration.console_harness import Page, browsing
from tests.waiting import eventually


@pytest.fixture
async def shop(parts_folder: Path) -> AsyncIterator[Driver]:
    """A whole system with its console."""
    async with running(parts_folder / "with-a-console", "--console") as driver:
        yield driver


async def test_an_operator_looks_at_a_running_shop(shop: Driver) -> None:
    """The ready line's token opens the console at the ready line's address; an order placed by HTTP can be read there. Killed, the console comes back at the same address, while the shop sells on; the session goes on."""
    url, pid = shop.ready["console_url"], shop.ready["pids"]["console"]
    sku = await shop.stock(5)
    order_id = await shop.place(sku)
    await shop.pay(order_id)
    await shop.until(order_id, "PROCESSING")

    async with browsing(url) as browser:
        await browser.post("/login", {"name": "Ada", "token": shop.ready["tokens"]["operator"]})
        before = await browser.get(f"/orders/{order_id}?kafka=1")
        await shop.kill("console")
        other = await shop.place(sku)
        await shop.until(other, "AWAITING_PAYMENT")

        async def returned() -> Page | None:
            with_console = ready.load(Path(shop.ready["data_dir"]))
            if with_console is None or with_console.pids["console"] in {None, pid}:
                return None
            return await browser.get(f"/orders/{other}")

        after = await eventually(returned, timeout_seconds=60, what="the console is back")

    assert after is not None
    assert "PROCESSING: it is paid and its goods are sold" in before.words
    assert "order.events[" in before.words
    assert (after.status, after.path) == (200, f"/orders/{other}")
    assert "AWAITING_PAYMENT" in after.words
