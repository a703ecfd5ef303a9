"""How many orders a second does the reserve stage alone hold, on one hot SKU and on many?"""

import time
from collections.abc import Sequence

from benchmarks.figures import Figure
from benchmarks.machine import Parts, parts
from deploy.local.migrations import migrations_of
from services.inventory_service import handlers
from services.inventory_service.domain.stock import Receipt
from shared import inbox
from shared.database import Database, DatabaseOptions
from shared.envelope import Message
from shared.events import OrderRequested, OrderStatus, PricedLine
from shared.ids import new_id
from shared.migrate import migrate

_BATCH = 500
_SKUS = (1, 10_000)
_UNITS = 1_000_000_000


async def measure(orders: int, runs: int) -> list[Figure]:
    """Measure one-line reservations a second in batches of 500: inbox, reservation, ledger and outbox included."""
    async with parts() as machine:
        rates: dict[int, list[float]] = {skus: [] for skus in _SKUS}
        for run in range(runs):
            for skus in _SKUS:
                rates[skus].append(await _run(machine, f"bench_{run}_{skus}", skus, orders))
    return [
        Figure("reserve stage, one hot SKU", "orders/s", rates[1]),
        Figure("reserve stage, 10,000 SKUs", "orders/s", rates[10_000]),
    ]


async def _run(machine: Parts, name: str, skus: int, orders: int) -> float:
    dsn = await machine.postgres.create_database(name, "holdfast_inventory")
    await migrate(dsn, migrations_of("inventory"))
    database = Database(DatabaseOptions(dsn=dsn))
    await database.open()
    try:
        async with database.transaction() as tx:
            units = {f"sku-{number}": _UNITS for number in range(skus)}
            await handlers.change_stock(tx, [Receipt(name, units, "bench")])
        batches = [_batch(skus, start) for start in range(0, orders, _BATCH)]
        started = time.perf_counter()
        for batch in batches:
            async with database.transaction() as tx:
                await handlers.handle(tx, await inbox.claim(tx, handlers.CONSUMER, batch))
        return orders / (time.perf_counter() - started)
    finally:
        await database.close()
        await machine.postgres.drop_database(name)


def _batch(skus: int, start: int) -> Sequence[Message[OrderRequested]]:
    return [_message(f"sku-{number % skus}") for number in range(start, start + _BATCH)]


def _message(sku: str) -> Message[OrderRequested]:
    order_id = new_id()
    event = OrderRequested(
        order_id=order_id,
        order_status=OrderStatus.REQUESTED,
        cancelled=False,
        customer_id="customer-1",
        lines=(PricedLine(sku=sku, quantity=1, unit_price_minor=1_000),),
        total_minor=1_000,
        currency="EUR",
        hold_seconds=None,
    )
    return Message(event_id=new_id(), event=event, key=str(order_id), sequence=1, redriven=False)
