"""Does `holdfast dlq` tell what was refused, find what is meant, show it safely, and lay it aside without deleting it?"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest

from deploy.local.postgres import EmbeddedPostgres, role_of
from ops.actions import record_action
from ops.dead_letters.store import DISCARD
from shared.database import Database
from shared.errors import Misconfigured, NotFound, Unavailable
from shared.ids import new_id, position_id
from shared.settings import KafkaSettings
from tests.integration.conftest import MakeConsumer, Stream
from tests.integration.dead_letters import FAILING, OTHER, Desk, letter_row, open_desk, say
from tests.integration.streams import counted, publish, spoil, without


@pytest.fixture
async def desk(
    stream: Stream,
    shared_db: Database,
    kafka_settings: KafkaSettings,
    make_consumer: MakeConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    """A topic that two services read, of which one refuses what it is told to."""
    return await open_desk(stream, shared_db, kafka_settings, make_consumer, monkeypatch)


async def discard(desk: Desk, *arguments: object) -> tuple[int, Mapping[str, object]]:
    """Lay the topic's dead letters aside."""
    return await desk.holdfast(
        "dlq", "discard", desk.topic, "--reason", "nobody misses it", "--execute", "--yes", *arguments
    )


# --- what there is --------------------------------------------------------------------------------------------------


async def test_what_a_service_refused_is_listed(desk: Desk) -> None:
    """With its place, event, reason and error; the exit status says that something waits."""
    item = counted(desk.stream, 5)
    await desk.poison([item, counted(desk.stream, 6)], bad=[5])

    status, listed = await desk.holdfast("dlq", "list", desk.topic)

    (letter,) = listed["letters"]
    assert status == 1
    assert (letter["topic"], letter["partition"], letter["offset"]) == (desk.letters_topic, 0, 0)
    assert (letter["event_id"], letter["key"], letter["type"]) == (
        str(item.event_id),
        (item.key or b"").decode(),
        item.type,
    )
    assert (letter["reason"], letter["state"], letter["handled"]) == ("handler_failed", "waiting", False)
    assert letter["error"] == "ValueError: the handler cannot do this"


async def test_the_summary_counts_by_topic_and_reason(desk: Desk) -> None:
    """With the first and the last time, over all letters that match, however few are listed."""
    times = [b"2026-03-01T12:00:00+00:00", b"2026-03-03T12:00:00+00:00", b"2026-03-02T12:00:00+00:00"]
    await publish(desk.kafka, [letter_row(desk, said={"dlq_at": at}) for at in times])
    await publish(desk.kafka, [letter_row(desk, said={"dlq_reason": b"conflict"})])

    _, listed = await desk.holdfast("dlq", "list", desk.topic, "--limit", 1)

    assert [(group["reason"], group["count"], group["waiting"]) for group in listed["summary"]] == [
        ("handler_failed", 3, 3),
        ("conflict", 1, 1),
    ]
    assert datetime.fromisoformat(listed["summary"][0]["first"]).day == 1
    assert datetime.fromisoformat(listed["summary"][0]["last"]).day == 3
    assert (len(listed["letters"]), listed["not_listed"]) == (1, 3)


async def test_without_letters_the_exit_status_is_0(desk: Desk) -> None:
    """Nothing waits for anybody."""
    status, listed = await desk.holdfast("dlq", "list", desk.letters_topic)

    assert (status, listed["summary"], listed["letters"]) == (0, [], [])


async def test_letters_of_every_topic_are_listed_unless_one_is_named(desk: Desk) -> None:
    """A topic means the dead letters of all its groups; a dead-letter topic means itself."""
    await publish(desk.kafka, [letter_row(desk)])
    foreign = letter_row(desk, said={"dlq_group": OTHER.encode()})
    await publish(desk.kafka, [spoil(foreign, topic=f"{desk.topic}.{OTHER}.dlq")])

    _, everything = await desk.holdfast("dlq", "list", "--limit", 10_000)
    of_topic = await desk.letters()
    _, of_one = await desk.holdfast("dlq", "list", desk.letters_topic)

    both = {f"{desk.topic}.{FAILING}.dlq", f"{desk.topic}.{OTHER}.dlq"}
    assert {letter["topic"] for letter in everything["letters"]} >= both
    assert {letter["topic"] for letter in of_topic} == both
    assert {letter["topic"] for letter in of_one["letters"]} == {desk.letters_topic}


async def test_a_topic_without_dead_letters_is_refused_with_those_there_are(desk: Desk) -> None:
    """A misspelt name must not look like a topic in which all is well."""
    with pytest.raises(NotFound, match=desk.letters_topic.replace(".", r"\.")):
        await desk.holdfast("dlq", "list", "order.evnets")


async def test_the_table_shows_what_the_json_does(desk: Desk) -> None:
    """For people, on a narrow screen too."""
    await publish(desk.kafka, [letter_row(desk), letter_row(desk, said={"dlq_reason": b"conflict"})])

    status, printed = await say("dlq", "list", desk.topic)

    assert status == 1
    assert "conflict" in printed
    assert "0/1" in printed


# --- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--reason", "conflict"),
        ("--dlq-reason", "conflict"),
        ("--type", "Weighed"),
        ("--type", "Weighed.v2"),
        ("--key", "the key"),
        ("--order-id", "the key"),
        ("--order-id", "order-in-body"),
        ("--order-id", "order-in-header"),
        ("--since", "2026-03-05T00:00:00Z"),
        ("--event-id", "0197a5d4-6b7e-7000-8000-000000000001"),
    ],
)
async def test_a_filter_finds_the_letter_that_is_meant(desk: Desk, option: str, value: str) -> None:
    """Of two letters, the one that differs."""
    other = letter_row(
        desk,
        key=b"the key",
        payload=b'{"order_id": "order-in-body"}',
        headers=[
            ("ce_type", b"Weighed.v2"),
            ("ce_correlationid", b"order-in-header"),
            ("ce_id", b"0197a5d4-6b7e-7000-8000-000000000001"),
        ],
        said={"dlq_reason": b"conflict", "dlq_at": b"2026-03-06T00:00:00+00:00"},
    )
    await publish(desk.kafka, [letter_row(desk), other])

    found = await desk.letters(option, value)

    assert [letter["offset"] for letter in found] == [1]


async def test_letters_of_a_time_are_found(desk: Desk) -> None:
    """From a time on, and before a time; also by how long ago it was."""
    now = datetime.now(UTC)
    ages = [timedelta(hours=hours) for hours in (30, 20, 10)]
    await publish(
        desk.kafka, [letter_row(desk, said={"dlq_at": (now - age).isoformat().encode()}) for age in ages]
    )

    found = await desk.letters("--since", "1d", "--until", "15h")

    assert [letter["offset"] for letter in found] == [1]


# --- one letter -----------------------------------------------------------------------------------------------------


async def test_a_letter_is_shown_without_secrets_and_card_numbers(desk: Desk) -> None:
    """JSON as JSON, all headers, and nothing that must not be on a screen."""
    body = {"order_id": "o-1", "note": "paid with 4111 1111 1111 1111", "api_key": "abc", "amount_minor": 500}
    headers = [("ce_id", b"\xff"), ("authorization", b"Bearer abcdefgh")]
    await publish(desk.kafka, [letter_row(desk, payload=orjson.dumps(body), headers=headers)])

    status, letter = await desk.holdfast("dlq", "show", desk.letters_topic, 0, 0)
    _, printed = await say("dlq", "show", desk.letters_topic, 0, 0)

    assert (status, letter["body_kind"]) == (0, "json")
    assert letter["body"] == {
        "order_id": "o-1",
        "note": "paid with **** **** **** 1111",
        "api_key": "***",
        "amount_minor": 500,
    }
    assert letter["headers"][:2] == [["ce_id", "\\xff"], ["authorization", "***"]]
    assert "4111" not in printed
    assert "abcdefgh" not in printed


async def test_a_letter_is_found_by_its_event(desk: Desk) -> None:
    """Of several letters about one event the last one is shown."""
    item = letter_row(desk)
    rows = [
        spoil(item, headers=[("ce_id", str(item.event_id).encode()), *item.headers], payload=payload)
        for payload in (b'"first"', b'"last"')
    ]
    await publish(desk.kafka, rows)

    _, letter = await desk.holdfast(
        "dlq", "show", desk.topic, "--group", FAILING, "--event-id", item.event_id
    )

    assert (letter["offset"], letter["body"]) == (1, "last")


async def test_a_letter_without_a_usable_id_has_one_of_its_position(desk: Desk) -> None:
    """The one under which its consumer remembers it."""
    item = counted(desk.stream, 5)
    await desk.poison([spoil(item, headers=without(item, "ce_id"))])

    (letter,) = await desk.letters()

    (record,) = await desk.records()
    assert UUID(letter["event_id"]) == position_id(desk.topic, record.partition, record.offset)


async def test_a_letter_that_is_not_there_says_which_are(desk: Desk) -> None:
    """An offset beyond the end, another partition, an event nobody knows."""
    await publish(desk.kafka, [letter_row(desk)])

    for place in ((0, 1), (7, 0)):
        with pytest.raises(NotFound, match="0: 0 to 0"):
            await desk.holdfast("dlq", "show", desk.letters_topic, *place)
    with pytest.raises(NotFound, match="holdfast dlq list"):
        await desk.holdfast("dlq", "show", desk.letters_topic, "--event-id", new_id())


async def test_a_place_in_several_topics_is_refused(desk: Desk) -> None:
    """Either the dead-letter topic itself or its group has to be named; and either the place or the event."""
    with pytest.raises(Misconfigured, match=OTHER):
        await desk.holdfast("dlq", "show", desk.topic, 0, 0)
    with pytest.raises(Misconfigured, match="--event-id"):
        await desk.holdfast("dlq", "show", desk.topic, 0)


# --- laying aside ---------------------------------------------------------------------------------------------------


async def test_a_discarded_letter_is_recorded_and_no_longer_shown(desk: Desk) -> None:
    """It stays in its topic, is listed when asked for, and who did it and why is kept."""
    await publish(desk.kafka, [letter_row(desk, key=b"a"), letter_row(desk, key=b"b")])

    status, done = await discard(desk, "--key", "a")

    (action,) = await desk.actions()
    assert (status, done["executed"]) == (0, True)
    assert [letter["key"] for letter in await desk.letters()] == ["b"]
    assert [letter["key"] for letter in await desk.letters("--state", "discarded")] == ["a"]
    assert await desk.count(desk.letters_topic) == 2
    assert (action.who, action.command, action.reason) == ("Ada", "dlq discard", "nobody misses it")
    assert (action.counts, action.details["filters"]) == ({"letters": 1}, {"key": "a"})


async def test_a_discard_without_execute_decides_nothing(desk: Desk) -> None:
    """The plan lists what would be laid aside."""
    await publish(desk.kafka, [letter_row(desk)])

    status, plan = await desk.holdfast("dlq", "discard", desk.topic, "--reason", "nobody misses it")

    assert (status, plan["executed"], len(plan["letters"])) == (0, False, 1)
    assert await desk.states() == ["waiting"]
    assert await desk.actions() == []


async def test_discarding_twice_is_recorded_once(desk: Desk) -> None:
    """The second time there is nothing left to lay aside."""
    await publish(desk.kafka, [letter_row(desk)])

    await discard(desk)
    status, done = await discard(desk)

    assert (status, done["results"]) == (0, [])
    assert len(await desk.actions()) == 1


@pytest.mark.parametrize("reason", ["", "handler_failed"])
async def test_a_discard_says_why(desk: Desk, reason: str) -> None:
    """Silence is refused, and so is the word for which letters are meant: that is another option here."""
    await publish(desk.kafka, [letter_row(desk)])

    with pytest.raises(Misconfigured, match="--reason"):
        await desk.holdfast("dlq", "discard", desk.topic, "--reason", reason, "--execute", "--yes")

    assert await desk.states() == ["waiting"]


async def test_a_decision_is_about_an_event_and_not_about_a_place(desk: Desk) -> None:
    """In a topic that was made anew, another letter stands where one was laid aside; it waits."""
    await publish(desk.kafka, [letter_row(desk)])
    async with desk.database.connection() as connection:
        await record_action(
            connection,
            command=DISCARD,
            details={"topic": desk.letters_topic, "letters": [[0, 0, str(new_id())]]},
            counts={"letters": 1},
        )

    states = await desk.states()

    assert states == ["waiting"]


# --- what does not answer -------------------------------------------------------------------------------------------


async def test_a_database_without_tables_says_how_to_make_them(
    desk: Desk, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`holdfast migrate` is named."""
    name = f"test_letters_{new_id().hex}"
    dsn = await postgres.create_database(name, role_of("order"))
    monkeypatch.setenv("HOLDFAST_INVENTORY_DATABASE_DSN", dsn)

    with pytest.raises(Unavailable, match="holdfast migrate inventory"):
        await desk.holdfast("dlq", "list", desk.letters_topic)

    await postgres.drop_database(name)


async def test_without_a_database_the_setting_that_leads_to_it_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator reads what to look at next."""
    monkeypatch.setenv("HOLDFAST_INVENTORY_DATABASE_DSN", "postgresql://nobody:nothing@127.0.0.1:1/nothing")

    with pytest.raises(Unavailable, match="HOLDFAST_INVENTORY_DATABASE_DSN"):
        await desk.holdfast("dlq", "list", desk.letters_topic)
