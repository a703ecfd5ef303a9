"""What would a group make of records if it heard them again? Found by letting it, and undoing it.

The real handlers decide, in a transaction of their service's own database that is always rolled back. With it go its
rows, events, notifications and locks; the numbers that identity columns gave out are gone, which is harmless: nothing
takes them for a count. What the inbox knows never gets that far: it is looked up, and locks nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ops.replay import store
from ops.replay.headers import event_id
from ops.replay.readers import Reader
from shared import inbox
from shared.consumer import Sorter
from shared.database import Connection, is_transient
from shared.envelope import REDRIVE_HEADER, Message, Record, header, message_id
from shared.errors import Unavailable
from shared.events import Wire

#: How many new messages are tried in one transaction, which sees what it did before; the rows of their orders are locked
#: as long as it lasts.
_TRIED_AT_ONCE = 200
_LOCK_SECONDS_MAX = 0.5
_TRIES_MAX = 10
_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class Verdicts:
    """How many records a group would apply, knows already, would find stale, would refuse, and does not want at all.

    A stale one is new to the inbox, but changes nothing. `dead` says how many of the duplicates were refused before.
    """

    applied: int = 0
    duplicate: int = 0
    stale: int = 0
    refused: int = 0
    passed: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class OrderChange:
    """Where a service sees an order now, and where it would see it afterwards; None: it does not know of it."""

    order_id: UUID
    service: str
    before: str | None
    after: str | None


@dataclass(slots=True)
class Changes:
    """Which orders a service would see elsewhere; of those beyond the limit only how many."""

    service: str
    listed_max: int
    _seen: set[UUID] = field(default_factory=set)
    _listed: dict[UUID, OrderChange] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many orders change, listed or not."""
        return len(self._seen)

    def add(self, before: dict[UUID, str], after: dict[UUID, str]) -> None:
        """Take in where orders stood before a trial and after it."""
        for order_id in sorted(before.keys() | after.keys()):
            was, becomes = before.get(order_id), after.get(order_id)
            if was == becomes:
                continue
            known = self._listed.get(order_id)
            self._seen.add(order_id)
            if known is not None or len(self._listed) < self.listed_max:
                first = known.before if known is not None else was
                self._listed[order_id] = OrderChange(order_id, self.service, first, becomes)

    def listed(self) -> list[OrderChange]:
        """Return the changes as far as they are listed."""
        return [*self._listed.values()]


class Trial:
    """Tries records on one group, in the order in which it would hear them."""

    def __init__(
        self, reader: Reader, connection: Connection, *, reprocess: bool = False, orders_max: int = 20
    ) -> None:
        self.verdicts = Verdicts()
        self.changes = Changes(reader.service, orders_max)
        self._reader = reader
        self._connection = connection
        self._reprocess = reprocess
        self._sorter = Sorter(reader.group, reader.consumed)
        self._waiting: list[Message[Wire]] = []
        self._refused: set[UUID] = set()

    async def open(self) -> None:
        """Make the connection one that services never wait for long."""
        await store.limit_waiting(self._connection, lock_seconds_max=_LOCK_SECONDS_MAX)

    async def take(self, records: Iterable[Record]) -> None:
        """Try records as they would be delivered.

        Raises:
            Unavailable: others keep the rows that are needed for too long.
        """
        heard = [
            (event_id(record) or message_id(record), record)
            for record in records
            if record.topic in self._sorter.topics
        ]
        known = await store.find_outcomes(self._connection, self._reader.group, {item for item, _ in heard})
        new = []
        for known_as, record in heard:
            outcome = known.get(known_as)
            if self._is_new(outcome, record):
                new.append(record)
            else:
                self.verdicts.duplicate += 1
                self.verdicts.dead += outcome == "dead"
        self._sort(new)
        while len(self._waiting) >= _TRIED_AT_ONCE:
            await self._try_waiting()

    def _is_new(self, outcome: str | None, record: Record) -> bool:
        """Tell whether the inbox would let a record through; a redrive may be for what was refused."""
        match outcome:
            case None:
                return True
            case "handled":
                return self._reprocess
            case _:
                return header(record.headers, REDRIVE_HEADER) is not None

    async def finish(self) -> None:
        """Try what still waits for its neighbours."""
        while self._waiting:
            await self._try_waiting()

    def _sort(self, records: Sequence[Record]) -> None:
        items = self._sorter.sort(records)
        self.verdicts.passed += len(records) - len(items)
        for item in items:
            if isinstance(item, Message):
                self._waiting.append(item)
            elif item.event_id in self._refused:
                self.verdicts.duplicate += 1
            else:
                self._refused.add(item.event_id)
                self.verdicts.refused += 1

    async def _try_waiting(self) -> None:
        """Try the messages that came first, again and again while others are at work on the same rows."""
        batch = self._waiting[:_TRIED_AT_ONCE]
        del self._waiting[:_TRIED_AT_ONCE]
        for _ in range(_TRIES_MAX):
            try:
                found = await self._try(batch)
            except Exception as error:
                if not is_transient(error):
                    raise
                problem = error
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                for name in ("applied", "duplicate", "stale", "refused"):
                    setattr(self.verdicts, name, getattr(self.verdicts, name) + getattr(found, name))
                return
        detail = f"{self._reader.service}: others keep the rows that the plan needs for too long: {problem!r}"
        raise Unavailable(detail) from problem

    async def _try(self, batch: Sequence[Message[Wire]]) -> Verdicts:
        found = Verdicts()
        orders = {message.event.order_id for message in batch if hasattr(message.event, "order_id")}
        async with _undone(self._connection) as tx:
            before = await store.find_states(tx, self._reader.service, orders)
            if self._reprocess:
                await store.forget_events(tx, self._reader.group, [message.event_id for message in batch])
            new = await inbox.claim(tx, self._reader.group, batch)
            found.duplicate = len(batch) - len(new)
            if new:
                await self._sift(tx, new, found)
            after = await store.find_states(tx, self._reader.service, orders)
        self.changes.add(before, after)
        return found

    async def _sift(self, tx: Connection, messages: Sequence[Message[Any]], found: Verdicts) -> None:
        """Have messages handled, and tell which of them change something: by halves, down to each that does."""
        savepoint = tx.transaction()
        await savepoint.start()
        try:
            written = await store.count_changes(tx)
            refusals = await self._reader.handle(tx, messages)
            is_changed = await store.count_changes(tx) > written
        except Exception as error:
            await savepoint.rollback()
            if is_transient(error):
                raise
            if len(messages) == 1:
                found.refused += 1
                return
        else:
            if len(messages) == 1 or not is_changed:
                await savepoint.commit()
                applied = int(is_changed and not refusals)
                found.applied += applied
                found.refused += len(refusals)
                found.stale += len(messages) - len(refusals) - applied
                return
            await savepoint.rollback()
        middle = len(messages) // 2
        await self._sift(tx, messages[:middle], found)
        await self._sift(tx, messages[middle:], found)


@asynccontextmanager
async def _undone(connection: Connection) -> AsyncIterator[Connection]:
    """Lend a transaction of which nothing stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()
