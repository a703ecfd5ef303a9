"""How does a service hear the others: a batch at a time, once each, and nothing skipped in silence?

One poll is one batch is one transaction: inbox, handler and dead letters together. Only then are offsets committed,
and lazily, since the inbox makes a redelivery harmless. While Postgres is away the partitions are paused and polling
goes on, so that the group does not think this member dead.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from structlog.contextvars import bound_contextvars

from shared import inbox, metrics, outbox
from shared.backoff import Backoff
from shared.database import Connection, Database, is_transient
from shared.envelope import (
    REDRIVE_GROUP_HEADER,
    REDRIVE_HEADER,
    REPLAY_GROUP_HEADER,
    Message,
    Record,
    Refusal,
    Undecodable,
    decode,
    decode_structured,
    header,
    is_structured,
    message_id,
)
from shared.errors import HoldfastError, Unavailable
from shared.events import CATALOGUE, COMMANDS_TOPIC, Wire
from shared.health import Health, Progress
from shared.kafka import GroupConsumer, GroupLimits, is_kafka_error
from shared.logging import get_logger
from shared.outbox import DeadLetter
from shared.settings import KafkaSettings
from shared.splitting import apply_splitting
from shared.worker import wait_for_any

_log = get_logger()
_POLL_SECONDS = 0.2
_PROBE_SECONDS = 2.0
# Offsets that were not committed cost a redelivery, which the inbox makes harmless.
_LAST_COMMIT_SECONDS_MAX = 1.0
_DRAIN_SECONDS_MAX = 5.0

Handle = Callable[[Connection, Sequence[Message[Any]]], Awaitable[Sequence[Refusal]]]
HeadersByName = Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class ConsumerLimits:
    """How a consumer paces itself: a batch of `pause_records_min` or more is followed by a pause, so the next is larger.

    Many small batches cost several times the CPU of few large ones, and a busy system would never get out of them. A
    full batch is as large as they get: after it there is no pause.
    """

    group: GroupLimits = field(default_factory=GroupLimits)
    pause_seconds: float = 0.03
    offsets_interval_seconds: float = 1.0
    pause_records_min: int = 4


class Sorter:
    """Tells, by `ce_type` alone, what a group wants of what it reads, and decodes only that."""

    def __init__(self, group: str, consumed: Sequence[type[Wire]]) -> None:
        self._group = group
        self._group_header = group.encode()
        self.topics = sorted({model.topic for model in consumed})
        self._wanted = {
            topic: {model.type.encode(): model for model in consumed if model.topic == topic}
            for topic in self.topics
        }
        self._known = {topic: {name.encode() for name in CATALOGUE[topic]} for topic in self.topics}

    def sort(self, records: Sequence[Record]) -> list[Message[Wire] | DeadLetter]:
        """Return what has to be handled or refused, in order; the rest is passed over and counted."""
        taken = []
        for record in records:
            item = self._sort_one(record)
            if item is not None:
                taken.append(item)
        metrics.MESSAGES.labels(self._group, "passed").inc(len(records) - len(taken))
        return taken

    def pick(self, records: Sequence[Record]) -> list[tuple[Record, HeadersByName]]:
        """Leave out what is passed over by its headers alone, and count it; return the rest with its headers by name."""
        picked: list[tuple[Record, HeadersByName]] = []
        for record in records:
            # Of a repeated name the first value counts, as it does for whoever decodes the record.
            headers = dict(reversed(record.headers))
            kind = headers.get("ce_type")
            is_wanted = kind in self._wanted[record.topic] or kind not in self._known[record.topic]
            if is_wanted and self._is_for_this_group(
                headers.get(REPLAY_GROUP_HEADER),
                headers.get(REDRIVE_GROUP_HEADER) if REDRIVE_HEADER in headers else None,
            ):
                picked.append((record, headers))
        metrics.MESSAGES.labels(self._group, "passed").inc(len(records) - len(picked))
        return picked

    def _sort_one(self, record: Record) -> Message[Wire] | DeadLetter | None:
        kind = header(record.headers, "ce_type")
        model = self._wanted[record.topic].get(kind) if kind is not None else None
        if model is None and kind in self._known[record.topic]:
            return None
        redriven_for = header(record.headers, REDRIVE_GROUP_HEADER)
        if redriven_for is not None and header(record.headers, REDRIVE_HEADER) is None:
            redriven_for = None
        if not self._is_for_this_group(header(record.headers, REPLAY_GROUP_HEADER), redriven_for):
            return None
        try:
            if model is not None:
                return decode(record, model, group=self._group)
            return self._sort_unknown(record, kind)
        except Undecodable as error:
            return DeadLetter(record, message_id(record), error.reason, error.detail)

    def _is_for_this_group(self, *named: bytes | None) -> bool:
        """Tell whether an operator who sent a record again has named no group, or this one."""
        return all(group is None or group == self._group_header for group in named)

    def _sort_unknown(self, record: Record, kind: bytes | None) -> Message[Wire] | None:
        """Decode a structured command, pass over a type of the future, and refuse the rest."""
        if record.topic == COMMANDS_TOPIC:
            if kind is None and is_structured(record):
                return decode_structured(record, CATALOGUE[COMMANDS_TOPIC], group=self._group)
            detail = "ce_type is missing" if kind is None else f"unknown type {kind!r}"
            raise Undecodable(detail)
        if not kind or not kind.isascii() or not kind.decode("ascii").isprintable():
            detail = "ce_type is missing" if kind is None else "ce_type cannot be read"
            raise Undecodable(detail)
        metrics.MESSAGES.labels(self._group, "unknown").inc()
        return None


class Consumer:
    """Feeds a handler from the topics of the events it consumes. A part of a service."""

    def __init__(
        self,
        group: str,
        consumed: Sequence[type[Wire]],
        handle: Handle,
        *,
        database: Database,
        kafka: KafkaSettings,
        limits: ConsumerLimits,
        health: Health,
    ) -> None:
        self.name = f"consumer:{group}"
        self.progress = Progress()
        self._group = group
        self._sorter = Sorter(group, consumed)
        self._handle = handle
        self._database = database
        self._kafka = kafka
        self._limits = limits
        self._health = health
        self._backoff = Backoff(seconds_min=0.1, seconds_max=5.0)
        self._in_hand = asyncio.Lock()
        self._done: dict[tuple[str, int], int] = {}
        self._committed_at = 0.0
        self._behind = 0
        self._is_repeating = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Take batches until told to stop; a group that cannot be joined is tried again for ever."""
        failures = 0
        while not stopping.is_set():
            consumer = GroupConsumer(
                self._kafka,
                group=self._group,
                topics=self._sorter.topics,
                limits=self._limits.group,
                before_revoked=lambda: self._drain(consumer),  # noqa: B023 (called only while this one is open)
            )
            try:
                if not await self._join(consumer, stopping):
                    return
                self._health.up("kafka")
                failures = 0
                await self._consume(consumer, stopping)
            except Exception as error:
                if not (isinstance(error, Unavailable) or is_kafka_error(error)):
                    raise
                failures += 1
                self.progress.done()
                self._health.down("kafka", repr(error))
                _log.warning("consumer_disconnected", group=self._group, error=repr(error), failures=failures)
                await wait_for_any(stopping, seconds=self._backoff.seconds(failures))
            finally:
                await consumer.close()

    async def _join(self, consumer: GroupConsumer, stopping: asyncio.Event) -> bool:
        """Join the group; False if told to stop meanwhile: a group waits for a member that died as long as its session."""
        joining, told = asyncio.create_task(consumer.open()), asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([joining, told], return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                await joining
            return joining.done()
        finally:
            joining.cancel()
            told.cancel()
            await asyncio.gather(joining, told, return_exceptions=True)

    async def _consume(self, consumer: GroupConsumer, stopping: asyncio.Event) -> None:
        probe = asyncio.create_task(self._probe(consumer), name=f"{self.name}:probe")
        try:
            while not stopping.is_set():
                self.progress.owes()
                records = await consumer.poll(_POLL_SECONDS)
                if records:
                    async with self._in_hand:
                        await self._take(consumer, records, stopping)
                if records or not self._behind:
                    self.progress.done()
                await self._commit_when_due(consumer)
                if (
                    self._limits.pause_records_min <= len(records) < self._limits.group.records_max
                    and not self._is_repeating
                ):
                    await asyncio.sleep(self._limits.pause_seconds)
        finally:
            probe.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_COMMIT_SECONDS_MAX):
                    await self._commit(consumer)

    async def _probe(self, consumer: GroupConsumer) -> None:
        """Keep asking Kafka what waits: without brokers, or standing still, all looks as if there were no messages."""
        while True:
            behind = await consumer.count_behind(_PROBE_SECONDS)
            if behind is None:
                self._health.down("kafka", "no broker answers")
            else:
                self._health.up("kafka")
                metrics.CONSUMER_LAG.labels(self._group).set(behind)
            self._behind = behind or 0
            await asyncio.sleep(_PROBE_SECONDS)

    async def _drain(self, consumer: GroupConsumer) -> None:
        """Finish what is in hand and say so before partitions move to another member.

        A batch whose database is away is not waited for: the group would throw this member out, and the inbox of
        whoever takes over knows what was handled.
        """
        try:
            async with asyncio.timeout(_DRAIN_SECONDS_MAX):
                await self._in_hand.acquire()
        except TimeoutError:
            return
        try:
            await self._commit(consumer)
        finally:
            self._in_hand.release()

    async def _take(
        self, consumer: GroupConsumer, records: Sequence[Record], stopping: asyncio.Event
    ) -> None:
        """Have one poll handled, however long its database is away."""
        items = self._sorter.sort(await self._new_of(records) if self._is_repeating else records)
        tries = 0
        while items:
            try:
                await apply_splitting(items, self.apply, is_transient=is_transient, refuse=self._refuse)
                break
            except Exception as error:
                if stopping.is_set():
                    return
                tries += 1
                self.progress.done()
                metrics.RETRIES.labels(self.name).inc()
                self._health.down(self.name, repr(error))
                _log.warning(
                    "batch_retried", group=self._group, error=repr(error), tries=tries, items=len(items)
                )
                await consumer.keep_alive(self._backoff.seconds(tries))
                self.progress.owes()
        if tries:
            consumer.resume()
        self._health.up(self.name)
        for record in records:
            self._done[record.topic, record.partition] = record.offset + 1

    async def _new_of(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return nothing of a batch that was handled before, and all of it that concerns this group if any may be new.

        Asked while what comes is mostly repeated: a replay, or a group that was set back. What the inbox knows is then
        neither decoded nor written about, which makes it several times faster; else it would be one question too many.
        """
        picked = self._sorter.pick(records)
        if not picked or not await self._knows([headers for _, headers in picked]):
            return [record for record, _ in picked]
        metrics.MESSAGES.labels(self._group, "duplicate").inc(len(picked))
        return []

    async def _knows(self, headers: Sequence[HeadersByName]) -> bool:
        """Tell whether the inbox knows every one of some records, and none was sent again to be taken all the same."""
        if any(REDRIVE_HEADER in found for found in headers):
            return False
        event_ids = {(found.get("ce_id") or b"").decode("ascii", "replace") for found in headers}
        try:
            async with self._database.connection() as connection:
                return await inbox.count_known_events(connection, self._group, event_ids) == len(event_ids)
        except Exception as error:
            # An id that is none is for the dead letters, and a database that is away is waited for: as always.
            if not (isinstance(error, ValueError) or is_transient(error)):
                raise
            return False

    async def apply(self, items: Sequence[Message[Wire] | DeadLetter]) -> None:
        """Apply a batch in one transaction: inbox, handler, dead letters."""
        messages = [item for item in items if isinstance(item, Message)]
        undecodable = [item for item in items if isinstance(item, DeadLetter)]
        metrics.BATCH_SIZE.labels(self.name).observe(len(items))
        with metrics.BATCH_SECONDS.labels(self.name).time(), _named_in_logs(items):
            async with self._database.transaction() as tx:
                new = await inbox.claim(tx, self._group, messages) if messages else []
                refusals = await self._handle(tx, new) if new else []
                await self._bury(tx, [_letter(refusal) for refusal in refusals], undecodable)
        outcomes = metrics.MESSAGES
        outcomes.labels(self._group, "handled").inc(len(new) - len(refusals))
        outcomes.labels(self._group, "duplicate").inc(len(messages) - len(new))
        self._is_repeating = len(messages) > 2 * len(new)

    async def _bury(self, tx: Connection, refused: list[DeadLetter], undecodable: list[DeadLetter]) -> None:
        """Write dead letters: for what the handler refused, and for what could not be decoded and is new."""
        if refused:
            await inbox.bury(tx, self._group, [letter.event_id for letter in refused])
        letters = list(refused)
        if undecodable:
            new = await inbox.insert_processed_events(
                tx, self._group, {letter.event_id for letter in undecodable}, "dead"
            )
            letters += [
                letter for letter in undecodable if letter.event_id in new or _is_redriven(letter.record)
            ]
        if not letters:
            return
        await outbox.add_dead_letters(tx, letters, group=self._group, at=datetime.now(UTC))
        for letter in letters:
            metrics.DEAD_LETTERS.labels(self._group, letter.reason).inc()
            metrics.MESSAGES.labels(self._group, "refused").inc()
            _log.warning(
                "dead_letter",
                group=self._group,
                **_names(letter.event_id, letter.record),
                reason=letter.reason,
                error=letter.detail,
                topic=letter.record.topic,
                partition=letter.record.partition,
                offset=letter.record.offset,
            )

    async def _refuse(self, item: Message[Wire] | DeadLetter, error: Exception) -> None:
        """Divert a message that fails even alone."""
        _log.error("message_failed", group=self._group, **_names(item.event_id, item.record), exc_info=error)
        if isinstance(item, DeadLetter) or item.record is None:
            raise error
        reason = error.reason if isinstance(error, HoldfastError) else "handler_failed"
        letter = DeadLetter(item.record, item.event_id, reason, f"{type(error).__name__}: {error}")
        async with self._database.transaction() as tx:
            claimed = await inbox.claim(tx, self._group, [item])
            if claimed:
                await self._bury(tx, [letter], [])

    async def _commit_when_due(self, consumer: GroupConsumer) -> None:
        now = asyncio.get_running_loop().time()
        if self._done and now - self._committed_at >= self._limits.offsets_interval_seconds:
            self._committed_at = now
            await self._commit(consumer)

    async def _commit(self, consumer: GroupConsumer) -> None:
        done, self._done = self._done, {}
        if done and not await consumer.commit(done):
            # Normal after a rebalance: whoever reads on from the old offset finds the inbox.
            _log.info("offsets_not_committed", group=self._group)


@contextmanager
def _named_in_logs(items: Sequence[Message[Wire] | DeadLetter]) -> Iterator[None]:
    """Have whatever is logged while one message is worked on alone name it."""
    if len(items) != 1:
        yield
        return
    (item,) = items
    with bound_contextvars(**_names(item.event_id, item.record)):
        yield


def _names(event_id: UUID, record: Record | None) -> dict[str, str]:
    """Return the ids by which a message is found again: its own, and that of the order that it is about, if any."""
    names = {"event_id": str(event_id)}
    if record is not None:
        is_command = record.topic == COMMANDS_TOPIC
        order_id = record.key if is_command else header(record.headers, "ce_correlationid")
        if order_id is not None:
            names["order_id"] = order_id.decode(errors="backslashreplace")
    return names


def _letter(refusal: Refusal) -> DeadLetter:
    message = refusal.message
    if message.record is None:
        detail = f"{refusal.reason}: {refusal.detail}"
        raise HoldfastError(detail)
    return DeadLetter(message.record, message.event_id, refusal.reason, refusal.detail)


def _is_redriven(record: Record) -> bool:
    return header(record.headers, REDRIVE_HEADER) is not None
