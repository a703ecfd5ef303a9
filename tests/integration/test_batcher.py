"""Do concurrent requests share transactions, and does each get its own answer whatever the others do?"""

import asyncio
from collections.abc import Sequence

import pytest

from shared.batcher import Batcher
from shared.database import Connection, Database
from shared.errors import Conflict, HoldfastError, Overloaded, Unavailable
from tests.integration.streams import effects, locked, running
from tests.waiting import eventually


class Till:
    """Applies numbers: writes each, refuses some, and fails on others."""

    def __init__(self, *, refused: Sequence[int] = (), bad: Sequence[int] = (), missing: int = 0) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._refused, self._bad, self._missing = {*refused}, {*bad}, missing

    async def apply(self, tx: Connection, items: Sequence[int]) -> Sequence[str | HoldfastError]:
        """Write a row for each number that is not refused."""
        self.batches.append([*items])
        await self.open.wait()
        await tx.execute(
            "INSERT INTO effects (number) SELECT unnest($1::int[])",
            [item for item in items if item not in self._refused],
        )
        if self._bad & {*items}:
            raise ZeroDivisionError("nobody can do this")
        results = [Conflict(f"no {item}") if item in self._refused else f"did {item}" for item in items]
        return results[self._missing :]


def batcher(
    database: Database, till: Till, *, size_max: int = 100, queue_max: int = 1_000, pause_seconds: float = 0
) -> Batcher[int, str]:
    """Return a batcher for a till."""
    return Batcher(
        "tests", database, till.apply, size_max=size_max, queue_max=queue_max, pause_seconds=pause_seconds
    )


async def transactions(database: Database) -> int:
    """Return in how many transactions the effects were written."""
    async with database.connection() as connection:
        count: int = await connection.fetchval("SELECT count(DISTINCT transaction_id::text) FROM effects")
    return count


async def test_a_lone_request_waits_for_nobody(shared_db: Database) -> None:
    """It is a batch of one, and durable when its answer comes."""
    edge = batcher(shared_db, Till())

    async with running(edge):
        answer = await edge.submit(7)

        assert answer == "did 7"
        assert await effects(shared_db) == [7]


async def test_after_a_large_batch_the_next_gathers_for_a_while(shared_db: Database) -> None:
    """What comes during the pause is answered together, after it."""
    till = Till()
    edge = batcher(shared_db, till, pause_seconds=0.2)
    clock = asyncio.get_running_loop().time

    async with running(edge):
        await asyncio.gather(*(edge.submit(number) for number in range(50)))
        paused_at = clock()
        await asyncio.gather(*(edge.submit(number) for number in range(50, 70)))

    assert clock() - paused_at >= 0.15
    assert [len(batch) for batch in till.batches] == [50, 20]


@pytest.mark.parametrize("size", [15, 20], ids=["a small batch", "a full batch"])
async def test_after_any_other_batch_nobody_waits(shared_db: Database, size: int) -> None:
    """A pause would not make the next batch larger than a full one, and a system with small ones is not busy."""
    edge = batcher(shared_db, Till(), size_max=20, pause_seconds=3_600)

    async with running(edge), asyncio.timeout(10):
        await asyncio.gather(*(edge.submit(number) for number in range(size)))
        answer = await edge.submit(100)

    assert answer == "did 100"


async def test_requests_that_arrive_during_a_commit_share_the_next_one(shared_db: Database) -> None:
    """200 concurrent requests need three transactions: the first alone, then as many as fit."""
    till = Till()
    edge = batcher(shared_db, till)

    async with running(edge):
        till.open.clear()
        first = asyncio.create_task(edge.submit(0))
        await eventually(lambda: till.batches, what="the first batch to be under way")
        others = [asyncio.create_task(edge.submit(number)) for number in range(1, 200)]
        await asyncio.sleep(0)
        till.open.set()
        answers = await asyncio.gather(first, *others)

    assert answers == [f"did {number}" for number in range(200)]
    assert [len(batch) for batch in till.batches] == [1, 100, 99]
    assert await transactions(shared_db) == 3
    assert await effects(shared_db) == [*range(200)]


async def test_a_refusal_is_a_result_and_costs_the_others_nothing(shared_db: Database) -> None:
    """The refused submitter gets the error; the batch is committed as one."""
    till = Till(refused=[2])
    edge = batcher(shared_db, till)

    async with running(edge):
        answers = await asyncio.gather(*map(edge.submit, range(4)), return_exceptions=True)

    assert [answer for answer in answers if isinstance(answer, str)] == ["did 0", "did 1", "did 3"]
    assert isinstance(answers[2], Conflict)
    assert await transactions(shared_db) == 1


async def test_one_bad_item_fails_alone(shared_db: Database) -> None:
    """Its submitter gets the error itself; every other item is applied once."""
    edge = batcher(shared_db, Till(bad=[37]))

    async with running(edge):
        answers = await asyncio.gather(*map(edge.submit, range(64)), return_exceptions=True)

    assert isinstance(answers[37], ZeroDivisionError)
    assert [answer for answer in answers if isinstance(answer, str)] == [
        f"did {number}" for number in range(64) if number != 37
    ]
    assert await effects(shared_db) == [number for number in range(64) if number != 37]


async def test_results_that_do_not_match_the_items_are_never_committed(shared_db: Database) -> None:
    """A handler that loses a result is wrong: nobody may be told another one's answer."""
    edge = batcher(shared_db, Till(missing=1))

    async with running(edge):
        answers = await asyncio.gather(*map(edge.submit, range(4)), return_exceptions=True)

    assert all(isinstance(answer, HoldfastError) for answer in answers)
    assert await effects(shared_db) == []


async def test_more_waiting_requests_than_the_limit_are_sent_away(shared_db: Database) -> None:
    """The queue is bounded: who comes too many is told at once to come back."""
    till = Till()
    edge = batcher(shared_db, till, queue_max=3)

    async with running(edge):
        till.open.clear()
        first = asyncio.create_task(edge.submit(0))
        await eventually(lambda: till.batches, what="the first batch to be under way")
        waiting = [asyncio.create_task(edge.submit(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await edge.submit(4)
        till.open.set()
        await asyncio.gather(first, *waiting)

    assert await effects(shared_db) == [0, 1, 2, 3]


async def test_a_stop_drains_what_waits(shared_db: Database) -> None:
    """Everything submitted before the stop is applied and answered; what comes later is refused."""
    till = Till()
    edge = batcher(shared_db, till, size_max=2)
    stopping = asyncio.Event()
    task = asyncio.create_task(edge.run(stopping))
    till.open.clear()
    waiting = [asyncio.create_task(edge.submit(number)) for number in range(7)]
    await eventually(lambda: till.batches, what="the first batch to be under way")

    stopping.set()
    till.open.set()
    await asyncio.wait_for(task, 10)

    assert await asyncio.gather(*waiting) == [f"did {number}" for number in range(7)]
    with pytest.raises(Unavailable):
        await asyncio.wait_for(edge.submit(8), 5)


async def test_a_submitter_that_went_away_is_not_waited_for(shared_db: Database) -> None:
    """A client that hung up before its batch began costs nothing and stops nobody."""
    till = Till()
    edge = batcher(shared_db, till)

    async with running(edge):
        till.open.clear()
        first = asyncio.create_task(edge.submit(0))
        await eventually(lambda: till.batches, what="the first batch to be under way")
        gone, stays = asyncio.create_task(edge.submit(1)), asyncio.create_task(edge.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        till.open.set()
        await asyncio.gather(first, stays)

    assert await effects(shared_db) == [0, 2]


async def test_a_lock_that_passes_is_waited_out(shared_db: Database) -> None:
    """A lock time-out is transient: the batch is done again, and nobody notices."""
    edge = batcher(shared_db, till := Till())

    async with running(edge):
        async with locked(shared_db.dsn):
            waiting = asyncio.create_task(edge.submit(1))
            await eventually(lambda: len(till.batches) == 2, what="the second try")
        answer = await waiting

    assert answer == "did 1"
    assert await effects(shared_db) == [1]


async def test_a_database_that_stays_away_is_said_to_be(shared_db: Database) -> None:
    """After a few tries every submitter is told to come back, instead of waiting for ever."""
    edge = batcher(shared_db, Till())

    async with running(edge), locked(shared_db.dsn):
        answers = await asyncio.gather(*map(edge.submit, range(3)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert await effects(shared_db) == []
