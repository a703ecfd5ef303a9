"""What may an operator say of what is to be replayed, and what does it mean?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from ops import place as places
from ops.actions import operator_name
from ops.options import Moment
from ops.place import Place
from ops.replay.readers import readers_of
from ops.replay.request import Request, Way, now
from ops.replay.scope import Scope, parse_duration, parse_topics, read_listed, resolve
from ops.replay.selection import Filters, full_type
from shared.errors import Misconfigured

Texts = Annotated[tuple[str, ...], Parameter(negative="")]


@dataclass(frozen=True, slots=True)
class ScopeOptions:
    """Which part of which topics; at most one of offsets, times and duration, else all that is kept of them.

    Attributes:
        topic: a topic, or TOPIC:0,3 for some of its partitions; may be repeated.
        from_offset: the first offset, in each partition.
        to_offset: the first offset that is not meant any more.
        from_datetime: the time of the first record: 2026-03-01T12:00:00Z (UTC without a zone), or how long ago (2h).
        to_datetime: the time from which on records are not meant any more.
        by_duration: from so long ago on, as ISO 8601 says it: PT1H30M, P7D.
        from_file: exactly the records that a file lists, topic,partition,offset a line, as --export writes it.
    """

    topic: Texts = ()
    from_offset: int | None = None
    to_offset: int | None = None
    from_datetime: Moment | None = None
    to_datetime: Moment | None = None
    by_duration: str | None = None
    from_file: Path | None = None


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """What the records must be about; each may be repeated, and means any of its values.

    Attributes:
        order_id: an order.
        type: a type of event, as OrderRequested or OrderRequested.v1.
        sku: a SKU, also among the lines of an order.
        correlation_id: a correlation id.
        copies: also what earlier replays wrote.
    """

    order_id: Annotated[tuple[UUID, ...], Parameter(negative="")] = ()
    type: Texts = ()
    sku: Texts = ()
    correlation_id: Texts = ()
    copies: Annotated[bool, Parameter(negative="")] = False


ALL = ScopeOptions()
ANY = FilterOptions()


async def read_request(
    scope: ScopeOptions,
    filters: FilterOptions,
    *,
    group: str | None,
    rewind: bool,
    reprocess: bool,
    reason: str | None,
    data_dir: Path,
) -> tuple[Request, Place]:
    """Check what goes together, find the system, and fix what the words mean there now.

    Raises:
        Misconfigured: options that do not go together, or no system.
        Invalid: a value that means nothing.
        Unavailable: Kafka does not answer.
    """
    _check_ways(scope, filters, group, rewind=rewind, reprocess=reprocess, reason=reason)
    meant = _scope(scope)
    readers_of(list(meant.topics), group)
    wanted = Filters(
        order_ids=frozenset(filters.order_id),
        types=frozenset(full_type(name) for name in filters.type),
        skus=frozenset(filters.sku),
        correlation_ids=frozenset(filters.correlation_id),
        listed=None if rewind else meant.listed,
        copies=filters.copies,
    )
    found = places.find(data_dir)
    spans = await resolve(found.kafka, meant)
    way: Way = "rewind" if rewind else "republish"
    return Request(way, spans, wanted, group, reprocess, operator_name(), reason), found


def _check_ways(
    scope: ScopeOptions,
    filters: FilterOptions,
    group: str | None,
    *,
    rewind: bool,
    reprocess: bool,
    reason: str | None,
) -> None:
    if rewind and group is None:
        raise Misconfigured("--rewind needs --group: which group is to read again?")
    if rewind and (filters != ANY or scope.to_offset is not None or scope.to_datetime is not None):
        raise Misconfigured(
            "A group that is rewound reads all there is from its new offsets on: filters and ends are for publishing "
            "again, without --rewind."
        )
    if reprocess and (group is None or not (reason or "").strip()):
        raise Misconfigured(
            "--reprocess needs --group and --reason: who is to forget what it handled, and why?"
        )


def _scope(options: ScopeOptions) -> Scope:
    """Read what the words mean; at most one kind of range."""
    kinds = {
        "offsets": (options.from_offset, options.to_offset) != (None, None),
        "times": (options.from_datetime, options.to_datetime) != (None, None),
        "a duration": options.by_duration is not None,
    }
    if sum(kinds.values()) > 1:
        given = " and ".join(kind for kind, is_given in kinds.items() if is_given)
        raise Misconfigured(f"Give one range only: {given} do not go together.")
    listed = read_listed(options.from_file) if options.from_file is not None else None
    topics = parse_topics(options.topic or (sorted(listed) if listed else ()))
    if not topics:
        raise Misconfigured("Say which --topic is to be replayed, or list records --from-file.")
    from_time = options.from_datetime
    if options.by_duration is not None:
        from_time = now() - parse_duration(options.by_duration)
    return Scope(
        topics, options.from_offset, options.to_offset, from_time, options.to_datetime, listed=listed
    )
