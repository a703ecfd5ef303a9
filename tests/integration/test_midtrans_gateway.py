"""Do the payment service and Midtrans understand each other about pages and payments?"""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import orjson
import pytest

from deploy.local.doubles.midtrans import Misbehaviour
from services.payment_service.domain.answers import Created, Declined, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice
from services.payment_service.gateways.midtrans import Midtrans
from tests.integration.midtrans_harness import listening, midtrans, opened
from tests.midtrans_building import AMOUNT_MINOR, a_rupiah_attempt

SUCCEEDED, FAILED, PENDING = AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.PENDING
AUTHORIZED, CANCELLED, EXPIRED = AttemptStatus.AUTHORIZED, AttemptStatus.CANCELLED, AttemptStatus.EXPIRED


async def stands(gateway: Midtrans, attempt: Attempt) -> AttemptStatus | None:
    """Return where Midtrans says that an attempt stands."""
    answer = await gateway.ask(attempt)
    assert isinstance(answer, Notice), answer
    return answer.status


# --- creating -------------------------------------------------------------------------------------------------------


async def test_a_page_is_opened_with_our_id_whole_rupiah_and_the_end_of_the_attempt() -> None:
    """What Midtrans is asked for, and what we learn from its answer."""
    now = datetime.now(UTC).replace(microsecond=250_000)
    attempt = a_rupiah_attempt(
        created_at=now,
        expires_at=now + timedelta(minutes=14, seconds=20),
        return_url="https://shop.test/thanks",
    )
    async with midtrans() as (double, gateway):
        answer = await gateway.create(attempt)
        page = next(iter(double.pages.values()))

    assert isinstance(answer, Created)
    assert answer.transaction_id == page.order_id == str(attempt.attempt_id)
    assert answer.payment_url == f"{double.url}/snap/v4/redirection/{page.token}"
    assert (
        answer.expires_at == page.ends_at == (now + timedelta(minutes=14, seconds=20)).replace(microsecond=0)
    )
    assert page.request["transaction_details"] == {
        "order_id": str(attempt.attempt_id),
        "gross_amount": 10_000,
    }
    assert page.request["expiry"]["duration"] == 15
    assert page.request["callbacks"] == {"finish": "https://shop.test/thanks"}
    assert "dana" not in page.request["enabled_payments"]


@pytest.mark.parametrize(
    ("asked", "given"), [(1, 5), (5, 5), (10, 10), (7 * 1440, 7 * 1440), (9000, 9000), (20_000, 10_080)]
)
async def test_a_page_is_open_for_as_long_as_midtrans_allows(asked: int, given: int) -> None:
    """Never less than five minutes or more than seven days, and we are told which."""
    now = datetime.now(UTC)
    async with midtrans() as (double, gateway):
        answer = await gateway.create(
            a_rupiah_attempt(created_at=now, expires_at=now + timedelta(minutes=asked))
        )

    assert isinstance(answer, Created), answer
    assert answer.expires_at == (now + timedelta(minutes=given)).replace(microsecond=0)
    assert next(iter(double.pages.values())).ends_at == answer.expires_at


async def test_asking_again_for_a_page_asks_for_the_same() -> None:
    """An unanswered call may be repeated: the end does not move, and nobody was given the first address."""
    attempt = a_rupiah_attempt()
    async with midtrans() as (double, gateway):
        double.misbehave(Misbehaviour(is_lost=True))
        first = await gateway.create(attempt)
        second = await gateway.create(attempt)

    assert isinstance(first, Unanswered)
    assert isinstance(second, Created)
    assert len({body for _, _, body in double.calls}) == 1


async def test_an_order_id_that_is_taken_refuses_nothing() -> None:
    """A call that comes too late must not fail an attempt that is just being paid."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.choose(str(attempt.attempt_id))
        late = await gateway.create(attempt)

    assert isinstance(late, Unanswered)
    assert "taken" in late.detail


@pytest.mark.parametrize(
    ("amount_minor", "currency"),
    [(1_000_050, "IDR"), (99, "IDR"), (0, "IDR"), (1_000_000, "EUR"), (1_000_000, "JPY"), (1_000_000, "USD")],
)
async def test_what_is_not_whole_rupiah_is_declined_without_a_call(amount_minor: int, currency: str) -> None:
    """The rupiah has two decimals in ISO 4217 and none at Midtrans, which takes nothing else."""
    async with midtrans() as (double, gateway):
        answer = await gateway.create(a_rupiah_attempt(amount_minor=amount_minor, currency=currency))

    assert isinstance(answer, Declined)
    assert "Midtrans takes" in answer.detail
    assert double.calls == []


async def test_a_request_that_midtrans_refuses_is_declined() -> None:
    """The same request will never be accepted, and the reason is Midtrans's."""
    body = orjson.dumps({"error_messages": ["transaction_details.gross_amount is too large"]})
    async with midtrans() as (double, gateway):
        double.misbehave(Misbehaviour(status=400, body=body))
        answer = await gateway.create(a_rupiah_attempt())

    assert answer == Declined("400: transaction_details.gross_amount is too large")


# --- asking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("not_found", [HTTPStatus.NOT_FOUND, HTTPStatus.OK])
async def test_until_a_method_is_chosen_404_says_what_is_known_otherwise(not_found: HTTPStatus) -> None:
    """An open page is PENDING, one past its end EXPIRED, or CANCELLED if we wanted that; of one that may not exist nothing is known."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    ended = {"created_at": long_ago, "expires_at": long_ago + timedelta(minutes=15)}
    async with midtrans() as (double, gateway):
        double.not_found_status = not_found
        unknown = await gateway.ask(a_rupiah_attempt(initiated=False))
        opened_page = await gateway.ask(a_rupiah_attempt())
        past = [await gateway.ask(a_rupiah_attempt(initiated=known, **ended)) for known in (True, False)]
        just_past = await gateway.ask(
            a_rupiah_attempt(created_at=long_ago, expires_at=datetime.now(UTC) - timedelta(seconds=30))
        )
        endless = await gateway.ask(a_rupiah_attempt(expires_at=None, created_at=long_ago))
        called_back = await gateway.ask(a_rupiah_attempt(withdrawn=True, **ended))

    assert unknown is None
    assert [isinstance(word, Notice) and word.status for word in (opened_page, just_past, endless)] == [
        PENDING
    ] * 3
    assert [isinstance(word, Notice) and word.status for word in past] == [EXPIRED] * 2
    assert isinstance(called_back, Notice)
    assert called_back.status is CANCELLED


async def test_a_404_that_is_not_midtranss_says_nothing() -> None:
    """A proxy's or another server's 404 must not expire what is being paid."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    attempt = a_rupiah_attempt(created_at=long_ago, expires_at=long_ago + timedelta(minutes=15))
    async with midtrans() as (double, gateway):
        for body in (b"<html>Not Found</html>", b"", b'{"error": "not found"}', b'{"status_code": 404}'):
            double.misbehave(Misbehaviour(status=404, body=body))
            assert isinstance(await gateway.ask(attempt), Unanswered)


@pytest.mark.parametrize(
    ("status", "payment_type", "expected"),
    [
        ("pending", "gopay", PENDING),
        ("authorize", "credit_card", AUTHORIZED),
        ("capture", "credit_card", SUCCEEDED),
        ("settlement", "bank_transfer", SUCCEEDED),
        ("deny", "gopay", FAILED),
        ("cancel", "credit_card", CANCELLED),
        ("expire", "bank_transfer", EXPIRED),
        ("failure", "gopay", FAILED),
    ],
)
async def test_an_answer_says_where_a_payment_stands_and_is_confirmed(
    status: str, payment_type: str, expected: AttemptStatus
) -> None:
    """Whatever code goes with it; a success comes with its exact amount and time."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.choose(str(attempt.attempt_id), payment_type)
        double.change(str(attempt.attempt_id), status)
        answer = await gateway.ask(attempt)

    assert isinstance(answer, Notice)
    assert (answer.status, answer.is_confirmed) == (expected, True)
    assert (answer.attempt_id, answer.transaction_id) == (attempt.attempt_id, str(attempt.attempt_id))
    is_paid = expected is SUCCEEDED
    assert (answer.amount_minor, answer.currency) == ((AMOUNT_MINOR, "IDR") if is_paid else (None, None))
    if is_paid:
        assert answer.occurred_at is not None
        assert abs(answer.occurred_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_reversal_and_a_voided_card_are_confirmed_corrections() -> None:
    """Only what Midtrans itself answers may take a success back, and it says what."""
    async with midtrans() as (double, gateway):
        transfer, card = await opened(gateway), await opened(gateway)
        double.settle(str(transfer.attempt_id), "bank_transfer")
        double.deny(str(transfer.attempt_id))
        double.capture(str(card.attempt_id))
        double.change(str(card.attempt_id), "cancel")
        answers = [await gateway.ask(attempt) for attempt in (transfer, card)]

    assert [(a.status, a.corrects, a.is_confirmed) for a in answers if isinstance(a, Notice)] == [
        (FAILED, frozenset({SUCCEEDED}), True),
        (CANCELLED, frozenset({SUCCEEDED}), True),
    ]


async def test_an_answer_about_another_payment_or_with_a_wrong_signature_says_nothing() -> None:
    """It must name what was asked for, and be signed rightly if it is signed."""
    async with midtrans() as (double, gateway):
        attempt, other = await opened(gateway), await opened(gateway)
        for each in (attempt, other):
            double.settle(str(each.attempt_id))
        theirs = double.document(double.payments[str(other.attempt_id)])
        ours = double.document(double.payments[str(attempt.attempt_id)])
        unsigned = {name: value for name, value in ours.items() if name != "signature_key"}
        wrong = {**ours, "gross_amount": "1.00"}
        answers = []
        for document in (theirs, wrong, {**ours, "signature_key": 7}, unsigned):
            double.misbehave(Misbehaviour(status=200, body=orjson.dumps(document)))
            answers.append(await gateway.ask(attempt))

    assert [isinstance(answer, Unanswered) for answer in answers] == [True, True, True, False]


# --- cancelling -----------------------------------------------------------------------------------------------------


async def test_a_page_without_a_method_is_closed_for_certain() -> None:
    """Nobody can choose on it any more; closing it again is the same."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        answers = [await gateway.cancel(attempt) for _ in range(2)]
        with pytest.raises(LookupError):
            double.choose(str(attempt.attempt_id))

    assert [isinstance(word, Notice) and (word.status, word.is_final) for word in answers] == [
        (CANCELLED, True)
    ] * 2


async def test_a_page_whose_address_nobody_has_is_as_good_as_closed() -> None:
    """The answer to its creation was lost: there is nothing that anybody could pay."""
    async with midtrans() as (_, gateway):
        answer = await gateway.cancel(a_rupiah_attempt(initiated=False))

    assert isinstance(answer, Notice)
    assert answer.status is CANCELLED


async def test_a_page_that_cannot_be_closed_is_told_as_it_stands() -> None:
    """CANCELLED is not claimed of a page that Midtrans does not find: it is PENDING, or EXPIRED past its end."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    async with midtrans() as (double, gateway):
        url = f"{double.url}/snap/v4/redirection/unknown"
        is_open = await gateway.cancel(a_rupiah_attempt(payment_url=url))
        ended = await gateway.cancel(
            a_rupiah_attempt(
                payment_url=url, created_at=long_ago, expires_at=long_ago + timedelta(minutes=15)
            )
        )

    assert [isinstance(word, Notice) and word.status for word in (is_open, ended)] == [PENDING, EXPIRED]


@pytest.mark.parametrize("payment_type", ["bank_transfer", "credit_card"])
async def test_a_pending_payment_is_cancelled(payment_type: str) -> None:
    """A method was chosen and nothing paid."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.choose(str(attempt.attempt_id), payment_type)
        answer = await gateway.cancel(attempt)

    assert isinstance(answer, Notice)
    assert (answer.status, answer.is_final) == (CANCELLED, True)
    assert double.payments[str(attempt.attempt_id)].status == "cancel"


async def test_a_card_under_review_is_cancelled() -> None:
    """The challenge is answered by denying it."""
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.capture(str(attempt.attempt_id), fraud_status="challenge")
        before = await stands(gateway, attempt)
        answer = await gateway.cancel(attempt)

    assert before is AUTHORIZED
    assert isinstance(answer, Notice)
    assert answer.status is CANCELLED


async def test_what_cannot_be_cancelled_is_expired_and_counts_as_called_back() -> None:
    """It ended because we wanted it to, not because the customer was late."""
    refusal = orjson.dumps({"status_code": "412", "status_message": "Merchant cannot modify the status"})
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        double.choose(str(attempt.attempt_id))
        seen = orjson.dumps(double.document(double.payments[str(attempt.attempt_id)]))
        double.misbehave(Misbehaviour(status=200, body=seen))
        double.misbehave(Misbehaviour(status=200, body=refusal))
        answer = await gateway.cancel(attempt)

    assert isinstance(answer, Notice)
    assert (answer.native_status, answer.status, answer.is_final) == ("expire", CANCELLED, False)
    assert double.payments[str(attempt.attempt_id)].status == "expire"


async def test_what_is_paid_already_is_told_as_paid() -> None:
    """Also when the money came between our two questions."""
    async with midtrans() as (double, gateway):
        paid, raced = await opened(gateway), await opened(gateway)
        double.settle(str(paid.attempt_id))
        double.choose(str(raced.attempt_id))
        seen = orjson.dumps(double.document(double.payments[str(raced.attempt_id)]))
        double.settle(str(raced.attempt_id))
        answers = [await gateway.cancel(paid)]
        double.misbehave(Misbehaviour(status=200, body=seen))
        answers.append(await gateway.cancel(raced))

    assert [isinstance(word, Notice) and word.status for word in answers] == [SUCCEEDED] * 2


@pytest.mark.parametrize(("settled", "expected"), [(False, CANCELLED), (True, SUCCEEDED)])
async def test_a_method_chosen_while_the_page_is_being_closed_is_cancelled_too(
    *, settled: bool, expected: AttemptStatus
) -> None:
    """Midtrans says that a payment is on its way; if that was quick, it is paid."""
    missing = orjson.dumps({"status_code": "404", "status_message": "Transaction doesn't exist."})
    async with midtrans() as (double, gateway):
        attempt = await opened(gateway)
        (double.settle if settled else double.choose)(str(attempt.attempt_id))
        double.misbehave(Misbehaviour(status=404, body=missing))
        answer = await gateway.cancel(attempt)

    assert isinstance(answer, Notice)
    assert answer.status is expected


# --- keys and notifications -----------------------------------------------------------------------------------------


async def test_calls_go_on_while_keys_are_being_changed() -> None:
    """Where the first key is not known (any more, or yet), the next is tried; where none is, nothing is certain."""
    async with midtrans("SB-Mid-server-new", "SB-Mid-server-a-key-that-guards-nothing") as (double, gateway):
        attempt = await opened(gateway)
        double.settle(str(attempt.attempt_id))
        known = await stands(gateway, attempt)
        double.server_keys = ["SB-Mid-server-quite-another"]
        unknown = [await gateway.ask(attempt), await gateway.create(a_rupiah_attempt())]

    assert known is SUCCEEDED
    assert [isinstance(answer, Unanswered) for answer in unknown] == [True, True]


async def test_notifications_repeated_and_reordered_are_the_same_events() -> None:
    """As the double signs and writes them: pending and settlement, twice each, the last first, after a refusal."""
    async with listening() as endpoint, midtrans(notification_url=endpoint.url) as (double, gateway):
        endpoint.answer = lambda before: 503 if before == 0 else 200
        double.deliveries, double.retry_seconds, double.delay_seconds = 2, 0.01, 0.01
        attempt = await opened(gateway)
        double.hold_back()
        double.settle(str(attempt.attempt_id))
        double.deliver(lambda held: held[::-1])
        bodies = await endpoint.received(5)

    assert {gateway.read(body).status for body in bodies} == {PENDING, SUCCEEDED}
    assert len({gateway.verify({}, body) for body in bodies}) == 2
    assert all(gateway.read(body).attempt_id == attempt.attempt_id for body in bodies)


async def test_a_forged_notification_is_found_out_by_asking() -> None:
    """It is signed, says that the money came, and Midtrans says that it did not."""
    async with listening() as endpoint, midtrans(notification_url=endpoint.url) as (double, gateway):
        attempt = await opened(gateway)
        double.choose(str(attempt.attempt_id))
        await endpoint.received(1)
        double.forge(str(attempt.attempt_id), transaction_status="settlement")
        forged = (await endpoint.received(2))[-1]
        event, notice, truth = gateway.verify({}, forged), gateway.read(forged), await gateway.ask(attempt)

    assert event
    assert (notice.status, notice.is_confirmed) == (SUCCEEDED, False)
    assert isinstance(truth, Notice)
    assert (truth.status, truth.is_confirmed) == (PENDING, True)


async def test_a_page_ends_in_silence_and_a_payment_does_not() -> None:
    """Without a method there is no notification; with one there is."""
    async with listening() as endpoint, midtrans(notification_url=endpoint.url) as (double, gateway):
        abandoned, late = await opened(gateway), await opened(gateway)
        double.expire(str(abandoned.attempt_id))
        double.choose(str(late.attempt_id))
        double.expire(str(late.attempt_id))
        bodies = await endpoint.received(2)

    assert {gateway.read(body).attempt_id for body in bodies} == {late.attempt_id}
    assert {gateway.read(body).status for body in bodies} == {PENDING, EXPIRED}
    assert len(double.notifications) == 2
