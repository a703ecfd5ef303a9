"""How does a real PostgreSQL run as our own child, with one closed database for each service?"""

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]  # it publishes no types

from deploy.local.kept import kept_secrets, new_token
from deploy.local.parts import postgres_program
from deploy.local.ports import HOST, free_port
from deploy.local.process import Account, Child, PartFailed, Program, can_lend_passage, run

SERVICES = ("order", "inventory", "payment")
_ADMIN = "holdfast_admin"
# A crash under load leaves much of the log to be replayed before connections are taken.
_START_TIMEOUT_SECONDS = 120.0
_STOP_TIMEOUT_SECONDS = 30.0
_UNPRIVILEGED_USERS = ("postgres", "nobody")

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "effective_cache_size": "2GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "wal_buffers": "16MB",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
    # The detail of an error holds values of the row that it is about.
    "log_error_verbosity": "terse",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

_CLIENTS = "host all all 127.0.0.1/32 scram-sha-256\n"

# A role may enter the databases it owns and no others: entry is what PUBLIC has unless it is taken away.
_CLOSE_COMMON_DATABASES = """
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
"""
_ENSURE_SERVICE = r"""
SELECT format('CREATE ROLE %I LOGIN', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
ALTER ROLE :"role" PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'role', :'role')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'role') \gexec
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
"""
_CREATE_DATABASE = """
CREATE DATABASE :"database" OWNER :"owner" TEMPLATE :"template";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
"""
_DROP_DATABASE = """
DROP DATABASE IF EXISTS :"database" WITH (FORCE);
"""


def role_of(service: str) -> str:
    """Return the name of a service's login role, which is also the name of its database."""
    return f"holdfast_{service}"


class EmbeddedPostgres:
    """A PostgreSQL of our own on 127.0.0.1, reached by TCP and password only.

    `async with EmbeddedPostgres(folder) as postgres` starts and stops it; what it stores stays in `data_dir`. When we
    are root, the server runs under the account that owns its cluster, and that alone is given to it.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        services: Iterable[str] = SERVICES,
        log_file: Path | None = None,
        durable: bool = True,
    ) -> None:
        """Take the folder to keep everything in; `durable=False` is for tests that may lose it all in a crash."""
        self.name = "postgres"
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self._cluster = self.data_dir / "cluster"
        self._roles = tuple(role_of(service) for service in services)
        self._durable = durable
        self._log_file = log_file or self.data_dir / "postgres.log"
        self._passwords: dict[str, str] = {}
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """The process id of the server, or none while it does not run."""
        return None if self._child is None else self._child.pid

    def dsn(self, database: str, role: str | None = None) -> str:
        """Return the URI of a database: of a service (`order`), or any by its name with the role that owns it."""
        name = role_of(database) if role_of(database) in self._passwords else database
        user = role or (name if name in self._passwords else _ADMIN)
        return f"postgresql://{user}:{quote(self._passwords[user])}@{HOST}:{self.port}/{quote(name)}"

    @property
    def admin_dsn(self) -> str:
        """The URI for the superuser."""
        return self.dsn("postgres", _ADMIN)

    async def start(self) -> None:
        """Create the cluster if there is none, start the server, and see to roles and databases; return when ready.

        Raises:
            PartFailed: it does not start.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._passwords = kept_secrets(
            self.data_dir / "passwords.json", dict.fromkeys((_ADMIN, *self._roles), new_token)
        )
        account = _account_for(self._cluster)
        if not self._cluster.exists():
            await self._create_cluster(account)
        _forget_stale_lock(self._cluster)
        self._child = Child(self._program(account))
        try:
            await self._child.start()
            await self._child.wait_until(self.is_healthy, _START_TIMEOUT_SECONDS)
            await self._ensure_roles()
        except BaseException:
            await self._child.stop()
            raise

    async def stop(self) -> None:
        """Shut the server down: clients are cut off, what is committed is on disk."""
        if self._child is not None:
            await self._child.stop()

    async def wait(self) -> int:
        """Wait for the end of the server and give its exit code."""
        if self._child is None:
            raise PartFailed("postgres was never started")
        return await self._child.wait()

    async def is_healthy(self) -> bool:
        """Tell whether the server takes connections."""
        try:
            await run(
                [
                    postgres_program("pg_isready"),
                    "-q",
                    "-t",
                    "3",
                    "-h",
                    HOST,
                    "-p",
                    str(self.port),
                    "-d",
                    "postgres",
                ]
            )
        except PartFailed:
            return False
        return True

    async def create_database(self, name: str, owner: str, template: str | None = None) -> str:
        """Create a database that only `owner` may enter, as a copy of `template` if one is named, and give its URI.

        The template must have no connections at that moment.
        """
        await self.psql(_CREATE_DATABASE, database=name, owner=owner, template=template or "template1")
        return self.dsn(name, owner)

    async def drop_database(self, name: str) -> None:
        """Drop a database, cutting off who is still in it; one that does not exist is no error."""
        await self.psql(_DROP_DATABASE, database=name)

    async def psql(self, script: str, *, in_database: str = "postgres", **variables: str) -> str:
        """Run a script as superuser and give what it prints; `:'name'` and `:"name"` in it stand for variables.

        Raises:
            PartFailed: a statement failed; those before it stay done.
        """
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        address = ["-h", HOST, "-p", str(self.port), "-U", _ADMIN, "-d", in_database]
        # By the environment: everybody on this machine can read a command line.
        received = "".join(f"\\getenv {name} PSQL_{name}\n" for name in variables)
        return await run(
            [postgres_program("psql"), *options, *address],
            variables={
                "PGPASSWORD": self._passwords[_ADMIN],
                **{f"PSQL_{name}": value for name, value in variables.items()},
            },
            text=received + script,
        )

    async def _ensure_roles(self) -> None:
        # Done at every start: an interrupted first start is completed by the next one.
        await self.psql(_CLOSE_COMMON_DATABASES)
        for role in self._roles:
            await self.psql(_ENSURE_SERVICE, role=role, password=self._passwords[role])

    async def _create_cluster(self, account: Account | None) -> None:
        """Create the cluster beside its place and move it there, so that half a cluster is never started."""
        with _staging(self._cluster, self._passwords[_ADMIN], account) as (staging, password_file):
            await run(_initdb(staging, password_file), account=account)

    def _program(self, account: Account | None) -> Program:
        settings = {**_SETTINGS, "port": str(self.port), **({} if self._durable else _NOT_DURABLE)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name=self.name,
            command=[postgres_program("postgres"), "-D", self._cluster, *options],
            log_file=self._log_file,
            pid_file=self.data_dir / "postgres.pid",
            ports=(self.port,),
            account=account,
            # "Fast": it does not wait for clients to leave, but still writes a checkpoint.
            stop_signal=signal.SIGINT,
            stop_timeout_seconds=_STOP_TIMEOUT_SECONDS,
        )


@contextmanager
def _staging(cluster: Path, password: str, account: Account | None) -> Iterator[tuple[Path, Path]]:
    """Lend a folder that becomes the cluster if all goes well, and a file with the superuser's password."""
    folder = Path(tempfile.mkdtemp(dir=cluster.parent, prefix="cluster."))
    password_file = folder.with_suffix(".password")
    try:
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        if account is not None:
            for path in (folder, password_file):
                os.chown(path, account.user_id, account.group_id)
        yield folder, password_file
        (folder / "pg_hba.conf").write_text(_CLIENTS)
        folder.rename(cluster)
    finally:
        password_file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _initdb(cluster: Path, password_file: Path) -> list[str | Path]:
    return [
        postgres_program("initdb"),
        *("-D", cluster, "-U", _ADMIN, f"--pwfile={password_file}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=builtin"),
    ]


def _forget_stale_lock(cluster: Path) -> None:
    """Remove the server's own lock file if it names a process that is no server: a number given out again.

    A number that nobody has is left to the server, which then also looks for what its predecessor left behind.
    """
    lock = cluster / "postmaster.pid"
    try:
        stale = psutil.Process(int(lock.read_text().split()[0])).name() != "postgres"
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        return
    if stale:
        lock.unlink()


def _account_for(cluster: Path) -> Account | None:
    """Choose who runs the server: we do, unless we are root, whom PostgreSQL refuses.

    Raises:
        PartFailed: the account cannot reach the cluster or the programs, and we may not let it.
    """
    if os.geteuid() != 0:
        return None
    user_id, group_id = _unprivileged(cluster)
    closed = [path for path in (cluster.parent, postgres_program("postgres")) if not _is_open_to_all(path)]
    if closed and not can_lend_passage():
        detail = (
            f"PostgreSQL does not run as root, and user {user_id} cannot reach {closed[0]}: a folder above it is closed. "
            "Start as an ordinary user, or use a --data-dir and an installation outside closed folders, such as /root"
        )
        raise PartFailed(detail)
    return Account(user_id, group_id, may_pass_folders=bool(closed))


def _unprivileged(cluster: Path) -> tuple[int, int]:
    """Return user and group of the existing cluster, or those of an unprivileged user for a new one."""
    if cluster.exists() and cluster.stat().st_uid != 0:
        return cluster.stat().st_uid, cluster.stat().st_gid
    for name in _UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PartFailed(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as"
    )


def _is_open_to_all(path: Path) -> bool:
    real = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in (real, *real.parents))
