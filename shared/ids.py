"""Where do new identifiers come from?"""

from uuid import UUID, uuid5

import uuid_utils.compat

_POSITIONS = UUID("6d1d0f0e-4d6c-5c1e-9a7b-0b9a6a0d7a11")


def new_id() -> UUID:
    """Return a new UUIDv7 (RFC 9562): unique, and sorted by the time it was made."""
    return uuid_utils.compat.uuid7()


def position_id(topic: str, partition: int, offset: int) -> UUID:
    """Return the identifier under which a message without a usable one of its own is remembered."""
    return uuid5(_POSITIONS, f"{topic}/{partition}/{offset}")
