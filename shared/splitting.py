"""How does one bad item not stop its neighbours?"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def apply_splitting(
    items: Sequence[T],
    apply: Callable[[Sequence[T]], Awaitable[None]],
    *,
    is_transient: Callable[[BaseException], bool],
    refuse: Callable[[T, Exception], Awaitable[None]],
) -> None:
    """Apply a batch; where it fails by itself, apply its halves in order, down to the items that fail alone.

    `apply` is all or nothing. Transient errors are not a property of any item and are raised as they are; an item that
    fails alone is handed to `refuse` with its error. Order is kept.
    """
    try:
        await apply(items)
    except Exception as error:
        if is_transient(error):
            raise
        if len(items) == 1:
            await refuse(items[0], error)
            return
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            await apply_splitting(half, apply, is_transient=is_transient, refuse=refuse)
