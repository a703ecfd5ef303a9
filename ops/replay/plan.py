"""What would happen if a request were carried out? Nothing is changed to find out."""

import csv
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from ops.actions import connected
from ops.place import Place
from ops.replay.headers import stripped
from ops.replay.readers import Reader
from ops.replay.request import Request, partitions_of
from ops.replay.selection import Selection
from ops.replay.trial import OrderChange, Trial, Verdicts

#: Is told how many records were looked at and how many of them were taken so far.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is in scope, what of it is meant, and what each group would make of that.

    `copies` counts what earlier replays wrote and is passed over, as is what is `without_id`; `order_count` counts the
    changes to orders, of which `orders` lists the first.
    """

    request: Request
    looked_at: int
    selected: int
    copies: int
    without_id: int
    consumers: Mapping[str, Verdicts] = field(default_factory=dict)
    order_count: int = 0
    orders: Sequence[OrderChange] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether every group has handled, or does not want, all of it."""
        return not any(item.applied or item.refused for item in self.consumers.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "way": self.request.way,
            "group": self.request.group,
            "reprocess": self.request.reprocess,
            "partitions": partitions_of(self.request.spans),
            "looked_at": self.looked_at,
            "selected": self.selected,
            "copies_passed_over": self.copies,
            "without_id_passed_over": self.without_id,
            "consumers": [{"consumer": group, **asdict(found)} for group, found in self.consumers.items()],
            "orders": {"count": self.order_count, "listed": [asdict(change) for change in self.orders]},
        }


async def make_plan(
    place: Place,
    request: Request,
    readers: Sequence[Reader],
    *,
    orders_max: int = 20,
    export: TextIO | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Read what is meant, and try it on every reader in turn.

    Args:
        place: where the system is.
        request: what is wanted.
        readers: on whom it is tried; none: records are only counted.
        orders_max: how many changes of orders are listed, for each reader.
        export: takes a line of CSV for each record that is meant.
        progress: is told how far it is.

    Raises:
        Unavailable: Kafka or a database does not answer.
    """
    selection = Selection(request.spans, request.filters, takes_all=request.way == "rewind")
    lines = csv.writer(export, lineterminator="\n") if export is not None else None
    async with _trials(place, request, readers, orders_max) as trials:
        async with aclosing(selection.chunks(place.kafka)) as chunks:
            async for chunk in chunks:
                if lines is not None:
                    lines.writerows((record.topic, record.partition, record.offset) for record in chunk)
                delivered = chunk if request.way == "rewind" else [stripped(record) for record in chunk]
                for trial in trials.values():
                    await trial.take(delivered)
                if progress is not None:
                    progress(selection.looked_at, selection.taken)
        for trial in trials.values():
            await trial.finish()
    return Plan(
        request,
        selection.looked_at,
        selection.taken,
        selection.copies,
        selection.without_id,
        {group: trial.verdicts for group, trial in trials.items()},
        sum(trial.changes.count for trial in trials.values()),
        [change for trial in trials.values() for change in trial.changes.listed()],
    )


@asynccontextmanager
async def _trials(
    place: Place, request: Request, readers: Sequence[Reader], orders_max: int
) -> AsyncIterator[dict[str, Trial]]:
    """Open a trial, with a connection of its own, for each reader."""
    async with AsyncExitStack() as stack:
        trials = {}
        for reader in readers:
            connection = await stack.enter_async_context(
                connected(reader.service, place.dsns[reader.service])
            )
            trial = trials[reader.group] = Trial(
                reader, connection, reprocess=request.reprocess, orders_max=orders_max
            )
            await trial.open()
        yield trials
