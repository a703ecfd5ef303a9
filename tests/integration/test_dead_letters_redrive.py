"""Does a dead letter that is sent again reach its group alone, byte for byte, once, and only when that was asked for?"""

from importlib.metadata import version
from typing import Any

import pytest

from ops.actions import begin_action
from ops.dead_letters.store import REDRIVE
from shared.database import Database
from shared.envelope import Record
from shared.errors import Conflict, Unavailable
from shared.ids import new_id
from shared.settings import KafkaSettings
from tests.integration.conftest import MakeConsumer, Stream
from tests.integration.dead_letters import FAILING, OTHER, Desk, letter_row, open_desk
from tests.integration.streams import counted, header_of, outcomes, publish, spoil, without
from tests.waiting import eventually


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


async def redrive(desk: Desk, *arguments: object) -> tuple[int, Any]:
    """Send the topic's dead letters again."""
    return await desk.holdfast("dlq", "redrive", desk.topic, "--execute", "--yes", *arguments)


async def redriven(desk: Desk) -> list[Record]:
    """Return the records of the topic that were sent again."""
    return [record for record in await desk.records() if header_of(record, "dlq_redrive")]


# --- who handles it, and how often ----------------------------------------------------------------------------------


async def test_a_redriven_letter_is_applied_once_however_often_it_is_sent(desk: Desk) -> None:
    """Its cause mended, the failing service handles it, the first time only."""
    key = new_id()
    await desk.poison([counted(desk.stream, number, key=key) for number in range(6)], bad=[5])

    first = await redrive(desk)
    second = await redrive(desk, "--again")
    await publish(desk.kafka, [counted(desk.stream, 6, key=key)])
    await desk.handle(lambda: desk.has_effects(range(7)))

    assert [(status, done["results"][0]["published"]) for status, done in (first, second)] == [(0, 1)] * 2
    assert len(await redriven(desk)) == 2
    assert await desk.states() == ["redriven"]


async def test_a_redrive_is_passed_over_by_the_other_groups(desk: Desk) -> None:
    """Even by a service that has forgotten that it ever handled the event."""
    key = new_id()
    await desk.poison([counted(desk.stream, number, key=key) for number in range(3)], bad=[1])
    await desk.handle(lambda: desk.has_seen([0, 1, 2]), group=OTHER)
    await desk.forget(OTHER)

    await redrive(desk)
    await publish(desk.kafka, [counted(desk.stream, 3, key=key)])
    await desk.handle(lambda: desk.has_seen([0, 1, 2, 3]), group=OTHER)
    await desk.handle(lambda: desk.has_effects(range(4)))

    assert {header_of(record, "dlq_group") for record in await redriven(desk)} == {FAILING}


async def test_of_two_groups_that_refused_it_only_the_one_asked_for_is_sent_it(desk: Desk) -> None:
    """`--group` and the name of a dead-letter topic both say whose letters are meant."""
    await publish(desk.kafka, [letter_row(desk)])
    foreign = letter_row(desk, said={"dlq_group": OTHER.encode()})
    await publish(desk.kafka, [spoil(foreign, topic=f"{desk.topic}.{OTHER}.dlq")])

    await redrive(desk, "--group", OTHER)

    assert [header_of(record, "dlq_group") for record in await redriven(desk)] == [OTHER]


async def test_a_letter_that_fails_again_waits_again(desk: Desk) -> None:
    """It comes back as a new letter that counts how often it was sent; sent once more when mended, it is applied."""
    await desk.poison([counted(desk.stream, 5)], bad=[5])
    await redrive(desk)
    await desk.handle(lambda: desk.has_letters(2), bad=[5])

    again = await desk.letters()
    _, shown = await desk.holdfast(
        "dlq", "show", desk.letters_topic, again[0]["partition"], again[0]["offset"]
    )
    await redrive(desk)
    await desk.handle(lambda: desk.has_effects([5]))

    assert [letter["redrives"] for letter in again] == [1]
    assert ["dlq_count", "2"] in shown["headers"]
    assert (shown["refusals"], shown["refused_by"]) == (2, version("holdfast"))
    assert shown["first_refused_at"] < shown["last_refused_at"] == shown["refused_at"]
    assert [header_of(record, "dlq_redrive") for record in await redriven(desk)] == ["1", "2"]
    assert await desk.states() == ["redriven", "redriven"]


async def test_a_letter_without_a_usable_id_is_sent_again_like_any_other(desk: Desk) -> None:
    """It cannot be handled, so it comes back; the letter that was sent does not wait any more."""
    broken = counted(desk.stream, 5)
    await desk.poison([spoil(broken, headers=[*without(broken, "ce_id"), ("ce_id", b"4711\xff")])])
    (letter,) = await desk.letters()

    status, _ = await redrive(desk, "--event-id", letter["event_id"])
    await desk.handle(lambda: desk.has_letters(2))

    assert status == 0
    assert letter["event_id"] in {str(event_id) for event_id in await outcomes(desk.database, FAILING)}
    assert await desk.states() == ["redriven", "waiting"]


# --- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "payload"),
    [(b"order-1", b'{"a": 1}'), (None, b"\x00\xff"), (b"\xff\x00", None), (b"", b"")],
    ids=["text", "no key", "no value", "empty"],
)
async def test_key_value_and_headers_are_sent_as_they_were(
    desk: Desk, key: bytes | None, payload: bytes | None
) -> None:
    """Byte for byte and in order, rubbish and repeated names included; of `dlq_*` only the count and the group."""
    headers = [("ce_id", b"\xff"), ("ce_type", b"Odd"), ("x", b"1"), ("x", b"\x00\xfe"), ("none", None)]
    await publish(desk.kafka, [letter_row(desk, key=key, payload=payload, headers=headers)])

    await redrive(desk)

    (record,) = await redriven(desk)
    assert (record.key, record.value) == (key, payload)
    assert [*record.headers] == [*headers, ("dlq_redrive", b"1"), ("dlq_group", FAILING.encode())]


async def test_many_letters_are_sent_in_their_order(desk: Desk) -> None:
    """All of one key come one after the other as they were refused."""
    await publish(desk.kafka, [letter_row(desk, payload=str(number).encode()) for number in range(1_200)])

    status, done = await redrive(desk)

    assert (status, done["results"][0]["published"]) == (0, 1_200)
    assert [record.value for record in await redriven(desk)] == [
        str(number).encode() for number in range(1_200)
    ]


async def test_no_more_than_the_limit_are_sent(desk: Desk) -> None:
    """The oldest go first, and the same command sends the next ones."""
    await publish(desk.kafka, [letter_row(desk, payload=str(number).encode()) for number in range(5)])

    _, first = await redrive(desk, "--limit", 2)
    sent = [record.value for record in await redriven(desk)]
    _, second = await redrive(desk, "--limit", 2)

    assert (sent, first["more"], second["more"]) == ([b"0", b"1"], 3, 1)
    assert [record.value for record in await redriven(desk)] == [b"0", b"1", b"2", b"3"]


async def test_what_is_no_letter_of_the_topic_is_not_sent(desk: Desk) -> None:
    """A record that somebody put there is named, with what is wrong with it, and the others are sent."""
    strange = letter_row(desk, said={"dlq_topic": b"order.events"})
    bare = letter_row(desk, said={"dlq_topic": None, "dlq_group": None})
    await publish(desk.kafka, [strange, bare, letter_row(desk)])

    status, done = await redrive(desk)

    assert status == 1
    assert [problem["offset"] for problem in done["problems"]] == [0, 1]
    assert "dlq_topic" in str(done["problems"][0]["why"])
    assert len(await redriven(desk)) == 1


# --- only when it was asked for -------------------------------------------------------------------------------------


async def test_without_execute_nothing_happens(desk: Desk) -> None:
    """The plan says what would be sent, where to and for whom; nothing is sent and nothing recorded."""
    await publish(desk.kafka, [letter_row(desk), letter_row(desk, said={"dlq_reason": b"conflict"})])

    status, plan = await desk.holdfast("dlq", "redrive", desk.topic, "--reason", "conflict")

    (letter,) = plan["letters"]
    assert (status, plan["executed"]) == (0, False)
    assert (letter["to"], letter["group"], letter["offset"]) == (desk.topic, FAILING, 1)
    assert await desk.count(desk.topic) == 0
    assert await desk.actions() == []


async def test_where_nobody_can_answer_it_is_refused(desk: Desk) -> None:
    """Without a terminal `--execute` alone does nothing, and says what to add."""
    await publish(desk.kafka, [letter_row(desk)])

    with pytest.raises(Conflict, match="--execute --yes"):
        await desk.holdfast("dlq", "redrive", desk.topic, "--execute")

    assert await desk.count(desk.topic) == 0
    assert await desk.actions() == []


async def test_letters_that_somebody_has_seen_to_are_left_out(desk: Desk) -> None:
    """What was handled, redriven or discarded is counted in the plan, and taken only when asked for."""
    handled, sent, laid_aside, new = (letter_row(desk, key=key) for key in (b"a", b"b", b"c", b"d"))
    handled = spoil(handled, headers=[("ce_id", str(handled.event_id).encode()), *handled.headers])
    await publish(desk.kafka, [handled, sent, laid_aside, new])
    async with desk.database.connection() as connection:
        await connection.execute(
            "INSERT INTO processed_events (consumer, event_id, outcome) VALUES ($1, $2, 'handled')",
            FAILING,
            handled.event_id,
        )
    await redrive(desk, "--key", "b")
    await desk.holdfast(
        "dlq", "discard", desk.topic, "--key", "c", "--reason", "a test", "--execute", "--yes"
    )

    _, plan = await desk.holdfast("dlq", "redrive", desk.topic)
    _, everything = await desk.holdfast("dlq", "redrive", desk.topic, "--again")

    assert [letter["key"] for letter in plan["letters"]] == ["d"]
    assert plan["left_out"] == {"handled": 1, "redriven": 1, "discarded": 1}
    assert [letter["key"] for letter in everything["letters"]] == ["a", "b", "c", "d"]


# --- what is kept of it ---------------------------------------------------------------------------------------------


async def test_a_redrive_is_recorded(desk: Desk) -> None:
    """Who, what, why, when, and how many, in the database of the service whose letters they are."""
    await publish(desk.kafka, [letter_row(desk), letter_row(desk, key=b"other")])

    await redrive(desk, "--key", "k", "--because", "ticket 4711")

    (action,) = await desk.actions()
    assert (action.who, action.command, action.reason) == ("Ada", "dlq redrive", "ticket 4711")
    assert action.counts == {"letters": 1, "published": 1, "refused": 0}
    assert (action.details["topic"], action.details["to"]) == (desk.letters_topic, desk.topic)
    assert action.details["filters"] == {"key": "k"}
    assert [letter[:2] for letter in action.details["letters"]] == [[0, 0]]
    assert action.finished_at is not None
    assert action.finished_at >= action.at


async def test_letters_of_a_redrive_that_was_cut_off_still_wait(desk: Desk) -> None:
    """An action that never finished says nothing of its letters; that it was begun can be seen."""
    await publish(desk.kafka, [letter_row(desk)])
    (letter,) = await desk.letters()
    async with desk.database.connection() as connection:
        await begin_action(
            connection,
            command=REDRIVE,
            details={"topic": desk.letters_topic, "letters": [[0, 0, letter["event_id"]]]},
            counts={"letters": 1},
        )

    states = await desk.states()

    assert states == ["waiting"]
    assert (await desk.actions())[0].finished_at is None


async def test_when_kafka_stops_answering_the_rest_can_be_sent_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how far it came and what to do; what was not sent still waits."""
    await publish(desk.kafka, [letter_row(desk), letter_row(desk)])

    async def fail(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr("shared.kafka.Publisher.publish", fail)
        with pytest.raises(Unavailable, match="after 0 of 2 letters"):
            await redrive(desk)
    status, _ = await redrive(desk)

    assert status == 0
    assert await eventually(lambda: desk.count(desk.topic)) == 2
    assert [action.counts["published"] for action in await desk.actions()] == [2, 0]
