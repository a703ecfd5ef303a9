"""Does `holdfast lag` count what waits, judge it by its limits, and say what to do where nobody answers?"""

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from rich.console import Console

from deploy.local.postgres import EmbeddedPostgres, role_of
from deploy.local.topics import ensure_topics
from ops.actions import record_action
from ops.lag import LagLimits, LagReport, measure_lag, render_lag
from ops.place import Place
from shared.events import ORDER_TOPIC
from shared.ids import new_id
from shared.kafka import GroupConsumer, GroupLimits
from shared.outbox import insert_outbox
from shared.settings import KafkaSettings
from tests.audit_building import World, open_world
from tests.integration.streams import publish, row
from tests.waiting import eventually

GRACE_SECONDS = 60.0


@pytest.fixture(scope="module")
async def kept_world(postgres: EmbeddedPostgres, templates: dict[str, str]) -> AsyncIterator[World]:
    """An order of every kind."""
    async with open_world(postgres, templates) as world:
        yield world


@pytest.fixture
async def world(kept_world: World) -> AsyncIterator[World]:
    """The same, to be changed; put back afterwards."""
    yield kept_world
    await kept_world.put_back()


@pytest.fixture
async def where(world: World, kafka_settings: KafkaSettings) -> Place:
    """The three databases and Kafka with every topic."""
    await ensure_topics(kafka_settings)
    return Place(world.dsns, kafka_settings)


async def measured(where: Place, **limits: Any) -> LagReport:
    """Measure."""
    return await measure_lag(where, LagLimits(**limits), hold_grace_seconds=GRACE_SECONDS)


def value(report: LagReport, what: str, of: str) -> float:
    """Return one number of a report."""
    (found,) = [measure.value for measure in report.measures if (measure.what, measure.of) == (what, of)]
    return found


def beyond(report: LagReport) -> set[tuple[str, str]]:
    """Return what is beyond its limit."""
    return {(measure.what, measure.of) for measure in report.measures if not measure.ok}


async def run(world: World, owner: str, statement: str, *values: Any) -> None:
    """Change rows of a database by hand."""
    database = {"order": world.order_db, "inventory": world.inventory_db, "payment": world.payment_db}[owner]
    async with database.connection() as connection:
        await connection.execute(statement, *values)


# --- Kafka ----------------------------------------------------------------------------------------------------------


async def test_messages_that_a_group_has_not_read_are_counted(where: Place) -> None:
    """Over all partitions of a topic, for each group by itself, from what it has committed on."""
    before = await measured(where)
    await publish(where.kafka, [row(ORDER_TOPIC, key=str(number).encode()) for number in range(30)])

    after = await measured(where)
    for group in ("inventory-service", "payment-service"):
        subject = f"{group} {ORDER_TOPIC}"
        assert value(after, "consumer lag", subject) == value(before, "consumer lag", subject) + 30

    await read_all(where.kafka, "inventory-service")

    finished = await measured(where)
    assert value(finished, "consumer lag", f"inventory-service {ORDER_TOPIC}") == 0
    assert value(finished, "consumer lag", f"payment-service {ORDER_TOPIC}") > 0


async def read_all(kafka: KafkaSettings, group: str) -> None:
    """Read a topic to its end as a group, and commit."""

    async def nothing_in_hand() -> None:
        pass

    consumer = GroupConsumer(
        kafka, group=group, topics=[ORDER_TOPIC], limits=GroupLimits(), before_revoked=nothing_in_hand
    )
    await consumer.open()
    done: dict[tuple[str, int], int] = {}

    async def has_read_all() -> bool:
        for record in await consumer.poll(0.2):
            done[record.topic, record.partition] = record.offset + 1
        return bool(done) and await consumer.count_behind(5) == 0

    try:
        await eventually(has_read_all, timeout_seconds=60)
        assert await consumer.commit(done)
    finally:
        await consumer.close()


_REFUSED = "dead letters not redriven"


async def test_letters_of_a_dead_letter_topic_are_counted(where: Place) -> None:
    """All that is kept there, redriven or not: this has no limit."""
    topic = f"{ORDER_TOPIC}.payment-service.dlq"
    before = value(await measured(where), "dead letters kept", topic)
    await publish(where.kafka, [row(topic), row(topic)])

    report = await measured(where)

    assert value(report, "dead letters kept", topic) == before + 2
    assert ("dead letters kept", topic) not in beyond(report)


async def test_too_many_messages_are_beyond_the_limit(where: Place) -> None:
    """The limit is the operator's."""
    await publish(where.kafka, [row(ORDER_TOPIC), row(ORDER_TOPIC)])

    report = await measured(where, messages_max=1)

    assert ("consumer lag", f"payment-service {ORDER_TOPIC}") in beyond(report)
    assert not report.ok


# --- the databases --------------------------------------------------------------------------------------------------


async def test_events_that_wait_in_an_outbox_are_counted(where: Place, world: World) -> None:
    """With the age of the oldest, which has a limit."""
    async with world.payment_db.transaction() as tx:
        await insert_outbox(tx, [row("payment.events"), row("payment.events")])
    young = await measured(where)
    await run(world, "payment", "UPDATE outbox SET created_at = now() - interval '10 minutes'")

    old = await measured(where)

    assert value(old, "outbox", "payment") == 2
    assert value(old, "oldest in the outbox", "payment") == pytest.approx(600, abs=60)
    assert value(old, "outbox", "order") == 0
    assert beyond(old) - beyond(young) == {("oldest in the outbox", "payment")}


async def test_refused_messages_are_counted_until_they_are_redriven(where: Place, world: World) -> None:
    """One is enough: somebody has to look at it."""
    await run(
        world,
        "inventory",
        "INSERT INTO processed_events (consumer, event_id, outcome) VALUES ('inventory-service', $1, 'dead')",
        new_id(),
    )

    report = await measured(where)

    assert value(report, "dead letters not redriven", "inventory") == 1
    assert ("dead letters not redriven", "inventory") in beyond(report)


async def test_dead_letters_that_were_laid_aside_no_longer_count(where: Place, world: World) -> None:
    """A decision ends the alarm, and sending the letter again after all raises it anew until it is handled."""
    event_id = new_id()
    dead = (
        "INSERT INTO processed_events (consumer, event_id, outcome) VALUES ('inventory-service', $1, 'dead')"
    )
    await run(world, "inventory", dead, event_id)
    await run(world, "inventory", dead, new_id())
    letters = {"topic": "order.events.inventory-service.dlq", "letters": [[0, 0, str(event_id)]]}

    counted = [value(await measured(where), _REFUSED, "inventory")]
    for command in ("dlq discard", "dlq redrive"):
        async with world.inventory_db.transaction() as tx:
            await record_action(tx, command=command, details=letters, counts={"letters": 1}, reason="a test")
        counted.append(value(await measured(where), _REFUSED, "inventory"))

    assert counted == [2, 1, 2]
    await run(world, "inventory", "DELETE FROM operator_actions")


async def test_the_oldest_open_order_is_told(where: Place, world: World) -> None:
    """Orders that have ended do not count, however old."""
    await run(world, "order", "UPDATE orders SET created_at = now() - interval '1 hour'")
    await run(
        world,
        "order",
        "UPDATE orders SET created_at = now() - interval '1 year' WHERE status IN ('PROCESSING', 'REFUNDED')",
    )

    report = await measured(where, open_order_seconds_max=3_000)

    assert value(report, "oldest open order", "order") == pytest.approx(3_600, abs=60)
    assert value(report, "open orders", "order") > 0
    assert ("oldest open order", "order") in beyond(report)


async def test_a_hold_is_overdue_after_its_grace(where: Place, world: World) -> None:
    """Up to there the sweeper has time; how late it is counts from there on."""
    assert value(await measured(where), "overdue holds", "inventory") == 0
    await run(
        world,
        "inventory",
        """
        UPDATE reservations SET expires_at = now() - make_interval(secs => $1)
        WHERE order_id = (SELECT order_id FROM reservations WHERE status = 'HELD' LIMIT 1)
        """,
        GRACE_SECONDS + 100,
    )

    report = await measured(where)

    assert value(report, "overdue holds", "inventory") == 1
    assert value(report, "oldest overdue hold", "inventory") == pytest.approx(100, abs=30)
    assert ("oldest overdue hold", "inventory") in beyond(report)


async def test_what_a_person_must_look_at_is_counted(where: Place, world: World) -> None:
    """A single refund that is refused is too much; of the quarantine as many as wanted."""
    before = await measured(where)
    await run(
        world,
        "payment",
        """
        UPDATE refunds SET status = 'FAILED', next_try_at = now()
        WHERE refund_id = (SELECT refund_id FROM refunds WHERE status = 'SUCCEEDED' LIMIT 1)
        """,
    )
    await run(
        world,
        "payment",
        """
        UPDATE attempts SET review_at = now(), review_reason = 'fraudulent'
        WHERE attempt_id = (SELECT attempt_id FROM attempts WHERE status = 'SUCCEEDED' LIMIT 1)
        """,
    )

    report = await measured(where, quarantine_max=0)

    assert value(report, "refunds refused", "payment") == value(before, "refunds refused", "payment") + 1
    assert value(report, "quarantine", "payment") == value(before, "quarantine", "payment") + 1
    assert beyond(report) >= {("refunds refused", "payment"), ("quarantine", "payment")}


async def test_unmatched_deliveries_and_due_refunds_are_counted(where: Place, world: World) -> None:
    """Deliveries by their number, refunds by the age of the oldest one that the gateway has not made."""
    before = await measured(where)
    await run(
        world,
        "payment",
        """
        INSERT INTO webhooks (gateway, event_id, verdict, headers, body)
        SELECT 'sandbox', number::text, 'unmatched', '{}', '' FROM generate_series(1, 3) AS number
        """,
    )
    await run(
        world,
        "payment",
        """
        UPDATE refunds SET status = 'DUE', next_try_at = now(), created_at = now() - interval '2 hours'
        WHERE refund_id = (SELECT refund_id FROM refunds WHERE status = 'SUCCEEDED' LIMIT 1)
        """,
    )

    report = await measured(where, unmatched_webhooks_max=2)

    assert value(report, "unmatched webhooks", "payment") == 3
    assert value(report, "refunds due", "payment") == value(before, "refunds due", "payment") + 1
    assert value(report, "oldest refund due", "payment") >= 7_200
    assert beyond(report) >= {("unmatched webhooks", "payment"), ("oldest refund due", "payment")}


# --- what does not answer -------------------------------------------------------------------------------------------


async def test_without_kafka_the_databases_are_still_told(where: Place) -> None:
    """What is away says where its address comes from; the rest is measured."""
    away = replace(where, kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_seconds=2))

    report = await measured(away)

    (problem,) = report.problems
    assert "HOLDFAST_KAFKA_BOOTSTRAP_SERVERS" in problem
    assert value(report, "outbox", "order") == 0
    assert not report.ok


async def test_without_a_database_the_others_are_still_told(where: Place) -> None:
    """The problem names the setting that leads to it."""
    away = replace(where, dsns={**where.dsns, "inventory": "postgresql://nobody:nothing@127.0.0.1:1/nothing"})

    report = await measured(away)

    (problem,) = report.problems
    assert "HOLDFAST_INVENTORY_DATABASE_DSN" in problem
    assert value(report, "open orders", "order") > 0


async def test_a_database_without_tables_says_how_to_make_them(
    where: Place, postgres: EmbeddedPostgres
) -> None:
    """`holdfast migrate` is named."""
    name = f"test_lag_{new_id().hex}"
    dsn = await postgres.create_database(name, role_of("order"))

    report = await measured(replace(where, dsns={**where.dsns, "order": dsn}))

    await postgres.drop_database(name)
    assert "holdfast migrate order" in report.problems[0]


# --- the report -----------------------------------------------------------------------------------------------------


async def test_a_report_is_json_and_a_table(where: Place) -> None:
    """Every measure has its limit and its verdict; the table shows the same numbers."""
    report = await measured(where)
    console = Console(file=io.StringIO(), width=120)

    answer = orjson.loads(orjson.dumps(report.as_dict()))
    render_lag(report, console)

    assert answer["ok"] is report.ok
    assert {*answer["measures"][0]} == {"what", "of", "value", "unit", "limit", "ok"}
    shown = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO from above
    assert all(measure.of in shown for measure in report.measures)
