"""Does the audit find every event that a topic lacks or has too much, and only those? (A12)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from deploy.local.postgres import EmbeddedPostgres
from ops.audit import AuditLimits, AuditReport, Topics, audit
from shared.ids import new_id
from shared.kafka import TopicSpec, create_topics, measure_topics
from shared.outbox import OutboxRow, insert_outbox
from shared.settings import KafkaSettings
from tests.audit_building import World, open_world
from tests.integration.streams import publish
from tests.waiting import eventually

#: How many events the order service has told of three orders of this world.
TOLD = (5, 3, 2)


@pytest.fixture(scope="module")
async def kept_world(postgres: EmbeddedPostgres, templates: dict[str, str]) -> AsyncIterator[World]:
    """An order of every kind, nothing wrong, nothing told."""
    async with open_world(postgres, templates) as world:
        yield world


@dataclass
class Told:
    """Orders whose service has told of them, and the topics it told them in."""

    world: World
    kafka: KafkaSettings
    topics: Topics
    orders: list[str]

    async def audit(self) -> AuditReport:
        """Audit the databases and the topics."""
        return await audit(self.world.dsns, topics=self.topics, limits=AuditLimits(second_look_seconds=0.01))

    async def found(self) -> list[tuple[str, str]]:
        """Return the check and the subject of each finding."""
        return [(finding.check, finding.subject) for finding in (await self.audit()).findings]

    async def count(self, database: str, key: str, last: int) -> None:
        """Set a producer's counter of a key."""
        table, column = {
            "order": ("orders", "order_id"),
            "payment": ("payments", "order_id"),
            "reservation": ("reservations", "order_id"),
            "sku": ("stock_levels", "sku"),
        }[database]
        owner = {"order": self.world.order_db, "payment": self.world.payment_db}
        statement = f"UPDATE {table} SET sequence = $2 WHERE {column} = $1"  # noqa: S608 (the names stand above)
        await self.world.corrupt(owner.get(database, self.world.inventory_db), statement, key, last)

    async def tell(self, producer: str, key: str, *numbers: int) -> None:
        """Publish events of a key with these numbers, in this order."""
        await publish(self.kafka, [event(self.topics.producers[producer], key, number) for number in numbers])


def event(topic: str, key: str, number: int) -> OutboxRow:
    """Return an event of which the audit reads the key and the number."""
    return OutboxRow(
        new_id(), topic, key.encode(), "Told.v1", number, [("ce_sequence", str(number).encode())], b"{}"
    )


@pytest.fixture
async def told(kept_world: World, kafka_settings: KafkaSettings) -> AsyncIterator[Told]:
    """Three orders, all their events in the topic."""
    suffix = new_id().hex[-12:]
    names = {name: f"{name}-{suffix}" for name in ("order", "inventory", "payment")}
    await create_topics(kafka_settings, [TopicSpec(topic, 4) for topic in names.values()])
    orders = [str(order_id) for order_id in list(kept_world.orders.values())[-len(TOLD) :]]
    for database, table in [
        (kept_world.order_db, "orders"),
        (kept_world.inventory_db, "reservations"),
        (kept_world.inventory_db, "stock_levels"),
        (kept_world.payment_db, "payments"),
    ]:
        async with database.connection() as connection:
            await connection.execute(f"UPDATE {table} SET sequence = 0")  # noqa: S608 (the names stand above)
    made = Told(kept_world, kafka_settings, Topics(kafka_settings, names), orders)
    for order_id, last in zip(orders, TOLD, strict=True):
        await made.count("order", order_id, last)
        await made.tell("order", order_id, *range(1, last + 1))
    yield made
    await kept_world.put_back()


async def test_a_topic_that_holds_all_is_clean(told: Told) -> None:
    """Every counter is met, and the events were read."""
    report = await told.audit()

    assert report.findings == []
    assert report.ok
    assert report.counted["events"] == sum(TOLD)


async def test_repeated_and_reordered_events_are_no_fault(told: Told) -> None:
    """Kafka delivers at least once, and a row that waited is sent after its successors."""
    order_id = told.orders[0]
    await told.count("order", order_id, 9)
    await told.tell("order", order_id, 2, 3, 5, 7, 9, 6, 8, 1)

    assert await told.found() == []


async def test_a_lost_event_is_found(told: Told) -> None:
    """A hole among the numbers of one key is exactly one finding, which names the number."""
    order_id = told.orders[1]
    await told.count("order", order_id, 6)
    await told.tell("order", order_id, 4, 6)

    report = await told.audit()

    assert [(finding.check, finding.subject) for finding in report.findings] == [("A12", order_id)]
    assert "lacks number 5" in report.findings[0].detail


async def test_a_lost_last_event_is_found(told: Told) -> None:
    """The topic ends before the counter does."""
    await told.count("order", told.orders[2], 3)

    assert await told.found() == [("A12", told.orders[2])]


async def test_a_key_that_was_never_told_is_found(told: Told) -> None:
    """An aggregate that has counted events, of which the topic knows nothing."""
    await told.count("payment", told.orders[0], 1)

    assert await told.found() == [("A12", told.orders[0])]


@pytest.mark.parametrize("kind", ["reservation", "sku"])
async def test_stock_is_counted_by_order_and_by_sku(told: Told, kind: str) -> None:
    """Inventory tells of both in one topic."""
    key = told.orders[0] if kind == "reservation" else "APPLE"
    await told.count(kind, key, 2)
    await told.tell("inventory", key, 1)

    assert await told.found() == [("A12", key)]

    await told.tell("inventory", key, 2)

    assert await told.found() == []


async def test_what_waits_in_the_outbox_is_not_missing(told: Told) -> None:
    """The relay has still to send it, wherever in the order of its key it stands."""
    order_id = told.orders[0]
    await told.count("order", order_id, 8)
    await told.tell("order", order_id, 7)
    rows = [event(told.topics.producers["order"], order_id, number) for number in (6, 8)]
    async with told.world.order_db.transaction() as tx:
        await insert_outbox(tx, rows)

    assert await told.found() == []


async def test_more_than_was_counted_is_found(told: Told) -> None:
    """A database that was put back to an earlier state has forgotten what the topic still tells."""
    stranger = str(UUID(int=1))
    await told.tell("order", told.orders[0], 6)
    await told.tell("order", stranger, 1)

    report = await told.audit()

    assert {(finding.check, finding.subject) for finding in report.findings} == {
        ("A12", told.orders[0]),
        ("A12", stranger),
    }


async def test_a_beginning_that_was_deleted_is_not_missing(told: Told) -> None:
    """Retention took the first events of every key; what is lost after them is still found."""
    topic = told.topics.producers["order"]
    first, second, third = told.orders
    await delete_all(told.kafka, topic)
    await told.count("order", first, 8)
    await told.tell("order", first, 6, 7, 8)
    await told.count("order", second, 6)
    await told.tell("order", second, 4, 6)

    found = await told.found()

    assert found == [("A12", second)]
    assert third not in {subject for _, subject in found}


async def delete_all(kafka: KafkaSettings, topic: str) -> None:
    """Delete what a topic holds, as retention would."""
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete  # noqa: PLC0415 (the one test that deletes)
    from aiokafka.structs import TopicPartition  # noqa: PLC0415 (the same)

    spans = (await measure_topics(kafka, [topic]))[topic]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records(
            {
                TopicPartition(topic, number): RecordsToDelete(before_offset=span.end)
                for number, span in spans.items()
            }
        )
    finally:
        await admin.close()

    async def is_empty() -> bool:
        spans = (await measure_topics(kafka, [topic]))[topic]
        return all(span.begin == span.end for span in spans.values())

    await eventually(is_empty)
