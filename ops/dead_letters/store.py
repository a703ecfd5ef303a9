"""Which SQL tells what became of dead letters? It is asked of the database of the service that refused them."""

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from shared.database import Connection

#: The commands under which decisions about letters are kept in `operator_actions`.
REDRIVE = "dlq redrive"
DISCARD = "dlq discard"


class Decision(NamedTuple):
    """What an operator did with one letter: its place in the dead-letter topic, its event, the command."""

    partition: int
    offset: int
    event_id: UUID
    command: str


async def find_outcomes(
    connection: Connection, consumer: str, event_ids: Collection[UUID]
) -> dict[UUID, str]:
    """Return what a consumer's inbox remembers of events (`handled`, `dead`); those it does not know are left out."""
    rows = await connection.fetch(
        "SELECT event_id, outcome FROM processed_events WHERE consumer = $1 AND event_id = ANY($2::uuid[])",
        consumer,
        sorted(event_ids, key=lambda event_id: event_id.int),
    )
    # asyncpg has a UUID type of its own, which is equal to ours.
    return {UUID(int=row["event_id"].int): row["outcome"] for row in rows}


async def list_decisions(connection: Connection, topic: str) -> list[Decision]:
    """Return what operators did with the letters of a dead-letter topic, in the order in which they did it.

    An action that was cut off says nothing of its letters: they still wait, and sending one twice is harmless.
    """
    rows = await connection.fetch(
        """
        SELECT (letter ->> 0)::int AS partition, (letter ->> 1)::bigint AS letter_offset,
               (letter ->> 2)::uuid AS event_id, action.command
        FROM operator_actions AS action, jsonb_array_elements(action.details -> 'letters') AS letter
        WHERE action.command = ANY($2::text[]) AND action.details ->> 'topic' = $1
          AND action.finished_at IS NOT NULL
        ORDER BY action.at, action.id
        """,
        topic,
        [REDRIVE, DISCARD],
    )
    return [Decision(row[0], row[1], UUID(int=row[2].int), row[3]) for row in rows]
