"""Which messages has a consumer handled already?

`processed_events (consumer, event_id)` is written in the transaction that has the effect, so an event has its effect
once however often it is delivered. A refused event is remembered as `dead`; only a redelivery that an operator asked
for may turn it into `handled`, once.
"""

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import TypeVar
from uuid import UUID

from shared.database import Connection
from shared.envelope import Message

M = TypeVar("M", bound=Message[object])

# Rows are written in one order by everybody, so that no two batches wait for each other in a circle.
_as_integer = attrgetter("int")


async def claim(tx: Connection, consumer: str, messages: Sequence[M]) -> list[M]:
    """Return the messages that are new to the consumer, in order and each once, and remember them as handled."""
    ordinary = {message.event_id for message in messages if not message.redriven}
    redriven = {message.event_id for message in messages if message.redriven}
    new = await insert_processed_events(tx, consumer, ordinary, "handled") if ordinary else set()
    if redriven:
        new |= await revive_processed_events(tx, consumer, redriven)
    claimed = []
    for message in messages:
        if message.event_id in new:
            new.discard(message.event_id)
            claimed.append(message)
    return claimed


async def insert_processed_events(
    tx: Connection, consumer: str, event_ids: Collection[UUID], outcome: str
) -> set[UUID]:
    """Remember events with an outcome (`handled`, `dead`); return those that were not known before."""
    rows = await tx.fetch(
        """
        INSERT INTO processed_events (consumer, event_id, outcome)
        SELECT $1, event_id, $3 FROM unnest($2::uuid[]) AS event_id
        ON CONFLICT DO NOTHING
        RETURNING event_id
        """,
        consumer,
        sorted(event_ids, key=_as_integer),
        outcome,
    )
    return {row["event_id"] for row in rows}


async def revive_processed_events(tx: Connection, consumer: str, event_ids: Collection[UUID]) -> set[UUID]:
    """Claim redriven events: those that were dead, or that this database has never heard of."""
    rows = await tx.fetch(
        """
        INSERT INTO processed_events (consumer, event_id, outcome)
        SELECT $1, event_id, 'handled' FROM unnest($2::uuid[]) AS event_id
        ON CONFLICT (consumer, event_id) DO UPDATE SET outcome = 'handled', handled_at = now()
        WHERE processed_events.outcome = 'dead'
        RETURNING event_id
        """,
        consumer,
        sorted(event_ids, key=_as_integer),
    )
    return {row["event_id"] for row in rows}


async def bury(tx: Connection, consumer: str, event_ids: Collection[UUID]) -> None:
    """Remember events that this transaction had claimed, but then refused, as dead."""
    await tx.execute(
        "UPDATE processed_events SET outcome = 'dead' WHERE consumer = $1 AND event_id = ANY($2)",
        consumer,
        sorted(event_ids, key=_as_integer),
    )
