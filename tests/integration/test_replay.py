"""Does `holdfast replay` change nothing that is right, find and mend what was lost, and act only when it is told to?"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from deploy.local.kafka import EmbeddedKafka
from deploy.local.topics import ensure_topics
from shared.database import Database
from shared.errors import Conflict, Invalid
from shared.kafka import list_committed_offsets
from shared.settings import KafkaSettings
from tests.integration.replay_harness import GROUPS, Cli, System, each
from tests.integration.streams import header_of

NOTHING = {"applied": 0, "duplicate": 0, "stale": 0, "refused": 0, "passed": 0, "dead": 0}


@pytest.fixture(scope="module")
async def own_kafka(parts_folder: Path) -> AsyncIterator[KafkaSettings]:
    """A broker whose groups are this module's alone."""
    async with EmbeddedKafka(parts_folder / "kafka-of-replay") as broker:
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        await ensure_topics(settings)
        yield settings


@pytest.fixture
async def system(
    own_kafka: KafkaSettings, order_db: Database, inventory_db: Database, payment_db: Database, tmp_path: Path
) -> System:
    """Three fresh databases with stock; the topics hold what earlier tests left."""
    databases = {"order": order_db, "inventory": inventory_db, "payment": payment_db}
    system = System(databases, own_kafka, tmp_path)
    await system.prepare()
    await system.mark()
    return system


@pytest.fixture
def cli(system: System, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command on this system."""
    return Cli(system, capsys)


def since(moment: datetime) -> list[str]:
    """Return the option that leaves out what earlier tests wrote."""
    return ["--from-datetime", moment.isoformat()]


async def lose_reservation(system: System, order_id: UUID) -> None:
    """Forget by hand that inventory reserved an order's unit, with all that followed there."""
    await system.run(
        "inventory",
        """
        WITH lost AS (DELETE FROM stock_movements WHERE order_id = $1 RETURNING sku),
        gone AS (DELETE FROM reservations WHERE order_id = $1),
        lines AS (DELETE FROM reservation_lines WHERE order_id = $1)
        UPDATE stock_levels SET available = available + 1, reserved = reserved - 1
        WHERE sku IN (SELECT sku FROM lost)
        """,
        order_id,
    )


async def forget_handled(system: System, service: str, event_id: UUID) -> None:
    """Take an event out of a service's inbox."""
    await system.run(service, "DELETE FROM processed_events WHERE event_id = $1", event_id)


async def event_about(system: System, topic: str, kind: str, order_id: UUID) -> UUID:
    """Return the id of an event of an order."""
    (found,) = [
        record
        for record in await system.records(topic)
        if header_of(record, "ce_type") == f"{kind}.v1" and record.key == str(order_id).encode()
    ]
    return UUID(header_of(found, "ce_id"))


# --- plans ----------------------------------------------------------------------------------------------------------


async def test_a_plan_of_handled_events_finds_duplicates_and_changes_nothing(
    system: System, cli: Cli
) -> None:
    """Without --execute no row is written and nothing is published; each group says what it knows already."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(5)
    before = await system.snapshot()
    await system.mark()

    plan = await cli("--topic", "order.events", *since(started))

    assert (plan.status, plan.json["executed"], plan.json["selected"]) == (0, False, 10)
    assert plan.consumer("inventory-service") == {**NOTHING, "duplicate": 5, "passed": 5}
    assert plan.consumer("payment-service") == {**NOTHING, "duplicate": 5, "passed": 5}
    assert plan.json["orders"] == {"count": 0, "listed": []}
    assert await system.snapshot() == before
    assert await system.records("order.events") == []


async def test_replaying_handled_events_changes_no_row_and_emits_nothing(system: System, cli: Cli) -> None:
    """Every topic published again, and heard by every service: the same rows, by the same transactions."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(5)
        before = await system.snapshot()
        await system.mark()

        for topic in ("order.commands", "order.events", "inventory.events"):
            done = await cli("--topic", topic, *since(started), "--execute", "--yes")
            assert (done.status, done.json["run"]["finished"]) == (0, True)
        await system.settled()

    assert await system.snapshot() == before
    assert {topic: len(await system.records(topic)) for topic in ("order.commands", "order.events")} == {
        "order.commands": 5,
        "order.events": 10,
    }


async def test_a_lost_effect_is_found_by_the_plan_and_repaired(system: System, cli: Cli) -> None:
    """What the inbox and the tables have lost would be applied, and is, by replaying the event that told of it."""
    started = datetime.now(UTC)
    async with system.services():
        lost, *_ = await system.order(3)
    event_id = await event_about(system, "order.events", "OrderRequested", lost)
    await lose_reservation(system, lost)
    await forget_handled(system, "inventory", event_id)
    words = ("--topic", "order.events", *since(started), "--group", "inventory-service")

    plan = await cli(*words)

    assert plan.consumer("inventory-service") == {**NOTHING, "applied": 1, "duplicate": 2, "passed": 3}
    (change,) = plan.json["orders"]["listed"]
    assert (change["order_id"], change["service"], change["before"]) == (str(lost), "inventory", None)
    assert change["after"].startswith("HELD")
    assert not await system.fetchval(
        "inventory", "SELECT count(*) FROM reservations WHERE order_id = $1", lost
    )

    async with system.services():
        await cli(*words, "--execute", "--yes")
        await system.settled()

    query = "SELECT status FROM reservations WHERE order_id = $1"
    assert await system.fetchval("inventory", query, lost) == "HELD"
    again = await cli(*words)
    assert again.consumer("inventory-service") == {**NOTHING, "duplicate": 3, "passed": 3}


async def test_an_event_that_the_inbox_forgot_but_the_ranks_did_not_is_stale(
    system: System, cli: Cli
) -> None:
    """It would be claimed, and would change nothing: the plan tells it from a duplicate."""
    started = datetime.now(UTC)
    async with system.services():
        orders = await system.order(4)
    for order_id in orders[:2]:
        event_id = await event_about(system, "order.events", "OrderRequested", order_id)
        await forget_handled(system, "inventory", event_id)

    plan = await cli("--topic", "order.events", *since(started), "--group", "inventory-service")

    found = plan.consumer("inventory-service")
    assert (found["stale"], found["applied"], found["duplicate"]) == (2, 0, 2)
    assert plan.json["orders"]["count"] == 0


async def test_what_a_group_would_refuse_is_counted(system: System, cli: Cli) -> None:
    """A payment of another amount than the one that is known would be a dead letter; its neighbours would not."""
    started = datetime.now(UTC)
    async with system.services():
        refused, other = await system.order(2)
    for order_id in (refused, other):
        event_id = await event_about(system, "order.events", "OrderAwaitingPayment", order_id)
        await forget_handled(system, "payment", event_id)
    await system.run("payment", "UPDATE payments SET amount_minor = 1 WHERE order_id = $1", refused)
    await system.run("payment", "DELETE FROM payments WHERE order_id = $1", other)

    plan = await cli("--topic", "order.events", *since(started), "--group", "payment-service")

    found = plan.consumer("payment-service")
    assert (found["refused"], found["applied"], found["stale"]) == (1, 1, 0)
    assert [change["order_id"] for change in plan.json["orders"]["listed"]] == [str(other)]


async def test_a_plan_leaves_no_lock_and_no_event_behind(system: System, cli: Cli) -> None:
    """After trying what would be applied, rows can be locked at once, and the outboxes are empty."""
    started = datetime.now(UTC)
    async with system.services():
        (order_id,) = await system.order(1)
    await lose_reservation(system, order_id)
    await forget_handled(
        system, "inventory", await event_about(system, "order.events", "OrderRequested", order_id)
    )

    await cli("--topic", "order.events", *since(started))

    async with system.databases["inventory"].transaction() as tx:
        assert await tx.fetch("SELECT 1 FROM stock_levels FOR UPDATE NOWAIT")
        assert await tx.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        assert await tx.fetchval("SELECT count(*) FROM outbox") == 0


async def test_a_person_reads_what_would_happen_and_what_did(
    system: System, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan as tables, which orders would change, and that nothing was; then what was done."""
    monkeypatch.setenv("COLUMNS", "160")
    started = datetime.now(UTC)
    async with system.services():
        (order_id,) = await system.order(1)
    await lose_reservation(system, order_id)
    await forget_handled(
        system, "inventory", await event_about(system, "order.events", "OrderRequested", order_id)
    )
    scope = ("--topic", "order.events", *since(started), "--group", "inventory-service")

    plan = await cli.text(*scope)
    rewinding = await cli.text(*scope, "--rewind")
    done = await cli.text(*scope, "--execute", "--yes")

    assert "2 of 2 records in scope would be published again, for inventory-service." in plan
    assert str(order_id) in plan
    assert "HELD (payment PENDING)" in plan
    assert "Nothing was changed. Give --execute to do this." in plan
    assert "read again" in rewinding
    assert "is done: looked at 2, published 2, refused 0, forgotten 0." in done


async def test_a_plan_waits_for_nobody_for_long(system: System, cli: Cli) -> None:
    """A row that a service works on is waited for a moment, again and again, until it is free."""
    started = datetime.now(UTC)
    async with system.services():
        (order_id,) = await system.order(1)
    await forget_handled(
        system, "inventory", await event_about(system, "order.events", "OrderRequested", order_id)
    )
    locked = asyncio.Event()

    async def work() -> None:
        async with system.databases["inventory"].transaction() as tx:
            await tx.fetch("SELECT 1 FROM reservations FOR UPDATE")
            locked.set()
            await tx.fetchval("SELECT 1 FROM pg_sleep(0.8)")

    working = asyncio.create_task(work())
    await locked.wait()

    plan = await cli("--topic", "order.events", *since(started), "--group", "inventory-service")

    await working
    assert plan.consumer("inventory-service")["stale"] == 1


# --- scope and filters ----------------------------------------------------------------------------------------------


async def test_filters_take_what_they_name(system: System, cli: Cli) -> None:
    """By order, type, SKU and correlation id; several values of one mean any, several filters all of them."""
    started = datetime.now(UTC)
    async with system.services():
        first, second, third = await system.order(3)
    scope = ("--topic", "order.events", *since(started), "--no-preview")

    async def selected(*words: str) -> int:
        count: int = (await cli(*scope, *words)).json["selected"]
        return count

    assert await selected(*each("--order-id", [first, second])) == 4
    assert await selected("--type", "OrderRequested") == 3
    assert await selected("--type", "OrderRequested.v1", "--order-id", str(third)) == 1
    assert await selected("--sku", "APPLE") == 3
    assert await selected("--sku", "BREAD") == 0
    assert await selected("--correlation-id", str(second)) == 2


async def test_scope_is_what_topic_partition_offsets_and_times_say(system: System, cli: Cli) -> None:
    """Ends are exclusive, and limits beyond what is there mean what is there."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(20)
    ended = datetime.now(UTC)
    ends = {number: span.end for number, span in system.begins["order.events"].items()}

    async def looked_at(topic: str, *words: str) -> tuple[int, int]:
        plan = (await cli("--topic", topic, "--no-preview", *words)).json
        return len(plan["partitions"]), plan["looked_at"]

    assert (await looked_at("order.events", *since(started)))[1] == 40
    assert (await looked_at("order.events", *since(started), "--to-datetime", ended.isoformat()))[1] == 40
    assert await looked_at("order.events", "--to-datetime", "2020-01-01T00:00:00Z") == (0, 0)
    assert await looked_at("order.events", "--from-datetime", "2999-01-01T00:00:00Z") == (0, 0)
    # Chance decides which partitions the orders came to.
    came = Counter(record.partition for record in await system.records("order.events"))
    (number, count), (other, _) = came.most_common(2)
    begin = str(ends[number])
    one, beyond = str(ends[number] + 1), "1000000"
    in_one, in_two = f"order.events:{number}", f"order.events:{number},{other}"
    assert await looked_at(in_one, "--from-offset", begin, "--to-offset", one) == (1, 1)
    assert await looked_at(in_one, "--from-offset", begin, "--to-offset", beyond) == (1, count)
    assert (await looked_at(in_two, "--by-duration", "P1D"))[0] == 2


async def test_a_partition_that_is_not_there_is_refused(cli: Cli) -> None:
    """A misspelt number is not taken for an empty partition."""
    with pytest.raises(Invalid, match="no partition 99"):
        await cli("--topic", "order.events:99")


async def test_an_export_can_be_replayed_from_its_file(system: System, cli: Cli, tmp_path: Path) -> None:
    """`topic,partition,offset` a line, as the Kafka tools write it; only what it lists is taken."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(6)
    file = tmp_path / "selected.csv"

    exported = await cli(
        *("--topic", "order.events", "--type", "OrderRequested", *since(started), "--export", str(file))
    )
    plan = await cli("--from-file", str(file))

    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == exported.json["selected"] == plan.json["selected"] == 6
    assert all(line.startswith("order.events,") and line.count(",") == 2 for line in lines)
    assert plan.consumer("inventory-service") == {**NOTHING, "duplicate": 6}


# --- publishing again -----------------------------------------------------------------------------------------------


async def test_a_copy_keeps_id_key_and_value_and_says_where_it_comes_from(system: System, cli: Cli) -> None:
    """The headers of the event are as they were; those of the replay are added."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(1)
    (original, *_) = await system.records("order.events")
    await system.mark()

    done = await cli(
        *("--topic", "order.events", "--type", "OrderRequested", *since(started)),
        *("--group", "inventory-service", "--execute", "--yes"),
    )

    (copy,) = await system.records("order.events")
    added = {name: value or b"" for name, value in copy.headers[len(original.headers) :]}
    assert (copy.key, copy.value, copy.partition) == (original.key, original.value, original.partition)
    assert list(copy.headers[: len(original.headers)]) == list(original.headers)
    assert added.keys() == {
        *("x-replay-id", "x-replayed-from", "x-replayed-by", "x-replayed-at", "x-replay-count"),
        "x-replay-group",
    }
    assert added["x-replay-id"].decode() == done.json["run"]["replay_id"]
    assert added["x-replayed-from"].decode() == f"order.events/{original.partition}/{original.offset}"
    assert added["x-replay-count"] == b"1"
    assert datetime.fromisoformat(added["x-replayed-at"].decode()) > started


async def test_a_replay_for_one_group_is_passed_over_by_the_others(system: System, cli: Cli) -> None:
    """Both groups have lost the same event; only the one that is meant hears it again."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(1)
    await system.run("payment", "DELETE FROM processed_events")
    await system.run("inventory", "DELETE FROM processed_events")

    async with system.services():
        await cli(
            *("--topic", "order.events", *since(started), "--group", "payment-service"),
            *("--execute", "--yes"),
        )
        await system.settled()

    handled = "SELECT count(*) FROM processed_events"
    assert await system.fetchval("payment", handled) == 1
    assert await system.fetchval("inventory", handled) == 0


async def test_a_replay_never_takes_its_own_output(system: System, cli: Cli) -> None:
    """Ends are fixed at the start, and copies are passed over; with --copies they count on."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(3)
    scope = ("--topic", "order.events", *since(started), "--no-preview")

    first = await cli(*scope, "--execute", "--yes")
    second = await cli(*scope, "--execute", "--yes")
    third = await cli(*scope, "--copies", "--execute", "--yes")

    published = [said.json["run"]["published"] for said in (first, second, third)]
    assert published == [6, 6, 18]
    assert second.json["copies_passed_over"] == 6
    counts = Counter(header_of(record, "x-replay-count") for record in await system.records("order.events"))
    assert counts == {None: 6, "1": 18, "2": 12}


async def test_nothing_is_done_where_nobody_can_be_asked(system: System, cli: Cli) -> None:
    """--execute without --yes and without a terminal is refused, and says what to give."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(1)
    await system.mark()

    with pytest.raises(Conflict, match="--yes"):
        await cli("--topic", "order.events", *since(started), "--execute")

    assert await system.records("order.events") == []


async def test_a_run_is_recorded_with_who_what_why_and_how_much(
    system: System, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the database of the group it was for."""
    monkeypatch.setenv("HOLDFAST_OPERATOR_NAME", "ada")
    started = datetime.now(UTC)
    async with system.services():
        await system.order(2)

    done = await cli(
        *("--topic", "order.events", *since(started), "--group", "payment-service", "--reason", "to be sure"),
        *("--execute", "--yes"),
    )

    async with system.databases["payment"].connection() as connection:
        (action,) = await connection.fetch("SELECT * FROM operator_actions")
    assert (action["who"], action["command"], action["reason"]) == ("ada", "replay", "to be sure")
    assert action["details"]["replay_id"] == done.json["run"]["replay_id"]
    assert action["details"]["group"] == "payment-service"
    assert action["counts"]["published"] == 4
    assert action["finished_at"] is not None


# --- reprocessing ---------------------------------------------------------------------------------------------------


async def test_reprocessing_has_exactly_these_events_decided_again(system: System, cli: Cli) -> None:
    """What is still right is left as it is by ranks and ledger; what a bug left undone is done now."""
    started = datetime.now(UTC)
    async with system.services():
        broken, whole, other = await system.order(3)
    await lose_reservation(system, broken)
    remembered = await system.fetchval(
        "inventory",
        "SELECT handled_at FROM processed_events WHERE event_id = $1",
        await event_about(system, "order.events", "OrderRequested", other),
    )
    words = (
        *("--topic", "order.events", *since(started), *each("--order-id", [broken, whole])),
        *("--group", "inventory-service", "--reprocess", "--reason", "a fixed bug"),
    )

    plan = await cli(*words)
    found = plan.consumer("inventory-service")
    assert (found["applied"], found["stale"], found["duplicate"]) == (1, 1, 0)

    async with system.services():
        done = await cli(*words, "--execute", "--yes")
        await system.settled()

    assert done.json["run"]["forgotten"] == 2
    assert await system.fetchval("inventory", "SELECT count(*) FROM reservations WHERE status = 'HELD'") == 3
    assert await system.fetchval("inventory", "SELECT sum(reserved) FROM stock_levels") == 3
    assert (
        await system.fetchval("inventory", "SELECT count(*) FROM stock_movements WHERE kind = 'RESERVED'")
        == 3
    )
    assert remembered == await system.fetchval(
        "inventory",
        "SELECT handled_at FROM processed_events WHERE event_id = $1",
        await event_about_original(system, other),
    )


async def event_about_original(system: System, order_id: UUID) -> UUID:
    """Return the id of an order's first event, copied or not."""
    ids = {
        header_of(record, "ce_id")
        for record in await system.records("order.events")
        if header_of(record, "ce_type") == "OrderRequested.v1" and record.key == str(order_id).encode()
    }
    (found,) = ids
    return UUID(found)


async def test_reprocessing_leaves_dead_letters_dead(system: System, cli: Cli) -> None:
    """Out of dead leads a redrive alone; the plan counts them, and --execute does not forget them."""
    started = datetime.now(UTC)
    async with system.services():
        (order_id,) = await system.order(1)
    event_id = await event_about(system, "order.events", "OrderRequested", order_id)
    await system.run(
        "inventory", "UPDATE processed_events SET outcome = 'dead' WHERE event_id = $1", event_id
    )
    words = (
        *("--topic", "order.events", *since(started), "--group", "inventory-service"),
        *("--reprocess", "--reason", "a fixed bug"),
    )

    plan = await cli(*words)
    done = await cli(*words, "--execute", "--yes")

    assert plan.consumer("inventory-service")["dead"] == 1
    assert done.json["run"]["forgotten"] == 0
    outcome = "SELECT outcome FROM processed_events WHERE event_id = $1"
    assert await system.fetchval("inventory", outcome, event_id) == "dead"


# --- rewinding ------------------------------------------------------------------------------------------------------


async def test_rewinding_a_group_of_handled_events_changes_nothing(system: System, cli: Cli) -> None:
    """Its offsets go back to the time that is named; it reads everything again, and every row stays."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(5)
    committed = await list_committed_offsets(system.kafka, "inventory-service")
    before = await system.snapshot()
    words = ("--topic", "order.events", *since(started), "--group", "inventory-service", "--rewind")

    plan = await cli(*words)
    assert await list_committed_offsets(system.kafka, "inventory-service") == committed
    done = await cli(*words, "--execute", "--yes")

    rewound = await list_committed_offsets(system.kafka, "inventory-service")
    assert plan.consumer("inventory-service") == {**NOTHING, "duplicate": 5, "passed": 5}
    assert sum(committed[key] - rewound[key] for key in committed) == 10 == done.json["run"]["rewound"]
    async with system.services():
        await system.settled()
    assert await list_committed_offsets(system.kafka, "inventory-service") == committed
    assert await system.snapshot() == before


async def test_rewinding_repairs_what_was_lost(system: System, cli: Cli) -> None:
    """As publishing again does, and without a copy in the topic."""
    started = datetime.now(UTC)
    async with system.services():
        lost, _ = await system.order(2)
    await lose_reservation(system, lost)
    words = (
        *("--topic", "order.events", *since(started), "--group", "inventory-service", "--rewind"),
        *("--reprocess", "--reason", "a fixed bug"),
    )
    copies = len(await system.records("order.events"))

    done = await cli(*words, "--execute", "--yes")
    async with system.services():
        await system.settled()

    assert done.json["run"]["forgotten"] == 2
    assert await system.fetchval("inventory", "SELECT count(*) FROM reservations WHERE status = 'HELD'") == 2
    assert await system.fetchval("inventory", "SELECT sum(reserved) FROM stock_levels") == 2
    assert len(await system.records("order.events")) == copies


async def test_an_active_group_is_not_rewound(system: System, cli: Cli) -> None:
    """The refusal names its state and its members; offsets and inbox are as they were."""
    started = datetime.now(UTC)
    async with system.services():
        await system.order(1)
        committed = await list_committed_offsets(system.kafka, "payment-service")
        words = ("--topic", "order.events", *since(started), "--group", "payment-service", "--rewind")

        plan = await cli(*words)
        with pytest.raises(Conflict, match=r"active.*members: payment-service at") as refused:
            await cli(*words, "--execute", "--yes")

        assert "Stop all its processes" in str(refused.value)
        assert plan.status == 0
        assert await list_committed_offsets(system.kafka, "payment-service") == committed
    assert await system.fetchval("payment", "SELECT count(*) FROM operator_actions") == 0


async def test_a_group_is_never_moved_forward(system: System, cli: Cli) -> None:
    """An offset ahead of what it has read stays where it is: nothing unread is skipped."""
    async with system.services():
        await system.order(1)
    committed = await list_committed_offsets(system.kafka, "payment-service")

    done = await cli(
        *("--topic", "order.events", "--from-offset", "1000000", "--group", "payment-service"),
        *("--rewind", "--execute", "--yes"),
    )

    assert (done.status, done.json["run"]) == (0, None)
    assert await list_committed_offsets(system.kafka, "payment-service") == committed


def test_the_groups_of_these_tests_are_those_of_the_services() -> None:
    """Or waiting for them would wait for nothing."""
    from deploy.local.topics import SUBSCRIPTIONS  # noqa: PLC0415 (only compared here)

    assert {group: sorted(topics) for group, topics in GROUPS.items()} == {
        group: sorted(topics) for group, topics in SUBSCRIPTIONS.items()
    }
