"""Which letters does an operator mean, how many are there of which kind, and which would a command act on?"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from cyclopts import Parameter

from ops.actions import connected
from ops.dead_letters.reading import Letter, LetterTopic, State, belongs, survey
from ops.options import Moment
from ops.place import Place

#: How much a plan holds in memory at most, whatever its limit.
_BYTES_MAX = 256 * 1024 * 1024
#: How many letters that cannot be acted on a plan names.
_PROBLEMS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which letters are meant: those for which all of this is true.

    Attributes:
        reason: the word that says why they were refused (undecodable, handler_failed, conflict, unknown_order, …).
        type: the type of the event, with or without its version (OrderRequested, OrderRequested.v1).
        order_id: the order they are about: by key, subject, correlation id or body.
        key: exactly this message key.
        group: the consumer group that refused them (order-service, inventory-service, payment-service).
        event_id: the id of the event.
        since: refused at this time or later (2026-03-01T12:00:00Z, or how long ago: 15m, 2h, 3d).
        until: refused before this time.
    """

    reason: Annotated[str | None, Parameter(name=("--reason", "--dlq-reason"))] = None
    type: str | None = None
    order_id: str | None = None
    key: str | None = None
    group: str | None = None
    event_id: UUID | None = None
    since: Moment | None = None
    until: Moment | None = None

    def match(self, letter: Letter) -> bool:
        """Tell whether a letter is meant."""
        return (
            self.reason in {None, letter.reason}
            and self.type in {None, letter.type, letter.type.partition(".")[0]}
            and self.group in {None, letter.topic.group}
            and self.key in {None, letter.key_text}
            and (self.order_id is None or letter.concerns(self.order_id))
            and (self.event_id is None or self.event_id in letter.event_ids)
            and self._match_time(letter.refused_at)
        )

    def _match_time(self, at: datetime | None) -> bool:
        if self.since is None and self.until is None:
            return True
        return (
            at is not None
            and (self.since is None or self.since <= at)
            and (self.until is None or at < self.until)
        )

    def as_dict(self) -> dict[str, str]:
        """Return what is asked for, to be kept with what was done."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in asdict(self).items()
            if value is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardFilters(Filters):
    """Which letters are to be laid aside: as elsewhere, but `--reason` says there why the operator does it.

    Attributes:
        reason: the word that says why they were refused (undecodable, handler_failed, conflict, unknown_order, …).
    """

    reason: Annotated[str | None, Parameter(name="--dlq-reason")] = None


@dataclass(slots=True)
class Group:
    """Letters of one topic that were refused for one reason: how many in which state, and from when to when."""

    topic: LetterTopic
    reason: str
    states: Counter[State] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None

    def add(self, letter: Letter) -> None:
        """Count one more letter."""
        self.states[letter.state] += 1
        at = letter.refused_at
        if at is not None:
            self.first = at if self.first is None else min(self.first, at)
            self.last = at if self.last is None else max(self.last, at)

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "topic": self.topic.name,
            "group": self.topic.group,
            "reason": self.reason,
            "count": self.states.total(),
            **{state.value: self.states[state] for state in State},
            "first": self.first,
            "last": self.last,
        }


@dataclass(slots=True)
class Summary:
    """What there is: every letter that matches, counted; and the first of those in the state that was asked for."""

    groups: list[Group] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    not_listed: int = 0

    def count(self, state: State) -> int:
        """Return how many letters are in a state."""
        return sum(group.states[state] for group in self.groups)


async def summarize(
    place: Place, topics: Sequence[LetterTopic], filters: Filters, *, state: State | None, limit: int
) -> Summary:
    """Count the letters of some topics that match, and list at most `limit` of them, the oldest of each topic first.

    Args:
        place: where the system is.
        topics: which dead-letter topics.
        filters: which letters of them.
        state: only letters in this state are listed; None: all are. Every one is counted.
        limit: how many are listed.
    """
    summary = Summary()
    groups: dict[tuple[str, str], Group] = {}
    async with aclosing(matching(place, topics, filters)) as letters:
        async for letter in letters:
            name = (letter.topic.name, letter.reason)
            if name not in groups:
                groups[name] = Group(letter.topic, letter.reason)
                summary.groups.append(groups[name])
            groups[name].add(letter)
            if state not in {None, letter.state}:
                continue
            if len(summary.letters) < limit:
                summary.letters.append(letter)
            else:
                summary.not_listed += 1
    return summary


async def matching(
    place: Place, topics: Sequence[LetterTopic], filters: Filters
) -> AsyncGenerator[Letter, None]:
    """Yield the letters of some topics that match, one topic after the other, each the oldest first."""
    for topic in topics:
        async with (
            connected(topic.service, place.dsns[topic.service]) as connection,
            aclosing(survey(connection, place.kafka, topic)) as letters,
        ):
            async for letter in letters:
                if filters.match(letter):
                    yield letter


@dataclass(slots=True)
class Plan:
    """What a command would act on.

    Attributes:
        topics: the dead-letter topics that were looked through.
        filters: which letters were asked for.
        again: whether letters count that somebody has decided about before.
        letters: those it would act on.
        left_out: how many match, but were handled, redriven or discarded before.
        problems: letters that match, but cannot be sent again, each with why; the first hundred of them.
        more: how many match beyond the limit.
    """

    topics: Sequence[LetterTopic]
    filters: Filters
    again: bool = False
    letters: list[Letter] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[Letter, str]] = field(default_factory=list)
    more: int = 0

    def by_topic(self) -> dict[LetterTopic, list[Letter]]:
        """Return the letters by the topic in which they stand."""
        found: dict[LetterTopic, list[Letter]] = {}
        for letter in self.letters:
            found.setdefault(letter.topic, []).append(letter)
        return found


async def plan_letters(
    place: Place, topics: Sequence[LetterTopic], filters: Filters, *, again: bool, limit: int
) -> Plan:
    """Return on which letters a command would act: those that wait, or with `again` all; at most `limit`."""
    plan = Plan(topics, filters, again)
    size = 0
    async with aclosing(matching(place, topics, filters)) as letters:
        async for letter in letters:
            problem = belongs(letter)
            if letter.state is not State.WAITING and not again:
                plan.left_out["handled" if letter.is_handled else letter.state.value] += 1
            elif problem is not None:
                if len(plan.problems) < _PROBLEMS_MAX:
                    plan.problems.append((letter, problem))
            elif len(plan.letters) >= limit or size >= _BYTES_MAX:
                plan.more += 1
            else:
                plan.letters.append(letter)
                size += len(letter.value or b"")
    return plan
