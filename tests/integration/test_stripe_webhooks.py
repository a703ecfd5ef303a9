"""Are Stripe's webhooks verified and read as they are delivered? Over real HTTP, from a double that signs them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from deploy.local.doubles.stripe import StripeDouble
from services.payment_service.domain.answers import Created, Refunded
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice
from services.payment_service.gateways.stripe import Stripe
from shared.errors import Malformed
from tests.stripe_building import (
    AMOUNT_MINOR,
    SECRET_KEY,
    WEBHOOK_SECRET,
    a_gateway,
    a_refund,
    an_attempt,
)
from tests.waiting import eventually


@dataclass
class Endpoint:
    """A merchant's webhook endpoint: what it accepted is kept as the gateway reads it."""

    gateway: Stripe
    accepted: list[tuple[str, Notice]] = field(default_factory=list)
    refused: int = 0
    refuse_next: int = 0

    async def receive(self, request: web.Request) -> web.Response:
        """Verify and read, as the service's own endpoint does."""
        body = await request.read()
        try:
            event_id = self.gateway.verify(request.headers, body)
            notice = self.gateway.read(body)
        except Malformed:
            self.refused += 1
            return web.Response(status=400)
        if self.refuse_next:
            self.refuse_next -= 1
            return web.Response(status=503)
        self.accepted.append((event_id, notice))
        return web.Response()

    async def received(self, count: int) -> Sequence[Notice]:
        """Return the notices, once there are so many."""
        await eventually(lambda: len(self.accepted) >= count, what=f"{count} webhooks")
        return [notice for _, notice in self.accepted]

    def statuses(self, attempt: Attempt) -> set[AttemptStatus]:
        """Return what was said of an attempt."""
        said = {notice.status for _, notice in self.accepted if notice.attempt_id == attempt.attempt_id}
        return {status for status in said if status is not None}


@dataclass
class Shop:
    """Stripe, the gateway that speaks to it, and the endpoint that it speaks to."""

    double: StripeDouble
    gateway: Stripe
    endpoint: Endpoint

    async def start(self) -> tuple[Attempt, str]:
        """Return an attempt that Stripe has, and its session."""
        attempt = an_attempt()
        answer = await self.gateway.create(attempt)
        assert isinstance(answer, Created), answer
        attempt.gateway_transaction_id = answer.transaction_id
        return attempt, answer.transaction_id


@asynccontextmanager
async def listening(endpoint: Endpoint) -> AsyncIterator[str]:
    """Listen on a free port; give the address."""
    app = web.Application()
    app.router.add_post("/webhooks/stripe", endpoint.receive)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/stripe"
    finally:
        await runner.cleanup()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """All three, connected."""
    async with (
        StripeDouble(SECRET_KEY, [WEBHOOK_SECRET]) as double,
        a_gateway(double.url, webhook_secrets=["whsec_next", WEBHOOK_SECRET]) as gateway,
    ):
        endpoint = Endpoint(gateway)
        async with listening(endpoint) as url:
            double.webhook_url = url
            double.retry_seconds = 0.01
            yield Shop(double, gateway, endpoint)


async def test_a_payment_is_told_by_session_and_intent(shop: Shop) -> None:
    """Both say the same of the same attempt, with its money."""
    attempt, session_id = await shop.start()

    shop.double.pay(session_id)

    notices = await shop.endpoint.received(len(shop.double.events))
    paid = [notice for notice in notices if notice.status is AttemptStatus.SUCCEEDED]
    assert {notice.native_status for notice in paid} == {
        "payment_intent.succeeded",
        "checkout.session.completed (paid)",
    }
    assert {(n.attempt_id, n.amount_minor, n.currency) for n in paid} == {
        (attempt.attempt_id, AMOUNT_MINOR, "EUR")
    }
    assert {n.transaction_id for n in paid} == {None, session_id}


async def test_each_end_of_a_payment_is_told(shop: Shop) -> None:
    """Declined tries say nothing; expiry, calling back, late success and failure, and money held do."""
    names = ("declined", "expired", "called back", "late", "failed", "held")
    started = {name: await shop.start() for name in names}
    ids = {name: session_id for name, (_, session_id) in started.items()}

    shop.double.decline(ids["declined"])
    shop.double.expire(ids["expired"])
    await shop.gateway.cancel(started["called back"][0])
    shop.double.pay_later(ids["late"])
    shop.double.arrive(ids["late"])
    shop.double.pay_later(ids["failed"])
    shop.double.fail(ids["failed"])
    shop.double.authorize(ids["held"])

    await shop.endpoint.received(len(shop.double.events))
    assert {name: shop.endpoint.statuses(attempt) for name, (attempt, _) in started.items()} == {
        "declined": set(),
        "expired": {AttemptStatus.EXPIRED},
        "called back": {AttemptStatus.CANCELLED},
        "late": {AttemptStatus.PENDING, AttemptStatus.SUCCEEDED},
        "failed": {AttemptStatus.PENDING, AttemptStatus.FAILED},
        "held": {AttemptStatus.PENDING, AttemptStatus.AUTHORIZED},
    }


async def test_a_refund_is_told_and_so_is_its_failure_later(shop: Shop) -> None:
    """First that the money went back, then that it did not arrive, both under our refund's id."""
    attempt, session_id = await shop.start()
    shop.double.pay(session_id)
    refund = a_refund(attempt, 250)
    answer = await shop.gateway.refund(refund, attempt)
    assert isinstance(answer, Refunded)
    assert answer.gateway_refund_id is not None
    await shop.endpoint.received(len(shop.double.events))
    shop.double.fail_refund(answer.gateway_refund_id)

    notices = await shop.endpoint.received(len(shop.double.events))

    told = [notice.refund for notice in notices if notice.refund is not None]
    assert [refund.failed for refund in told] == [False, True, True, True]
    assert {(r.refund_id, r.gateway_refund_id, r.amount_minor) for r in told} == {
        (refund.refund_id, answer.gateway_refund_id, 250)
    }
    assert {n.attempt_id for n in notices if n.refund is not None} == {attempt.attempt_id}


async def test_a_pending_refund_is_told_when_it_arrives(shop: Shop) -> None:
    """While it is pending nothing is said of money that went back."""
    attempt, session_id = await shop.start()
    shop.double.pay(session_id)
    shop.double.refunds_become = "pending"
    await shop.gateway.refund(a_refund(attempt), attempt)
    before = await shop.endpoint.received(len(shop.double.events))
    (refund_id,) = shop.double.refunds

    shop.double.settle_refund(refund_id)

    after = await shop.endpoint.received(len(shop.double.events))
    assert not [notice for notice in before if notice.refund is not None]
    assert [notice.refund.failed for notice in after if notice.refund is not None] == [False, False]


async def test_a_dispute_is_told_until_it_is_closed(shop: Shop) -> None:
    """Why, how it stands and how much; what was withdrawn for it is no other dispute."""
    _, session_id = await shop.start()
    shop.double.pay(session_id)
    dispute_id = shop.double.dispute(session_id)
    await shop.endpoint.received(len(shop.double.events))
    shop.double.close_dispute(dispute_id, "won")

    notices = await shop.endpoint.received(len(shop.double.events))

    assert {notice.dispute for notice in notices} == {
        None,
        "fraudulent: needs_response, 1250 EUR",
        "fraudulent: won, 1250 EUR",
    }


async def test_one_event_has_one_id_however_often_it_comes(shop: Shop) -> None:
    """Repeated at once, or because it was refused: the id is what tells a repetition."""
    _, session_id = await shop.start()
    shop.double.deliveries = 3
    shop.endpoint.refuse_next = 4

    shop.double.pay(session_id)

    await shop.endpoint.received(3 * len(shop.double.events))
    ids = [event_id for event_id, _ in shop.endpoint.accepted]
    assert len(set(ids)) == len(shop.double.events)
    assert all(ids.count(event_id) == 3 for event_id in ids)


async def test_late_and_reordered_webhooks_are_the_same(shop: Shop) -> None:
    """Held back and let go backwards, each says what it would have said."""
    _, session_id = await shop.start()
    shop.double.delay_seconds = 0.05
    shop.double.hold_back()
    shop.double.decline(session_id)
    shop.double.pay(session_id)
    nothing_yet = list(shop.endpoint.accepted)

    shop.double.deliver(lambda held: held[::-1])

    notices = await shop.endpoint.received(len(shop.double.events))
    expected = [shop.gateway.read(body) for body in shop.double.events]
    assert nothing_yet == []
    assert sorted(map(repr, notices)) == sorted(map(repr, expected))


async def test_a_webhook_under_a_secret_that_is_not_ours_is_refused(shop: Shop) -> None:
    """Every time it is tried."""
    _, session_id = await shop.start()
    shop.double.webhook_secrets = ["whsec_of-somebody-else"]

    shop.double.expire(session_id)

    await eventually(lambda: shop.endpoint.refused == 6)
    assert not shop.endpoint.accepted
