"""How does money come, and how do gateways tell of it? The customers' banks at each gateway, played as the story wants.

The sandbox is told over HTTP, as a person would click on its pay page. Stripe and Midtrans are their doubles, on free
ports of this machine, with keys that open nothing: no real gateway is ever spoken to.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from benchmarks.baskets import CURRENCY
from deploy.local.doubles.midtrans import MidtransDouble
from deploy.local.doubles.stripe import StripeDouble
from ops.demo.market import RUPIAH, GatewayName

#: Keys of the doubles. They say themselves what they are, and no gateway has ever given them to anybody.
_STRIPE_KEY: Final = "sk_test_double_of_the_demo_opens_nothing"
_STRIPE_WEBHOOK_SECRET: Final = "whsec_double_of_the_demo_guards_nothing"  # noqa: S105 (as it says)
_MIDTRANS_KEY: Final = "SB-Mid-server-double-of-the-demo-opens-nothing"
#: A page that nobody visits: the demo's customers have no browser.
_RETURN_URL: Final = "https://shop.example/thanks"

#: What the endpoint at Stripe is subscribed to (docs/payments.md).
STRIPE_EVENTS: Final = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
        "payment_intent.processing",
        "payment_intent.amount_capturable_updated",
        "payment_intent.payment_failed",
        "payment_intent.succeeded",
        "payment_intent.canceled",
        "refund.created",
        "refund.updated",
        "refund.failed",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    }
)

_MINOR_PER_RUPIAH: Final = 100
_RETRY_SECONDS: Final = 1.0
_MS_PER_SECOND: Final = 1_000

Ask = Callable[..., Awaitable[tuple[int, Any]]]


@dataclass(frozen=True, slots=True)
class Telling:
    """How a gateway tells what has happened: how often, how late, or never (0 times)."""

    times: int = 1
    delay_ms: int = 0


LOST: Final = Telling(times=0)


@dataclass(frozen=True, slots=True)
class Money:
    """What gateways' own books say, in minor units."""

    taken_minor: int = 0
    given_back_minor: int = 0

    def __add__(self, other: "Money") -> "Money":
        return Money(self.taken_minor + other.taken_minor, self.given_back_minor + other.given_back_minor)


class Bank(Protocol):
    """The customers' banks at one gateway; a payment is named by the gateway's id of it.

    `calls_back_for_good` says that what the merchant calls back is cancelled, as far as the gateway knows: money that
    comes all the same is an operator's business.
    """

    currency: str
    calls_back_for_good: bool

    async def starts(self, payment_id: str) -> None:
        """Have a customer order the money, in a way that takes its time."""

    async def pays(self, payment_id: str, telling: Telling, *, more_minor: int = 0) -> None:
        """Have the money arrive, or more than was asked for."""

    async def hesitates(self, payment_id: str, telling: Telling) -> None:
        """Refuse the customer's card once; what follows on the same page may be paid."""

    async def declines(self, payment_id: str, telling: Telling) -> None:
        """Refuse the payment: the attempt is over."""

    async def tells_again(self, payment_id: str, telling: Telling) -> None:
        """Tell once more what was told last."""

    async def deliveries_pending(self) -> int:
        """Return how many deliveries of webhooks the gateway has not got rid of."""

    async def money(self) -> Money:
        """Return what was taken from the customers of this demo, and given back to them."""


class SandboxBank:
    """The sandbox, by its HTTP."""

    currency = CURRENCY
    calls_back_for_good = False

    def __init__(self, ask: Ask, url: str) -> None:
        self._ask = ask
        self._url = url
        self._payments: list[str] = []

    async def starts(self, payment_id: str) -> None:
        """Nothing is seen of it there."""

    async def pays(self, payment_id: str, telling: Telling, *, more_minor: int = 0) -> None:
        """`POST /payments/{id}/settle`."""
        other = {}
        if more_minor:
            _, payment = await self._ask("GET", f"{self._url}/payments/{payment_id}")
            other = {"amount_minor": payment["amount_minor"] + more_minor}
        await self._settle(payment_id, "succeeded", telling, **other)

    async def hesitates(self, payment_id: str, telling: Telling) -> None:
        """It knows no page on which a second card could be tried: the payment fails, and is paid after all."""
        await self.declines(payment_id, telling)

    async def declines(self, payment_id: str, telling: Telling) -> None:
        """`POST /payments/{id}/settle`."""
        await self._settle(payment_id, "failed", telling)

    async def tells_again(self, payment_id: str, telling: Telling) -> None:
        """Settling again what is settled sends another webhook, which says the same."""
        await self._settle(payment_id, "succeeded", telling)

    async def deliveries_pending(self) -> int:
        """`GET /control`."""
        _, control = await self._ask("GET", f"{self._url}/control")
        return int(control["deliveries_pending"])

    async def money(self) -> Money:
        """`GET /payments/{id}` for each that customers of this demo did something with."""
        payments = await asyncio.gather(*map(self._money_of, dict.fromkeys(self._payments)))
        return sum(payments, Money())

    async def _money_of(self, payment_id: str) -> Money:
        _, payment = await self._ask("GET", f"{self._url}/payments/{payment_id}")
        return Money(payment["captured_minor"], payment["refunded_minor"])

    async def _settle(self, payment_id: str, outcome: str, telling: Telling, **more: int) -> None:
        self._payments.append(payment_id)
        told = {"outcome": outcome, "times": telling.times, "delay_ms": telling.delay_ms, **more}
        await self._ask("POST", f"{self._url}/payments/{payment_id}/settle", body=orjson.dumps(told))


class StripeBank:
    """Stripe's double. A card is declined on a page that stays open; a bank debit takes its time, and may bounce."""

    currency = CURRENCY
    calls_back_for_good = False

    def __init__(self, double: StripeDouble) -> None:
        self._double = double
        self._teller = _Teller(double, double.events)

    async def starts(self, payment_id: str) -> None:
        """Order a bank debit."""
        self._double.pay_later(payment_id)

    async def pays(self, payment_id: str, telling: Telling, *, more_minor: int = 0) -> None:
        """Have a debit arrive that was ordered, or else pay by card."""
        session = self._double.sessions[payment_id]
        with self._teller.telling(payment_id, telling):
            if session["status"] == "complete":
                self._double.arrive(payment_id)
            else:
                self._double.pay(payment_id, amount_total=session["amount_total"] + more_minor)

    async def hesitates(self, payment_id: str, telling: Telling) -> None:
        """Decline a card."""
        with self._teller.telling(payment_id, telling):
            self._double.decline(payment_id)

    async def declines(self, payment_id: str, telling: Telling) -> None:
        """Have a debit bounce."""
        with self._teller.telling(payment_id, telling):
            self._double.pay_later(payment_id)
            self._double.fail(payment_id)

    async def tells_again(self, payment_id: str, telling: Telling) -> None:
        """Send the same events again, the last one first."""
        self._teller.tell_again(payment_id, telling)

    async def deliveries_pending(self) -> int:
        """Ask the double."""
        return self._double.deliveries_pending

    async def money(self) -> Money:
        """Add up the charges and the refunds."""
        charges, refunds = self._double.charges.values(), self._double.refunds.values()
        return Money(sum(charge["amount"] for charge in charges), sum(refund["amount"] for refund in refunds))


class MidtransBank:
    """Midtrans's double: bank transfers arrive or not, cards are denied."""

    currency = RUPIAH
    calls_back_for_good = True

    def __init__(self, double: MidtransDouble) -> None:
        self._double = double
        self._teller = _Teller(double, double.notifications)

    async def starts(self, payment_id: str) -> None:
        """Choose a bank transfer."""
        self._double.choose(payment_id)

    async def pays(self, payment_id: str, telling: Telling, *, more_minor: int = 0) -> None:
        """Have a bank transfer arrive."""
        with self._teller.telling(payment_id, telling):
            if more_minor:
                self._double.choose(payment_id).gross_amount += more_minor // _MINOR_PER_RUPIAH
            self._double.settle(payment_id)

    async def hesitates(self, payment_id: str, telling: Telling) -> None:
        """Deny a card; the customer tries again on the same page."""
        await self.declines(payment_id, telling)

    async def declines(self, payment_id: str, telling: Telling) -> None:
        """Deny a card."""
        with self._teller.telling(payment_id, telling):
            self._double.choose(payment_id, "credit_card")
            self._double.deny(payment_id)

    async def tells_again(self, payment_id: str, telling: Telling) -> None:
        """Send the same notifications again, the last one first."""
        self._teller.tell_again(payment_id, telling)

    async def deliveries_pending(self) -> int:
        """Ask the double."""
        return self._double.deliveries_pending

    async def money(self) -> Money:
        """Add up what was settled and refunded."""
        payments = self._double.payments.values()
        taken = sum(payment.gross_amount for payment in payments if payment.settlement_time is not None)
        given_back = sum(payment.refunded for payment in payments)
        return Money(taken * _MINOR_PER_RUPIAH, given_back * _MINOR_PER_RUPIAH)


class _Teller:
    """Has a double send what is done at it as the story wants, and send it again; `sent` is all that it ever made."""

    def __init__(self, double: StripeDouble | MidtransDouble, sent: Sequence[bytes]) -> None:
        self._double = double
        self._sent = sent
        self._told: dict[str, Sequence[bytes]] = {}

    @contextmanager
    def telling(self, payment_id: str, telling: Telling) -> Iterator[None]:
        """Have what is done now told so; where it is repeated it also comes in the wrong order."""
        first = len(self._sent)
        with _as_told(self._double, telling):
            self._double.hold_back()
            try:
                yield
            finally:
                self._double.deliver(lambda held: held[::-1] if telling.times > 1 else held)
        self._told[payment_id] = self._sent[first:]

    def tell_again(self, payment_id: str, telling: Telling) -> None:
        """Send once more what was told last, the last one first."""
        with _as_told(self._double, telling):
            for body in reversed(self._told[payment_id]):
                self._double.send(body)


@contextmanager
def _as_told(double: StripeDouble | MidtransDouble, telling: Telling) -> Iterator[None]:
    """Have what a double sends within the block told so: nothing is awaited there, so nobody else's is meant."""
    double.deliveries, double.delay_seconds = telling.times, telling.delay_ms / _MS_PER_SECOND
    try:
        yield
    finally:
        double.deliveries, double.delay_seconds = 1, 0.0


class Doubles:
    """The doubles that take part; `settings` are what the payment service has to be told about them."""

    def __init__(self, stripe: StripeDouble | None, midtrans: MidtransDouble) -> None:
        self._stripe = stripe
        self._midtrans = midtrans

    @property
    def settings(self) -> Mapping[str, str]:
        """The gateways' settings, all of them: none of the caller's may be left."""
        names: list[GatewayName] = ["sandbox", "midtrans"]
        settings = {
            "HOLDFAST_DEFAULT_GATEWAY": "sandbox",
            "HOLDFAST_MIDTRANS_SERVER_KEY": _MIDTRANS_KEY,
            "HOLDFAST_MIDTRANS_BASE_URL": self._midtrans.url,
            "HOLDFAST_MIDTRANS_SNAP_BASE_URL": self._midtrans.url,
        }
        if self._stripe is not None:
            names.append("stripe")
            settings |= {
                "HOLDFAST_STRIPE_SECRET_KEY": _STRIPE_KEY,
                "HOLDFAST_STRIPE_WEBHOOK_SECRETS": _STRIPE_WEBHOOK_SECRET,
                "HOLDFAST_STRIPE_BASE_URL": self._stripe.url,
                "HOLDFAST_STRIPE_RETURN_URL": _RETURN_URL,
            }
        return {**settings, "HOLDFAST_GATEWAYS": ",".join(names)}

    def banks(self, payment_url: str) -> dict[GatewayName, Bank]:
        """Return the banks of the doubles, which from now on send their webhooks to the payment service."""
        self._midtrans.notification_url = f"{payment_url}/webhooks/midtrans"
        banks: dict[GatewayName, Bank] = {"midtrans": MidtransBank(self._midtrans)}
        if self._stripe is not None:
            self._stripe.webhook_url = f"{payment_url}/webhooks/stripe"
            banks["stripe"] = StripeBank(self._stripe)
        return banks


@asynccontextmanager
async def doubles(*, with_stripe: bool) -> AsyncIterator[Doubles]:
    """Run the doubles on free ports of this machine."""
    async with AsyncExitStack() as stack:
        stripe = None
        if with_stripe:
            stripe = await stack.enter_async_context(StripeDouble(_STRIPE_KEY, [_STRIPE_WEBHOOK_SECRET]))
            stripe.retry_seconds, stripe.enabled_events = _RETRY_SECONDS, STRIPE_EVENTS
        midtrans = await stack.enter_async_context(MidtransDouble([_MIDTRANS_KEY]))
        midtrans.retry_seconds = _RETRY_SECONDS
        yield Doubles(stripe, midtrans)
