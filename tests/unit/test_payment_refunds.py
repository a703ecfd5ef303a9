"""Does money go back once, in full, and only on the gateway's word?"""

from typing import Any

import pytest

from services.payment_service.domain import refunding
from services.payment_service.domain.answers import Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import AttemptStatus, Notice, RefundNotice, Verdict
from services.payment_service.domain.payments import Payment
from services.payment_service.domain.refunds import Refund, RefundStatus, full_refund_id
from shared.errors import Conflict
from shared.events import PaymentStatus
from shared.ids import new_id
from tests.payment_building import (
    AMOUNT_MINOR,
    AT,
    CURRENCY,
    a_notice,
    a_paid_payment,
    a_refund_notice,
    an_attempt_of,
    an_open_payment,
    hear,
    told,
)

SUCCEEDED, REFUNDED = AttemptStatus.SUCCEEDED, AttemptStatus.REFUNDED


def the_refund_of(payment: Payment) -> Refund:
    """Return the only refund of a payment."""
    (refund,) = payment.refunds.values()
    return refund


def learn_refund(payment: Payment, answer: refunding.RefundAnswer) -> None:
    """Have the only refund of a payment answered by the gateway."""
    refunding.learn_refund(payment, the_refund_of(payment), answer, cause="test", retry_at=AT)


def test_a_second_success_is_refunded_by_itself_and_leaves_the_status_alone() -> None:
    """An overpayment goes back in full, on the gateway's word, while the payment stays SUCCEEDED."""
    payment = an_open_payment(attempts_max=2)
    first, second = an_attempt_of(payment), an_attempt_of(payment)
    hear(payment, a_notice(first, SUCCEEDED))
    hear(payment, a_notice(second, SUCCEEDED))

    learn_refund(payment, Refunded("r-1"))

    refund = the_refund_of(payment)
    assert (refund.attempt_id, refund.reason, refund.amount_minor) == (
        second.attempt_id,
        "overpayment",
        AMOUNT_MINOR,
    )
    assert (payment.status, payment.refunded_minor, second.status) == (
        PaymentStatus.SUCCEEDED,
        0,
        REFUNDED,
    )
    assert told(payment)[-2:] == ["PaymentSucceeded", "PaymentRefunded"]


def test_one_full_refund_takes_what_partial_ones_left() -> None:
    """Partial refunds are added up and leave the status alone; the last one makes it REFUNDED."""
    payment = a_paid_payment()
    (attempt,) = payment.attempts.values()
    partial = refunding.request_refund(
        payment, new_id(), 250, note="broken", request_key="k", cause="test", at=AT
    )
    assert isinstance(partial, Refund)
    refunding.learn_refund(payment, partial, Refunded("r-1"), cause="test", retry_at=AT)
    assert (payment.status, payment.refunded_minor) == (PaymentStatus.SUCCEEDED, 250)

    for _ in range(2):
        refunding.refund_settled(payment, "unavailable", cause="test", at=AT)
    full = payment.refunds[full_refund_id(attempt.attempt_id)]
    refunding.learn_refund(payment, full, Refunded("r-2"), cause="test", retry_at=AT)

    assert len(payment.refunds) == 2
    assert (full.amount_minor, payment.status, payment.refunded_minor) == (
        1_000,
        PaymentStatus.REFUNDED,
        AMOUNT_MINOR,
    )


@pytest.mark.parametrize("amount_minor", [AMOUNT_MINOR + 1, 2**53 - 1])
def test_no_more_goes_back_than_was_received(amount_minor: int) -> None:
    """An operator's refund beyond what is left is a conflict."""
    payment = a_paid_payment()

    refused = refunding.request_refund(
        payment, new_id(), amount_minor, note="x", request_key="k", cause="test", at=AT
    )

    assert isinstance(refused, Conflict)
    assert payment.refunds == {}


def test_after_the_full_refund_nothing_is_left_to_give_back() -> None:
    """One full refund an attempt, whatever the reason, even while it is still due."""
    payment = a_paid_payment()
    refunding.refund_settled(payment, "cancelled", cause="test", at=AT)

    refused = refunding.request_refund(
        payment, new_id(), None, note="x", request_key="k", cause="test", at=AT
    )

    assert isinstance(refused, Conflict)
    assert len(payment.refunds) == 1


def test_a_refund_that_the_gateway_refuses_is_told_once_and_asked_again_for_ever() -> None:
    """PaymentRefundFailed is information: every further refusal or silence only moves the next try."""
    payment = a_paid_payment()
    refunding.refund_settled(payment, "unavailable", cause="test", at=AT)

    for answer in (Unanswered("?"), Declined("409"), Unanswered("?"), Declined("409"), Refunded("r-1")):
        assert the_refund_of(payment).next_try_at is not None
        learn_refund(payment, answer)

    assert told(payment)[-2:] == ["PaymentRefundFailed", "PaymentRefunded"]
    assert told(payment).count("PaymentRefundFailed") == 1
    assert payment.status is PaymentStatus.REFUNDED


def test_a_refund_that_is_pending_waits_for_the_webhook() -> None:
    """The gateway has taken it on: only its word that it is done finishes it."""
    payment = a_paid_payment()
    (attempt,) = payment.attempts.values()
    refunding.refund_settled(payment, "unavailable", cause="test", at=AT)

    learn_refund(payment, RefundPending("r-1"))
    assert the_refund_of(payment).status is RefundStatus.SENT
    verdict = hear(payment, a_refund_notice(attempt, AMOUNT_MINOR, gateway_refund_id="r-1"))

    assert (verdict, told(payment)[-1]) == (Verdict.APPLIED, "PaymentRefunded")


@pytest.mark.parametrize("webhook_first", [True, False])
def test_the_answer_and_the_webhook_of_a_refund_count_once(*, webhook_first: bool) -> None:
    """Whichever comes first finishes the refund."""
    payment = a_paid_payment()
    (attempt,) = payment.attempts.values()
    refunding.refund_settled(payment, "unavailable", cause="test", at=AT)
    notice = a_refund_notice(attempt, AMOUNT_MINOR, gateway_refund_id="r-1")

    if webhook_first:
        assert hear(payment, notice) is Verdict.APPLIED
    learn_refund(payment, Refunded("r-1"))
    assert hear(payment, notice) is Verdict.DUPLICATE

    assert told(payment).count("PaymentRefunded") == 1


def test_a_refund_webhook_that_may_mean_either_of_two_is_left_open() -> None:
    """Two unanswered refunds of the same amount: the answers will tell which is which."""
    payment = a_paid_payment()
    (attempt,) = payment.attempts.values()
    for key in ("a", "b"):
        refunding.request_refund(payment, new_id(), 100, note=key, request_key=key, cause="test", at=AT)

    verdict = hear(payment, a_refund_notice(attempt, 100, gateway_refund_id="r-1"))

    assert verdict is Verdict.UNMATCHED
    assert {refund.status for refund in payment.refunds.values()} == {RefundStatus.DUE}


# --- made at the gateway --------------------------------------------------------------------------------------------


def by_hand(
    payment: Payment, amount_minor: int = AMOUNT_MINOR, name: str = "hand-1", **changes: Any
) -> Notice:
    """Return the gateway's word that somebody gave money of the only attempt back there."""
    (attempt,) = payment.attempts.values()
    said: dict[str, Any] = {"gateway_refund_id": name, "is_foreign": True, **changes}
    return a_refund_notice(attempt, amount_minor, **said)


def test_a_refund_made_at_the_gateway_counts_as_an_operators() -> None:
    """All of it is gone: the payment is REFUNDED, and our own refund finds nothing left to give back."""
    payment = a_paid_payment()

    assert hear(payment, by_hand(payment)) is Verdict.APPLIED
    refunding.refund_settled(payment, "cancelled", cause="test", at=AT)

    refund = the_refund_of(payment)
    assert (refund.status, refund.reason, refund.gateway_refund_id) == (
        RefundStatus.SUCCEEDED,
        "operator",
        "hand-1",
    )
    assert (payment.status, payment.refunded_minor) == (PaymentStatus.REFUNDED, AMOUNT_MINOR)
    assert told(payment)[-1] == "PaymentRefunded"


def test_a_refund_made_at_the_gateway_counts_once() -> None:
    """However often and under whatever event it is told; another one of the same amount is another one."""
    payment = a_paid_payment()

    verdicts = [hear(payment, by_hand(payment, 100, name)) for name in ("hand-1", "hand-1", "hand-2")]

    assert verdicts == [Verdict.APPLIED, Verdict.DUPLICATE, Verdict.APPLIED]
    assert (payment.status, payment.refunded_minor) == (PaymentStatus.SUCCEEDED, 200)


@pytest.mark.parametrize("answer", [None, Unanswered("?"), Declined("nothing is left")])
def test_a_refund_made_at_the_gateway_in_the_place_of_ours_is_ours(
    answer: Unanswered | Declined | None,
) -> None:
    """Both together would be more than came, so ours was not made and never can be: the money is back all the same."""
    payment = a_paid_payment()
    refunding.refund_settled(payment, "unavailable", cause="test", at=AT)
    if answer is not None:
        learn_refund(payment, answer)

    verdicts = [hear(payment, by_hand(payment)) for _ in range(2)]

    refund = the_refund_of(payment)
    assert verdicts == [Verdict.APPLIED, Verdict.DUPLICATE]
    assert (refund.status, refund.reason, refund.gateway_refund_id) == (
        RefundStatus.SUCCEEDED,
        "unavailable",
        "hand-1",
    )
    assert (payment.status, told(payment)[-1]) == (PaymentStatus.REFUNDED, "PaymentRefunded")


def test_a_refund_made_at_the_gateway_beside_ours_is_another_one() -> None:
    """Both fit into what came: ours of the same amount stays due."""
    payment = a_paid_payment()
    refunding.request_refund(payment, new_id(), 100, note="broken", request_key="k", cause="test", at=AT)

    verdict = hear(payment, by_hand(payment, 100))

    assert (verdict, payment.refunded_minor) == (Verdict.APPLIED, 100)
    assert sorted(refund.status for refund in payment.refunds.values()) == ["DUE", "SUCCEEDED"]


def test_a_refund_made_at_the_gateway_that_only_a_part_of_ours_fits_is_contested() -> None:
    """Nobody can tell what is to become of ours but a person."""
    payment = a_paid_payment()
    refunding.refund_settled(payment, "unavailable", cause="test", at=AT)
    (attempt,) = payment.attempts.values()

    verdicts = [hear(payment, by_hand(payment, 100)) for _ in range(2)]

    assert verdicts == [Verdict.MISMATCH, Verdict.DUPLICATE]
    assert the_refund_of(payment).status is RefundStatus.DUE
    assert attempt.review_reason == "refund of 100 EUR made at the gateway, but 0 EUR were left"


@pytest.mark.parametrize("changes", [{"amount_minor": AMOUNT_MINOR + 1}, {"currency": "USD"}])
def test_a_refund_made_at_the_gateway_that_cannot_be_is_contested(changes: dict[str, Any]) -> None:
    """More than came, or other money: nothing is counted, and an operator decides."""
    payment = a_paid_payment()
    (attempt,) = payment.attempts.values()

    verdict = hear(payment, by_hand(payment, **changes))

    assert (verdict, payment.refunds, payment.status) == (Verdict.MISMATCH, {}, PaymentStatus.SUCCEEDED)
    assert attempt.review_at == AT


def test_money_that_goes_back_before_it_is_known_to_have_come_waits() -> None:
    """The delivery is looked at again: the success is on its way."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)

    early = hear(payment, by_hand(payment))
    hear(payment, a_notice(attempt, SUCCEEDED))

    assert (early, hear(payment, by_hand(payment))) == (Verdict.UNMATCHED, Verdict.APPLIED)


def test_a_partial_refund_tells_of_the_success_that_was_lost() -> None:
    """What did not go back was taken: the payment is settled, and the part is counted."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment)
    part = RefundNotice(100, CURRENCY, "hand-1", is_foreign=True)

    verdict = hear(payment, a_notice(attempt, SUCCEEDED, refund=part))

    assert (verdict, payment.status, payment.refunded_minor) == (
        Verdict.APPLIED,
        PaymentStatus.SUCCEEDED,
        100,
    )
    assert told(payment)[-2:] == ["PaymentSucceeded", "PaymentRefunded"]
