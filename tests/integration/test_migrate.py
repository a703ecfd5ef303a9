"""Does a database get its tables once, however often and by however many it is migrated?"""

import asyncio
from pathlib import Path

import pytest

from shared.database import connect
from shared.errors import Misconfigured, Unavailable
from shared.migrate import Migration, migrate, read_migrations

FIRST = Migration(1, "0001_things", "CREATE TABLE things (id integer PRIMARY KEY);")
SECOND = Migration(
    2, "0002_colours", "ALTER TABLE things ADD COLUMN colour text; INSERT INTO things VALUES (1, 'red');"
)
BROKEN = Migration(3, "0003_broken", "CREATE TABLE half (id integer); CREATE TABLE things (id integer);")


@pytest.fixture
async def dsn(shared_dsn: str) -> str:
    """A database that was never migrated."""
    connection = await connect(shared_dsn)
    await connection.execute("DROP TABLE schema_migrations")
    await connection.close()
    return shared_dsn


async def fetch(dsn: str, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query."""
    connection = await connect(dsn)
    rows = [tuple(row.values()) for row in await connection.fetch(query)]
    await connection.close()
    return rows


async def test_an_empty_database_gets_everything_in_order(dsn: str) -> None:
    """Each file is applied, and remembered with its checksum."""
    applied = await migrate(dsn, [FIRST, SECOND])

    assert applied == ["0001_things", "0002_colours"]
    assert await fetch(dsn, "SELECT number, name, checksum FROM schema_migrations ORDER BY number") == [
        (1, "0001_things", FIRST.checksum),
        (2, "0002_colours", SECOND.checksum),
    ]


async def test_a_second_time_changes_nothing(dsn: str) -> None:
    """What was applied is not applied again."""
    await migrate(dsn, [FIRST, SECOND])

    assert await migrate(dsn, [FIRST, SECOND]) == []
    assert await fetch(dsn, "SELECT id, colour FROM things") == [(1, "red")]


async def test_only_what_is_missing_is_applied(dsn: str) -> None:
    """A newer version brings one file more."""
    await migrate(dsn, [FIRST])

    assert await migrate(dsn, [FIRST, SECOND]) == ["0002_colours"]


async def test_of_two_at_once_one_applies_and_the_other_waits(dsn: str) -> None:
    """Several copies of a service may start together."""
    applied = await asyncio.gather(*(migrate(dsn, [FIRST, SECOND]) for _ in range(4)))

    assert sorted(applied) == [[], [], [], ["0001_things", "0002_colours"]]


@pytest.mark.parametrize(
    "migrations",
    [[Migration(1, FIRST.name, FIRST.sql + " "), SECOND], [FIRST]],
    ids=["a changed file", "an older version"],
)
async def test_a_file_that_is_not_the_one_applied_is_refused(dsn: str, migrations: list[Migration]) -> None:
    """History is never rewritten, and an old version does not run on a newer database."""
    await migrate(dsn, [FIRST, SECOND])

    with pytest.raises(Misconfigured, match="another form"):
        await migrate(dsn, migrations)


async def test_a_file_that_fails_leaves_nothing_of_itself(dsn: str) -> None:
    """It is one transaction: the table it made first is gone, and the files before it stay."""
    with pytest.raises(Exception, match="already exists"):
        await migrate(dsn, [FIRST, SECOND, BROKEN])

    assert await fetch(dsn, "SELECT number FROM schema_migrations ORDER BY number") == [(1,), (2,)]
    assert await fetch(dsn, "SELECT to_regclass('half')") == [(None,)]


async def test_a_database_that_is_away_is_said_to_be() -> None:
    """Not a stack of driver errors, but one that can be tried again."""
    with pytest.raises(Unavailable):
        await migrate("postgresql://nobody@127.0.0.1:1/nothing", [FIRST])


def test_files_are_read_in_order(tmp_path: Path) -> None:
    """Number and name come from the file's name."""
    for name in ("0002_b.sql", "0001_a.sql", "notes.txt"):
        (tmp_path / name).write_text(f"SELECT '{name}'")

    assert [(item.number, item.name, item.sql) for item in read_migrations(tmp_path)] == [
        (1, "0001_a", "SELECT '0001_a.sql'"),
        (2, "0002_b", "SELECT '0002_b.sql'"),
    ]


@pytest.mark.parametrize(
    "names",
    [["0001_a.sql", "0003_c.sql"], ["0002_b.sql"], ["0001_a.sql", "0001_b.sql"], ["1_a.sql"], ["0001_A.sql"]],
)
def test_holes_repetitions_and_other_names_are_refused(tmp_path: Path, names: list[str]) -> None:
    """A file that would silently not be applied stops the migration."""
    for name in names:
        (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(Misconfigured):
        read_migrations(tmp_path)
