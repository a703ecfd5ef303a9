"""How is a database read that others write to meanwhile? As of one moment."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from shared.database import Connection, connect
from shared.errors import Misconfigured


class Snapshots(NamedTuple):
    """A connection to each database; while `frozen`, each sees one moment, though the three moments differ a little."""

    order: Connection
    inventory: Connection
    payment: Connection


@asynccontextmanager
async def connect_all(
    dsns: Mapping[str, str], *, application_name: str = "holdfast-audit"
) -> AsyncIterator[Snapshots]:
    """Connect to the databases `order`, `inventory` and `payment`.

    Raises:
        Misconfigured: one of the three is not named.
        Unavailable: a database does not answer.
    """
    missing = [name for name in Snapshots._fields if name not in dsns]
    if missing:
        raise Misconfigured(f"audit needs the database of: {', '.join(missing)}")
    async with AsyncExitStack() as stack:
        connections = []
        for name in Snapshots._fields:
            connection = await connect(dsns[name], application_name=application_name)
            stack.push_async_callback(connection.close)
            # Sums over whole tables are worth more memory than the statements of a service.
            await connection.execute("SET work_mem = '64MB'")
            connections.append(connection)
        yield Snapshots(*connections)


@asynccontextmanager
async def frozen(connections: Snapshots) -> AsyncIterator[Snapshots]:
    """See each database as it is now, as long as the block lasts; nothing can be written."""
    async with AsyncExitStack() as stack:
        for connection in connections:
            await stack.enter_async_context(
                connection.transaction(isolation="repeatable_read", readonly=True)
            )
        # A snapshot is taken by the first statement: all three as close together as possible.
        await asyncio.gather(*(connection.execute("SELECT 1") for connection in connections))
        yield connections
