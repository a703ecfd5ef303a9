"""How do the services reach Postgres?

The only module that imports asyncpg. A pool with named limits, one `transaction()` for the edges, and one answer to
the question which errors pass by themselves.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from shared.errors import HoldfastError, Unavailable

__all__ = [
    "Connection",
    "Database",
    "DatabaseOptions",
    "DedicatedConnection",
    "Row",
    "connect",
    "is_transient",
]

Row: TypeAlias = asyncpg.Record
DedicatedConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

# Batches differ in size by three orders of magnitude and tables start out empty and never analysed, so a plan that was
# cached early can be ruinous later: planning each time costs far less than one sequential scan.
_SESSION_SETTINGS = {
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
    "random_page_cost": "1.1",
    "timezone": "UTC",
}

_TRANSIENT: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
)
# Misuse of the driver by our own code also arrives as an InterfaceError; bad values are not going to pass by themselves.
_NOT_TRANSIENT: tuple[type[BaseException], ...] = (asyncpg.exceptions.DataError,)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same work may succeed when it is simply done again."""
    if isinstance(error, HoldfastError):
        return error.transient
    return isinstance(error, _TRANSIENT) and not isinstance(error, _NOT_TRANSIENT)


class _PooledConnection(asyncpg.Connection):  # its type arguments exist for the type checker alone
    """A connection whose sessions keep nothing between two units of work, so that nothing has to be reset.

    Listening and session locks are for connections outside the pool, and what a transaction sets ends with it.
    """

    def get_reset_query(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """The limits of one service's pool."""

    dsn: str
    pool_size_max: int = 6
    acquire_timeout_seconds: float = 5.0
    connect_timeout_seconds: float = 5.0
    statement_timeout_seconds: float = 30.0
    lock_timeout_seconds: float = 5.0
    application_name: str = "holdfast"

    def session_settings(self) -> dict[str, str]:
        """Return the settings that every session of the pool starts with."""
        return {
            **_SESSION_SETTINGS,
            "application_name": self.application_name,
            "statement_timeout": f"{round(self.statement_timeout_seconds * 1000)}ms",
            "lock_timeout": f"{round(self.lock_timeout_seconds * 1000)}ms",
            # No transaction waits for anything but Postgres: one that is idle belongs to a process that is frozen or gone,
            # and must not keep its rows from the others for longer than they are ready to wait a second time.
            "idle_in_transaction_session_timeout": f"{round(self.lock_timeout_seconds * 2000)}ms",
        }


class Database:
    """A service's own database: `async with database.transaction() as tx` is one unit of work."""

    def __init__(self, options: DatabaseOptions) -> None:
        self._options = options
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    @property
    def dsn(self) -> str:
        """Where the database is."""
        return self._options.dsn

    async def open(self) -> None:
        """Connect; raise `Unavailable` if the database does not answer."""
        try:
            self._pool = await asyncpg.create_pool(
                self._options.dsn,
                connection_class=_PooledConnection,
                min_size=1,
                max_size=self._options.pool_size_max,
                timeout=self._options.connect_timeout_seconds,
                command_timeout=self._options.statement_timeout_seconds + 5,
                server_settings=self._options.session_settings(),
                init=_prepare,
            )
        except _TRANSIENT as error:
            detail = f"the database does not answer: {error!r}"
            raise Unavailable(detail) from error

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Close all connections, by force after a while."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            import asyncio  # noqa: PLC0415 (only the close needs a deadline)

            async with asyncio.timeout(timeout_seconds):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    def terminate(self) -> None:
        """Cut all connections off, whatever they wait for; what was not committed is rolled back."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open one READ COMMITTED transaction, committed at the end of the block and rolled back by any error."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection without a transaction, for single reads."""
        if self._pool is None:
            raise Unavailable
        async with self._pool.acquire(timeout=self._options.acquire_timeout_seconds) as connection:
            yield connection

    async def is_up(self) -> bool:
        """Tell whether the database answers a trivial question."""
        try:
            async with self.connection() as connection:
                await connection.fetchval("SELECT 1", timeout=self._options.acquire_timeout_seconds)
        except Exception as error:
            if is_transient(error):
                return False
            raise
        return True


async def connect(
    dsn: str,
    *,
    timeout_seconds: float = 5.0,
    application_name: str = "holdfast",
    silence_seconds_max: float | None = None,
) -> DedicatedConnection:
    """Open a connection outside any pool: for LISTEN, session locks and operators.

    Args:
        dsn: where the database is.
        timeout_seconds: how long connecting may take.
        application_name: how the session is listed in `pg_stat_activity`.
        silence_seconds_max: how long either side may hear nothing of the other before it gives the session up, and
            with it what the session has locked: a client that is frozen, or a machine that is gone, says no goodbye.

    Raises:
        Unavailable: the database does not answer.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=timeout_seconds,
            command_timeout=silence_seconds_max,
            server_settings={
                **_SESSION_SETTINGS,
                "application_name": application_name,
                **_silence_settings(silence_seconds_max),
            },
        )
    except _TRANSIENT as error:
        detail = f"the database does not answer: {error!r}"
        raise Unavailable(detail) from error
    await _prepare(connection)
    return connection


def _silence_settings(seconds_max: float | None) -> dict[str, str]:
    """Have the server end a session whose client neither asks anything nor takes its answers."""
    if seconds_max is None:
        return {}
    milliseconds = f"{round(seconds_max * 1000)}ms"
    return {"idle_session_timeout": milliseconds, "tcp_user_timeout": milliseconds}


async def _prepare(connection: Any) -> None:
    """Read and write jsonb as Python objects; json stays text, which is what COPY takes."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
    )
