"""Is whoever waits woken by what any process commits, and never left waiting for what was missed?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress

import pytest

from shared.database import Database, connect
from shared.health import Health
from shared.listener import Listener, notify
from tests.waiting import eventually

CHANNEL = "things"


@asynccontextmanager
async def listening(dsn: str, health: Health) -> AsyncIterator[Listener]:
    """Run a listener, as one process of a service does."""
    listener = Listener(dsn, CHANNEL, health=health)
    stopping = asyncio.Event()
    running = asyncio.create_task(listener.run(stopping))
    yield listener
    stopping.set()
    await running


async def listeners(database: Database) -> list[int]:
    """Return the server processes that listen."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'listener:things' AND query = 'SELECT 1'
            """
        )
    return [row["pid"] for row in rows]


@asynccontextmanager
async def two_listeners(database: Database) -> AsyncIterator[tuple[Listener, Listener]]:
    """Run two listeners on one database, as two copies of a service do, and have both connected."""

    async def both_listen() -> bool:
        return len(await listeners(database)) == 2

    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(listening(database.dsn, Health()))
        second = await stack.enter_async_context(listening(database.dsn, Health()))
        await eventually(both_listen)
        yield first, second


async def tell(database: Database, *keys: str) -> None:
    """Commit a change of keys."""
    async with database.transaction() as tx:
        await notify(tx, CHANNEL, keys)


async def woken(*events: asyncio.Event) -> None:
    """Wait until all of these are set."""
    async with asyncio.timeout(10):
        await asyncio.gather(*(event.wait() for event in events))


async def test_a_commit_wakes_the_watchers_of_its_keys_in_every_process(shared_db: Database) -> None:
    """Two listeners stand for two processes: both wake who watches a changed key, and nobody else."""
    async with two_listeners(shared_db) as (here, there):
        with here.watch("a") as first, there.watch("a") as second, there.watch("b") as other:
            await tell(shared_db, "a", "c")
            await woken(first, second)

            assert not other.is_set()


async def test_several_watch_one_key_and_come_and_go(shared_db: Database) -> None:
    """Each has an event of its own; who has left is forgotten."""
    async with two_listeners(shared_db) as (here, _):
        with here.watch("a") as first:
            with here.watch("a") as second:
                await tell(shared_db, "a")
                await woken(first, second)
            first.clear()
            await tell(shared_db, "a")
            await woken(first)

        assert here.watched == 0


async def test_what_is_rolled_back_wakes_nobody(shared_db: Database) -> None:
    """Word goes out at the commit, with the change, or not at all."""
    async with two_listeners(shared_db) as (here, _):
        with here.watch("a") as changed, here.watch("b") as marker:
            with suppress(ZeroDivisionError):
                async with shared_db.transaction() as tx:
                    await notify(tx, CHANNEL, ["a"])
                    raise ZeroDivisionError
            await tell(shared_db, "b")
            await woken(marker)

            assert not changed.is_set()


async def test_a_change_between_look_and_wait_is_not_missed(shared_db: Database) -> None:
    """Whoever watches before looking finds the event set for what was committed after the look, however late it waits."""
    async with two_listeners(shared_db) as (here, _):
        with here.watch("a") as changed:
            async with shared_db.connection() as connection:
                seen = await connection.fetchval("SELECT count(*) FROM effects")
            async with shared_db.transaction() as tx:
                await tx.execute("INSERT INTO effects (number) VALUES (1)")
                await notify(tx, CHANNEL, ["a"])
            await eventually(changed.is_set)
            await woken(changed)
            async with shared_db.connection() as connection:
                now = await connection.fetchval("SELECT count(*) FROM effects")

    assert (seen, now) == (0, 1)


async def test_more_keys_than_a_payload_takes_are_all_told(shared_db: Database) -> None:
    """Postgres takes less than 8,000 bytes a notification; a batch of 1,000 ids is told in several."""
    keys = [f"{number:036}" for number in range(1_000)]

    async with two_listeners(shared_db) as (here, _):
        with ExitStack() as stack:
            events = [stack.enter_context(here.watch(key)) for key in keys]
            await tell(shared_db, *keys)
            await woken(*events)


async def test_nothing_to_tell_runs_no_statement(shared_db: Database) -> None:
    """A batch in which nobody can be interested costs nothing."""
    async with shared_db.transaction() as tx:
        await tx.execute("SELECT 1 / 1")
        with pytest.raises(AssertionError):
            await notify(_Untouchable(), CHANNEL, ["a"])  # type: ignore[arg-type] # it only shows that it is touched
        await notify(_Untouchable(), CHANNEL, [])  # type: ignore[arg-type] # the same


class _Untouchable:
    def __getattr__(self, name: str) -> None:
        raise AssertionError(name)


async def test_a_terminated_connection_is_built_anew_and_everybody_looks_again(shared_db: Database) -> None:
    """What was committed meanwhile may have been missed: all are woken at once, and later changes wake again."""
    async with two_listeners(shared_db) as (here, there):
        with here.watch("a") as first, there.watch("b") as second:
            before = set(await listeners(shared_db))
            operator = await connect(shared_db.dsn)
            for pid in before:
                await operator.execute("SELECT pg_terminate_backend($1)", pid)
            await operator.close()
            async with asyncio.timeout(3):  # well before the connection's next regular check
                await asyncio.gather(first.wait(), second.wait())
            first.clear()
            await tell(shared_db, "a")
            await woken(first)

        assert before.isdisjoint(await listeners(shared_db))


async def test_health_says_that_nobody_listens() -> None:
    """While Postgres cannot be reached `away` names the listener; it goes on trying, and ends when told to."""
    health = Health()

    async with listening("postgresql://nobody@127.0.0.1:1/nothing", health):
        await eventually(lambda: "listener:things" in health.away)

    assert "listener:things" in health.away


async def test_whoever_waits_is_woken_at_the_stop(shared_db: Database) -> None:
    """A service that stops has everybody look once more; `is_ending` tells them why."""
    health = Health()
    stopping = asyncio.Event()
    listener = Listener(shared_db.dsn, CHANNEL, health=health)
    running = asyncio.create_task(listener.run(stopping))

    with listener.watch("a") as changed:
        health.stopping = True
        stopping.set()
        await woken(changed)

        assert listener.is_ending
    await running
