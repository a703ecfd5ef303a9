"""Do the payment service and the sandbox gateway understand each other?"""

from pathlib import Path

import orjson

from services.payment_service.domain.answers import Created, Declined, Refunded
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways.sandbox import Sandbox, SandboxOptions
from shared.ids import new_id
from tests.integration.sandbox_harness import SECRET, Client, receiving, sandbox
from tests.payment_building import AMOUNT_MINOR, AT, CURRENCY, an_attempt_of, an_open_payment


def a_refund(attempt: Attempt, amount_minor: int) -> Refund:
    """Return a refund that is due."""
    return Refund(
        refund_id=new_id(),
        order_id=attempt.order_id,
        attempt_id=attempt.attempt_id,
        gateway="sandbox",
        amount_minor=amount_minor,
        currency=CURRENCY,
        reason="operator",
        created_at=AT,
    )


async def created(gateway: Sandbox) -> Attempt:
    """Return an attempt that the sandbox has."""
    attempt = an_attempt_of(an_open_payment(), created=False)
    answer = await gateway.create(attempt)
    assert isinstance(answer, Created), answer
    attempt.gateway_transaction_id = answer.transaction_id
    return attempt


async def settle(client: Client, attempt: Attempt, outcome: str = "succeeded") -> None:
    """Have the sandbox settle an attempt."""
    await client.settle({"payment_id": attempt.gateway_transaction_id}, outcome)


async def test_everything_that_is_asked_is_answered_as_expected(tmp_path: Path) -> None:
    """Create twice, ask by reference and by id, cancel, refund twice with one key, and more than is there."""
    async with (
        receiving() as receiver,
        sandbox(tmp_path, receiver) as client,
        Sandbox(SandboxOptions(client.url, [SECRET])) as gateway,
    ):
        attempt, cancelled, stranger = (
            await created(gateway),
            await created(gateway),
            an_attempt_of(an_open_payment(), created=False),
        )
        again = await gateway.create(attempt)
        by_id = await gateway.ask(attempt)
        transaction_id, attempt.gateway_transaction_id = attempt.gateway_transaction_id, None
        by_reference = await gateway.ask(attempt)
        attempt.gateway_transaction_id = transaction_id
        gone = [await gateway.cancel(cancelled), await gateway.cancel(stranger)]
        await settle(client, attempt)
        paid = await gateway.cancel(attempt)
        refund = a_refund(attempt, 250)
        refunded = [await gateway.refund(refund, attempt) for _ in range(2)]
        too_much = await gateway.refund(a_refund(attempt, AMOUNT_MINOR), attempt)

    assert isinstance(again, Created)
    assert again.transaction_id == transaction_id
    assert isinstance(by_id, Notice)
    assert by_id == by_reference
    assert (by_id.status, by_id.attempt_id) == (AttemptStatus.PENDING, attempt.attempt_id)
    assert [isinstance(word, Notice) and word.status for word in gone] == [AttemptStatus.CANCELLED] * 2
    assert isinstance(paid, Notice)
    assert (paid.status, paid.amount_minor, paid.currency) == (
        AttemptStatus.SUCCEEDED,
        AMOUNT_MINOR,
        CURRENCY,
    )
    assert isinstance(refunded[0], Refunded)
    assert refunded[0] == refunded[1]
    assert isinstance(too_much, Declined)


async def test_its_webhooks_are_verified_and_read(tmp_path: Path) -> None:
    """Success, failure, expiry and refund, as the sandbox signs and writes them."""
    async with (
        receiving() as receiver,
        sandbox(tmp_path, receiver) as client,
        Sandbox(SandboxOptions(client.url, [SECRET])) as gateway,
    ):
        attempts = {outcome: await created(gateway) for outcome in ("failed", "expired", "succeeded")}
        for outcome, attempt in attempts.items():
            await settle(client, attempt, outcome)
        await gateway.refund(a_refund(attempts["succeeded"], 250), attempts["succeeded"])
        deliveries = await receiver.received(4)
        notices = [gateway.read(delivery["raw"]) for delivery in deliveries]

    said = {orjson.loads(delivery["raw"])["type"] for delivery in deliveries}
    assert said == {"payment.failed", "payment.expired", "payment.succeeded", "payment.refunded"}
    by_status = {notice.status: notice for notice in notices}
    for outcome, attempt in attempts.items():
        assert by_status[AttemptStatus(outcome.upper())].attempt_id == attempt.attempt_id
    refund = by_status[None].refund
    assert refund is not None
    assert (refund.amount_minor, refund.currency, refund.gateway_refund_id is not None) == (
        250,
        CURRENCY,
        True,
    )
