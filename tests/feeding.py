"""How do tests feed a handler exactly as its consumer does?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import orjson

from shared import inbox
from shared.database import Connection, Database
from shared.envelope import Message, Refusal
from shared.events import CATALOGUE, Wire
from shared.ids import new_id
from shared.outbox import list_outbox


class Handlers(Protocol):
    """The parts of a service's `handlers` module that its consumer uses."""

    CONSUMER: str

    async def handle(self, tx: Connection, batch: Sequence[Message[Any]], /) -> Sequence[Refusal]:
        """Apply a batch in the caller's transaction; return what is refused."""


@dataclass(frozen=True, slots=True)
class FakeRecord:
    """A Kafka record made by hand."""

    topic: str = "order.commands"
    partition: int = 0
    offset: int = 0
    key: bytes | None = b""
    value: bytes | None = b""
    headers: Sequence[tuple[str, bytes | None]] = ()


def message(
    event: Wire,
    *,
    sequence: int = 1,
    event_id: UUID | None = None,
    redriven: bool = False,
    key: str | None = None,
) -> Message[Any]:
    """Return an event or command as its consumer hands it over; the key is its order id (or SKU) unless given."""
    natural = getattr(event, "order_id", None) or getattr(event, "sku", "")
    return Message(
        event_id=event_id or new_id(),
        event=event,
        key=str(natural) if key is None else key,
        sequence=sequence,
        redriven=redriven,
        record=FakeRecord(
            topic=event.topic, key=str(natural).encode(), value=event.model_dump_json().encode()
        ),
    )


async def feed(database: Database, handlers: Handlers, batch: Sequence[Message[Any]]) -> Sequence[Refusal]:
    """Apply one batch in one transaction: inbox, then the handler; return what it refused."""
    async with database.transaction() as tx:
        new = await inbox.claim(tx, handlers.CONSUMER, batch)
        return await handlers.handle(tx, new) if new else []


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it waits in the outbox."""

    key: str
    type: str
    sequence: int
    event: Any
    headers: dict[str, str]


async def outbox_events(database: Database, *, types: Sequence[str] = ()) -> list[Told]:
    """Return the events in the outbox in order, decoded; only some types if given (without the version)."""
    async with database.connection() as connection:
        rows = await list_outbox(connection, 100_000)
    told = [
        Told(
            key=(row.key or b"").decode(),
            type=row.type.removesuffix(".v1"),
            sequence=row.sequence,
            event=CATALOGUE[row.topic][row.type].model_validate_json(row.payload or b"")
            if row.topic in CATALOGUE
            else orjson.loads(row.payload or b"null"),
            headers={name: (value or b"").decode() for name, value in row.headers},
        )
        for _, row in rows
    ]
    return [item for item in told if not types or item.type in types]
