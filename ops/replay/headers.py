"""What does a replayed record say of itself, beside what it said at first?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from shared.envelope import REPLAY_GROUP_HEADER, Headers, Record, header, is_structured

REPLAY_ID = "x-replay-id"
REPLAYED_FROM = "x-replayed-from"
REPLAYED_BY = "x-replayed-by"
REPLAYED_AT = "x-replayed-at"
REPLAY_COUNT = "x-replay-count"

_OWN = frozenset({REPLAY_ID, REPLAYED_FROM, REPLAYED_BY, REPLAYED_AT, REPLAY_COUNT, REPLAY_GROUP_HEADER})
#: Of a redrive, which was for one group and one time.
_FOREIGN_PREFIX = "dlq_"


@dataclass(frozen=True, slots=True)
class Copy:
    """A record on its way back to its topic: key, value and the headers of the event as they were.

    `partition` and `offset` say where it was read.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def payload(self) -> bytes | None:
        """The value, as whoever sends it calls it."""
        return self.value


def event_id(record: Record) -> UUID | None:
    """Return the id of an event, wherever it stands; None if it has none that can be used."""
    raw: object = header(record.headers, "ce_id")
    try:
        if raw is None and is_structured(record):
            raw = str(orjson.loads(record.value or b"")["id"]).encode()
        return UUID(raw.decode("ascii")) if isinstance(raw, bytes) else None
    except (ValueError, TypeError, KeyError):
        return None


def stripped(record: Record) -> Copy:
    """Return a record without what earlier replays and redrives have added: as every group takes a replay."""
    headers = [
        (name, value)
        for name, value in record.headers
        if name not in _OWN and not name.startswith(_FOREIGN_PREFIX)
    ]
    return Copy(record.topic, record.partition, record.offset, record.key, record.value, headers)


def replayed(record: Record, *, replay_id: UUID, by: str, at: datetime, group: str | None) -> Copy:
    """Return a record as a replay sends it, to one group or (None) to all."""
    copy = stripped(record)
    added: Sequence[tuple[str, str]] = [
        (REPLAY_ID, str(replay_id)),
        (REPLAYED_FROM, f"{record.topic}/{record.partition}/{record.offset}"),
        (REPLAYED_BY, by),
        (REPLAYED_AT, at.isoformat().replace("+00:00", "Z")),
        (REPLAY_COUNT, str(_count(record) + 1)),
        *([(REPLAY_GROUP_HEADER, group)] if group is not None else []),
    ]
    headers = [*copy.headers, *((name, value.encode()) for name, value in added)]
    return Copy(record.topic, record.partition, record.offset, record.key, record.value, headers)


def _count(record: Record) -> int:
    text = header(record.headers, REPLAY_COUNT) or b""
    return int(text) if text.isdigit() else 0
