"""Does `holdfast timeline` gather what the databases and the topics hold of one order, and nothing that is secret?"""

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from rich.console import Console

from deploy.local.topics import ensure_topics
from ops.place import Place
from ops.timeline import Entry, Timeline, TimelineLimits, read_timeline, render_timeline
from ops.timeline.command import timeline as run_command
from shared.commands import command
from shared.database import Database
from shared.envelope import Emitted, encode, header
from shared.errors import NotFound
from shared.events import COMMANDS_TOPIC, ORDER_TOPIC, OrderedLine, OrderRejected, OrderStatus, PlaceOrder
from shared.ids import new_id
from shared.outbox import DeadLetter, OutboxRow, insert_outbox
from shared.settings import KafkaSettings
from tests.audit_building import CONFIRMED, HELD, LATER, RELEASED, TOTAL, Paid, Saga, World, lately
from tests.integration.streams import publish, read

CARD = "5105 1051 0510 5100"
SIGNATURE = "5d41402abc4b2a76b9719d911017c592"


@pytest.fixture
async def world(order_db: Database, inventory_db: Database, payment_db: Database) -> World:
    """Three databases with some stock and no order."""
    made = World(order_db, inventory_db, payment_db)
    for sku in ("APPLE", "BREAD"):
        await made.receive(sku, 100)
    return made


@pytest.fixture
def where(world: World) -> Place:
    """The three databases, without Kafka."""
    return Place(world.dsns, KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_seconds=1))


@pytest.fixture
async def with_kafka(world: World, kafka_settings: KafkaSettings) -> Place:
    """The three databases, and Kafka with every topic."""
    await ensure_topics(kafka_settings)
    return Place(world.dsns, kafka_settings)


def awaiting(*paid: Paid, **fields: Any) -> Saga:
    """Return an order whose goods are held and that waits for its money."""
    values = {"status": "AWAITING_PAYMENT", "stock": "HELD", "path": HELD, "money": "PENDING", "at": lately()}
    return Saga(**{**values, "paid": paid, **fields})


async def execute(database: Database, statement: str, *values: Any) -> None:
    """Write a row by hand."""
    async with database.connection() as connection:
        await connection.execute(statement, *values)


async def add_history(world: World, saga: Saga, *steps: tuple[str, str]) -> None:
    """Add steps of an order: status and cause, one second apart."""
    for number, (status, cause) in enumerate(steps):
        await execute(
            world.order_db,
            "INSERT INTO order_history (order_id, version, status, cause, at) VALUES ($1, $2, $3, $4, $5)",
            saga.order_id,
            number + 1,
            status,
            cause,
            saga.at + timedelta(seconds=number),
        )


async def add_webhook(world: World, body: object, *, verdict: str, **named: Any) -> None:
    """Add a delivery; `named` are order_id, attempt_id or transaction_id."""
    await execute(
        world.payment_db,
        """
        INSERT INTO webhooks (gateway, event_id, verdict, reason, headers, body, order_id, attempt_id, transaction_id,
                              received_at, judge_at)
        VALUES ('sandbox', $1, $2, 'because', $3, $4, $5, $6, $7, $8, NULL)
        """,
        f"event-{new_id()}",
        verdict,
        orjson.dumps([["webhook-signature", SIGNATURE]]).decode(),
        orjson.dumps(body),
        named.get("order_id"),
        named.get("attempt_id"),
        named.get("transaction_id"),
        datetime.now(UTC),
    )


async def told(where: Place, saga: Saga, *, kafka: bool = False, **limits: Any) -> Timeline:
    """Return the timeline of an order."""
    return await read_timeline(where, saga.order_id, kafka=kafka, limits=TimelineLimits(**limits))


def happened(entries: Sequence[Entry], where: str) -> list[str]:
    """Return what happened in one place, in order."""
    return [entry.what for entry in entries if entry.where == where]


# --- the databases --------------------------------------------------------------------------------------------------


async def test_an_order_that_waits_for_its_money_says_so(where: Place, world: World) -> None:
    """Nothing was received, and the hold ends at its time; every step stands in the order of time."""
    saga = awaiting()
    await world.add("it", saga)
    await add_history(world, saga, ("REQUESTED", "http:1"), ("AWAITING_PAYMENT", "http:2"))

    found = await told(where, saga)

    assert found.ok
    assert found.conclusion == (
        "AWAITING_PAYMENT: no payment has been received, and none was attempted; "
        f"the hold ends at {LATER:%Y-%m-%d %H:%M:%S}."
    )
    assert happened(found.entries, "order") == ["placed", "REQUESTED", "AWAITING_PAYMENT"]
    assert "RESERVED" in happened(found.entries, "inventory")
    assert happened(found.entries, "payment") == ["opened"]
    assert [entry.at for entry in found.entries] == sorted(entry.at for entry in found.entries)


async def test_the_three_stand_in_the_header(where: Place, world: World) -> None:
    """Order, reservation and payment each say where they stand."""
    saga = Saga(status="PROCESSING", stock="CONFIRMED", path=CONFIRMED, money="SUCCEEDED", paid=[Paid()])
    await world.add("it", saga)

    found = orjson.loads(orjson.dumps((await told(where, saga)).as_dict()))

    assert found["order"]["status"] == "PROCESSING"
    assert found["reservation"]["status"] == "CONFIRMED"
    assert found["payment"]["status"] == "SUCCEEDED"
    assert found["payment"]["settled_minor"] == TOTAL
    assert found["conclusion"].startswith("PROCESSING: it is paid and its goods are sold")
    assert {*found["entries"][0]} == {"at", "where", "what", "detail", "cause", "cause_type"}


async def test_a_refund_that_the_gateway_refuses_is_the_conclusion(where: Place, world: World) -> None:
    """The refund stands among the entries with its state, and the conclusion says who refuses."""
    saga = Saga(
        status="REFUND_DUE",
        stock="RELEASED",
        path=RELEASED,
        unavailable=True,
        money="SUCCEEDED",
        paid=[Paid(refunds=[(TOTAL, "FAILED")])],
    )
    await world.add("it", saga)
    await execute(world.payment_db, "UPDATE refunds SET error = 'no funds'")

    found = await told(where, saga)

    assert "sandbox refuses to give 500 EUR back (no funds)" in found.conclusion
    assert "refund due" in happened(found.entries, "payment")
    assert "refund FAILED" in happened(found.entries, "gateway")


async def test_a_message_that_waits_is_told(where: Place, world: World) -> None:
    """It may be the very news that is missing: the entry says where it is bound for, the conclusion that it waits."""
    saga = awaiting()
    await world.add("it", saga)
    async with world.order_db.transaction() as tx:
        await insert_outbox(tx, [rejected(saga)])

    found = await told(where, saga)

    assert "waits in the outbox" in happened(found.entries, "order")
    assert "1 message for order.events (OrderRejected.v1 first) waits in the outbox" in found.conclusion


async def test_every_delivery_about_an_order_is_told(where: Place, world: World) -> None:
    """Also one that found no order, by the attempt or by the gateway's transaction; another order's is not."""
    paid = Paid("PENDING", received=None)
    saga = awaiting(paid)
    await world.add("it", saga)
    await execute(world.payment_db, "UPDATE attempts SET gateway_transaction_id = 'pay_1'")
    body = {"type": "payment.failed", "data": {"payment_id": "pay_1"}}
    await add_webhook(world, body, verdict="applied", order_id=saga.order_id)
    await add_webhook(world, body, verdict="unmatched", attempt_id=paid.attempt_id)
    await add_webhook(world, body, verdict="unmatched", transaction_id="pay_1")
    await add_webhook(world, body, verdict="applied", order_id=new_id(), transaction_id="pay_2")

    entries = (await told(where, saga)).entries

    verdicts = [
        what.rpartition(" ")[2] for what in happened(entries, "gateway") if what.startswith("webhook")
    ]
    assert verdicts == ["applied", "unmatched", "unmatched"]
    assert any("type=payment.failed, data.payment_id=pay_1" in entry.detail for entry in entries)


async def test_cards_signatures_and_headers_never_leave(where: Place, world: World) -> None:
    """Of a delivery only harmless fields are shown, and free texts lose what looks like a card or a secret."""
    saga = awaiting(Paid("PENDING", received=None))
    await world.add("it", saga)
    body = {
        "id": CARD.replace(" ", ""),
        "type": "payment.succeeded",
        "signature_key": SIGNATURE,
        "data": {"reference": f"card {CARD}", "card": {"number": CARD}, "email": "ann@example.test"},
    }
    await add_webhook(world, body, verdict="applied", order_id=saga.order_id)
    await execute(world.payment_db, "UPDATE webhooks SET reason = $1", f"declined {CARD}")
    await execute(
        world.payment_db, "UPDATE attempts SET native_status = $1", "whsec_c2VjcmV0 and sk_live_12345"
    )

    found = await told(where, saga, body_characters_max=10_000)
    console = Console(file=io.StringIO(), width=400)
    render_timeline(found, console)

    shown = console.file.getvalue() + orjson.dumps(found.as_dict()).decode()  # type: ignore[attr-defined] # a StringIO
    assert "payment.succeeded" in shown
    for secret in ("5105 1051", "51051051", SIGNATURE, "ann@example.test", "c2VjcmV0", "sk_live_12345"):
        assert secret not in shown


async def test_what_an_operator_decided_is_told(where: Place, world: World) -> None:
    """Who, what and why stand among the entries."""
    paid = Paid(received=499, accepted=499)
    saga = Saga(status="PROCESSING", stock="CONFIRMED", path=CONFIRMED, money="SUCCEEDED", paid=[paid])
    await world.add("it", saga)
    await execute(
        world.payment_db,
        """
        INSERT INTO resolutions (resolution_id, order_id, attempt_id, action, reason, review_reason, decided_by,
                                 created_at)
        VALUES ($1, $2, $3, 'accept', 'a cent is no matter', 'amount', 'ann', now())
        """,
        new_id(),
        saga.order_id,
        paid.attempt_id,
    )

    (entry,) = [entry for entry in (await told(where, saga)).entries if entry.what == "operator decided"]

    assert "accept" in entry.detail
    assert "a cent is no matter" in entry.detail
    assert "ann" in entry.detail


async def test_an_order_that_nothing_knows_is_an_error(where: Place) -> None:
    """A wrong id is told as such, not answered with an empty list."""
    with pytest.raises(NotFound, match="No service knows the order"):
        await read_timeline(where, new_id(), kafka=False)


@pytest.mark.parametrize("service", ["order", "inventory", "payment"])
async def test_without_a_database_the_others_are_still_told(where: Place, world: World, service: str) -> None:
    """The problem names the setting that leads to it, and what the others hold is there."""
    saga = Saga(status="PROCESSING", stock="CONFIRMED", path=CONFIRMED, money="SUCCEEDED", paid=[Paid()])
    await world.add("it", saga)
    away = replace(where, dsns={**where.dsns, service: "postgresql://nobody:nothing@127.0.0.1:1/nothing"})

    found = await told(away, saga)

    (problem,) = found.problems
    assert f"HOLDFAST_{service.upper()}_DATABASE_DSN" in problem
    assert not found.ok
    assert {"order", "inventory", "payment"} - {entry.where for entry in found.entries} == {service}


async def test_without_kafka_the_databases_are_still_told(where: Place, world: World) -> None:
    """Kafka away is a problem, unless it was to be left out."""
    saga = awaiting()
    await world.add("it", saga)

    found = await told(where, saga, kafka=True)

    assert not found.ok
    assert "Kafka" in found.problems[0]
    assert found.standing.order is not None


# --- Kafka ----------------------------------------------------------------------------------------------------------


def rejected(saga: Saga, sequence: int = 1) -> OutboxRow:
    """Return an event of the order service about an order."""
    event = OrderRejected(
        order_id=saga.order_id,
        order_status=OrderStatus.REJECTED,
        cancelled=False,
        reason="currency",
        details={},
    )
    event_id, key = new_id(), str(saga.order_id)
    payload, headers = encode(Emitted(event, key, sequence, "http:1", key), event_id, datetime.now(UTC))
    packed = [(name, value.encode()) for name, value in headers]
    return OutboxRow(event_id, ORDER_TOPIC, key.encode(), event.type, sequence, packed, payload)


async def test_the_positions_of_an_orders_messages_are_told(with_kafka: Place, world: World) -> None:
    """Each with topic, partition, offset, number and who handled it; the messages of other orders are not."""
    saga, other = awaiting(), awaiting()
    await world.add("it", saga)
    first, second = rejected(saga), rejected(saga, 2)
    await publish(with_kafka.kafka, [first, rejected(other), second])
    await execute(
        world.payment_db,
        "INSERT INTO processed_events (consumer, event_id, outcome) VALUES ('payment-service', $1, 'handled')",
        first.event_id,
    )
    await add_history(world, saga, ("REJECTED", str(first.event_id)))

    found = await told(with_kafka, saga, kafka=True)

    assert found.ok
    numbers = [entry.detail for entry in found.entries if entry.where == "kafka"]
    assert [detail.rpartition(" ")[2] for detail in numbers] == ["1", "2"]
    assert all(detail.startswith("order.events[") and "offset" in detail for detail in numbers)
    (handled,) = [entry for entry in found.entries if entry.what == "handled"]
    assert (handled.where, handled.detail) == ("payment", f"OrderRejected.v1 {first.event_id}")
    (step,) = [entry for entry in found.entries if entry.what == "REJECTED"]
    assert step.cause_type == "OrderRejected.v1"


async def test_a_refused_command_explains_an_order_that_is_not_there(with_kafka: Place) -> None:
    """No database knows the order; its command and its dead letter tell why."""
    order_id = new_id()
    line = OrderedLine(sku="APPLE", quantity=1)
    placing = command(PlaceOrder(order_id=order_id, customer_id="c-1", currency="EUR", lines=(line,)))
    sent = OutboxRow(new_id(), COMMANDS_TOPIC, placing.key, "", 0, placing.headers, placing.payload)
    await publish(with_kafka.kafka, [sent])
    (record,) = [
        record
        for record in await read(with_kafka.kafka, COMMANDS_TOPIC, 1)
        if record.key == placing.key and header(record.headers, "dlq_redrive") is None
    ]
    letter = DeadLetter(record, new_id(), "conflict", "another content under a known id")
    await publish(with_kafka.kafka, [letter.row("order-service", datetime.now(UTC))])

    found = await read_timeline(with_kafka, order_id)

    assert happened(found.entries, "kafka") == ["PlaceOrder.v1", "dead letter PlaceOrder.v1"]
    assert (
        "order-service refused PlaceOrder.v1 (conflict: another content under a known id)" in found.conclusion
    )
    assert found.standing.order is None


async def test_what_was_not_looked_at_is_told(with_kafka: Place, world: World) -> None:
    """A limit cuts the list off, never in silence."""
    saga = awaiting()
    await world.add("it", saga)
    await publish(with_kafka.kafka, [rejected(saga, number) for number in range(1, 6)])

    found = await told(with_kafka, saga, kafka=True, records_max=2)

    assert sum(entry.where == "kafka" for entry in found.entries) <= 2
    assert any("order.events[" in note and "--records-max" in note for note in found.notes)


# --- the answer -----------------------------------------------------------------------------------------------------


async def test_the_table_fits_a_hundred_columns(where: Place, world: World) -> None:
    """Nothing is wider, and nothing is left out: long details go on in the next line."""
    paid = Paid("QUARANTINED", received=1)
    saga = awaiting(paid, money="QUARANTINED")
    await world.add("it", saga)
    await add_history(world, saga, ("REQUESTED", f"http:{new_id()}"), ("AWAITING_PAYMENT", str(new_id())))
    body = {"type": "payment.succeeded", "data": {"reference": str(paid.attempt_id), "amount_minor": 1}}
    await add_webhook(world, body, verdict="mismatch", order_id=saga.order_id)
    console = Console(file=io.StringIO(), width=100)
    found = await told(where, saga)

    render_timeline(found, console)

    shown = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO from above
    assert max(len(line) for line in shown.splitlines()) <= 100
    flat = "".join(shown.split())
    for entry in found.entries:
        assert f"{entry.at:%H:%M:%S}" in shown
        assert "".join(entry.what.split())[:8] in flat
    assert "sandbox took 1 EUR instead of 500 EUR" in " ".join(shown.split())


async def test_the_command_prints_json_and_its_status(
    where: Place, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object and exit status 0; with a database away 1, and the object all the same."""
    saga = awaiting()
    await world.add("it", saga)
    for service, dsn in where.dsns.items():
        monkeypatch.setenv(f"HOLDFAST_{service.upper()}_DATABASE_DSN", dsn)
    monkeypatch.setenv("HOLDFAST_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")

    status = await run_command(saga.order_id, kafka=False, json=True)
    answer = orjson.loads(capsys.readouterr().out)
    monkeypatch.setenv("HOLDFAST_PAYMENT_DATABASE_DSN", "postgresql://nobody:nothing@127.0.0.1:1/nothing")
    status_without = await run_command(saga.order_id, kafka=False, json=True)
    answer_without = orjson.loads(capsys.readouterr().out)

    assert (status, answer["order_id"], answer["problems"]) == (0, str(saga.order_id), [])
    assert status_without == 1
    assert answer_without["order"]["status"] == "AWAITING_PAYMENT"
