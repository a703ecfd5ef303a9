"""What does an operator want replayed, how, and why?"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ops.replay.selection import Filters
from shared.kafka import Span

Way = Literal["republish", "rewind"]


@dataclass(frozen=True, slots=True)
class Request:
    """A replay with its ends fixed.

    Attributes:
        way: whether records are sent again, or a group is set back to read them again.
        spans: the offsets that are in scope; what was written later is not.
        filters: which records of them are meant.
        group: the only group that is to hear them; None: all that read their topics.
        reprocess: whether the group is to forget that it has handled them.
        by: who wants it.
        reason: why.
    """

    way: Way
    spans: Mapping[str, Mapping[int, Span]]
    filters: Filters
    group: str | None
    reprocess: bool
    by: str
    reason: str | None

    def as_details(self) -> dict[str, Any]:
        """Return what is kept of it beside its counts."""
        filters = self.filters
        return {
            "way": self.way,
            "group": self.group,
            "reprocess": self.reprocess,
            "partitions": partitions_of(self.spans),
            "order_ids": sorted(map(str, filters.order_ids)),
            "types": sorted(filters.types),
            "skus": sorted(filters.skus),
            "correlation_ids": sorted(filters.correlation_ids),
            "from_file": filters.listed is not None,
            "copies": filters.copies,
        }


def partitions_of(spans: Mapping[str, Mapping[int, Span]]) -> list[dict[str, Any]]:
    """Return offsets as `--json` prints them; both beginning and end as Kafka counts: the end comes next."""
    return [
        {"topic": topic, "partition": number, "from_offset": span.begin, "to_offset": span.end}
        for topic, partitions in spans.items()
        for number, span in sorted(partitions.items())
    ]


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
