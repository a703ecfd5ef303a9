"""Which of the records in scope are meant?"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from ops.replay.headers import REPLAY_ID, event_id
from ops.replay.scope import Listed
from shared.envelope import Record, header
from shared.errors import Invalid
from shared.events import CATALOGUE
from shared.kafka import Spans, read_spans
from shared.settings import KafkaSettings

_CHUNK_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class Filters:
    """What a record must be about; several values of one filter mean any of them, several filters all of them.

    `copies` takes in what earlier replays wrote, which otherwise is passed over: its original is a record as well.
    """

    order_ids: frozenset[UUID] = frozenset()
    types: frozenset[str] = frozenset()
    skus: frozenset[str] = frozenset()
    correlation_ids: frozenset[str] = frozenset()
    listed: Listed | None = None
    copies: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether every record passes that is no copy."""
        return not (self.order_ids or self.types or self.skus or self.correlation_ids or self.listed)

    def take(self, record: Record) -> bool:
        """Tell whether a record is meant, copy or not; cheap questions are asked first."""
        return (
            (self.listed is None or record.offset in self.listed[record.topic][record.partition])
            and (not self.types or _text(record, "ce_type") in self.types)
            and (not self.correlation_ids or _text(record, "ce_correlationid") in self.correlation_ids)
            and (not self.order_ids or _order_id(record) in self.order_ids)
            and (not self.skus or not self.skus.isdisjoint(_skus(record)))
        )


def full_type(name: str) -> str:
    """Return the name of a type on the wire, given with its version or without.

    Raises:
        Invalid: there is no such type.
    """
    known = {kind for kinds in CATALOGUE.values() for kind in kinds}
    found = name if name in known else f"{name}.v1"
    if found not in known:
        detail = f"{name} is no type of event: {', '.join(sorted(known))}."
        raise Invalid(detail)
    return found


def _text(record: Record, name: str) -> str:
    return (header(record.headers, name) or b"").decode(errors="replace")


def _order_id(record: Record) -> UUID | None:
    """Return the order that a record is about: the key of all but the events about a SKU."""
    try:
        return UUID((record.key or b"").decode("ascii"))
    except ValueError:
        return None


def _skus(record: Record) -> set[str]:
    """Return the SKUs that a record names: its own, and those of its lines and shortages."""
    try:
        data: Any = orjson.loads(record.value or b"null")
    except orjson.JSONDecodeError:
        return set()
    if not isinstance(data, dict):
        return set()
    rows = [data, *(data.get("lines") or ()), *(data.get("shortages") or ())]
    return {str(row["sku"]) for row in rows if isinstance(row, dict) and "sku" in row}


@dataclass(slots=True)
class Selection:
    """Reads a scope, and gives what is meant of it; counts what it has looked at, taken and passed over.

    Attributes:
        spans: the offsets to read, fixed.
        filters: what is meant of them.
        takes_all: also copies, and what has no id of its own: as a group hears it that is set back.
        replay_id: the run whose own output is never taken, whatever the filters say.
        copies: how many were passed over since an earlier replay wrote them.
        without_id: how many were passed over since nobody could tell them from what is repeated.
    """

    spans: Spans
    filters: Filters
    takes_all: bool = False
    replay_id: UUID | None = None
    looked_at: int = 0
    taken: int = 0
    copies: int = 0
    without_id: int = 0
    #: Which offset comes next in each partition, when the chunk that was given last is done.
    positions: dict[tuple[str, int], int] = field(default_factory=dict)

    async def chunks(
        self, kafka: KafkaSettings, *, size_max: int = _CHUNK_RECORDS
    ) -> AsyncGenerator[list[Record], None]:
        """Yield what is meant in chunks, each partition's in order; at times an empty one, so that progress is seen.

        Raises:
            Unavailable: Kafka does not answer, or not any more.
        """
        chunk: list[Record] = []
        looked_at = 0
        async with aclosing(read_spans(kafka, self.spans)) as records:
            async for record in records:
                looked_at += 1
                self.positions[record.topic, record.partition] = record.offset + 1
                if self.filters.take(record) and (self.takes_all or self._is_original(record)):
                    chunk.append(record)
                if len(chunk) >= size_max or looked_at >= 10 * _CHUNK_RECORDS:
                    self._count(looked_at, chunk)
                    yield chunk
                    chunk, looked_at = [], 0
        self._count(looked_at, chunk)
        yield chunk

    def _is_original(self, record: Record) -> bool:
        """Tell whether sending a record again does what it did once: it is no copy itself, or may be, and has an id."""
        written_by = header(record.headers, REPLAY_ID)
        is_own = written_by is not None and written_by == str(self.replay_id).encode()
        if is_own or (written_by is not None and not self.filters.copies):
            self.copies += 1
            return False
        if event_id(record) is None:
            self.without_id += 1
            return False
        return True

    def _count(self, looked_at: int, chunk: list[Record]) -> None:
        self.looked_at += looked_at
        self.taken += len(chunk)
