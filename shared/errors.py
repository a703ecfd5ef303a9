"""Which errors does Holdfast raise, and what do they mean to a caller?

One root; an error's docstring is the message its user reads unless the place that raises it knows more. `status` is the
HTTP status it becomes, `reason` its short name in dead letters, problems and metrics, and `transient` says that the
same work may succeed when it is done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: where (a JSON pointer, "" for the whole) and what."""

    pointer: str
    detail: str


class HoldfastError(Exception):
    """Something went wrong inside Holdfast."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "internal"
    transient: ClassVar[bool] = False

    def __init__(self, detail: str | None = None, *, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail or cleandoc(self.__doc__ or self.reason))
        self.faults = tuple(faults)

    @property
    def detail(self) -> str:
        """The sentence a person reads."""
        return str(self)


class Malformed(HoldfastError):
    """The input cannot be read."""

    status = 400
    reason = "malformed"


class Invalid(HoldfastError):
    """The input can be read, but says something impossible."""

    status = 422
    reason = "invalid"


class Unauthorized(HoldfastError):
    """A valid bearer token is needed."""

    status = 401
    reason = "unauthorized"


class Forbidden(HoldfastError):
    """This token does not allow that."""

    status = 403
    reason = "forbidden"


class NotFound(HoldfastError):
    """There is no such thing."""

    status = 404
    reason = "not_found"


class Conflict(HoldfastError):
    """The request contradicts what is already there."""

    status = 409
    reason = "conflict"


class TooSlow(HoldfastError):
    """The body did not come in time."""

    status = 408
    reason = "too_slow"


class TooLarge(HoldfastError):
    """The body is larger than this route takes."""

    status = 413
    reason = "too_large"


class Overloaded(HoldfastError):
    """There is more work waiting than the configured limit; try again shortly."""

    status = 503
    reason = "overloaded"
    transient = True


class Unavailable(HoldfastError):
    """A part that this needs is away; try again shortly."""

    status = 503
    reason = "unavailable"
    transient = True


class ConcurrentWrite(HoldfastError):
    """Another process wrote the same row first; the work is done again on what it left."""

    status = 503
    reason = "concurrent_write"
    transient = True


class LedgerViolation(HoldfastError):
    """A write did not change the rows it was decided on; nothing was saved."""

    reason = "ledger_violation"


class Misconfigured(HoldfastError):
    """A setting is missing or wrong."""

    reason = "misconfigured"
