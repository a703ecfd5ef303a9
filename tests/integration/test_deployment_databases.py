"""Do the scripts of `deploy/` make databases that the services can live in, each closed to the others?"""

import asyncio
import os
from pathlib import Path

import asyncpg
import pytest

from deploy.local.migrations import SERVICES, migrate_all
from deploy.local.parts import postgres_program
from deploy.local.postgres import EmbeddedPostgres
from shared.database import connect

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


async def sh(script: Path, *words: str, **environment: str) -> None:
    """Run a script of ours, with Postgres's programs on the path."""
    path = f"{postgres_program('psql').parent}:{os.environ['PATH']}"
    running = await asyncio.create_subprocess_exec("sh", script, *words, env={"PATH": path, **environment})
    assert await running.wait() == 0


async def test_the_scripts_make_one_closed_database_for_each_service(tmp_path: Path) -> None:
    """On a fresh server each role gets into its own database and no other, and the migrations can be applied there."""
    secrets = tmp_path / "secrets"
    await sh(DEPLOY / "make-secrets.sh", str(secrets))
    async with EmbeddedPostgres(tmp_path, services=(), durable=False) as server:
        superuser = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "holdfast_admin"}
        password = server._passwords["holdfast_admin"]
        await sh(
            DEPLOY / "postgres/init.sh", **superuser, PGPASSWORD=password, HOLDFAST_PASSWORDS=str(secrets)
        )
        dsns = {
            service: (secrets / f"{service}_database_dsn")
            .read_text()
            .strip()
            .replace("@postgres:5432", f"@127.0.0.1:{server.port}")
            for service in SERVICES
        }

        applied = await migrate_all(dsns)

        assert all(applied.values())
        for service, dsn in dsns.items():
            connection = await connect(dsn)
            assert await connection.fetchval("SELECT current_database()") == f"holdfast_{service}"
            await connection.close()
            for other in {*SERVICES} - {service}:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connect(f"{dsn.rpartition('/')[0]}/holdfast_{other}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connect(f"{dsns['order'].rpartition('/')[0]}/postgres")
