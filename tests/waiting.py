"""How does a test wait? For a condition, with a deadline; never for a time."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

_LOOK_AGAIN_SECONDS = 0.02


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]], *, timeout_seconds: float = 15.0, what: str = ""
) -> T: ...
@overload
async def eventually(condition: Callable[[], T], *, timeout_seconds: float = 15.0, what: str = "") -> T: ...
async def eventually(condition: Callable[[], Any], *, timeout_seconds: float = 15.0, what: str = "") -> Any:
    """Return the first truthy value of a condition, sync or async.

    Raises:
        AssertionError: it is still falsy at the deadline; says what was waited for and the last value.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout_seconds
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if clock() >= deadline:
            name = what or getattr(condition, "__qualname__", repr(condition))
            message = f"not within {timeout_seconds:g} s: {name} (the last value was {value!r})"
            raise AssertionError(message)
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
