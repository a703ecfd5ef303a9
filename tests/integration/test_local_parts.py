"""Are the programs of the local system checked before they are run, and is their absence explained?"""

import os
import re
from pathlib import Path

import pytest

from deploy.local.parts import (
    KAFKA_VERSION,
    PartsCorrupt,
    PartsMissing,
    cache_directory,
    kafka_jars,
    pinned_sums,
    postgres_program,
)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder with every jar in it."""
    folder = tmp_path / f"kafka-{KAFKA_VERSION}"
    folder.mkdir()
    for jar in kafka_jars():
        (folder / jar.name).write_bytes(jar.read_bytes())
    return tmp_path


def test_the_cached_jars_are_the_pinned_ones(cache: Path) -> None:
    """A complete cache gives exactly the pinned jars, without any network."""
    jars = kafka_jars(cache)

    assert sorted(jar.name for jar in jars) == sorted(pinned_sums())


def test_a_corrupted_jar_is_named_and_the_remedy_is_given(cache: Path) -> None:
    """One changed byte in one jar stops the start, and the message says which file and what to do."""
    jar = cache / f"kafka-{KAFKA_VERSION}" / f"kafka-clients-{KAFKA_VERSION}.jar"
    content = bytearray(jar.read_bytes())
    content[len(content) // 2] ^= 1
    jar.write_bytes(content)

    with pytest.raises(PartsCorrupt, match=rf"{re.escape(str(jar))} has SHA-256 .* delete the folder"):
        kafka_jars(cache)


def test_a_corrupted_jar_of_the_same_size_and_time_is_found(cache: Path) -> None:
    """The content is compared, not what the file system says about it."""
    jar = cache / f"kafka-{KAFKA_VERSION}" / f"kafka-server-{KAFKA_VERSION}.jar"
    before = jar.stat()
    jar.write_bytes(bytes(before.st_size))
    os.utime(jar, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(PartsCorrupt, match="has SHA-256"):
        kafka_jars(cache)


def test_a_missing_jar_is_named(cache: Path) -> None:
    """A jar that was deleted from the cache is not passed over."""
    jar = cache / f"kafka-{KAFKA_VERSION}" / f"kafka-raft-{KAFKA_VERSION}.jar"
    jar.unlink()

    with pytest.raises(PartsCorrupt, match=rf"{re.escape(str(jar))} is missing"):
        kafka_jars(cache)


def test_a_jar_that_nobody_pinned_is_not_run(cache: Path) -> None:
    """A further jar in the cache folder does not come onto the class path."""
    stranger = cache / f"kafka-{KAFKA_VERSION}" / "stranger.jar"
    stranger.write_bytes(b"not pinned")

    assert stranger not in kafka_jars(cache)


def test_without_a_network_one_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing can be fetched, the error names the ways out, and no half-filled folder is left."""
    nobody_listens = "http://127.0.0.1:9"
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nobody_listens)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(PartsMissing) as caught:
        kafka_jars(tmp_path / "cache")

    for way_out in ("connect this machine", "copy the jars", "HOLDFAST_KAFKA_BOOTSTRAP_SERVERS"):
        assert way_out in caught.value.detail
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"kafka-{KAFKA_VERSION}.lock"]


def test_a_cache_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    """A cache folder that cannot be made is reported with the setting that moves it."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(PartsMissing, match="HOLDFAST_CACHE_DIR"):
        kafka_jars(tmp_path / "file" / "cache")


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`HOLDFAST_CACHE_DIR` comes first, then the user's cache folder."""
    monkeypatch.delenv("HOLDFAST_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_directory() == tmp_path / "caches" / "holdfast"

    monkeypatch.setenv("HOLDFAST_CACHE_DIR", str(tmp_path / "chosen"))

    assert cache_directory() == tmp_path / "chosen"


def test_a_program_that_the_wheel_lacks_is_explained() -> None:
    """A program that is not there is reported with the way to install it."""
    with pytest.raises(PartsMissing, match="pip install"):
        postgres_program("no-such-program")
