"""Can a replay be paused, cut off and taken up again, and does it keep to its rate and to its end?"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from deploy.local.topics import ensure_topics
from ops.place import Place
from ops.replay import Done, Filters, Request, execute_republish, resume
from ops.replay.checkpoint import Checkpoint, Reached, unfinished
from shared.database import Database
from shared.envelope import Record
from shared.errors import Conflict, NotFound
from shared.ids import new_id
from shared.kafka import Span, measure_topics
from shared.outbox import OutboxRow
from shared.settings import KafkaSettings
from tests.integration.replay_harness import Cli, System
from tests.integration.streams import header_of, publish, row
from tests.waiting import eventually

TOPIC = "order.events"


@pytest.fixture
async def system(
    kafka_settings: KafkaSettings,
    order_db: Database,
    inventory_db: Database,
    payment_db: Database,
    tmp_path: Path,
) -> System:
    """Three fresh databases, and topics that others write to as well."""
    await ensure_topics(kafka_settings)
    databases = {"order": order_db, "inventory": inventory_db, "payment": payment_db}
    system = System(databases, kafka_settings, tmp_path)
    await system.prepare()
    await system.mark()
    return system


@pytest.fixture
def place(system: System) -> Place:
    """Where it is."""
    return system.place


async def fill(system: System, count: int) -> None:
    """Publish records that nobody can read, but that have an id: which is enough to be sent again."""
    await publish(system.kafka, [record(str(number).encode()) for number in range(count)])


def record(key: bytes) -> OutboxRow:
    """Return a record with nothing but a key and an id."""
    return row(TOPIC, key=key, headers=[("ce_id", str(new_id()).encode())])


async def everything(system: System) -> Request:
    """Return a request for all that came since the mark."""
    ends = await measure_topics(system.kafka, [TOPIC])
    spans = {
        TOPIC: {
            number: Span(system.begins[TOPIC][number].end, end) for number, (_, end) in ends[TOPIC].items()
        }
    }
    return Request("republish", spans, Filters(), None, reprocess=False, by="tests", reason=None)


async def copies(system: System) -> list[Record]:
    """Return what replays wrote since the mark."""
    return [record for record in await system.records(TOPIC) if header_of(record, "x-replay-id") is not None]


def origins(records: Sequence[Record]) -> Counter[str | None]:
    """Return how often each record was sent again."""
    return Counter(header_of(record, "x-replayed-from") for record in records)


async def paused_after(system: System, request: Request, records: int) -> Done:
    """Carry a request out until so many records were sent, and pause it."""
    stopping = asyncio.Event()

    def watch(reached: Reached) -> None:
        if reached.published >= records:
            stopping.set()

    return await execute_republish(
        system.place, system.data_dir, request, rate=500, stopping=stopping, progress=watch
    )


async def test_a_paused_replay_goes_on_where_it_was(system: System) -> None:
    """Each record is sent once in all, under one id; what came to the topic meanwhile is left alone."""
    await fill(system, 400)
    request = await everything(system)

    paused = await paused_after(system, request, 150)
    await fill(system, 50)
    done = await resume(system.place, system.data_dir, paused.replay_id)

    assert not paused.finished
    assert 150 <= paused.counts["published"] < 400
    assert (done.finished, done.counts["published"], done.replay_id) == (True, 400, paused.replay_id)
    sent = await copies(system)
    assert len(sent) == 400
    assert set(origins(sent).values()) == {1}
    assert {header_of(record, "x-replay-id") for record in sent} == {str(done.replay_id)}


async def test_a_replay_keeps_the_order_of_each_partition(system: System) -> None:
    """Over a pause as well: copies stand in their partition as their originals do."""
    await fill(system, 300)

    paused = await paused_after(system, await everything(system), 100)
    await resume(system.place, system.data_dir, paused.replay_id)

    by_partition: dict[int, list[int]] = {}
    for record in await copies(system):
        origin = header_of(record, "x-replayed-from") or ""
        by_partition.setdefault(record.partition, []).append(int(origin.rsplit("/", 1)[1]))
    assert sum(map(len, by_partition.values())) == 300
    assert all(offsets == sorted(offsets) for offsets in by_partition.values())


async def test_a_finished_replay_cannot_be_resumed(system: System) -> None:
    """Its checkpoint is gone; its action is finished, once."""
    await fill(system, 10)

    done = await execute_republish(system.place, system.data_dir, await everything(system))

    with pytest.raises(NotFound):
        await resume(system.place, system.data_dir, done.replay_id)
    assert unfinished(system.data_dir) == []
    assert (
        await system.fetchval("order", "SELECT count(*) FROM operator_actions WHERE finished_at IS NOT NULL")
        == 1
    )


async def test_a_replay_that_was_cut_off_is_seen_and_can_be_resumed(system: System) -> None:
    """Its action stays unfinished, and its checkpoint says how far it has come."""
    await fill(system, 300)
    request = await everything(system)

    def fall_over(reached: Reached) -> None:
        if reached.published >= 100:
            raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError):
        await execute_republish(system.place, system.data_dir, request, rate=500, progress=fall_over)
    query = "SELECT count(*) FROM operator_actions WHERE finished_at IS NULL"
    cut_off = await system.fetchval("order", query)
    (replay_id,) = unfinished(system.data_dir)
    done = await resume(system.place, system.data_dir, UUID(replay_id))

    assert (cut_off, await system.fetchval("order", query)) == (1, 0)
    assert done.counts["published"] == 300
    assert set(origins(await copies(system)).values()) == {1}


async def test_a_replay_under_way_is_not_carried_out_twice(system: System) -> None:
    """Two operators who resume the same one do not both send it."""
    await fill(system, 100)
    paused = await paused_after(system, await everything(system), 1)

    with (
        Checkpoint(system.data_dir, paused.replay_id).alone(),
        pytest.raises(Conflict, match="under way"),
    ):
        await resume(system.place, system.data_dir, paused.replay_id)


async def test_a_record_without_an_id_is_passed_over(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody could know its copy again: it would be another dead letter each time. The plan counts it."""
    marked = record(b"one")
    nameless, misnamed = row(TOPIC, key=b"one"), row(TOPIC, key=b"one", headers=[("ce_id", b"no id")])
    await publish(system.kafka, [marked, nameless, misnamed])
    partition = (await system.records(TOPIC))[0].partition
    begin = system.begins[TOPIC][partition].end
    words = ("--topic", f"{TOPIC}:{partition}", "--from-offset", str(begin))

    done = await Cli(system, capsys)(*words, "--no-preview", "--execute", "--yes")

    assert (done.json["selected"], done.json["without_id_passed_over"]) == (1, 2)
    (copy,) = await copies(system)
    assert header_of(copy, "ce_id") == dict(marked.headers)["ce_id"].decode()  # type: ignore[union-attr] # it has one


async def test_a_rate_is_kept(system: System) -> None:
    """So many records a second and no more, evenly."""
    await fill(system, 100)
    request, clock = await everything(system), asyncio.get_running_loop().time
    sent: list[tuple[float, int]] = []
    started = clock()

    await execute_republish(
        system.place,
        system.data_dir,
        request,
        rate=100,
        progress=lambda reached: sent.append((clock() - started, reached.published)),
    )

    assert all(published <= 100 * seconds + 20 for seconds, published in sent)
    assert sent[-1][0] > 0.75
    assert len(sent) >= 5


async def test_control_c_pauses_the_command(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    """It stops after what is under way, with a status of its own; --resume finishes."""
    cli = Cli(system, capsys)
    await fill(system, 200)
    first = next(record for record in await system.records(TOPIC))
    begins = {number: span.end for number, span in system.begins[TOPIC].items()}
    words = ("--topic", f"{TOPIC}:{first.partition}", "--from-offset", str(begins[first.partition]))

    async def has_begun() -> bool:
        return bool(await copies(system))

    running = asyncio.create_task(cli(*words, "--no-preview", "--rate", "10", "--execute", "--yes"))
    await eventually(has_begun, what="the replay has begun")
    os.kill(os.getpid(), signal.SIGINT)
    paused = await running
    replay_id = paused.json["run"]["replay_id"]
    left = await cli("--resume", replay_id)
    done = await cli("--resume", replay_id, "--execute", "--yes")

    assert (paused.status, paused.json["run"]["finished"]) == (130, False)
    assert left.json["selected"] == paused.json["selected"] - paused.json["run"]["published"]
    assert (done.status, done.json["run"]["finished"]) == (0, True)
    assert done.json["run"]["published"] == paused.json["selected"]
