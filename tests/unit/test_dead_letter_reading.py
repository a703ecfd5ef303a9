"""Is a dead letter read for what it says, and sent again as the contract has it, whatever bytes it is made of?"""

from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.dead_letters.reading import Letter, LetterTopic, belongs, read
from ops.dead_letters.redriving import outgoing
from ops.dead_letters.selecting import Filters
from shared.envelope import Headers
from shared.ids import new_id, position_id
from tests.feeding import FakeRecord

TOPIC = LetterTopic("order.events.inventory-service.dlq", "order.events", "inventory-service", "inventory")
WHY: Headers = [
    ("dlq_reason", b"handler_failed"),
    ("dlq_topic", b"order.events"),
    ("dlq_partition", b"3"),
    ("dlq_offset", b"17"),
    ("dlq_group", b"inventory-service"),
    ("dlq_at", b"2026-03-01T12:00:00+00:00"),
]
AT_ITS_ORIGIN = position_id("order.events", 3, 17)


def letter(*headers: tuple[str, bytes | None], **fields: Any) -> Letter:
    """Return a letter whose producer gave it these headers."""
    return read(TOPIC, FakeRecord(topic=TOPIC.name, offset=5, headers=[*headers, *WHY], **fields))


def test_a_letter_is_remembered_by_its_own_id_first() -> None:
    """The inbox may also know it by where it was refused, if its id was not usable there."""
    event_id = new_id()

    assert letter(("ce_id", str(event_id).encode())).event_ids == [event_id, AT_ITS_ORIGIN]


def test_a_letter_without_a_usable_id_is_remembered_by_its_position() -> None:
    """By that in its original topic, not in that of the dead letters."""
    assert letter().event_ids == [AT_ITS_ORIGIN]
    assert letter(("ce_id", b"4711\xff")).event_ids == [AT_ITS_ORIGIN]


def test_a_structured_command_has_its_id_inside() -> None:
    """One that can be read is remembered by it; one that cannot, by its position."""
    event_id = new_id()
    kind = ("content-type", b"application/cloudevents+json; charset=utf-8")

    readable = letter(kind, value=orjson.dumps({"id": str(event_id)}))
    rubbish = [letter(kind, value=value) for value in (b"{", b"[]", b'{"id": 5}', None)]

    assert readable.event_ids == [event_id, AT_ITS_ORIGIN]
    assert [item.event_ids for item in rubbish] == [[AT_ITS_ORIGIN]] * 4


def test_a_record_that_says_nothing_still_has_an_id() -> None:
    """Whatever somebody put into the topic can be shown."""
    strange = read(TOPIC, FakeRecord(topic=TOPIC.name, offset=5, key=None, value=None))

    assert strange.event_id == position_id(TOPIC.name, 0, 5)
    assert (strange.reason, strange.refused_at, strange.key_text, strange.redrives) == (
        "unknown",
        None,
        "",
        0,
    )
    assert "dlq_topic" in (belongs(strange) or "")


def test_a_letter_of_its_topic_belongs_there() -> None:
    """Its headers and the topic's name agree."""
    assert belongs(letter()) is None


_HEADERS = st.lists(
    st.tuples(st.sampled_from(["ce_id", "x", "dlqueue", ""]), st.none() | st.binary(max_size=8))
)


@given(_HEADERS, st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=20))
def test_a_letter_is_sent_again_as_it_was(
    headers: list[tuple[str, bytes | None]], key: bytes | None, value: bytes | None
) -> None:
    """Key, value and headers byte for byte; of `dlq_*` only the count and the group."""
    sent = outgoing(letter(*headers, key=key, value=value))

    assert (sent.topic, sent.key, sent.payload) == ("order.events", key, value)
    assert sent.headers == [*headers, ("dlq_redrive", b"1"), ("dlq_group", b"inventory-service")]


@pytest.mark.parametrize(
    ("count", "following"),
    [(b"1", b"2"), (b"41", b"42"), (b"rubbish", b"1"), (b"\xff", b"1"), (b"9" * 40, b"1"), (b"", b"1")],
)
def test_each_redrive_is_counted(count: bytes, following: bytes) -> None:
    """A count that is none begins anew."""
    sent = outgoing(letter(("dlq_redrive", count)))

    assert [value for name, value in sent.headers if name == "dlq_redrive"] == [following]


def test_filters_are_all_true_of_a_letter_that_is_meant() -> None:
    """One that is not is enough to leave it out; nothing asked for means every letter."""
    item = letter(("ce_type", b"OrderRequested.v1"), key=b"order-1")

    assert Filters().match(item)
    assert Filters(reason="handler_failed", type="OrderRequested", order_id="order-1").match(item)
    assert not Filters(reason="handler_failed", type="OrderCancelled").match(item)
    assert not Filters(group="payment-service").match(item)
    assert not Filters(event_id=UUID(int=0)).match(item)
