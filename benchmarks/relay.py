"""How many events a second leave an outbox, beside a producer that has nothing to read and nothing to delete?"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.figures import Figure
from benchmarks.machine import Parts, parts
from deploy.local.migrations import migrations_of
from deploy.local.topics import ensure_topics
from shared import outbox
from shared.commands import publish_all
from shared.database import Database, DatabaseOptions, connect
from shared.envelope import Emitted
from shared.events import OrderExpired, OrderStatus
from shared.health import Health
from shared.ids import new_id
from shared.kafka import Publisher
from shared.migrate import migrate
from shared.outbox import OutboxRow
from shared.relay import Relay

_ROWS_AT_ONCE = 1_000
_LOOK_SECONDS = 0.01


async def measure(events: int, runs: int) -> list[Figure]:
    """Measure a full outbox being emptied, and the very same rows sent by a producer alone, as ratios."""
    async with parts() as machine:
        await ensure_topics(machine.kafka_settings)
        relayed, produced = [], []
        for run in range(runs):
            rate, plain = await _run(machine, f"bench_relay_{run}", events)
            relayed.append(rate)
            produced.append(plain)
        ratios = sorted(rate / plain for rate, plain in zip(relayed, produced, strict=True))
        return [
            Figure("relay, a full outbox", "events/s", relayed, {"ratio": ratios[len(ratios) // 2]}),
            Figure("producer alone, the same rows", "events/s", produced, {"ratio": 1.0}),
        ]


async def _run(machine: Parts, name: str, events: int) -> tuple[float, float]:
    dsn = await machine.postgres.create_database(name, "holdfast_order")
    await migrate(dsn, migrations_of("order"))
    database = Database(DatabaseOptions(dsn=dsn))
    await database.open()
    try:
        for _ in range(0, events, _ROWS_AT_ONCE):
            async with database.transaction() as tx:
                await outbox.add(tx, [_event() for _ in range(_ROWS_AT_ONCE)], at=datetime.now(UTC))
        rows = await _list_all(dsn, events)
        produced = len(rows) / await _produce(machine, rows)
        return len(rows) / await _relay(machine, dsn), produced
    finally:
        await database.close()
        await machine.postgres.drop_database(name)


async def _list_all(dsn: str, events: int) -> list[OutboxRow]:
    connection = await connect(dsn)
    try:
        return [row for _, row in await outbox.list_outbox(connection, events + _ROWS_AT_ONCE)]
    finally:
        await connection.close()


async def _produce(machine: Parts, rows: Sequence[OutboxRow]) -> float:
    """Return the seconds that a producer needs for rows that it has at hand."""
    publisher = Publisher(machine.kafka_settings, client_id="bench-producer")
    await publisher.open()
    try:
        started = time.perf_counter()
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            await publish_all(publisher, rows[first : first + _ROWS_AT_ONCE])
        return time.perf_counter() - started
    finally:
        await publisher.close()


async def _relay(machine: Parts, dsn: str) -> float:
    """Return the seconds from the start of a relay until its outbox is empty."""
    relay = Relay(dsn, machine.kafka_settings, name="bench", health=Health())
    stopping = asyncio.Event()
    watching = await connect(dsn)
    try:
        started = time.perf_counter()
        running = asyncio.create_task(relay.run(stopping))
        while await watching.fetchval("SELECT EXISTS (SELECT FROM outbox)"):
            await asyncio.sleep(_LOOK_SECONDS)
        seconds = time.perf_counter() - started
        stopping.set()
        await running
        return seconds
    finally:
        await watching.close()


def _event() -> Emitted:
    order_id = new_id()
    event = OrderExpired(
        order_id=order_id, order_status=OrderStatus.EXPIRED, cancelled=False, reason="expired"
    )
    return Emitted(event, str(order_id), 1, str(new_id()), str(order_id))
