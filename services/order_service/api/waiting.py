"""How does a request wait until an order has moved?

The database wakes it (`shared/listener.py`), whichever process made the change, and requests that are woken together
read their orders in one statement: thousands that wait cost nothing until something happens.
"""

import asyncio
import re
from collections.abc import Callable
from uuid import UUID

from aiohttp import web

from services.order_service.domain.order import Order
from services.order_service.domain.refusals import UnknownOrder
from shared.batcher import Batcher
from shared.listener import Listener

WAIT_SECONDS_MAX = 30

# RFC 7240, section 4.3; the value may be quoted, and parameters may follow.
_WAIT = re.compile(r'wait\s*=\s*"?(\d{1,9})"?\s*(;.*)?', re.IGNORECASE)


class Waiting:
    """Reads orders, now or as soon as they are due."""

    def __init__(self, reads: Batcher[UUID, Order], listener: Listener) -> None:
        self._reads = reads
        self._listener = listener

    async def find(self, order_id: UUID, customer_id: str | None) -> Order:
        """Return an order as it stands; raise `UnknownOrder` if there is none, or not for this customer to see."""
        order = await self._reads.submit(order_id)
        if not order.is_for(customer_id):
            raise UnknownOrder
        return order

    async def find_when(
        self, order_id: UUID, customer_id: str | None, is_due: Callable[[Order], bool], *, seconds: float
    ) -> Order:
        """Return an order as soon as it is due; as it stands when the time is over or the service stops."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        with self._listener.watch(str(order_id)) as changed:
            while True:
                changed.clear()
                order = await self.find(order_id, customer_id)
                left = deadline - clock()
                if is_due(order) or left <= 0 or self._listener.is_ending:
                    return order
                try:
                    async with asyncio.timeout(left):
                        await changed.wait()
                except TimeoutError:
                    pass  # one last look


def preferred_wait(request: web.Request) -> int | None:
    """Return for how many seconds the caller prefers to wait, up to the most there is; None if it does not say.

    A preference that cannot be read is none (RFC 7240, section 2); of several the first counts.
    """
    for preference in ",".join(request.headers.getall("Prefer", ())).split(","):
        found = _WAIT.fullmatch(preference.strip())
        if found is not None:
            return min(int(found[1]), WAIT_SECONDS_MAX)
    return None
