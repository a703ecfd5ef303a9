"""How is JSON read that others wrote? Field by field, believing nothing: what does not fit is `Malformed`."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson

from services.payment_service.domain.answers import Unanswered
from shared.errors import Malformed
from shared.events import INTEGER_MAX

#: How much of what a gateway wrote is kept as a detail.
DETAIL_CHARACTERS_MAX: Final = 500
_NAME_CHARACTERS_MAX: Final = 255
_CURRENCY_CHARACTERS: Final = 3

Document = Mapping[str, Any]
T = TypeVar("T")


def understand(document: Document, read: Callable[[Document], T]) -> T | Unanswered:
    """Read an answer; what is not as documented says nothing."""
    try:
        return read(document)
    except Malformed as error:
        return Unanswered(f"not understood: {error.detail}")


def parse(raw: bytes) -> Document:
    """Return the object that JSON text holds."""
    try:
        document = orjson.loads(raw)
    except ValueError as error:
        raise Malformed("The body is not JSON.") from error
    if not isinstance(document, dict):
        raise Malformed("The body is not a JSON object.")
    return document


def text(document: Document, name: str, *, characters_max: int = _NAME_CHARACTERS_MAX) -> str:
    """Return a field that must be a printable text."""
    value = document.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= characters_max or not value.isprintable():
        raise Malformed(f"{name} is not a printable text of 1 to {characters_max} characters.")
    return value


def mapping(document: Document, name: str) -> Document:
    """Return a field that must be an object."""
    value = document.get(name)
    if not isinstance(value, dict):
        raise Malformed(f"{name} is not an object.")
    return value


def mappings(document: Document, name: str) -> Sequence[Document]:
    """Return a field that must be a list of objects."""
    items = document.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Malformed(f"{name} is not a list of objects.")
    return items


def amount(document: Document, name: str) -> int:
    """Return a field that must be an amount in minor units."""
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= INTEGER_MAX:
        raise Malformed(f"{name} is not an amount in minor units.")
    return value


def currency(document: Document, name: str) -> str:
    """Return a field that must look like a currency of ISO 4217."""
    value = text(document, name)
    if len(value) != _CURRENCY_CHARACTERS or not value.isascii():
        raise Malformed(f"{name} is not an ISO 4217 code.")
    return value


def identity(document: Document, name: str) -> UUID | None:
    """Return an id that we once gave away; anything else is none of ours."""
    value = document.get(name)
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def time(document: Document, name: str) -> datetime:
    """Return a field that must be a time of ISO 8601 with its zone."""
    try:
        moment = datetime.fromisoformat(text(document, name))
        if moment.tzinfo is None:
            raise Malformed(f"{name} has no time zone.")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{name} is not a time.") from error


def unix_time(document: Document, name: str) -> datetime:
    """Return a field that must be a time in seconds since 1970."""
    value = document.get(name)
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Malformed(f"{name} is not a time.") from error
    raise Malformed(f"{name} is not a time.")


def link(document: Document, name: str, *, characters_max: int) -> str | None:
    """Return an address, if there is one: nothing that breaks a page or a log."""
    url = document.get(name)
    if url is None:
        return None
    if not (isinstance(url, str) and len(url) <= characters_max and url.isprintable()):
        raise Malformed(f"{name} is unusable")
    return url
