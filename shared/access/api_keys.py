"""Which API keys are there, whose are they, and until when?

A file of JSON lines, which holds no key but the SHA-256 of each. A key has 256 random bits, so a slow hash would add
nothing, and its own id, which is part of what is hashed, is its salt. The file is read again when it changes: keys are
given out, changed and taken back without a restart.
"""

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from shared.access.callers import Caller, Scope, name_of
from shared.envelope import faults_of
from shared.errors import Misconfigured
from shared.events import Identifier
from shared.health import Health
from shared.logging import get_logger

KEY_PREFIX: Final = "hfk_"
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
_ID_BYTES, _SECRET_BYTES = 8, 32
_KEY = re.compile(rf"{KEY_PREFIX}([0-9a-f]{{{2 * _ID_BYTES}}})_[0-9a-f]{{{2 * _SECRET_BYTES}}}", re.ASCII)
_PART = "keys_file"
_log = get_logger()

KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class KeyLine(BaseModel):
    """One line of the file: which caller holds the key, what it may do, and how the key is known again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: KeyName
    scope: Scope
    customer_id: Identifier | None = None
    key_id: Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{2 * _ID_BYTES}}}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    expires_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _customer_with_its_id(self) -> "KeyLine":
        if (self.scope is Scope.CUSTOMER) != (self.customer_id is not None):
            raise ValueError("customer_id is for the scope customer, which needs it")
        return self

    def caller(self) -> Caller:
        """Return who calls with this key; a customer is the same one whichever key or token it holds."""
        if self.customer_id is not None:
            return Caller(name_of("customer", self.customer_id), self.scope, self.customer_id)
        return Caller(name_of("key", self.name), self.scope)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key, which is told once and kept nowhere, and its line for the file."""

    key: str
    line: KeyLine

    def text(self) -> str:
        """Return the line as it stands in the file."""
        return self.line.model_dump_json(exclude_none=True)


def new_key(
    name: str, scope: Scope, *, customer_id: str | None = None, expires_at: datetime | None = None
) -> NewKey:
    """Make a key.

    Raises:
        Misconfigured: the name, or the customer id, cannot be one.
    """
    key_id = secrets.token_hex(_ID_BYTES)
    key = f"{KEY_PREFIX}{key_id}_{secrets.token_hex(_SECRET_BYTES)}"
    try:
        line = KeyLine(
            name=name,
            scope=scope,
            customer_id=customer_id,
            key_id=key_id,
            sha256=_digest(key),
            expires_at=expires_at,
        )
    except ValidationError as error:
        raise Misconfigured("; ".join(_faults(error))) from error
    return NewKey(key, line)


def read_keys(content: bytes) -> dict[str, KeyLine]:
    """Return the lines of a file by the id of their key; empty lines and comments (#) are passed over.

    Two lines may have one name, while a caller changes its key.

    Raises:
        Misconfigured: one line for each that is wrong.
    """
    if len(content) > FILE_BYTES_MAX:
        raise Misconfigured(f"the file has more than {FILE_BYTES_MAX:,} bytes")
    keys: dict[str, KeyLine] = {}
    named: dict[str, KeyLine] = {}
    problems = []
    for number, text in enumerate(content.splitlines(), start=1):
        if not text.strip() or text.lstrip().startswith(b"#"):
            continue
        try:
            line = KeyLine.model_validate_json(text)
        except ValidationError as error:
            problems += [f"line {number}: {fault}" for fault in _faults(error)]
            continue
        before = named.setdefault(line.name, line)
        if line.key_id in keys:
            problems.append(f"line {number}: the key {line.key_id} stands there twice")
        elif (before.scope, before.customer_id) != (line.scope, line.customer_id):
            problems.append(f"line {number}: {line.name} has another scope or customer on an earlier line")
        keys[line.key_id] = line
    if problems:
        raise Misconfigured("\n".join(problems))
    return keys


def read_keys_file(path: Path) -> dict[str, KeyLine]:
    """Return the lines of a file by the id of their key.

    Raises:
        Misconfigured: it cannot be read, or something in it is wrong.
    """
    return read_keys(_read(path))


def _faults(error: ValidationError) -> list[str]:
    """Return what is wrong with a line, without what stands in it."""
    return [
        f"{fault.pointer}: {fault.detail.removeprefix('Value error, ')}".removeprefix(": ")
        for fault in faults_of(error)
    ]


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Known:
    """What is needed of a line when its key comes."""

    digest: str
    caller: Caller
    expires_at: float


class ApiKeys:
    """The keys of a file, as it was when it was last right."""

    def __init__(self, path: Path, *, health: Health, clock: Callable[[], float] = time.time) -> None:
        """Read the file.

        Raises:
            Misconfigured: it cannot be read, or something in it is wrong.
        """
        self._path = path
        self._health = health
        self._clock = clock
        self._content = b""
        self._known: Mapping[str, _Known] = {}
        try:
            self._take(_read(path))
        except Misconfigured as error:
            lines = error.detail.splitlines()
            raise Misconfigured("\n".join(f"HOLDFAST_API_KEYS_FILE: {line}" for line in lines)) from error

    def find(self, key: str) -> Caller | None:
        """Return whose key this is; None if it is nobody's, or no longer."""
        fits = _KEY.fullmatch(key)
        known = None if fits is None else self._known.get(fits[1])
        if known is None or not hmac.compare_digest(_digest(key), known.digest):
            return None
        return known.caller if self._clock() < known.expires_at else None

    async def tick(self) -> bool:
        """Read the file again; when it is wrong now, say so and keep the keys that were read before."""
        try:
            content = await asyncio.to_thread(_read, self._path)
            if content != self._content:
                self._take(content)
        except Misconfigured as error:
            reason = "; ".join(error.detail.splitlines())
            if self._health.away.get(_PART) is None:
                _log.error("api_keys_not_read", error=reason, keys_kept=len(self._known))
            self._health.down(_PART, f"the keys read before are kept: {reason}")
        else:
            self._health.up(_PART)
        return False

    def _take(self, content: bytes) -> None:
        lines = read_keys(content)
        self._known = {key_id: _known(line) for key_id, line in lines.items()}
        self._content = content
        _log.info("api_keys_read", keys=len(lines))


def _known(line: KeyLine) -> _Known:
    expires_at = float("inf") if line.expires_at is None else line.expires_at.timestamp()
    return _Known(line.sha256, line.caller(), expires_at)


def _read(path: Path) -> bytes:
    """Return what is in a file, and not much more than the limit of it."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Misconfigured(f"the file cannot be read: {error.strerror}") from error
