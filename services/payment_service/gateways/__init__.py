"""What must a payment gateway be able to do, and which ones are switched on?

One file a gateway. Whatever a gateway calls its things, here it speaks our words: `Notice` for what it says of a
payment, and the answers of `domain.answers` for what it is asked. Silence and nonsense are `Unanswered`, never an
exception, and never a failure.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

from services.payment_service.domain.answers import Created, Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import Attempt, Notice
from services.payment_service.domain.refunds import Refund
from shared.errors import NotFound


class Gateway(AbstractAsyncContextManager["Gateway"], Protocol):
    """One payment gateway. It holds its connections between `async with`, and knows no database."""

    #: Its name in settings, routes and rows.
    name: str
    #: The headers of a webhook that its signature needs; they are stored with the delivery.
    signature_headers: tuple[str, ...]

    async def create(self, attempt: Attempt) -> Created | Declined | Unanswered:
        """Have the gateway ready to take the money of an attempt; asked again with the same attempt it is the same."""

    async def ask(self, attempt: Attempt) -> Notice | Unanswered | None:
        """Ask where an attempt stands, by its transaction or by our reference; None: the gateway knows none."""

    async def cancel(self, attempt: Attempt) -> Notice | Unanswered:
        """Keep an attempt from being paid, and return where it stands then: it may be paid already."""

    async def refund(
        self, refund: Refund, attempt: Attempt
    ) -> Refunded | RefundPending | Declined | Unanswered:
        """Give money of an attempt back; the refund's id is the idempotency key."""

    async def identify(self, notice: Notice) -> Notice | Unanswered | None:
        """Ask which attempt a notice with an `alias` is about, and return the notice with it; None: none of ours."""

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """Return the id of a webhook's event, which repeated deliveries share.

        Raises:
            Malformed: the signature, the time-stamp or the body is not what this gateway sends.
        """

    def read(self, body: bytes) -> Notice:
        """Return what a verified webhook says, or raise `Malformed`."""


class Gateways:
    """The gateways that are switched on, by name; `async with` opens and closes them all."""

    def __init__(self, *gateways: Gateway) -> None:
        self._by_name = {gateway.name: gateway for gateway in gateways}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            for gateway in self._by_name.values():
                await opening.enter_async_context(gateway)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    def __iter__(self) -> Iterator[Gateway]:
        return iter(self._by_name.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the gateways that are switched on."""
        return tuple(self._by_name)

    def find(self, name: str) -> Gateway | None:
        """Return a gateway if it is switched on."""
        return self._by_name.get(name)

    def get(self, name: str) -> Gateway:
        """Return a gateway, or raise `NotFound` if it is not switched on."""
        gateway = self._by_name.get(name)
        if gateway is None:
            raise NotFound("This gateway is not switched on.")
        return gateway
