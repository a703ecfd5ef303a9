"""How do the sandbox's records survive a kill -9? By an append-only file of lines, written before anything is answered."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


class JournalError(Exception):
    """The data directory cannot be used."""


class Journal:
    """Lines in a file, each appended whole or not at all.

    A line is with the kernel before `append` returns, which is all that a killed process needs; that costs microseconds,
    so nothing has to be batched. The disk is waited for only in `replace` and `close`: after a power cut a development
    gateway may forget its last seconds.
    """

    def __init__(self, directory: Path) -> None:
        """Take the directory for this process alone; raises JournalError if another one has it."""
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "journal.jsonl"
        self._lock = (directory / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise JournalError(f"{directory}: another sandbox uses this directory") from error
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size

    def lines(self) -> Iterator[bytes]:
        """Every whole line; a last one without its end was torn by a kill, was never answered for, and is dropped."""
        with self._path.open("rb") as stored:
            for line in stored:
                if line.endswith(b"\n"):
                    yield line

    def append(self, line: bytes) -> None:
        """Write one line, which must not contain a line break; raises OSError and leaves no trace if the disk is full."""
        data = line + b"\n"
        try:
            written = self._file.write(data)
        except OSError:
            written = 0
        if written != len(data):
            self._file.truncate(self._size)
            raise OSError(f"{self._path}: cannot be written")
        self._size += len(data)

    def replace(self, lines: Iterable[bytes]) -> None:
        """Put these lines in the place of all others, in one step."""
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as target:
            target.writelines(line + b"\n" for line in lines)
            target.flush()
            os.fsync(target.fileno())
        fresh.replace(self._path)
        self._file.close()
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size

    def close(self) -> None:
        """Bring everything to the disk and give the directory free."""
        os.fsync(self._file.fileno())
        self._file.close()
        self._lock.close()
