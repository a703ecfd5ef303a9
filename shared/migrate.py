"""How does a database get its tables?

Numbered SQL files, each applied once in one transaction under an advisory lock; a file that was applied must never
change again, which its checksum proves.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.database import DedicatedConnection, connect
from shared.errors import Misconfigured

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_LOCK = 4_846_318_150_227_001
_LOCK_TIMEOUT = "10s"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(folder: Path) -> list[Migration]:
    """Return the migrations of a folder in order.

    Raises:
        Misconfigured: a file with another kind of name, or numbers that are not 1, 2, 3…
    """
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.match(path.name)
        if match is None:
            detail = f"{path.name}: a migration is named 0001_what_it_does.sql"
            raise Misconfigured(detail)
        migrations.append(Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8")))
    if [migration.number for migration in migrations] != list(range(1, len(migrations) + 1)):
        detail = f"{folder.parent.name}: migrations are numbered 1, 2, 3… without holes"
        raise Misconfigured(detail)
    return migrations


async def migrate(dsn: str, migrations: Sequence[Migration]) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    Raises:
        Misconfigured: an applied file has changed, or the database is newer than these files.
        Unavailable: the database does not answer.
    """
    connection = await connect(dsn, application_name="holdfast-migrate")
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(
            """
            CREATE TABLE IF NOT EXISTS schema_migrations (
                number integer PRIMARY KEY,
                name text NOT NULL,
                checksum text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now()
            )
            """
        )
        return await _apply_missing(connection, migrations)
    finally:
        await connection.close()


async def list_missing(dsn: str, migrations: Sequence[Migration]) -> list[str]:
    """Return the names of the migrations that are still to be applied; nothing is changed.

    Raises:
        Misconfigured: an applied file has changed, or the database is newer than these files.
        Unavailable: the database does not answer.
    """
    connection = await connect(dsn, application_name="holdfast-migrate")
    try:
        is_new = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NULL")
        missing = migrations if is_new else await _missing(connection, migrations)
    finally:
        await connection.close()
    return [migration.name for migration in missing]


async def _missing(connection: DedicatedConnection, migrations: Sequence[Migration]) -> Sequence[Migration]:
    rows = await connection.fetch("SELECT number, name, checksum FROM schema_migrations ORDER BY number")
    by_number = {migration.number: migration for migration in migrations}
    for row in rows:
        known = by_number.get(row["number"])
        if known is None or known.checksum != row["checksum"]:
            detail = f"migration {row['name']} was applied to this database in another form than the one here"
            raise Misconfigured(detail)
    return migrations[len(rows) :]


async def _apply_missing(connection: DedicatedConnection, migrations: Sequence[Migration]) -> list[str]:
    applied = []
    for migration in await _missing(connection, migrations):
        async with connection.transaction():
            await connection.execute("SELECT set_config('lock_timeout', $1, true)", _LOCK_TIMEOUT)
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
        applied.append(migration.name)
    return applied
