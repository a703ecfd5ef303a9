"""How are records sent again: in order, not too fast, and so that it can be stopped and taken up?"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import UUID

from ops.replay.checkpoint import Checkpoint, Reached, Run
from ops.replay.headers import Copy, event_id, replayed
from ops.replay.request import now
from ops.replay.selection import Selection
from shared.errors import Unavailable
from shared.kafka import Publisher, is_kafka_error
from shared.settings import KafkaSettings
from shared.worker import wait_for_any

_CHUNK_RECORDS = 1_000
#: With a rate, this much is sent at once, so that it is even.
_CHUNK_SECONDS = 0.2
_TRIES_MAX = 5
_PAUSE_SECONDS = 1.0
_REFUSALS_TOLD_MAX = 20

#: Forgets that events were handled, and returns how many were.
Forget = Callable[[Collection[UUID]], Awaitable[int]]
Progress = Callable[[Reached], None]


@dataclass(slots=True)
class Republished:
    """What a run did in all, whether it came to its end, and the first of what Kafka refused."""

    reached: Reached
    finished: bool = False
    refusals: list[str] = field(default_factory=list)


class Pace:
    """Lets through so many records a second, on average since the start; 0: as many as there are."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._sent = 0
        self._started_at = asyncio.get_running_loop().time()

    @property
    def chunk_records(self) -> int:
        """How many records to send at once."""
        if not self._rate:
            return _CHUNK_RECORDS
        return max(1, min(_CHUNK_RECORDS, round(self._rate * _CHUNK_SECONDS)))

    async def wait(self, count: int, stopping: asyncio.Event) -> None:
        """Wait until so many more may be sent, or until told to stop."""
        if self._rate:
            due_at = self._started_at + self._sent / self._rate
            seconds = due_at - asyncio.get_running_loop().time()
            if seconds > 0:
                await wait_for_any(stopping, seconds=seconds)
        self._sent += count


async def republish(
    kafka: KafkaSettings,
    run: Run,
    reached: Reached,
    checkpoint: Checkpoint,
    *,
    forget: Forget | None = None,
    rate: float = 0,
    stopping: asyncio.Event,
    progress: Progress | None = None,
) -> Republished:
    """Send what is left of a run to the topics it came from, to its end or until told to stop.

    Args:
        kafka: where the topics are.
        run: what is to be done.
        reached: how far it has come; moved on as it goes.
        checkpoint: where that is kept.
        forget: has the group forget the events of a chunk before they are sent.
        rate: records a second; 0: without limit.
        stopping: set when it is to stop after what is under way.
        progress: is told how far it is.

    Raises:
        Unavailable: Kafka does not answer, even after some tries; the checkpoint says what was done.
    """
    request, republished = run.request, Republished(reached)
    selection = Selection(reached.spans_left(request.spans), request.filters, replay_id=run.replay_id)
    looked_at = reached.looked_at
    pace, sender = Pace(rate), _Sender(kafka)
    try:
        async with aclosing(selection.chunks(kafka, size_max=pace.chunk_records)) as chunks:
            async for chunk in chunks:
                await pace.wait(len(chunk), stopping)
                if stopping.is_set():
                    return republished
                if forget is not None and chunk:
                    # What is sent again has an id; what has none is passed over.
                    reached.forgotten += await forget(
                        {known for record in chunk if (known := event_id(record)) is not None}
                    )
                at = now()
                copies = [
                    replayed(record, replay_id=run.replay_id, by=request.by, at=at, group=request.group)
                    for record in chunk
                ]
                refusals = await sender.send(copies)
                republished.refusals += refusals[: _REFUSALS_TOLD_MAX - len(republished.refusals)]
                reached.published += len(chunk) - len(refusals)
                reached.refused += len(refusals)
                reached.looked_at = looked_at + selection.looked_at
                reached.positions |= {
                    f"{topic}/{number}": offset for (topic, number), offset in selection.positions.items()
                }
                checkpoint.save(reached)
                if progress is not None:
                    progress(reached)
    finally:
        await sender.close()
    republished.finished = True
    return republished


class _Sender:
    """Sends until Kafka has acknowledged or refused everything, with a new producer whenever the outcome is unknown."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._publisher: Publisher | None = None

    async def send(self, copies: Sequence[Copy]) -> list[str]:
        """Send copies in order; return for each that Kafka refused for good which it was, and why."""
        refusals: list[str] = []
        waiting, tries = copies, 0
        while waiting:
            try:
                published = await (await self._open()).publish(waiting)
            except Exception as error:
                tries += 1
                if not (isinstance(error, Unavailable) or is_kafka_error(error)):
                    raise
                await self.close()
                if tries == _TRIES_MAX:
                    detail = f"Kafka does not take the records: {error!r}"
                    raise Unavailable(detail) from error
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            tries = 0
            refusals += [_tell(waiting[place], why) for place, why in published.refused.items()]
            done = {*published.acknowledged, *published.refused}
            waiting = [copy for place, copy in enumerate(waiting) if place not in done]
        return refusals

    async def _open(self) -> Publisher:
        if self._publisher is None:
            publisher = Publisher(self._kafka, client_id="holdfast-replay")
            await publisher.open()
            self._publisher = publisher
        return self._publisher

    async def close(self) -> None:
        """Disconnect."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.close()


def _tell(copy: Copy, why: str) -> str:
    return f"{copy.topic}/{copy.partition}/{copy.offset}: {why}"
