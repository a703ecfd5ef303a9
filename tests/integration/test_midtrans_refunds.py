"""Does money that Midtrans took go back exactly once, and is it told only when the bank has confirmed it?"""

import orjson
import pytest

from deploy.local.doubles.midtrans import Misbehaviour
from services.payment_service.domain.answers import Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import RefundNotice
from tests.integration.midtrans_harness import listening, midtrans, opened
from tests.midtrans_building import AMOUNT_MINOR, a_rupiah_refund


async def test_a_refund_is_pending_until_the_bank_has_confirmed_it() -> None:
    """However often it is asked for, Midtrans is asked once; its id is told from the start."""
    async with midtrans() as (double, gateway):
        double.bank_confirms = False
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        refund = a_rupiah_refund(attempt)
        pending = [await gateway.refund(refund, attempt) for _ in range(2)]
        double.confirm_refunds(str(attempt.attempt_id))
        done = await gateway.refund(refund, attempt)

    assert pending == [RefundPending("47594")] * 2
    assert done == Refunded("47594")
    posted = [orjson.loads(body) for method, path, body in double.calls if path.endswith("/refund")]
    assert posted == [{"refund_key": str(refund.refund_id), "amount": 10_000, "reason": "operator"}]


async def test_a_refund_whose_answer_is_lost_is_found_and_not_made_again() -> None:
    """Nobody is paid back twice because a line was cut."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        refund = a_rupiah_refund(attempt, 400_000)
        double.misbehave(Misbehaviour(), times=1)
        double.misbehave(Misbehaviour(is_lost=True))
        lost = await gateway.refund(refund, attempt)
        found = await gateway.refund(refund, attempt)
        payment = double.payments[str(attempt.attempt_id)]

    assert isinstance(lost, Unanswered)
    assert isinstance(found, Refunded)
    assert payment.refunded == 4_000


async def test_partial_refunds_add_up_and_no_more_goes_back_than_came() -> None:
    """Midtrans refuses what is too much, and what is no whole rupiah it is not even asked."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        parts = [await gateway.refund(a_rupiah_refund(attempt, part), attempt) for part in (400_000, 500_000)]
        too_much = await gateway.refund(a_rupiah_refund(attempt, 200_000), attempt)
        calls = len(double.calls)
        fraction = await gateway.refund(a_rupiah_refund(attempt, 50), attempt)

    assert [isinstance(part, RefundPending) for part in parts] == [True, True]
    assert isinstance(too_much, Declined)
    assert too_much.detail.startswith("414")
    assert isinstance(fraction, Declined)
    assert len(double.calls) == calls


async def test_a_refund_that_the_bank_denies_is_declined_and_may_be_asked_for_again() -> None:
    """Nothing went back; when the bank lets it pass later, it does under the same key."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        refund = a_rupiah_refund(attempt)
        double.bank_denies = True
        denied = await gateway.refund(refund, attempt)
        double.bank_denies = False
        taken = await gateway.refund(refund, attempt)

    assert denied == Declined("202: Refund denied by the bank")
    assert isinstance(taken, RefundPending)


async def test_a_charged_card_is_voided_as_long_as_it_is_not_settled() -> None:
    """As a whole only; asked again it is known to be done."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.capture(str(attempt.attempt_id))
        part = await gateway.refund(a_rupiah_refund(attempt, 400_000), attempt)
        whole = [await gateway.refund(a_rupiah_refund(attempt), attempt) for _ in range(2)]

    assert isinstance(part, Declined)
    assert "in part" in part.detail
    assert whole == [Refunded(None)] * 2
    assert double.payments[str(attempt.attempt_id)].status == "cancel"


@pytest.mark.parametrize("status", ["pending", "deny", "expire", "chargeback"])
async def test_what_was_not_taken_or_is_contested_cannot_be_given_back(status: str) -> None:
    """Midtrans refuses, and says so."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.choose(str(attempt.attempt_id))
        double.change(str(attempt.attempt_id), status)
        answer = await gateway.refund(a_rupiah_refund(attempt), attempt)

    assert answer == Declined("412: Merchant cannot modify the status of the transaction")


async def test_a_payment_that_midtrans_does_not_know_cannot_be_given_back() -> None:
    """It says that it is not found."""
    async with midtrans() as (_, gateway):
        attempt = await opened(gateway)
        answer = await gateway.refund(a_rupiah_refund(attempt), attempt)

    assert isinstance(answer, Declined)
    assert answer.not_found


async def test_a_refund_known_with_another_amount_is_not_taken_for_ours() -> None:
    """Neither is it made a second time: a person has to look."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        refund = a_rupiah_refund(attempt, 400_000)
        await gateway.refund(refund, attempt)
        refund.amount_minor = 500_000
        answer = await gateway.refund(refund, attempt)

    assert isinstance(answer, Unanswered)
    assert double.payments[str(attempt.attempt_id)].refunded == 4_000


async def test_a_duplicate_that_is_not_listed_yet_is_asked_about_again() -> None:
    """Another call was quicker: whether it went through is for the next look to say."""
    refusal = orjson.dumps({"status_code": "406", "status_message": "Duplicate refund ID"})
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        seen = orjson.dumps(double.document(double.payments[str(attempt.attempt_id)]))
        double.misbehave(Misbehaviour(status=200, body=seen))
        double.misbehave(Misbehaviour(status=200, body=refusal))
        answer = await gateway.refund(a_rupiah_refund(attempt), attempt)

    assert isinstance(answer, Unanswered)


async def test_two_notifications_tell_of_a_refund_and_only_the_second_says_that_it_is_done() -> None:
    """They are two events; the bank's confirmation carries our refund's id and the exact amount."""
    async with listening() as endpoint, midtrans(notification_url=endpoint.url) as (double, gateway):
        double.bank_confirms = False
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        await endpoint.received(2)
        refund = a_rupiah_refund(attempt)
        await gateway.refund(refund, attempt)
        taken_on = (await endpoint.received(3))[-1]
        double.confirm_refunds(str(attempt.attempt_id))
        confirmed = (await endpoint.received(4))[-1]
        answer = await gateway.ask(attempt)

    notice = gateway.read(confirmed)
    assert gateway.read(taken_on).refund is None
    assert notice.refund == RefundNotice(AMOUNT_MINOR, "IDR", "47594", refund.refund_id)
    assert not notice.is_confirmed
    assert getattr(answer, "refund", None) == notice.refund
    assert gateway.verify({}, taken_on) != gateway.verify({}, confirmed)


async def test_a_charged_card_that_cannot_be_voided_any_more_is_declined_until_it_is_settled() -> None:
    """Midtrans refuses; asked again after the settlement it is an ordinary refund."""
    refusal = orjson.dumps({"status_code": "412", "status_message": "Merchant cannot modify the status"})
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.capture(str(attempt.attempt_id))
        seen = orjson.dumps(double.document(double.payments[str(attempt.attempt_id)]))
        double.misbehave(Misbehaviour(status=200, body=seen))
        double.misbehave(Misbehaviour(status=200, body=refusal))
        refused = await gateway.refund(a_rupiah_refund(attempt), attempt)
        double.settle(str(attempt.attempt_id))
        taken = await gateway.refund(a_rupiah_refund(attempt), attempt)

    assert refused == Declined("412: Merchant cannot modify the status")
    assert isinstance(taken, RefundPending)
