"""How does an event leave in the transaction that made it true?

Rows of `outbox` are written beside the change they tell of, while the aggregate's row is locked, so one order's events
keep their order. The relay (`shared.relay`) sends and deletes them. Dead letters leave by the same door.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import NamedTuple
from uuid import UUID

import orjson

from shared.database import Connection, Row
from shared.envelope import REDRIVE_HEADER, Emitted, Headers, Record, encode, header
from shared.ids import new_id
from shared.masking import mask_text

#: The channel on which a commit tells the relay that there is something to send.
CHANNEL = "outbox"

#: A count of more digits is none of ours.
_COUNT_DIGITS_MAX = 9


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row on its way to Kafka; `key` and `payload` are the bytes to send."""

    event_id: UUID
    topic: str
    key: bytes | None
    type: str
    sequence: int
    headers: Headers
    payload: bytes | None


class _NewRow(NamedTuple):
    """The columns of a row to be inserted; `headers` as JSON, see `_pack`."""

    event_id: UUID
    topic: str
    key: bytes | None
    type: str
    sequence: int
    headers: str
    payload: bytes | None


async def add(tx: Connection, emitted: Sequence[Emitted], *, at: datetime) -> None:
    """Store events for the relay in the order given; `at` is the time of the facts they tell."""
    await _insert_outbox(tx, [_new_row(item, at) for item in emitted])


def _new_row(emitted: Emitted, at: datetime) -> _NewRow:
    event_id, event = new_id(), emitted.event
    payload, headers = encode(emitted, event_id, at)
    packed = orjson.dumps(headers).decode()
    if not packed.isascii():
        packed = _pack([(name, value.encode()) for name, value in headers])
    return _NewRow(event_id, event.topic, emitted.key.encode(), event.type, emitted.sequence, packed, payload)


async def add_dead_letters(
    tx: Connection, letters: Iterable["DeadLetter"], *, group: str, at: datetime
) -> None:
    """Store dead letters for the relay: key, value and headers byte for byte, and why."""
    await insert_outbox(tx, [letter.row(group, at) for letter in letters])


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that a group refuses: `reason` is one word, `detail` a sentence."""

    record: Record
    event_id: UUID
    reason: str
    detail: str

    def row(self, group: str, at: datetime) -> OutboxRow:
        """Return the row that carries this letter to the group's dead-letter topic."""
        record = self.record
        why = {
            "dlq_reason": self.reason,
            "dlq_topic": record.topic,
            "dlq_partition": str(record.partition),
            "dlq_offset": str(record.offset),
            "dlq_group": group,
            "dlq_error": mask_text(self.detail)[:1_000],
            "dlq_at": at.isoformat(),
            "dlq_count": str(_redrives(record) + 1),
            "dlq_version": _version(),
        }
        kept = [(name, value) for name, value in record.headers if name not in why]
        return OutboxRow(
            event_id=self.event_id,
            topic=dead_letter_topic(record.topic, group),
            key=record.key,
            type="dead_letter",
            sequence=0,
            headers=[*kept, *((name, value.encode()) for name, value in why.items())],
            payload=record.value,
        )


def _redrives(record: Record) -> int:
    """Return how often an operator has sent the record again."""
    count = header(record.headers, REDRIVE_HEADER) or b""
    return int(count) if count.isdigit() and len(count) <= _COUNT_DIGITS_MAX else 0


@cache
def _version() -> str:
    """Return which release this is: what it refuses, another one may take."""
    return version("holdfast")


def dead_letter_topic(topic: str, group: str) -> str:
    """Return the topic that holds what `group` refused of `topic`."""
    return f"{topic}.{group}.dlq"


async def insert_outbox(tx: Connection, rows: Sequence[OutboxRow]) -> None:
    """Append rows, numbered in the order given, and wake the relay at commit."""
    new = [
        _NewRow(row.event_id, row.topic, row.key, row.type, row.sequence, _pack(row.headers), row.payload)
        for row in rows
    ]
    await _insert_outbox(tx, new)


async def _insert_outbox(tx: Connection, rows: Sequence[_NewRow]) -> None:
    if not rows:
        return
    # COPY costs less than half of an INSERT from arrays; it numbers the rows in the order given.
    await tx.copy_records_to_table("outbox", records=rows, columns=_NewRow._fields)
    await tx.execute("SELECT pg_notify($1, '')", CHANNEL)


async def list_outbox(
    tx: Connection, limit: int, *, besides: Sequence[int] = ()
) -> list[tuple[int, OutboxRow]]:
    """Return the oldest rows by id, but for some. Never from a cursor: commits do not come in the order of ids."""
    rows = await tx.fetch(
        """
        SELECT id, event_id, topic, key, type, sequence, headers::text AS headers, payload
        FROM outbox WHERE id <> ALL($2::bigint[]) ORDER BY id LIMIT $1
        """,
        limit,
        besides,
    )
    return [(row["id"], _read(row)) for row in rows]


async def delete_outbox(tx: Connection, ids: Sequence[int]) -> None:
    """Forget rows that Kafka has acknowledged."""
    await tx.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", ids)


async def get_outbox_backlog(tx: Connection) -> tuple[int, float]:
    """Return how many rows wait, and the age of the oldest in seconds."""
    row = await tx.fetchrow(
        """
        SELECT count(*) AS waiting,
               coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age_seconds
        FROM outbox
        """
    )
    return (row["waiting"], row["age_seconds"]) if row is not None else (0, 0.0)


async def get_outbox_age_seconds(tx: Connection) -> float:
    """Return the age of the oldest row by id, 0 if there is none: unlike a count, it costs the same however many wait."""
    age: float | None = await tx.fetchval(
        """
        SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 FROM outbox ORDER BY id LIMIT 1
        """
    )
    return age or 0.0


def _pack(headers: Headers) -> str:
    """Write headers as JSON; Latin-1 maps every byte to one character, so any bytes come back as they were."""
    return orjson.dumps(
        [(name, None if value is None else value.decode("latin-1")) for name, value in headers]
    ).decode()


def _read(row: Row) -> OutboxRow:
    return OutboxRow(
        event_id=row["event_id"],
        topic=row["topic"],
        key=row["key"],
        type=row["type"],
        sequence=row["sequence"],
        headers=[
            (name, None if value is None else value.encode("latin-1"))
            for name, value in orjson.loads(row["headers"])
        ],
        payload=row["payload"],
    )
