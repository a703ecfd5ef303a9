"""Does an event survive the way through a Kafka record, and does nothing hostile survive the way back?"""

import json
from datetime import timedelta, timezone
from functools import partial
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.envelope import (
    Emitted,
    Message,
    Undecodable,
    decode,
    decode_structured,
    encode,
    header,
    message_id,
)
from shared.events import (
    CATALOGUE,
    OrderCancelled,
    StockDepleted,
    Wire,
)
from shared.ids import new_id, position_id
from tests.envelope_building import (
    AT,
    CANCELLED,
    COMMANDS,
    EVENT_ID,
    GROUP,
    ORDER_ID,
    command,
    emitted,
    record_of,
    structured,
)
from tests.feeding import FakeRecord

# --- there and back -------------------------------------------------------------------------------------------------


def test_an_event_comes_back_as_it_was_sent() -> None:
    """Decoding what was encoded gives the same event, id, key and sequence."""
    record = record_of(emitted())

    message = decode(record, OrderCancelled, group=GROUP)

    assert message == Message(EVENT_ID, CANCELLED, str(ORDER_ID), 3, redriven=False, record=record)
    assert message.cause == str(EVENT_ID)


def test_every_header_of_the_contract_is_there_in_its_form() -> None:
    """The headers are those of the contract, in UTC with a Z, and nothing else."""
    west = AT.astimezone(timezone(timedelta(hours=-7)))

    _, headers = encode(emitted(), EVENT_ID, west)

    assert dict(headers) == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": str(EVENT_ID),
        "ce_type": "OrderCancelled.v1",
        "ce_source": "/holdfast/order-service",
        "ce_subject": str(ORDER_ID),
        "ce_time": "2026-03-01T12:00:00.123456Z",
        "ce_sequence": "3",
        "ce_sequencetype": "Integer",
        "ce_correlationid": str(ORDER_ID),
        "ce_causationid": "http:abc",
    }


def test_an_event_about_a_sku_has_no_correlation_id() -> None:
    """SKU events leave the header out instead of sending it empty."""
    item = Emitted(StockDepleted(sku="milk"), "milk", 1, "timer:sweep", None)

    value, headers = encode(item, EVENT_ID, AT)

    assert value == b'{"sku":"milk"}'
    assert "ce_correlationid" not in dict(headers)
    assert dict(headers)["ce_subject"] == "milk"


# --- hostile records ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"ce_id": None}, "ce_id is missing"),
        ({"ce_id": b""}, "ce_id is not a UUID"),
        ({"ce_id": b"42"}, "ce_id is not a UUID"),
        ({"ce_id": b"\xff\xfe"}, "ce_id is not a UUID"),
        ({"ce_id": str(EVENT_ID).encode() + b"\x00"}, "ce_id is not a UUID"),
        ({"ce_sequence": None}, "ce_sequence"),
        ({"ce_sequence": b"0"}, "ce_sequence"),
        ({"ce_sequence": b"-1"}, "ce_sequence"),
        ({"ce_sequence": b"1.0"}, "ce_sequence"),
        ({"ce_sequence": "\u0661".encode()}, "ce_sequence"),
        ({"ce_sequence": b"9" * 19}, "ce_sequence"),
    ],
)
def test_a_record_with_an_unusable_header_is_undecodable(
    changes: dict[str, bytes | None], detail: str
) -> None:
    """Each unusable header is refused with a sentence that names it."""
    record = record_of(emitted(), **changes)

    with pytest.raises(Undecodable, match=detail):
        decode(record, OrderCancelled, group=GROUP)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"not JSON",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"text"',
        b'{"order_id": "x"}',
        b"[" * 100_000,
    ],
)
def test_a_record_with_an_unusable_value_is_undecodable(value: bytes | None) -> None:
    """What is no JSON, or not the JSON of its type, is refused."""
    record = FakeRecord(value=value, headers=record_of(emitted()).headers)

    with pytest.raises(Undecodable):
        decode(record, OrderCancelled, group=GROUP)


def test_a_key_that_is_not_text_is_undecodable() -> None:
    """A key that is not UTF-8 cannot be an order id."""
    good = record_of(emitted())
    record = FakeRecord(topic=good.topic, key=b"\xff", value=good.value, headers=good.headers)

    with pytest.raises(Undecodable, match="key"):
        decode(record, OrderCancelled, group=GROUP)


def test_of_a_repeated_header_the_first_counts_everywhere() -> None:
    """Decoding, and remembering the id, look at the same one of several values."""
    good = record_of(emitted())
    twice = FakeRecord(
        topic=good.topic,
        key=good.key,
        value=good.value,
        headers=[*good.headers, ("ce_id", str(new_id()).encode())],
    )

    message = decode(twice, OrderCancelled, group=GROUP)

    assert message.event_id == EVENT_ID == message_id(twice)
    assert header(twice.headers, "ce_id") == str(EVENT_ID).encode()


def test_a_refusal_names_the_fault_but_not_the_offending_value() -> None:
    """A dead letter's error says where and what, without repeating what might be personal."""
    record = structured(command(data={"order_id": "my-secret", "reason": 5}))

    with pytest.raises(Undecodable) as raised:
        decode_structured(record, COMMANDS, group=GROUP)

    assert [fault.pointer for fault in raised.value.faults] == ["/order_id", "/reason"]
    assert "my-secret" not in raised.value.detail


def test_a_refusal_is_never_longer_than_a_header_should_be() -> None:
    """However many faults a message has, the sentence about them is cut."""
    lines = [{"sku": "", "quantity": 0}] * 500
    data = {"order_id": str(ORDER_ID), "customer_id": "c", "currency": "EUR", "lines": lines}
    record = structured(command(type="PlaceOrder.v1", data=data))

    with pytest.raises(Undecodable) as raised:
        decode_structured(record, COMMANDS, group=GROUP)

    assert len(raised.value.detail) == 1_000


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not JSON",
        b"\xff",
        [],
        "text",
        {},
        command(id=None),
        command(id=5),
        command(id=["a"]),
        command(type=None),
        command(type=["CancelOrder.v1"]),
        command(type="NoSuchThing.v1"),
        command(data=None),
        command(data="text"),
        {"type": "CancelOrder.v1", "id": str(EVENT_ID)},
        json.dumps(command(data=0)).replace("0}", "[" * 300 + "]" * 300 + "}").encode(),
    ],
)
def test_a_structured_record_that_is_no_command_is_undecodable(document: object) -> None:
    """Whatever is wrong with the document, even too deep nesting, it is refused and never more."""
    record = structured(document)

    with pytest.raises(Undecodable):
        decode_structured(record, COMMANDS, group=GROUP)


def test_a_message_without_a_usable_id_is_remembered_by_its_position() -> None:
    """The stand-in id is the same every time the same position is read, and another one elsewhere."""
    record = FakeRecord(topic="order.events", partition=2, offset=7, headers=[("ce_id", b"\xff")])

    identity = message_id(record)

    assert identity == position_id("order.events", 2, 7)
    assert identity not in {position_id("order.events", 2, 8), position_id("order.events", 1, 7)}


@pytest.mark.parametrize(
    ("headers", "redriven"),
    [
        ([], False),
        ([("dlq_redrive", b"1"), ("dlq_group", GROUP.encode())], True),
        ([("dlq_redrive", b"1"), ("dlq_group", b"order-service")], False),
        ([("dlq_redrive", b"1")], False),
        ([("dlq_group", GROUP.encode())], False),
    ],
)
def test_only_a_redrive_for_this_very_group_is_one(
    *, headers: list[tuple[str, bytes | None]], redriven: bool
) -> None:
    """Both headers are needed, and the group must be the reader's; in both modes."""
    good = record_of(emitted())
    binary = FakeRecord(topic=good.topic, key=good.key, value=good.value, headers=[*good.headers, *headers])

    both = [
        decode(binary, OrderCancelled, group=GROUP),
        decode_structured(structured(command(), headers=headers), COMMANDS, group=GROUP),
    ]

    assert [message.redriven for message in both] == [redriven, redriven]


# --- fuzz -----------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["content-type", "ce_id", "ce_type", "ce_sequence", "dlq_redrive", "dlq_group", "x"])
VALUES = st.none() | st.binary(max_size=40) | st.sampled_from([str(EVENT_ID).encode(), b"1", GROUP.encode()])
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.fixed_dictionaries(
    {"type": st.sampled_from([*COMMANDS]) | JSON, "id": st.just(str(EVENT_ID)) | JSON, "data": JSON}
).map(lambda document: json.dumps(document).encode())
BODIES = st.none() | st.binary(max_size=60) | JSON.map(lambda data: json.dumps(data).encode()) | DOCUMENTS
MODELS = [model for of_topic in CATALOGUE.values() for model in of_topic.values()]


@settings(deadline=None)
@given(
    topic=st.sampled_from([*CATALOGUE]),
    key=st.none() | st.binary(max_size=40),
    value=BODIES,
    headers=HEADERS,
    model=st.sampled_from(MODELS),
)
def test_decoding_raises_nothing_but_undecodable(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    model: type[Wire],
) -> None:
    """Whatever stands in a record, it is decoded or refused: no third thing stops the consumer."""
    record = FakeRecord(topic=topic, key=key, value=value, headers=headers)
    outcomes = []

    for way in (partial(decode, record, model), partial(decode_structured, record, COMMANDS)):
        try:
            outcomes.append(way(group=GROUP).event_id)
        except Undecodable:
            outcomes.append(message_id(record))

    assert all(isinstance(outcome, UUID) for outcome in outcomes)
