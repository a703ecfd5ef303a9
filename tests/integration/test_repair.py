"""Does `holdfast audit --repair` put right what was broken by hand, and nothing else?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.kafka import EmbeddedKafka
from deploy.local.topics import ensure_topics
from ops.actions import Action, list_actions
from ops.audit import AuditLimits
from ops.audit.command import command as audit
from services.inventory_service import handlers as inventory
from services.order_service import handlers as order
from shared.commands import send
from shared.database import Database
from shared.errors import Conflict, Misconfigured
from shared.ids import new_id
from shared.kafka import list_topics
from shared.settings import KafkaSettings
from tests.feeding import feed, message
from tests.integration.replay_harness import Cli, Said, System
from tests.integration.streams import locked
from tests.order_building import cancel_order, place_order
from tests.services import TOPICS
from tests.waiting import eventually

#: Everything that is read by whoever looks whether a repair left it alone.
_AGED = {"order": "orders", "inventory": "reservations", "payment": "payments"}


@pytest.fixture(scope="module")
async def own_kafka(parts_folder: Path) -> AsyncIterator[KafkaSettings]:
    """A broker whose topics are this module's alone."""
    async with EmbeddedKafka(parts_folder / "kafka-of-repair") as broker:
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        await ensure_topics(settings)
        yield settings


@pytest.fixture
async def empty_topics(own_kafka: KafkaSettings) -> None:
    """Topics that hold nothing of earlier tests, whose orders no database knows any more."""
    await lose_topics(own_kafka, *TOPICS)


@pytest.fixture
async def system(
    own_kafka: KafkaSettings, order_db: Database, inventory_db: Database, payment_db: Database, tmp_path: Path
) -> System:
    """Three fresh databases with stock; the topics hold what earlier tests left."""
    databases = {"order": order_db, "inventory": inventory_db, "payment": payment_db}
    system = System(databases, own_kafka, tmp_path)
    await system.prepare()
    return system


@pytest.fixture
def cli(system: System, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command on this system; nothing is on its way here, so it need not wait for a second look."""
    monkeypatch.setattr("ops.audit.command.AuditLimits", partial(AuditLimits, second_look_seconds=0.05))
    return Cli(system, capsys, audit)


async def lose_topics(kafka: KafkaSettings, *topics: str) -> None:
    """Delete topics with all that is in them, and make empty ones."""
    lost = [topic for topic in topics if not topic.startswith("__")]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        if lost:
            await admin.delete_topics(lost)
    finally:
        await admin.close()

    async def are_gone() -> bool:
        return not {*lost} & {*(await list_topics(kafka))}

    await eventually(are_gone, what="the topics are gone")
    await ensure_topics(kafka)


async def age(system: System) -> None:
    """Let so much time pass that nothing is on its way any more."""
    for service, table in _AGED.items():
        await system.run(service, f"UPDATE {table} SET updated_at = updated_at - interval '2 minutes'")  # noqa: S608 (the names stand above)


async def repair(cli: Cli, *options: str) -> Said:
    """Carry a repair out."""
    return await cli("--repair", *options, "--execute", "--yes", "--reason", "a test broke it")


def remedies(said: Said) -> list[tuple[str, str]]:
    """Return what a plan would do, and to what."""
    return [(remedy["remedy"], remedy["subject"]) for remedy in said.json["repair"]["remedies"]]


def findings(said: Said) -> set[tuple[str, str]]:
    """Return the check and the subject of each finding."""
    return {(finding["check"], finding["subject"]) for finding in said.json["findings"]}


async def actions(system: System, service: str) -> list[Action]:
    """Return the repairs that a database remembers."""
    async with system.databases[service].connection() as connection:
        return await list_actions(connection, command="audit repair")


async def level(system: System, sku: str = "APPLE") -> tuple[int, int, int]:
    """Return available, reserved, sold."""
    async with system.databases["inventory"].connection() as connection:
        row = await connection.fetchrow(
            "SELECT available, reserved, sold FROM stock_levels WHERE sku = $1", sku
        )
    assert row is not None
    return tuple(row)


def verdicts(said: Said) -> dict[str, str]:
    """Return what each check says."""
    return {check["check"]: check["verdict"] for check in said.json["checks"]}


async def status_of(system: System, order_id: UUID) -> str:
    """Return the status of an order."""
    status: str = await system.fetchval("order", "SELECT status FROM orders WHERE order_id = $1", order_id)
    return status


@asynccontextmanager
async def refusing(system: System, service: str, table: str, condition: str) -> AsyncIterator[None]:
    """Have a database refuse changes of a table, as a bug in a service would make it."""
    await system.run(
        service,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'a bug'; END $$",
    )
    await system.run(
        service,
        f"CREATE TRIGGER a_bug BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW WHEN ({condition}) "
        "EXECUTE FUNCTION refuse()",
    )
    yield
    await system.run(service, f"DROP TRIGGER a_bug ON {table}")
    await system.run(service, "DROP FUNCTION refuse")


# --- nothing wrong --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_topics")
async def test_repairing_what_is_right_does_nothing(system: System, cli: Cli) -> None:
    """A sound system is found sound, also in its topics: no row is written, no event told, no action kept."""
    async with system.services():
        await system.order(3)
    before = await system.snapshot()

    repaired = await repair(cli, "--kafka")

    assert (repaired.status, repaired.json["findings"], remedies(repaired)) == (0, [], [])
    assert repaired.json["repair"]["executed"] is False
    assert await system.snapshot() == before
    assert await actions(system, "order") == []


async def test_what_became_right_before_its_turn_is_left_alone(system: System, cli: Cli) -> None:
    """The services' own code asks again under its locks: counters that agree with the ledger are not written."""
    async with system.services():
        await system.order(1)
    before = await system.snapshot()

    async with system.databases["inventory"].transaction() as tx:
        recounted = await inventory.recount(tx, ["APPLE"], cause="operator:test")

    assert recounted == []
    assert await system.snapshot() == before


async def test_options_that_do_not_go_together_are_refused(system: System, cli: Cli) -> None:
    """An audit alone executes nothing, a repair needs its reason and, where nobody can answer, its --yes."""
    await system.run("inventory", "UPDATE stock_levels SET available = 1")

    with pytest.raises(Misconfigured, match="--repair"):
        await cli("--execute", "--reason", "because")
    with pytest.raises(Misconfigured, match="--reason"):
        await cli("--repair", "--execute", "--yes")
    with pytest.raises(Conflict, match="--yes"):
        await cli("--repair", "--execute", "--reason", "because")

    assert (await level(system))[0] == 1


# --- counters -------------------------------------------------------------------------------------------------------


async def test_a_counter_is_recounted_from_its_ledger(system: System, cli: Cli) -> None:
    """A counter that was changed by hand is found, planned without a change, put right once, and kept who did it."""
    async with system.services():
        await system.order(2)
    right = await level(system)
    await system.run("inventory", "UPDATE stock_levels SET available = 7, reserved = 5")

    plan = await cli("--repair")
    changed_by_plan = await level(system) != (7, 5, 0)
    repaired = await repair(cli)
    again = await repair(cli)

    assert (plan.status, findings(plan)) == (1, {("A2", "APPLE"), ("A3", "APPLE")})
    assert remedies(plan) == [("recount", "APPLE")]
    assert not changed_by_plan
    assert (repaired.status, repaired.json["repair"]["outcome"]["recounted"]) == (0, 1)
    assert await level(system) == right
    assert (again.status, remedies(again)) == (0, [])
    (action,) = await actions(system, "inventory")
    assert (action.reason, action.counts) == ("a test broke it", {"recounted": 1, "failed": 0})
    assert action.details["remedies"][0]["subject"] == "APPLE"
    assert action.finished_at is not None


async def test_a_counter_is_not_made_from_a_ledger_that_is_wrong(system: System, cli: Cli) -> None:
    """Where a movement is missing, the reservations contradict the ledger: nothing is repaired, and where to look is said."""
    async with system.services():
        await system.order(1)
    before = await level(system)
    await system.run("inventory", "DELETE FROM stock_movements WHERE kind = 'RESERVED'")

    repaired = await repair(cli)

    assert (repaired.status, remedies(repaired)) == (1, [])
    unrepairable = {(item["check"], bool(item["advice"])) for item in repaired.json["repair"]["unrepairable"]}
    assert unrepairable == {("A2", True), ("A4", True)}
    assert await level(system) == before


async def test_a_repair_gives_up_on_rows_that_others_keep(
    system: System, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is locked for too long is told as not done, the action is kept as ended, and nothing hangs."""
    monkeypatch.setattr("ops.repair.executing._LOCK_SECONDS_MAX", 0.2)
    await system.run("inventory", "UPDATE stock_levels SET available = 7")

    statement = "SELECT 1 FROM stock_levels WHERE sku = 'APPLE' FOR UPDATE"
    async with locked(system.databases["inventory"].dsn, statement):
        repaired = await repair(cli, "--wait-seconds", "0")

    assert repaired.status == 1
    (failure,) = repaired.json["repair"]["outcome"]["failures"]
    assert failure["subject"] == "APPLE"
    assert "others are at work" in failure["error"]
    (action,) = await actions(system, "inventory")
    assert (action.counts, action.finished_at is None) == ({"recounted": 0, "failed": 1}, False)


# --- lost events ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_topics")
async def test_events_that_were_lost_with_a_topic_are_told_again(system: System, cli: Cli) -> None:
    """Of a topic that is empty again every number is missing; told again, the topics are whole and no order moves."""
    async with system.services():
        orders = await system.order(3)
    await lose_topics(system.kafka, *TOPICS)

    plan = await cli("--kafka", "--repair")
    async with system.services():
        repaired = await repair(cli, "--kafka")
        await system.settled()
        audited = await cli("--kafka")

    assert plan.status == 1
    assert {check for check, _ in findings(plan)} == {"A12"}
    lost = {str(order_id) for order_id in orders}
    assert set(remedies(plan)) == {("tell_again", key) for key in lost}
    assert repaired.status == 0
    # Two events of each order, and one of inventory.
    assert repaired.json["repair"]["outcome"]["told"] == 9
    assert (audited.status, audited.json["findings"]) == (0, [])
    assert [await status_of(system, order_id) for order_id in orders] == ["AWAITING_PAYMENT"] * 3


@pytest.mark.usefixtures("empty_topics")
async def test_an_event_that_nobody_ever_read_is_told_again_and_the_order_goes_on(
    system: System, cli: Cli
) -> None:
    """The first word of an order is lost before inventory hears it; told again under its number, its goods are held."""
    async with system.services():
        await system.order(1)
    order_id = await place_without_telling(system)
    async with system.services():
        plan = await cli("--kafka", "--repair")
        repaired = await repair(cli, "--kafka")
        await system.settled()
        audited = await cli("--kafka")

    (remedy,) = plan.json["repair"]["remedies"]
    assert (remedy["remedy"], remedy["subject"], remedy["numbers"]) == ("tell_again", str(order_id), [1])
    assert repaired.status == 0
    assert await status_of(system, order_id) == "AWAITING_PAYMENT"
    assert (audited.status, audited.json["findings"]) == (0, [])


async def place_without_telling(system: System) -> UUID:
    """Place an order whose first event is gone before the relay could send it."""
    command = place_order(new_id(), ("APPLE", 1))
    await feed(system.databases["order"], order, [message(command)])
    await system.run("order", "DELETE FROM outbox")
    return command.order_id


# --- stuck orders ---------------------------------------------------------------------------------------------------


#: What a reservation would keep of the end of its order, or of its payment.
_ANY_END = "NEW.cancelled OR NEW.payment_status <> 'PENDING'"


async def cancel_unheard(system: System) -> UUID:
    """Cancel an order while inventory refuses to hear of it, from the order or from its payment, and let time pass."""
    async with system.services():
        (order_id, _) = await system.order(2)
        async with refusing(system, "inventory", "reservations", _ANY_END):
            await send(system.kafka, [system.command(cancel_order(order_id))])

            async def is_refused() -> bool:
                dead: int = await system.fetchval(
                    "inventory", "SELECT count(*) FROM processed_events WHERE outcome = 'dead'"
                )
                return dead == 2

            await eventually(is_refused, what="inventory refused both")
    await age(system)
    return order_id


@pytest.mark.usefixtures("empty_topics")
async def test_an_order_that_was_not_heard_is_explained_told_again_and_settles(
    system: System, cli: Cli
) -> None:
    """Its cancellation never reached inventory: what explains it changes nothing, what repairs it brings the units back."""
    order_id = await cancel_unheard(system)
    held, before = await level(system), await system.snapshot()

    plan = await cli("--repair")
    explained = await cli("--explain", order_id)
    text = await cli.text("--explain", order_id)
    after_looking = await system.snapshot()
    async with system.services():
        repaired = await repair(cli)
        await system.settled()
        audited = await cli("--kafka")

    assert findings(plan) == {("A8", str(order_id)), ("A9", str(order_id))}
    assert remedies(plan) == [("settle", str(order_id))]
    assert "not heard that the order is cancelled" in plan.json["repair"]["remedies"][0]["why"]
    assert {check for check, verdict in verdicts(explained).items() if verdict == "wrong"} == {"A8", "A9"}
    assert explained.json["repair"]["remedies"] == plan.json["repair"]["remedies"]
    assert "CANCELLED, but its reservation is HELD" in text
    assert after_looking == before
    assert (repaired.status, repaired.json["repair"]["outcome"]["told"]) == (0, 2)
    assert await level(system) == (held[0] + 1, held[1] - 1, held[2])
    assert (audited.status, audited.json["findings"]) == (0, [])
    (action,) = await actions(system, "order")
    assert action.counts == {"told": 1, "failed": 0}


async def test_a_hold_that_was_never_swept_is_swept(system: System, cli: Cli) -> None:
    """With the services down the due hold is released all the same; what they have to make of it is told as remaining."""
    async with system.services():
        (order_id,) = await system.order(1)
    await system.run("inventory", "UPDATE reservations SET expires_at = now() - interval '1 hour'")
    await system.run("order", "UPDATE orders SET pay_by = now() - interval '1 hour'")

    repaired = await repair(cli, "--wait-seconds", "0")
    async with system.services():
        await system.settled()
    audited = await cli()

    assert findings(repaired) == {("A5", str(order_id))}
    assert remedies(repaired) == [("settle", str(order_id))]
    outcome = repaired.json["repair"]["outcome"]
    assert (repaired.status, outcome["swept"], len(outcome["remaining"])) == (1, 1, 1)
    assert await status_of(system, order_id) == "EXPIRED"
    assert (audited.status, audited.json["findings"]) == (0, [])


async def test_a_refund_that_was_never_asked_for_is_asked_for(system: System, cli: Cli) -> None:
    """The payment service refused the news that an order's money must go back: told again, the money goes back."""
    await system.run("order", "UPDATE products SET price_minor = 0 WHERE sku = 'APPLE'")
    async with system.services():
        (order_id,) = await system.order(1)
        async with refusing(system, "payment", "refunds", "NEW.is_full"):
            await send(system.kafka, [system.command(cancel_order(order_id))])
            await until_status(system, order_id, "REFUND_DUE")
            await system.settled()
    await age(system)

    async with system.services():
        repaired = await repair(cli)
        await until_status(system, order_id, "REFUNDED")
    audited = await cli()

    assert ("A7", str(order_id)) in findings(repaired)
    assert remedies(repaired) == [("settle", str(order_id))]
    assert repaired.status == 0
    assert (audited.status, audited.json["findings"]) == (0, [])


async def until_status(system: System, order_id: UUID, status: str) -> None:
    """Wait until an order has a status."""

    async def is_there() -> bool:
        return await status_of(system, order_id) == status

    await eventually(is_there, what=f"the order is {status}")


async def test_an_order_that_contradicts_itself_is_left_to_people(system: System, cli: Cli) -> None:
    """A status changed by hand is no lost news: nothing is done, and the timeline is named."""
    async with system.services():
        (order_id,) = await system.order(1)
    await system.run("order", "UPDATE orders SET status = 'PROCESSING'")
    await age(system)
    before = await system.snapshot()

    repaired = await repair(cli)

    assert repaired.status == 1
    assert remedies(repaired) == []
    advice = [item["advice"] for item in repaired.json["repair"]["unrepairable"]]
    assert any(f"holdfast timeline {order_id}" in text for text in advice)
    assert await system.snapshot() == before


# --- explaining -----------------------------------------------------------------------------------------------------


async def test_a_right_order_is_explained_check_by_check(system: System, cli: Cli) -> None:
    """Every check that concerns the order says right, and what it looked at."""
    async with system.services():
        (order_id,) = await system.order(1)

    explained = await cli("--explain", order_id)

    assert (explained.status, explained.json["ok"]) == (0, True)
    assert verdicts(explained) == dict.fromkeys([f"A{number}" for number in range(1, 13)], "right")
    facts: dict[str, Any] = {check["check"]: check["facts"] for check in explained.json["checks"]}
    assert facts["A4"] == ["reservation HELD", "APPLE: RESERVED 1 (round 1)"]
    assert "order has told 2; order.events holds 1, 2" in facts["A12"]
    assert explained.json["conclusion"].startswith("AWAITING_PAYMENT")


async def test_lost_events_of_an_order_are_explained(system: System, cli: Cli) -> None:
    """Looking into the topics, what a producer has told is compared with what is there."""
    async with system.services():
        (order_id,) = await system.order(1)
    await lose_topics(system.kafka, "order.events")

    explained = await cli("--explain", order_id)

    assert verdicts(explained)["A12"] == "wrong"
    assert [remedy["numbers"] for remedy in explained.json["repair"]["remedies"]] == [[1, 2]]
