"""Is money given back through Stripe once, whatever gets lost, fails or is forgotten?"""

from collections.abc import AsyncIterator

import pytest

from deploy.local.doubles.stripe import Misbehaviour, StripeDouble
from services.payment_service.domain.answers import Declined, Refunded, RefundPending, Unanswered
from services.payment_service.gateways.stripe import Stripe
from tests.integration.stripe_harness import created, paid
from tests.stripe_building import (
    SECRET_KEY,
    WEBHOOK_SECRET,
    a_gateway,
    a_refund,
    an_attempt,
)


@pytest.fixture
async def double() -> AsyncIterator[StripeDouble]:
    """Stripe, as documented."""
    async with StripeDouble(SECRET_KEY, [WEBHOOK_SECRET]) as double:
        yield double


@pytest.fixture
async def gateway(double: StripeDouble) -> AsyncIterator[Stripe]:
    """The gateway, with its connections."""
    async with a_gateway(double.url, timeout_seconds=5.0) as gateway:
        yield gateway


async def test_a_refund_is_given_once(gateway: Stripe, double: StripeDouble) -> None:
    """Asked again it is the same refund: by its key, and by its metadata when Stripe has forgotten the key."""
    attempt = await paid(gateway, double)
    refund = a_refund(attempt, 250)

    answers = [await gateway.refund(refund, attempt), await gateway.refund(refund, attempt)]
    double.forget_keys()
    answers.append(await gateway.refund(refund, attempt))

    (given,) = double.refunds.values()
    assert answers == [Refunded(given["id"])] * 3
    assert given["amount"] == 250
    keys = {key for method, path, key, _ in double.calls if (method, path) == ("POST", "/v1/refunds")}
    assert keys == {str(refund.refund_id)}


async def test_the_answer_to_a_refund_may_get_lost(gateway: Stripe, double: StripeDouble) -> None:
    """Whether it was given is unknown until it is asked for again."""
    attempt = await paid(gateway, double)
    refund = a_refund(attempt)
    double.misbehave(Misbehaviour(), times=2)
    double.misbehave(Misbehaviour(is_lost=True))

    answers = [await gateway.refund(refund, attempt), await gateway.refund(refund, attempt)]

    assert isinstance(answers[0], Unanswered)
    assert isinstance(answers[1], Refunded)
    assert len(double.refunds) == 1


async def test_partial_refunds_are_told_apart(gateway: Stripe, double: StripeDouble) -> None:
    """Two of the same amount are two; more than is left is declined, and so is a part of nothing."""
    attempt = await paid(gateway, double)
    unpaid = await created(gateway)

    given = [await gateway.refund(a_refund(attempt, 600), attempt) for _ in range(2)]
    too_much = await gateway.refund(a_refund(attempt, 600), attempt)
    of_nothing = await gateway.refund(a_refund(unpaid), unpaid)
    of_nobody = await gateway.refund(a_refund(attempt), an_attempt())

    assert all(isinstance(answer, Refunded) for answer in given)
    assert len(double.refunds) == 2
    assert too_much == Declined("answered with 400: invalid_request_error, amount")
    assert isinstance(of_nothing, Declined)
    assert of_nobody == Declined("Stripe knows no such payment", not_found=True)


async def test_a_refund_is_pending_until_it_arrives(gateway: Stripe, double: StripeDouble) -> None:
    """The saved answer under its key would say pending for a day: the refund itself is looked at."""
    attempt = await paid(gateway, double)
    refund = a_refund(attempt)
    double.refunds_become = "pending"

    before = await gateway.refund(refund, attempt)
    (refund_id,) = double.refunds
    double.settle_refund(refund_id)
    after = await gateway.refund(refund, attempt)

    assert (before, after) == (RefundPending(refund_id), Refunded(refund_id))


async def test_a_refund_that_failed_is_asked_for_anew_after_a_day(
    gateway: Stripe, double: StripeDouble
) -> None:
    """Until then it is declined with the bank's reason, and no saved answer says that it was given."""
    attempt = await paid(gateway, double)
    refund = a_refund(attempt)
    await gateway.refund(refund, attempt)
    (first_id,) = double.refunds
    double.fail_refund(first_id)

    today = await gateway.refund(refund, attempt)
    double.refunds[first_id]["created"] -= 86_400
    tomorrow = [await gateway.refund(refund, attempt), await gateway.refund(refund, attempt)]

    (second_id,) = set(double.refunds) - {first_id}
    assert today == Declined(f"{first_id} failed: expired_or_canceled_card")
    assert tomorrow == [Refunded(second_id)] * 2
    keys = [key for method, path, key, _ in double.calls if (method, path) == ("POST", "/v1/refunds")]
    assert keys == [str(refund.refund_id), f"{refund.refund_id}:{first_id}"]
