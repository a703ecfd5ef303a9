"""How does the shop's day go? Orders are placed in the order of time, and every customer lives a story of their own."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ops.demo.banks import Bank
from ops.demo.customer import Customer, commands_of
from ops.demo.market import GatewayName
from ops.demo.plan import Plan, PlannedOrder, Story
from ops.demo.shop import Shop
from ops.demo.watch import OrderView, Watch
from shared.events import OrderStatus
from shared.ids import new_id

#: How many customers wait for their stock or at the till at once: what the latency is measured under. With many more,
#: short holds would run out in the queue.
WAITING_MAX = 200
_PLACED_AT_ONCE = 20
_DOOR_SECONDS = 0.01
_LOOK_AGAIN_SECONDS = 0.2


@dataclass(slots=True)
class Visit:
    """An order of the plan, its id, and what was seen of it: nothing before it is placed.

    A customer is turned away if there was no stock, or if the system was so slow, or so long away, that the order's time
    was over before they came to the till.
    """

    planned: PlannedOrder
    order_id: UUID
    view: OrderView | None = None
    turned_away: bool = False
    placed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def may_end_in(self) -> frozenset[OrderStatus]:
        """Every status in which the order may end."""
        too_late = self.turned_away and self.planned.hold_seconds is not None
        return frozenset({self.planned.ends_in} | ({OrderStatus.EXPIRED} if too_late else set()))

    @property
    def status(self) -> str:
        """Where the order stands, as far as anybody has said."""
        return "UNKNOWN" if self.view is None or self.view.status is None else self.view.status.value

    @property
    def is_open(self) -> bool:
        """Whether something is still to happen to the order."""
        return self.view is None or self.view.is_open

    def __str__(self) -> str:
        return f"order {self.order_id} ({self.planned.story})"


class Day:
    """Places the orders of a plan and lets their customers live; `on_end` is called once for each that is through."""

    def __init__(
        self,
        plan: Plan,
        shop: Shop,
        banks: Mapping[GatewayName, Bank],
        watch: Watch,
        on_end: Callable[[], None],
    ) -> None:
        self.visits = [Visit(planned, new_id()) for planned in plan.orders]
        self.problems: list[str] = []
        self.ended_at: float | None = None
        self._shop = shop
        self._banks = banks
        self._watch = watch
        self._on_end = on_end

    async def live(self) -> None:
        """Return when every customer is through and the gateways have got rid of every webhook."""
        # Rivals are let in by the customers who lose to them.
        queue = [visit for visit in self.visits if visit.planned.story is not Story.BUYS_WHAT_ANOTHER_LOST]
        async with asyncio.TaskGroup() as customers:
            for start in range(0, len(queue), _PLACED_AT_ONCE):
                some = queue[start : start + _PLACED_AT_ONCE]
                await self._until_there_is_room(len(some))
                free = [visit for visit in some if not visit.planned.placed_after]
                for visit, order in zip(free, await self._place(free), strict=True):
                    customers.create_task(self._live(visit, order))
                for visit in some:
                    if visit.planned.placed_after:
                        customers.create_task(self._live_after_others(visit))
        self.ended_at = time.perf_counter()
        while await self._has_webhooks_left():
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def _has_webhooks_left(self) -> bool:
        """Tell whether a delivery is still under way, or was not judged yet."""
        pending = [await bank.deliveries_pending() for bank in self._banks.values()]
        verdicts = Counter() if any(pending) else await self._shop.webhook_verdicts()
        return any(pending) or any(verdict is None for _, verdict in verdicts)

    async def _until_there_is_room(self, count: int) -> None:
        while self._watch.undecided + self._shop.at_till + count > WAITING_MAX:
            await asyncio.sleep(_DOOR_SECONDS)

    async def _live_after_others(self, visit: Visit) -> None:
        """Place an order when it is known what those got who wanted the same last units before."""
        for position in visit.planned.placed_after:
            earlier = self.visits[position]
            await earlier.placed.wait()
            if earlier.view is not None:
                await earlier.view.until(lambda order: order.is_decided)
        (order,) = await self._place([visit])
        await self._live(visit, order)

    async def _place(self, visits: Sequence[Visit]) -> list[OrderView]:
        commands = [command for visit in visits for command in commands_of(visit.planned, visit.order_id)]
        views = [self._watch.expect(visit.order_id) for visit in visits]
        for visit, view in zip(visits, views, strict=True):
            visit.view = view
            visit.placed.set()
        await self._shop.publish(commands)
        return views

    async def _live(self, visit: Visit, order: OrderView) -> None:
        async def rival() -> None:
            if visit.planned.rival is not None:
                other = self.visits[visit.planned.rival]
                (view,) = await self._place([other])
                await self._live(other, view)

        try:
            bank = self._banks[visit.planned.gateway]
            customer = Customer(visit.planned, visit.order_id, order, self._shop, bank, rival)
            played = await customer.live()
            visit.turned_away = not played
        except Exception as error:
            self.problems.append(f"{visit}: {error}")
        self._on_end()
