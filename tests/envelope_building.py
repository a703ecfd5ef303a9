"""Which records do the tests of the envelope look at?"""

import json
from datetime import UTC, datetime
from uuid import UUID

from shared.envelope import (
    Emitted,
    encode,
)
from shared.events import (
    CATALOGUE,
    COMMANDS_TOPIC,
    OrderCancelled,
    OrderStatus,
)
from tests.feeding import FakeRecord

ORDER_ID = UUID("0198c2a0-0000-7000-8000-000000000001")


EVENT_ID = UUID("0198c2a0-0000-7000-8000-000000000002")


AT = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)


CANCELLED = OrderCancelled(
    order_id=ORDER_ID,
    order_status=OrderStatus.CANCELLED,
    cancelled=True,
    reason="déjà vu",
    requested_by="customer",
)


COMMANDS = CATALOGUE[COMMANDS_TOPIC]


GROUP = "inventory-service"


def emitted(*, correlation_id: str | None = str(ORDER_ID)) -> Emitted:
    """Return a cancellation as a decision produces it."""
    return Emitted(CANCELLED, str(ORDER_ID), 3, "http:abc", correlation_id)


def record_of(item: Emitted, **changes: bytes | None) -> FakeRecord:
    """Return an event as the relay sends it; a changed header is replaced, or left out if None."""
    value, headers = encode(item, EVENT_ID, AT)
    raw = {name: text.encode() for name, text in headers} | changes
    return FakeRecord(
        topic=item.event.topic,
        key=item.key.encode(),
        value=value,
        headers=[(name, text) for name, text in raw.items() if text is not None],
    )


def structured(document: object, *, headers: list[tuple[str, bytes | None]] | None = None) -> FakeRecord:
    """Return a structured-mode record."""
    content_type = ("content-type", b"application/cloudevents+json; charset=utf-8")
    return FakeRecord(
        topic=COMMANDS_TOPIC,
        key=str(ORDER_ID).encode(),
        value=document if isinstance(document, bytes) else json.dumps(document).encode(),
        headers=[content_type, *(headers or [])],
    )


def command(**changes: object) -> dict[str, object]:
    """Return a structured-mode cancellation."""
    return {
        "specversion": "1.0",
        "id": str(EVENT_ID),
        "source": "/shop",
        "type": "CancelOrder.v1",
        "data": {"order_id": str(ORDER_ID), "reason": "changed my mind"},
        **changes,
    }
