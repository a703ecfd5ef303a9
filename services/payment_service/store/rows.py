"""How do Python objects become arrays of columns, and how is a statement's row count checked?"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from shared.errors import LedgerViolation


def columns(items: Sequence[object], fields: Sequence[str]) -> list[list[Any]]:
    """Return one array a field, as `unnest` takes them."""
    return [list(map(attrgetter(name), items)) for name in fields]


def count(done: str) -> int:
    """Return how many rows a statement wrote, from its command tag."""
    return int(done.rsplit(" ", 1)[1])


def must_be(done: str, items: Sequence[object]) -> None:
    """Raise `LedgerViolation` unless a statement wrote one row for each item."""
    if count(done) != len(items):
        detail = f"{done}, but {len(items)} rows were decided on"
        raise LedgerViolation(detail)
