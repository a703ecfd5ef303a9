"""Does a group handle, pass over and refuse exactly what the contract says, by type alone?"""

from uuid import UUID

import pytest

from shared.consumer import Sorter
from shared.envelope import Message, message_id
from shared.events import (
    CATALOGUE,
    CancelOrder,
    OrderCancelled,
    OrderRequested,
    PaymentSucceeded,
    PlaceOrder,
    StockDepleted,
    Wire,
)
from shared.ids import new_id, position_id
from shared.outbox import DeadLetter
from tests.contracts.golden import sample_of
from tests.feeding import FakeRecord

GROUP = "inventory-service"
EVENTS = Sorter(GROUP, [OrderRequested, OrderCancelled, PaymentSucceeded])
COMMANDS = Sorter("order-service", [PlaceOrder, CancelOrder])


def record(event: Wire, *, value: bytes | None = b"", **headers: bytes | None) -> FakeRecord:
    """Return an event as it is read; an empty value stands for the right one, a header of None is left out."""
    given = {
        "ce_id": str(new_id()).encode(),
        "ce_type": event.type.encode(),
        "ce_sequence": b"1",
        **headers,
    }
    return FakeRecord(
        topic=event.topic,
        key=str(getattr(event, "order_id", "")).encode(),
        value=event.model_dump_json().encode() if value == b"" else value,
        headers=[(name, text) for name, text in given.items() if text is not None],
    )


def test_a_group_reads_the_topics_of_what_it_consumes() -> None:
    """Topics follow from the events, each once."""
    assert EVENTS.topics == ["order.events", "payment.events"]


def test_what_is_consumed_is_decoded_in_order() -> None:
    """Messages come out as they came in."""
    records = [record(sample_of(model)) for model in (OrderRequested, PaymentSucceeded, OrderCancelled)]

    sorted_out = EVENTS.sort(records)

    assert [type(item.event) for item in sorted_out if isinstance(item, Message)] == [
        OrderRequested,
        PaymentSucceeded,
        OrderCancelled,
    ]


@pytest.mark.parametrize(
    "kind", sorted({*CATALOGUE["order.events"]} - {"OrderRequested.v1", "OrderCancelled.v1"})
)
def test_what_is_of_no_interest_is_passed_over_undecoded(kind: str) -> None:
    """A known type that others handle is not even looked into, so rubbish in it is not this group's matter."""
    other = sample_of(CATALOGUE["order.events"][kind])

    assert EVENTS.sort([record(other), record(other, value=b"rubbish", ce_id=None)]) == []


def test_a_type_of_the_future_from_a_known_source_is_passed_over() -> None:
    """A producer may be newer than its consumers."""
    assert EVENTS.sort([record(sample_of(OrderRequested), ce_type=b"OrderGiftWrapped.v1")]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"ce_type": None},
        {"ce_type": b""},
        {"ce_type": b"\xff\xfe"},
        {"ce_type": b"OrderRequested.v1\x00"},
        {"ce_type": "Ørder".encode()},
        {"ce_id": None},
        {"ce_id": b"no-uuid"},
        {"ce_sequence": None},
        {"value": None},
        {"value": b"not JSON"},
        {"value": b"\xff\xfe"},
    ],
)
def test_what_cannot_be_read_is_a_dead_letter(changes: dict[str, bytes | None]) -> None:
    """Without a readable type, or of a handled type but not decodable, a record is refused and not passed over."""
    bad = record(sample_of(OrderRequested), **changes)

    (letter,) = EVENTS.sort([bad])

    assert isinstance(letter, DeadLetter)
    assert (letter.record, letter.reason, letter.event_id) == (bad, "undecodable", message_id(bad))


def test_neighbours_of_a_dead_letter_keep_their_order() -> None:
    """Refusing one record changes nothing for those around it."""
    good = [record(sample_of(OrderRequested)) for _ in range(3)]

    items = EVENTS.sort([good[0], record(sample_of(OrderRequested), value=b"{}"), good[1], good[2]])

    assert [isinstance(item, DeadLetter) for item in items] == [False, True, False, False]
    assert [item.record for item in items if isinstance(item, Message)] == good


@pytest.mark.parametrize("kind", [None, b"NoSuchCommand.v1", b"PlaceOrder.v2", b"OrderRequested.v1"])
def test_a_command_of_an_unknown_type_is_a_dead_letter(kind: bytes | None) -> None:
    """Someone waits for the effect of a command, so an unknown one is refused and not passed over."""
    (letter,) = COMMANDS.sort([record(sample_of(PlaceOrder), ce_type=kind)])

    assert isinstance(letter, DeadLetter)
    assert letter.reason == "undecodable"


def test_a_command_without_a_usable_id_is_remembered_by_its_position() -> None:
    """The dead letter's id is made of topic, partition and offset."""
    (letter,) = COMMANDS.sort([record(sample_of(PlaceOrder), ce_id=b"4711")])

    assert isinstance(letter, DeadLetter)
    assert letter.event_id == position_id("order.commands", 0, 0)


def test_a_structured_command_is_decoded() -> None:
    """Structured mode is accepted on order.commands."""
    identity = "0198c2a0-0000-7000-8000-00000000000c"
    data = sample_of(CancelOrder).model_dump_json()
    value = f'{{"specversion":"1.0","id":"{identity}","source":"/s","type":"CancelOrder.v1","data":{data}}}'
    content_type = ("content-type", b"application/cloudevents+json")
    item = FakeRecord(topic="order.commands", value=value.encode(), headers=[content_type])

    (message,) = COMMANDS.sort([item])

    assert isinstance(message, Message)
    assert (message.event, message.event_id) == (sample_of(CancelOrder), UUID(identity))


def test_a_structured_event_is_a_dead_letter() -> None:
    """On the topics of events, binary mode is the only one."""
    value = record(sample_of(OrderRequested)).value
    item = FakeRecord(
        topic="order.events", value=value, headers=[("content-type", b"application/cloudevents+json")]
    )

    (letter,) = EVENTS.sort([item])

    assert isinstance(letter, DeadLetter)


def test_a_redrive_for_this_group_is_handled() -> None:
    """It is decoded as a redriven message."""
    item = record(sample_of(OrderRequested), dlq_redrive=b"1", dlq_group=GROUP.encode())

    (message,) = EVENTS.sort([item])

    assert isinstance(message, Message)
    assert message.redriven


@pytest.mark.parametrize("changes", [{}, {"value": b"rubbish"}, {"ce_type": b"\xff"}, {"ce_type": None}])
def test_a_redrive_for_another_group_is_passed_over(changes: dict[str, bytes | None]) -> None:
    """Even one that cannot be decoded: it is in the other group's dead letters, not in ours."""
    item = record(
        sample_of(OrderRequested), **{"dlq_redrive": b"1", "dlq_group": b"payment-service", **changes}
    )

    assert EVENTS.sort([item]) == []


def test_a_group_header_without_a_redrive_means_nothing() -> None:
    """A producer that happens to send `dlq_group` is not passed over for it."""
    (message,) = EVENTS.sort([record(sample_of(OrderRequested), dlq_group=b"payment-service")])

    assert isinstance(message, Message)
    assert not message.redriven


def test_sku_events_are_read_by_their_sequence_alone() -> None:
    """An event without an order is decoded like any other."""
    (message,) = Sorter("order-service", [StockDepleted]).sort(
        [record(sample_of(StockDepleted), ce_sequence=b"9")]
    )

    assert isinstance(message, Message)
    assert message.sequence == 9
