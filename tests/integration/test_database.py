"""Are the errors that pass by themselves told from those that never will?"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from deploy.local.postgres import EmbeddedPostgres
from shared.database import Connection, Database, DatabaseOptions, is_transient
from shared.errors import ConcurrentWrite, Conflict, LedgerViolation, Overloaded, Unavailable
from tests.integration.streams import locked
from tests.waiting import eventually

Ask = Callable[[Connection], Awaitable[object]]


async def error_of(database: Database, ask: Ask) -> Exception:
    """Return what asking raises."""
    try:
        async with database.transaction() as tx:
            await ask(tx)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda tx: tx.fetchval("SELECT $1::int", 2**31), id="a number out of range"),
        pytest.param(lambda tx: tx.fetchval("SELECT $1::text", "a\x00b"), id="a NUL in text"),
        pytest.param(lambda tx: tx.fetchval("SELECT $1::int", "one"), id="a value of another type"),
        pytest.param(lambda tx: tx.fetchval("SELECT 1 / 0"), id="a division by zero"),
        pytest.param(
            lambda tx: tx.execute("INSERT INTO effects VALUES (1)"), id="a column that is generated"
        ),
        pytest.param(
            lambda tx: tx.execute("INSERT INTO processed_events VALUES ('a', gen_random_uuid(), 'lost')"),
            id="a check",
        ),
        pytest.param(lambda tx: tx.fetchval("SELECT * FROM nowhere"), id="a table that is not there"),
        pytest.param(lambda tx: tx.fetchval("SELECT"), id="no such statement"),
    ],
)
async def test_what_never_passes_is_not_transient(shared_db: Database, ask: Ask) -> None:
    """Doing it again would fail again, for ever: the message has to be diverted."""
    assert not is_transient(await error_of(shared_db, ask))


async def test_a_lock_time_out_is_transient(shared_db: Database) -> None:
    """Whoever holds the lock will let go."""
    async with locked(shared_db.dsn):
        error = await error_of(shared_db, lambda other: other.fetchval("SELECT count(*) FROM effects"))

    assert is_transient(error)


async def test_a_deadlock_is_transient(shared_dsn: str) -> None:
    """Postgres ends one of the two, which then finds the way free."""
    patient = Database(DatabaseOptions(dsn=shared_dsn, lock_timeout_seconds=10))
    await patient.open()
    both_hold = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> Exception | None:
        try:
            async with patient.transaction() as tx:
                await tx.execute("SELECT pg_advisory_xact_lock($1)", first)
                await both_hold.wait()
                await tx.execute("SELECT pg_advisory_xact_lock($1)", second)
        except Exception as error:
            return error
        return None

    errors = await asyncio.gather(lock(1, 2), lock(2, 1))
    await patient.close()

    assert [is_transient(error) for error in errors if error is not None] == [True]


async def test_a_cut_connection_is_transient_and_the_pool_recovers(
    shared_db: Database, postgres: EmbeddedPostgres
) -> None:
    """The next transaction gets a new connection."""
    error = await error_of(shared_db, lambda tx: tx.execute("SELECT pg_terminate_backend(pg_backend_pid())"))

    assert is_transient(error)
    assert await eventually(shared_db.is_up)


async def test_a_statement_that_takes_too_long_is_transient(shared_dsn: str) -> None:
    """It is ended by the server, and may be quick the next time."""
    hurried = Database(DatabaseOptions(dsn=shared_dsn, statement_timeout_seconds=0.1))
    await hurried.open()

    error = await error_of(hurried, lambda tx: tx.execute("SELECT pg_sleep(30)"))
    await hurried.close()

    assert is_transient(error)


async def test_a_pool_with_nothing_left_is_transient(shared_dsn: str) -> None:
    """Waiting for a connection has an end."""
    small = Database(DatabaseOptions(dsn=shared_dsn, pool_size_max=1, acquire_timeout_seconds=0.1))
    await small.open()

    async with small.connection():
        error = await error_of(small, lambda tx: tx.fetchval("SELECT 1"))
    await small.close()

    assert is_transient(error)


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    """Opening says so in an error that can be tried again, and asking is answered no."""
    nowhere = Database(DatabaseOptions(dsn="postgresql://nobody@127.0.0.1:1/nothing"))

    with pytest.raises(Unavailable):
        await nowhere.open()

    assert not await nowhere.is_up()


def test_our_own_errors_say_whether_they_pass() -> None:
    """Concurrent writes and overload do; conflicts and violations do not."""
    assert [is_transient(error()) for error in (ConcurrentWrite, Overloaded, Unavailable)] == [True] * 3
    assert [is_transient(error()) for error in (Conflict, LedgerViolation, ValueError)] == [False] * 3
