"""Does the inbox forget what is old, and only that, a little at a time?"""

from uuid import UUID

from shared.database import Database
from shared.ids import new_id
from shared.inbox import InboxPruner, delete_processed_events

CONSUMER = "tests"
RETENTION_SECONDS = 3_600.0


async def remember(database: Database, count: int, *, age_seconds: float) -> set[UUID]:
    """Have events in the inbox that were handled some time ago."""
    event_ids = [new_id() for _ in range(count)]
    async with database.connection() as connection:
        await connection.execute(
            """
            INSERT INTO processed_events (consumer, event_id, outcome, handled_at)
            SELECT $1, event_id, 'handled', now() - make_interval(secs => $3) FROM unnest($2::uuid[]) AS event_id
            """,
            CONSUMER,
            event_ids,
            age_seconds,
        )
    return set(event_ids)


async def remembered(database: Database) -> set[UUID]:
    """Return what is in the inbox."""
    async with database.connection() as connection:
        return {row["event_id"] for row in await connection.fetch("SELECT event_id FROM processed_events")}


async def test_only_what_is_older_than_the_retention_is_forgotten(shared_db: Database) -> None:
    """Old entries go, wherever they lie among young ones."""
    await remember(shared_db, 500, age_seconds=RETENTION_SECONDS + 60)
    young = await remember(shared_db, 500, age_seconds=RETENTION_SECONDS - 60)
    await remember(shared_db, 500, age_seconds=2 * RETENTION_SECONDS)

    await InboxPruner(shared_db, retention_seconds=RETENTION_SECONDS).tick()

    assert await remembered(shared_db) == young


async def test_a_tick_looks_at_so_many_pages_and_the_next_one_goes_on(shared_db: Database) -> None:
    """A large inbox is walked through in several ticks, and from its end on once more from the beginning."""
    old = await remember(shared_db, 1_000, age_seconds=2 * RETENTION_SECONDS)
    pruner = InboxPruner(shared_db, retention_seconds=RETENTION_SECONDS, pages_max=2)

    await pruner.tick()
    after_one = await remembered(shared_db)
    ticks = 1
    while await remembered(shared_db):
        await pruner.tick()
        ticks += 1
    await remember(shared_db, 10, age_seconds=2 * RETENTION_SECONDS)
    while await remembered(shared_db):
        await pruner.tick()
        ticks += 1

    assert 0 < len(after_one) < len(old)
    assert ticks < 30


async def test_an_empty_inbox_is_no_fault(shared_db: Database) -> None:
    """A tick finds nothing, and says that there is time until the next one."""
    more = await InboxPruner(shared_db, retention_seconds=RETENTION_SECONDS).tick()

    assert more is False


async def test_a_tick_reads_its_pages_alone(shared_db: Database) -> None:
    """The plan is a scan of a range of pages: it costs the same however large the inbox is."""
    plans: list[str] = []

    class Explaining:
        def __init__(self, connection: object) -> None:
            self._connection = connection

        async def execute(self, statement: str, *arguments: object) -> None:
            rows = await self._connection.fetch(f"EXPLAIN {statement}", *arguments)  # type: ignore[attr-defined] # any
            plans.append("\n".join(row[0] for row in rows))

    await remember(shared_db, 5_000, age_seconds=0)
    async with shared_db.connection() as connection:
        explaining = Explaining(connection)
        await delete_processed_events(explaining, pages=(0, 8), retention_seconds=1)  # type: ignore[arg-type] # it has what is used

    assert "Tid Range Scan" in plans[0]
