"""How does a customer live a story? Each story in the order in which it happens, waiting only for what others see too."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

from ops.demo.banks import LOST, Bank, Telling
from ops.demo.plan import PlannedOrder, Story
from ops.demo.shop import Shop
from ops.demo.watch import OrderView
from shared.commands import OutgoingCommand, command
from shared.events import CancelOrder, OrderedLine, OrderStatus, PlaceOrder

_UNKNOWN_SKU = "not-in-the-catalog"
# One unit of the currency: there is no rupiah with decimals at Midtrans.
_TOO_MUCH_MINOR = 100


class _TurnedAwayError(Exception):
    """The order cannot be paid (any more): there was no stock, or its time was over."""


def commands_of(planned: PlannedOrder, order_id: UUID) -> list[OutgoingCommand]:
    """Return what the storefront publishes for an order, in order."""
    place = _place(planned, order_id)
    first = command(place)
    commands = [first]
    if planned.same_command_again:
        commands.append(first)
    if planned.same_content_again:
        commands.append(command(place))
    if planned.story is Story.CANCELS_AT_ONCE:
        commands.append(command(CancelOrder(order_id=order_id, reason="clicked twice")))
    return commands


def _place(planned: PlannedOrder, order_id: UUID) -> PlaceOrder:
    lines = [OrderedLine(sku=line.sku, quantity=line.quantity) for line in planned.basket.lines]
    if planned.story is Story.ASKS_FOR_THE_UNKNOWN:
        lines[0] = OrderedLine(sku=_UNKNOWN_SKU, quantity=1)
    wrong_by = 1 if planned.story is Story.EXPECTS_ANOTHER_TOTAL else 0
    return PlaceOrder(
        order_id=order_id,
        customer_id=planned.basket.customer_id,
        lines=tuple(lines),
        currency=planned.currency,
        expected_total_minor=planned.total_minor + wrong_by,
        hold_seconds=planned.hold_seconds,
    )


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with an order that is placed; `rival` lets somebody else place and live theirs."""

    planned: PlannedOrder
    order_id: UUID
    order: OrderView
    shop: Shop
    bank: Bank
    rival: Callable[[], Awaitable[None]]

    async def live(self) -> bool:
        """Do what was planned, and wait until the order has ended; tell whether the story could be played to its end."""
        played = False
        with suppress(_TurnedAwayError):
            await self._play()
            played = True
        await self.order.until(lambda order: not order.is_open)
        return played

    async def _play(self) -> None:  # noqa: C901, PLR0912 (a table with a row for each story)
        match self.planned.story:
            case Story.PAYS | Story.BUYS_WHAT_ANOTHER_LOST:
                await self._pays()
            case Story.PAYS_AT_SECOND_TRY:
                await self._pays_at_second_try()
            case Story.PAYS_TWICE:
                await self._pays_twice()
            case Story.FAILS_THEN_SUCCEEDS:
                await self._fails_then_succeeds()
            case Story.SUCCEEDS_AND_FAILS:
                await self._succeeds_and_fails()
            case Story.PAYS_AND_IS_TOLD_LATER:
                await self._pays_and_is_told_later()
            case Story.PAYS_UNHEARD:
                await self._pays_unheard()
            case Story.PAYS_ANOTHER_AMOUNT:
                await self._pays_another_amount()
            case Story.IS_DECLINED:
                await self._is_declined_twice()
            case Story.PAYS_AFTER_THE_END:
                await self._pays_after_the_end()
            case Story.WALKS_AWAY_FROM_THE_TILL:
                await self._goes_to_till()
            case Story.PAYS_LATE:
                await self._pays_late()
            case Story.LOSES_TO_A_RIVAL:
                await self._loses_to_a_rival()
            case Story.CANCELS_UNPAID:
                await self._cancels_unpaid()
            case Story.CANCELS_WHILE_PAYING:
                await self._cancels_while_paying()
            case Story.CANCELS_PAID:
                await self._cancels_paid()
            case Story.GETS_IT_FREE | Story.WALKS_AWAY | Story.CANCELS_AT_ONCE:
                pass
            case Story.ASKS_FOR_THE_UNKNOWN | Story.EXPECTS_ANOTHER_TOTAL:
                pass
            case unreachable:
                assert_never(unreachable)

    # --- the stories ------------------------------------------------------------------------------------------------

    async def _pays(self, attempt: int = 1) -> str:
        payment = await self._goes_to_till(attempt)
        await self.bank.pays(payment, self._telling)
        await self.order.until_in(OrderStatus.PROCESSING)
        return payment

    async def _pays_at_second_try(self) -> None:
        await self._is_declined()
        await self._pays(attempt=2)

    async def _pays_twice(self) -> None:
        first = await self._is_declined()
        await self._pays(attempt=2)
        await self.bank.pays(first, self._telling)
        await self.order.until(lambda order: bool(order.refunded_attempts))

    async def _fails_then_succeeds(self) -> None:
        payment = await self._goes_to_till()
        await self.bank.hesitates(payment, self._telling)
        await self.bank.pays(payment, self._telling)

    async def _succeeds_and_fails(self) -> None:
        payment = await self._goes_to_till()
        await asyncio.gather(
            self.bank.declines(payment, self._telling), self.bank.pays(payment, self._telling)
        )

    async def _pays_and_is_told_later(self) -> None:
        payment = await self._pays()
        await self.bank.tells_again(payment, self._telling)

    async def _pays_unheard(self) -> None:
        payment = await self._goes_to_till()
        await self.bank.pays(payment, LOST)
        await self.order.until_in(OrderStatus.PROCESSING)

    async def _pays_another_amount(self) -> None:
        payment = await self._goes_to_till()
        await self.bank.pays(payment, self._telling, more_minor=_TOO_MUCH_MINOR)
        await self.order.until(lambda order: bool(order.quarantined_attempts))
        for attempt_id in self.order.quarantined_attempts:
            await self.shop.decide(self.order_id, attempt_id, "refund")
        await self.order.until(lambda order: bool(order.refunded_attempts))
        await self.order.until_in(OrderStatus.EXPIRED)

    async def _is_declined(self) -> str:
        payment = await self._goes_to_till()
        await self.bank.declines(payment, self._telling)
        await self.order.until(lambda order: bool(order.failed_attempts))
        return payment

    async def _is_declined_twice(self) -> str:
        await self._is_declined()
        payment = await self._goes_to_till(attempt=2)
        await self.bank.declines(payment, self._telling)
        await self.order.until_in(OrderStatus.PAYMENT_FAILED)
        return payment

    async def _pays_after_the_end(self) -> None:
        await self._is_paid_late(await self._is_declined_twice())

    async def _pays_late(self) -> None:
        payment = await self._goes_to_till()
        await self.bank.starts(payment)
        await self.order.until_in(OrderStatus.EXPIRED)
        await self._is_paid_late(payment)

    async def _loses_to_a_rival(self) -> None:
        payment = None
        with suppress(_TurnedAwayError):
            payment = await self._goes_to_till()
            await self.bank.starts(payment)
            await self.order.until_in(OrderStatus.EXPIRED)
        await self.rival()
        if payment is None:
            raise _TurnedAwayError
        await self._is_paid_late(payment)

    async def _cancels_unpaid(self) -> None:
        await self._goes_to_till()
        await self.shop.cancel(self.order_id)

    async def _cancels_while_paying(self) -> None:
        payment = await self._goes_to_till()
        await asyncio.gather(self.bank.pays(payment, self._telling), self.shop.cancel(self.order_id))
        await self.order.until_in(OrderStatus.REFUNDED)

    async def _cancels_paid(self) -> None:
        await self._pays()
        await self.shop.cancel(self.order_id)
        await self.order.until_in(OrderStatus.REFUNDED)

    # --- what they are made of --------------------------------------------------------------------------------------

    async def _goes_to_till(self, attempt: int = 1) -> str:
        """Start an attempt to pay as soon as the order may be paid; return the gateway's id of the payment."""
        await self.order.until(lambda order: order.is_decided)
        if self.order.status is not OrderStatus.AWAITING_PAYMENT:
            raise _TurnedAwayError
        payment = await self.shop.go_to_till(self.order_id, self.planned.gateway, attempt)
        if payment is None:
            raise _TurnedAwayError
        return payment

    @property
    def _telling(self) -> Telling:
        return Telling(self.planned.webhook_times, self.planned.webhook_delay_ms)

    async def _is_paid_late(self, payment: str) -> None:
        """Let money come for an order that has ended: it gets its goods, or the money goes back."""
        if self.bank.calls_back_for_good:
            await self.shop.until_called_back(self.order_id)
        await self.bank.pays(payment, self._telling)
        ends = {OrderStatus.PROCESSING, OrderStatus.REFUNDED}
        await self.order.until(lambda order: order.status in ends or bool(order.quarantined_attempts))
        for attempt_id in self.order.quarantined_attempts:
            await self.shop.decide(self.order_id, attempt_id, "accept")
        await self.order.until_in(*ends)
