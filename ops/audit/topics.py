"""A12: is every event that a producer has counted in its topic, and none beyond?

The databases are frozen first and the topics are measured after that: what a producer had counted by then, and had no
longer in its outbox, Kafka had acknowledged by then. Of each key only which numbers came is kept, which is one integer
as long as none is missing. A number that comes again is no fault: Kafka delivers at least once.
"""

from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from ops.audit.findings import Finding, Lost
from ops.audit.limits import AuditLimits
from ops.audit.snapshots import Snapshots, frozen
from shared.envelope import header
from shared.events import INVENTORY_TOPIC, ORDER_TOPIC, PAYMENT_TOPIC
from shared.kafka import Spans, measure_topics, partition_of, read_spans
from shared.settings import KafkaSettings

#: The topic of each producer, by the name of its database.
PRODUCERS: Mapping[str, str] = MappingProxyType(
    {"order": ORDER_TOPIC, "inventory": INVENTORY_TOPIC, "payment": PAYMENT_TOPIC}
)

#: How many missing numbers of a key a finding names.
_TOLD_MAX = 5
#: How many missing numbers of a key are kept; what is beyond them is found by the next audit.
_LACKING_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Topics:
    """Where the topics are, and which of them is whose."""

    kafka: KafkaSettings
    producers: Mapping[str, str] = field(default_factory=lambda: PRODUCERS)


class Counter(NamedTuple):
    """What a producer says of a key: the last number it gave out, and which numbers still wait in its outbox."""

    key: str
    last: int
    waiting: list[int] | None


@dataclass(slots=True)
class Numbers:
    """Which numbers of a key were seen: all of `first` to `last`, and `others`."""

    first: int
    last: int
    others: set[int] = field(default_factory=set)

    def add(self, number: int) -> None:
        """Take one more number, seen before or not."""
        if number == self.last + 1:
            self.last = number
            while self.last + 1 in self.others:
                self.last += 1
                self.others.remove(self.last)
        elif not self.first <= number <= self.last:
            self.others.add(number)

    def missing(self, start: int, end: int) -> Iterator[int]:
        """Yield the numbers from `start` to `end` that were not seen."""
        for number in range(start, end + 1):
            if not (self.first <= number <= self.last or number in self.others):
                yield number

    @property
    def lowest(self) -> int:
        """The lowest number seen."""
        return min(self.first, *self.others) if self.others else self.first

    @property
    def highest(self) -> int:
        """The highest number seen."""
        return max(self.last, *self.others) if self.others else self.last


class Seen:
    """Which numbers of each key a topic holds. A key all of whose numbers came in order is one integer."""

    def __init__(self) -> None:
        self._keys: dict[str, int | Numbers] = {}

    def add(self, key: str, number: int) -> None:
        """Note a number of a key."""
        seen = self._keys.get(key, 0)
        if isinstance(seen, Numbers):
            seen.add(number)
        elif number == seen + 1:
            self._keys[key] = number
        elif number > seen:
            numbers = self._keys[key] = Numbers(1, seen) if seen else Numbers(number, number)
            numbers.add(number)

    def take(self, key: str) -> Numbers | None:
        """Return the numbers of a key and forget it; None if there are none."""
        seen = self._keys.pop(key, None)
        return Numbers(1, seen) if isinstance(seen, int) else seen

    def rest(self) -> dict[str, int]:
        """Return the highest number of each key that was not taken."""
        return {key: seen.highest if isinstance(seen, Numbers) else seen for key, seen in self._keys.items()}


async def find_lost_events(
    connections: Snapshots, limits: AuditLimits, topics: Topics
) -> tuple[list[Finding], list[Lost], int]:
    """A12: per key, the numbers in the topic have no holes and end where the producer's counter stands.

    Returns:
        The findings, at most `suspects_max`, the same as numbers, as far as events are missing, and how many events
        were read.

    Raises:
        NotFound: a topic is missing.
        Unavailable: Kafka or a database does not answer.
    """
    findings: list[Finding] = []
    lost: list[Lost] = []
    events = 0
    for name, topic in topics.producers.items():
        async with frozen(connections) as snapshots:
            spans = await measure_topics(topics.kafka, [topic])
            seen, count = await _read(topics.kafka, spans)
            # What retention deletes while we read is not missing either.
            spans = await measure_topics(topics.kafka, [topic])
            found, ahead = await _compare_all(snapshots, name, limits, seen, spans)
        lost += found
        findings += [Finding("A12", item.key, tell_lost(item)) for item in found]
        findings += await _find_uncounted(connections, name, topic, limits, {**ahead, **seen.rest()})
        events += count
    return findings[: limits.suspects_max], lost[: limits.suspects_max], events


async def _read(kafka: KafkaSettings, spans: Spans) -> tuple[Seen, int]:
    """Return which numbers there are of each key, and how many events were read."""
    seen, count = Seen(), 0
    async with aclosing(read_spans(kafka, spans)) as records:
        async for record in records:
            count += 1
            number = header(record.headers, "ce_sequence") or b""
            if record.key is not None and number.isdigit() and int(number) > 0:
                seen.add(record.key.decode(errors="replace"), int(number))
    return seen, count


async def _compare_all(
    snapshots: Snapshots, name: str, limits: AuditLimits, seen: Seen, spans: Spans
) -> tuple[list[Lost], dict[str, int]]:
    """Compare each counter of a producer with what its topic holds.

    Returns:
        The keys that lack numbers, and the highest number of each key that has more than its producer had counted.
    """
    ((topic, partitions),) = spans.items()
    lost: list[Lost] = []
    ahead: dict[str, int] = {}
    async with aclosing(list_counters(snapshots, name, topic, None, limits)) as counters:
        async for counter in counters:
            numbers = seen.take(counter.key)
            if numbers is not None and numbers.highest > counter.last:
                ahead[counter.key] = numbers.highest
            span = partitions[partition_of(counter.key.encode(), len(partitions))]
            lacking = lacking_numbers(counter, numbers, is_whole=span.begin == 0)
            if lacking and len(lost) < limits.suspects_max:
                lost.append(Lost(name, topic, counter.key, counter.last, tuple(lacking)))
    return lost, ahead


def lacking_numbers(counter: Counter, numbers: Numbers | None, *, is_whole: bool) -> list[int]:
    """Return the first numbers that are missing; where the beginning was deleted, those before the first one are not."""
    if numbers is None:
        numbers = Numbers(1, 0) if is_whole else Numbers(1, counter.last)
    start = 1 if is_whole else numbers.lowest
    waiting = frozenset(counter.waiting or ())
    missing = (number for number in numbers.missing(start, counter.last) if number not in waiting)
    return [*islice(missing, _LACKING_MAX)]


def tell_lost(lost: Lost) -> str:
    """Say which events of a key are missing, as a finding does."""
    numbers = ", ".join(str(number) for number in lost.numbers[:_TOLD_MAX])
    more = " and more" if len(lost.numbers) > _TOLD_MAX else ""
    return f"of {lost.last} events {lost.topic} lacks number {numbers}{more}"


async def _find_uncounted(
    connections: Snapshots, name: str, topic: str, limits: AuditLimits, highest: Mapping[str, int]
) -> list[Finding]:
    """Return the keys of which the topic holds more than their producer has counted, by now."""
    keys = sorted(highest)[: limits.suspects_max]
    if not keys:
        return []
    async with frozen(connections) as snapshots:
        counters = [counter async for counter in list_counters(snapshots, name, topic, keys, limits)]
    counted = {counter.key: counter.last for counter in counters}
    return [
        Finding("A12", key, f"{topic} holds number {highest[key]}, {counted.get(key, 0)} were counted")
        for key in keys
        if highest[key] > counted.get(key, 0)
    ]


async def list_counters(
    snapshots: Snapshots, name: str, topic: str, among: Collection[str] | None, limits: AuditLimits
) -> AsyncGenerator[Counter, None]:
    """Yield the counter of every key that a producer has told of, or of some keys, with what waits in its outbox."""
    connection = getattr(snapshots, name)
    cursor = connection.cursor(_COUNTERS[name], topic, among, prefetch=limits.rows_fetched_max)
    async for row in cursor:
        yield Counter(*row)


_COUNTERS = {
    "order": """
        WITH waiting AS (
            SELECT convert_from(key, 'UTF8') AS key, array_agg(sequence) AS numbers
            FROM outbox
            WHERE topic = $1 AND key IS NOT NULL
            GROUP BY key
        ),
        counter AS (
            SELECT order_id::text AS key, sequence FROM orders
            WHERE sequence > 0
        )
        SELECT key, sequence, numbers FROM counter LEFT JOIN waiting USING (key)
        WHERE $2::text[] IS NULL OR key = ANY($2)
        """,
    "inventory": """
        WITH waiting AS (
            SELECT convert_from(key, 'UTF8') AS key, array_agg(sequence) AS numbers
            FROM outbox
            WHERE topic = $1 AND key IS NOT NULL
            GROUP BY key
        ),
        counter AS (
            SELECT order_id::text AS key, sequence FROM reservations
            WHERE sequence > 0
            UNION ALL
            SELECT sku AS key, sequence FROM stock_levels
            WHERE sequence > 0
        )
        SELECT key, sequence, numbers FROM counter LEFT JOIN waiting USING (key)
        WHERE $2::text[] IS NULL OR key = ANY($2)
        """,
    "payment": """
        WITH waiting AS (
            SELECT convert_from(key, 'UTF8') AS key, array_agg(sequence) AS numbers
            FROM outbox
            WHERE topic = $1 AND key IS NOT NULL
            GROUP BY key
        ),
        counter AS (
            SELECT order_id::text AS key, sequence FROM payments
            WHERE sequence > 0
        )
        SELECT key, sequence, numbers FROM counter LEFT JOIN waiting USING (key)
        WHERE $2::text[] IS NULL OR key = ANY($2)
        """,
}
