"""Are our records CloudEvents to the reference implementation, and its records to us?"""

import json
from uuid import UUID

from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary,
    from_structured,
    to_binary,
    to_structured,
)
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from shared.envelope import (
    decode,
    decode_structured,
    is_structured,
)
from shared.events import (
    COMMANDS_TOPIC,
    CancelOrder,
)
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


def test_the_cloudevents_package_reads_our_binary_mode() -> None:
    """The reference implementation finds every attribute and the data in what we send."""
    record = record_of(emitted())
    theirs = KafkaMessage(
        headers={name: value or b"" for name, value in record.headers},
        key=record.key,
        value=record.value or b"",
    )

    event = from_binary(theirs, JSONFormat())

    attributes = event.get_attributes()
    assert event.get_data() == json.loads(CANCELLED.model_dump_json())
    assert attributes["time"] == AT
    assert {name: attributes[name] for name in ("specversion", "id", "type", "source", "subject")} == {
        "specversion": "1.0",
        "id": str(EVENT_ID),
        "type": "OrderCancelled.v1",
        "source": "/holdfast/order-service",
        "subject": str(ORDER_ID),
    }
    assert {
        name: attributes[name] for name in ("sequence", "sequencetype", "correlationid", "causationid")
    } == {
        "sequence": "3",
        "sequencetype": "Integer",
        "correlationid": str(ORDER_ID),
        "causationid": "http:abc",
    }


def test_we_read_the_binary_mode_of_the_cloudevents_package() -> None:
    """A command written by the reference implementation is understood."""
    record = _theirs(to_binary(_their_command(), JSONFormat()))

    message = decode(record, CancelOrder, group=GROUP)

    assert not is_structured(record)
    assert message.event_id == EVENT_ID
    assert message.event == CancelOrder(order_id=ORDER_ID, reason="no")
    assert (message.key, message.sequence) == (str(ORDER_ID), 0)


def test_we_read_the_structured_mode_of_the_cloudevents_package() -> None:
    """A structured-mode command written by the reference implementation is understood."""
    record = _theirs(to_structured(_their_command(), JSONFormat()))

    message = decode_structured(record, COMMANDS, group=GROUP)

    assert is_structured(record)
    assert message.event_id == EVENT_ID
    assert message.event == CancelOrder(order_id=ORDER_ID, reason="no")
    assert (message.key, message.sequence) == (str(ORDER_ID), 0)


def test_the_cloudevents_package_reads_the_structured_mode_that_we_read() -> None:
    """The structured commands of these tests are CloudEvents for the reference implementation, too."""
    record = structured(command())
    headers = {name: value or b"" for name, value in record.headers}

    event = from_structured(KafkaMessage(headers=headers, key=None, value=record.value or b""), JSONFormat())

    assert decode_structured(record, COMMANDS, group=GROUP).event_id == UUID(event.get_id())


def _their_command() -> CloudEvent:
    attributes = {
        "specversion": "1.0",
        "id": str(EVENT_ID),
        "source": "/shop",
        "type": "CancelOrder.v1",
        "time": AT,
        "datacontenttype": "application/json",
        "partitionkey": str(ORDER_ID),
    }
    return CloudEvent(attributes=attributes, data={"order_id": str(ORDER_ID), "reason": "no"})


def _theirs(message: KafkaMessage) -> FakeRecord:
    key = message.key.encode() if isinstance(message.key, str) else message.key
    return FakeRecord(topic=COMMANDS_TOPIC, key=key, value=message.value, headers=[*message.headers.items()])
