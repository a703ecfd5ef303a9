"""How does the console read the three databases? By a few connections each, in transactions that cannot write."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from ops.console.settings import POOL_SIZE_MAX, STATEMENT_SECONDS_MAX
from shared.database import Connection, Database, DatabaseOptions
from shared.errors import HoldfastError, Unavailable

_TOO_LONG = "57014"
_UNDEFINED_TABLE = "42P01"


class TooMuch(HoldfastError):
    """This takes too long; look for something narrower."""

    status = 503
    reason = "too_much"


class Databases:
    """The databases by the name of their service; one that is away is tried again when it is asked for."""

    def __init__(self, dsns: Mapping[str, str]) -> None:
        self._databases = {service: Database(_options(dsn)) for service, dsn in dsns.items()}
        self._is_open = dict.fromkeys(dsns, False)
        self._locks = {service: asyncio.Lock() for service in dsns}

    def of(self, service: str) -> Database:
        """Return a service's database."""
        return self._databases[service]

    async def open(self) -> None:
        """Connect to those that answer."""
        for service in self._databases:
            with suppress(Unavailable):
                await self._open(service)

    async def close(self) -> None:
        """Close all connections."""
        for database in self._databases.values():
            await database.close()

    @asynccontextmanager
    async def reading(self, service: str) -> AsyncIterator[Connection]:
        """Lend a transaction that can only read, and not for long.

        Raises:
            Unavailable: the database does not answer, or lacks tables.
            TooMuch: a statement took too long.
        """
        await self._open(service)
        try:
            async with (
                self._databases[service].connection() as connection,
                connection.transaction(readonly=True),
            ):
                yield connection
        except Exception as error:
            match getattr(error, "sqlstate", None):
                case code if code == _TOO_LONG:
                    raise TooMuch from error
                case code if code == _UNDEFINED_TABLE:
                    detail = f"{service}: {error}. `holdfast migrate {service}` makes the tables."
                    raise Unavailable(detail) from error
            raise

    async def _open(self, service: str) -> None:
        async with self._locks[service]:
            if not self._is_open[service]:
                try:
                    await self._databases[service].open()
                except Unavailable as error:
                    detail = f"{service}: {error.detail}"
                    raise Unavailable(detail) from error
                self._is_open[service] = True


def _options(dsn: str) -> DatabaseOptions:
    return DatabaseOptions(
        dsn=dsn,
        pool_size_max=POOL_SIZE_MAX,
        statement_timeout_seconds=STATEMENT_SECONDS_MAX,
        application_name="holdfast-console",
    )
