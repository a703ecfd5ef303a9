"""How fast does a service pass through a million events that it has handled already, and does it leave no trace?"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from statistics import median

from prometheus_client import REGISTRY

from benchmarks.figures import Figure
from benchmarks.machine import Parts, cpu_seconds, parts
from deploy.local.migrations import migrations_of
from deploy.local.postgres import role_of
from deploy.local.topics import ensure_topics
from services.inventory_service import handlers
from services.inventory_service.settings import Settings
from shared.consumer import Consumer, ConsumerLimits
from shared.database import Database, DatabaseOptions
from shared.envelope import Emitted, encode
from shared.errors import HoldfastError
from shared.events import ORDER_TOPIC, OrderRequested, OrderStatus, PricedLine
from shared.health import Health
from shared.ids import new_id
from shared.kafka import GroupConsumer, GroupLimits, Publisher, commit_offsets, measure_topics
from shared.migrate import migrate
from shared.outbox import OutboxRow

_GROUP = handlers.CONSUMER
_ROWS_AT_ONCE = 10_000
_POLL_SECONDS = 0.02


async def measure(events: int, runs: int) -> list[Figure]:
    """Measure handled events a second: a real consumer with its handler and a full inbox, and reading the topic alone."""
    plain: list[float] = []
    replayed: list[float] = []
    cpu: list[float] = []
    async with parts() as machine:
        await ensure_topics(machine.kafka_settings)
        async with _database(machine) as database:
            await _fill(machine, database, events)
            before = await _count_writes(database)
            for _ in range(runs):
                plain.append(events / await _read(machine, events))
                used = cpu_seconds(machine.postgres.pid or 0)
                replayed.append(events / await _replay(machine, database, events))
                cpu.append(cpu_seconds(machine.postgres.pid or 0) - used)
            if await _count_writes(database) != before:
                raise HoldfastError("replaying handled events has written rows")
    details = {
        # Run by run, each beside the reading that came just before it: the machine may be busier at times.
        "ratio": median(mine / theirs for mine, theirs in zip(replayed, plain, strict=True)),
        "Postgres CPU us/event": 1e6 * min(cpu) / events,
        "events": float(events),
    }
    return [
        Figure("replay of handled events", "events/s", replayed, details),
        Figure("plain reading of the same topic", "events/s", plain),
    ]


@asynccontextmanager
async def _database(machine: Parts) -> AsyncIterator[Database]:
    dsn = await machine.postgres.create_database("bench_replay", role_of("inventory"))
    await migrate(dsn, migrations_of("inventory"))
    database = Database(DatabaseOptions(dsn=dsn))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def _fill(machine: Parts, database: Database, events: int) -> None:
    """Publish orders' first events, and have the inbox know them all."""
    publisher = Publisher(machine.kafka_settings, client_id="bench")
    await publisher.open()
    try:
        for start in range(0, events, _ROWS_AT_ONCE):
            rows = [_row() for _ in range(min(_ROWS_AT_ONCE, events - start))]
            await _publish(publisher, rows)
            async with database.connection() as connection:
                await connection.copy_records_to_table(
                    "processed_events",
                    records=[(_GROUP, row.event_id, "handled") for row in rows],
                    columns=["consumer", "event_id", "outcome"],
                )
    finally:
        await publisher.close()
    async with database.connection() as connection:
        await connection.execute("VACUUM (ANALYZE) processed_events")


def _row() -> OutboxRow:
    order_id, event_id = new_id(), new_id()
    lines = tuple(PricedLine(sku=f"sku-{number}", quantity=1, unit_price_minor=1_000) for number in range(2))
    event = OrderRequested(
        order_id=order_id,
        order_status=OrderStatus.REQUESTED,
        cancelled=False,
        customer_id="customer-1",
        lines=lines,
        total_minor=2_000,
        currency="EUR",
        hold_seconds=None,
    )
    emitted = Emitted(event, str(order_id), 1, str(order_id), str(order_id))
    payload, headers = encode(emitted, event_id, datetime.now(UTC))
    raw = [(name, value.encode()) for name, value in headers]
    return OutboxRow(event_id, ORDER_TOPIC, emitted.key.encode(), event.type, 1, raw, payload)


async def _publish(publisher: Publisher, rows: Sequence[OutboxRow]) -> None:
    waiting = [*rows]
    while waiting:
        done = {*(await publisher.publish(waiting)).acknowledged}
        waiting = [row for place, row in enumerate(waiting) if place not in done]


async def _read(machine: Parts, events: int) -> float:
    """Read the topic as a new group, and return the seconds from its first record to its last."""

    async def nothing_in_hand() -> None:
        pass

    consumer = GroupConsumer(
        machine.kafka_settings,
        group=f"plain-{new_id().hex}",
        topics=[ORDER_TOPIC],
        limits=_limits().group,
        before_revoked=nothing_in_hand,
    )
    await consumer.open()
    try:
        count, started = 0, time.perf_counter()
        while count < events:
            found = await consumer.poll(0.2)
            if not count:
                started = time.perf_counter()
            count += len(found)
        return time.perf_counter() - started
    finally:
        await consumer.close()


async def _replay(machine: Parts, database: Database, events: int) -> float:
    """Have the service's own consumer read all of it from the beginning, and return the seconds it took."""
    consumer = Consumer(
        _GROUP,
        handlers.CONSUMED,
        handlers.handle,
        database=database,
        kafka=machine.kafka_settings,
        limits=_limits(),
        health=Health(),
    )
    await _rewind(machine)
    stopping = asyncio.Event()
    known = _count_duplicates()
    task = asyncio.create_task(consumer.run(stopping))
    try:
        while _count_duplicates() == known and not task.done():
            await asyncio.sleep(_POLL_SECONDS)
        started = time.perf_counter()
        while _count_duplicates() < known + events and not task.done():
            await asyncio.sleep(_POLL_SECONDS)
        return time.perf_counter() - started
    finally:
        stopping.set()
        await task


async def _rewind(machine: Parts) -> None:
    """Have the group begin at the beginning again."""
    spans = (await measure_topics(machine.kafka_settings, [ORDER_TOPIC]))[ORDER_TOPIC]
    begins = {(ORDER_TOPIC, number): span.begin for number, span in spans.items()}
    await commit_offsets(machine.kafka_settings, _GROUP, begins)


def _limits() -> ConsumerLimits:
    """Return how the services pace themselves by default."""
    fields = Settings.model_fields
    return ConsumerLimits(
        GroupLimits(records_max=fields["batch_records_max"].default),
        pause_seconds=fields["batch_pause_seconds"].default,
        pause_records_min=fields["batch_pause_records_min"].default,
    )


def _count_duplicates() -> float:
    labels = {"consumer": _GROUP, "outcome": "duplicate"}
    return REGISTRY.get_sample_value("holdfast_messages_total", labels) or 0


async def _count_writes(database: Database) -> int:
    """Return how many rows were ever written."""
    async with database.connection() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        writes: int = await connection.fetchval(
            "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables"
        )
        return writes
