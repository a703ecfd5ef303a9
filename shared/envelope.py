"""How does an event become a Kafka record, and a record an event again?

CloudEvents 1.0 in Kafka binary mode: attributes as `ce_*` headers, the JSON data as the value; structured mode is
accepted for commands. A record is looked at in two steps: `ce_type` alone tells whether its reader wants it, and only
then is anything decoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Generic, Protocol, TypeVar
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError

from shared.errors import Fault, HoldfastError
from shared.events import COMMANDS_TOPIC, SOURCES, Wire
from shared.ids import position_id

E_co = TypeVar("E_co", covariant=True)

Headers = Sequence[tuple[str, bytes | None]]

REDRIVE_HEADER = "dlq_redrive"
REDRIVE_GROUP_HEADER = "dlq_group"
#: Names the one group that a replayed record is for.
REPLAY_GROUP_HEADER = "x-replay-group"
_STRUCTURED = b"application/cloudevents+json"
_ERROR_CHARACTERS_MAX = 1_000

_uuid: TypeAdapter[UUID] = TypeAdapter(UUID)


class Undecodable(HoldfastError):
    """The message cannot be decoded."""

    status = 400
    reason = "undecodable"


class Record(Protocol):
    """The parts of a Kafka record that are read here."""

    @property
    def topic(self) -> str:
        """Where it was read."""

    @property
    def partition(self) -> int:
        """In which partition."""

    @property
    def offset(self) -> int:
        """At which position of it."""

    @property
    def key(self) -> bytes | None:
        """What decided its partition."""

    @property
    def value(self) -> bytes | None:
        """Its content."""

    @property
    def headers(self) -> Headers:
        """Its headers, in order, repeated names included."""


@dataclass(frozen=True, slots=True)
class Message(Generic[E_co]):
    """An event or command as it reaches a handler.

    `cause` is what the events that follow from it name as their cause; `sequence` is 0 for commands; `redriven` says
    that an operator sent it again from the dead letters of this very group.
    """

    event_id: UUID
    event: E_co
    key: str
    sequence: int
    redriven: bool
    record: Record | None = None

    @property
    def cause(self) -> str:
        """The causation id of whatever follows from this message."""
        return str(self.event_id)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that a handler does not accept: it becomes a dead letter, and moves nothing."""

    message: Message[object]
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that a decision produced: `sequence` counts the events of this producer about this key from 1."""

    event: Wire
    key: str
    sequence: int
    cause: str
    correlation_id: str | None


def header(headers: Headers, name: str) -> bytes | None:
    """Return the first value of a header, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def is_structured(record: Record) -> bool:
    """Tell whether a record is a structured-mode CloudEvent, whose type is inside its value."""
    content_type = header(record.headers, "content-type")
    return content_type is not None and content_type.split(b";")[0].strip().lower() == _STRUCTURED


def message_id(record: Record) -> UUID:
    """Return the id a record is remembered by: its own, or one made of its position if it has none that is usable."""
    try:
        return UUID((header(record.headers, "ce_id") or b"").decode("ascii"))
    except ValueError:
        return position_id(record.topic, record.partition, record.offset)


def decode(record: Record, model: type[Wire], *, group: str) -> Message[Wire]:
    """Turn a binary-mode record of a known type into a message.

    Raises:
        Undecodable: no id, no sequence, no value, or a value that is not what its type says.
    """
    headers = {name: value for name, value in reversed(record.headers) if value is not None}
    return Message(
        event_id=_read_id(headers.get("ce_id")),
        event=_read_value(record.value, model),
        key=_read_key(record.key),
        sequence=0 if record.topic == COMMANDS_TOPIC else _read_sequence(headers.get("ce_sequence")),
        redriven=REDRIVE_HEADER in headers and headers.get(REDRIVE_GROUP_HEADER) == group.encode(),
        record=record,
    )


def decode_structured(record: Record, models: Mapping[str, type[Wire]], *, group: str) -> Message[Wire]:
    """Turn a structured-mode command into a message.

    Raises:
        Undecodable: not a CloudEvent, of a type that is not in `models`, or with data that are not what it says.
    """
    try:
        document = orjson.loads(record.value or b"")
        kind, identity = document["type"], document["id"]
        # Raises a TypeError for what is nested deeper than it writes, though it reads it.
        data = orjson.dumps(document["data"])
    except (ValueError, TypeError, KeyError) as error:
        detail = f"not a structured CloudEvent: {error!r}"
        raise Undecodable(detail) from error
    model = models.get(kind) if isinstance(kind, str) else None
    if model is None:
        detail = f"unknown type {kind!r}"
        raise Undecodable(detail)
    headers = record.headers
    return Message(
        event_id=_read_id(str(identity).encode()),
        event=_read_value(data, model),
        key=_read_key(record.key),
        sequence=0,
        redriven=header(headers, REDRIVE_HEADER) is not None
        and header(headers, REDRIVE_GROUP_HEADER) == group.encode(),
        record=record,
    )


def encode(emitted: Emitted, event_id: UUID, at: datetime) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the value and the headers of an event whose fact happened at `at`."""
    event = emitted.event
    headers = [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", str(event_id)),
        ("ce_type", event.type),
        ("ce_source", SOURCES[event.topic]),
        ("ce_subject", emitted.key),
        ("ce_time", _time_text(at)),
        ("ce_sequence", str(emitted.sequence)),
        ("ce_sequencetype", "Integer"),
        ("ce_causationid", emitted.cause),
    ]
    if emitted.correlation_id is not None:
        headers.append(("ce_correlationid", emitted.correlation_id))
    return event.model_dump_json().encode(), headers


@lru_cache(maxsize=64)
def _time_text(at: datetime) -> str:
    """Return a time as RFC 3339 in UTC; a batch has one time for all its events."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def faults_of(error: ValidationError) -> list[Fault]:
    """Return what pydantic found as faults with JSON pointers (RFC 6901), without the offending values."""
    return [
        Fault(
            "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in fault["loc"]),
            fault["msg"],
        )
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _read_id(raw: bytes | None) -> UUID:
    try:
        return UUID((raw or b"").decode("ascii"))
    except ValueError as error:
        detail = "ce_id is missing" if raw is None else "ce_id is not a UUID"
        raise Undecodable(detail) from error


def _read_sequence(raw: bytes | None) -> int:
    if raw is None or not raw.isdigit() or len(raw) > 18 or int(raw) < 1:  # noqa: PLR2004 (18 digits fit a bigint)
        detail = "ce_sequence is not a decimal number of at least 1"
        raise Undecodable(detail)
    return int(raw)


def _read_key(raw: bytes | None) -> str:
    try:
        return (raw or b"").decode()
    except UnicodeDecodeError as error:
        detail = "the key is not UTF-8"
        raise Undecodable(detail) from error


def _read_value(raw: bytes | None, model: type[Wire]) -> Wire:
    if raw is None:
        detail = "the message has no value"
        raise Undecodable(detail)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        faults = faults_of(error)
        detail = "; ".join(f"{fault.pointer or 'value'}: {fault.detail}" for fault in faults)
        raise Undecodable(detail[:_ERROR_CHARACTERS_MAX], faults=faults) from error
