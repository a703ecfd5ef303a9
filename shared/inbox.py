"""Which messages has a consumer handled already?

`processed_events (consumer, event_id)` is written in the transaction that has the effect, so an event has its effect
once however often it is delivered. A refused event is remembered as `dead`; only a redelivery that an operator asked
for may turn it into `handled`, once.
"""

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import TypeVar
from uuid import UUID

from shared.database import Connection, Database
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


async def count_known_events(connection: Connection, consumer: str, event_ids: Collection[UUID | str]) -> int:
    """Return how many of the events the consumer has handled or refused. Nothing is written, nothing is locked.

    Raises:
        ValueError: the text of an id is none.
    """
    count: int = await connection.fetchval(
        """
        SELECT count(*) FROM processed_events WHERE consumer = $1 AND event_id = ANY($2::uuid[])
        """,
        consumer,
        event_ids,
    )
    return count


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


class InboxPruner:
    """Forgets events that were handled so long ago that no topic holds them any more.

    It walks through the table, so many pages of 8 KiB a tick, and begins again at its end: a tick costs the same however
    large the table is, needs no index beside it, and never holds many locks.
    """

    def __init__(self, database: Database, *, retention_seconds: float, pages_max: int = 512) -> None:
        self._database = database
        self._retention_seconds = retention_seconds
        self._pages_max = pages_max
        self._page = 0

    async def tick(self) -> bool:
        """Look at the next pages; there is always time until the next ones."""
        async with self._database.connection() as connection:
            following = self._page + self._pages_max
            await delete_processed_events(
                connection, pages=(self._page, following), retention_seconds=self._retention_seconds
            )
            self._page = following if following < await count_inbox_pages(connection) else 0
        return False


async def delete_processed_events(
    connection: Connection, *, pages: tuple[int, int], retention_seconds: float
) -> None:
    """Forget the old entries that lie from one page of the table up to another."""
    await connection.execute(
        """
        DELETE FROM processed_events
        WHERE ctid >= $1::tid AND ctid < $2::tid AND handled_at < now() - make_interval(secs => $3)
        """,
        (pages[0], 0),
        (pages[1], 0),
        retention_seconds,
    )


async def count_inbox_pages(connection: Connection) -> int:
    """Return how many pages the table has."""
    pages: int = await connection.fetchval(
        """
        SELECT pg_relation_size('processed_events') / current_setting('block_size')::int
        """
    )
    return pages
