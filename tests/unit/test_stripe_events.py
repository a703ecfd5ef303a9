"""Does each of Stripe's events mean what Stripe's documentation says?"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.payment_service.domain import paying
from services.payment_service.domain.answers import Declined, Refunded, RefundPending
from services.payment_service.domain.attempts import AttemptStatus, Notice, RefundNotice, Verdict, judge
from services.payment_service.gateways import stripe_events
from services.payment_service.gateways.stripe_events import EVENTS
from shared.errors import Malformed
from tests.payment_building import an_attempt_of, an_open_payment
from tests.stripe_building import (
    AMOUNT_MINOR,
    AT,
    CREATED,
    INTENT_ID,
    SESSION_ID,
    a_gateway,
    a_refund,
    a_stripe_refund,
    an_attempt,
    charge,
    dispute,
    event,
    intent,
    session,
)

ATTEMPT = an_attempt()
REFUND = a_refund(ATTEMPT, 250)
GATEWAY = a_gateway()
PENDING, AUTHORIZED = AttemptStatus.PENDING, AttemptStatus.AUTHORIZED
FAILED, EXPIRED, CANCELLED = AttemptStatus.FAILED, AttemptStatus.EXPIRED, AttemptStatus.CANCELLED
SUCCEEDED = AttemptStatus.SUCCEEDED


def read(kind: str, subject: dict[str, Any], **changes: Any) -> Notice:
    """Return what the gateway reads from an event."""
    return GATEWAY.read(event(kind, subject, **changes))


# --- the status map -------------------------------------------------------------------------------------------------

BACK, NOT_BACK = "back", "not back"
DISPUTED = "disputed"

#: Written anew from the documentation, so that a changed row of the table is seen here.
EXPECTED: dict[tuple[str, str | None], object] = {
    ("checkout.session.completed", "paid"): SUCCEEDED,
    ("checkout.session.completed", "unpaid"): PENDING,
    ("checkout.session.completed", None): None,
    ("checkout.session.async_payment_succeeded", None): SUCCEEDED,
    ("checkout.session.async_payment_failed", None): FAILED,
    ("checkout.session.expired", None): EXPIRED,
    ("payment_intent.created", None): None,
    ("payment_intent.processing", None): PENDING,
    ("payment_intent.requires_action", None): PENDING,
    ("payment_intent.partially_funded", None): PENDING,
    ("payment_intent.payment_failed", None): None,
    ("payment_intent.amount_capturable_updated", None): AUTHORIZED,
    ("payment_intent.succeeded", None): SUCCEEDED,
    ("payment_intent.canceled", "expired"): EXPIRED,
    ("payment_intent.canceled", None): CANCELLED,
    ("charge.refunded", None): None,
    **{
        (kind, status): meaning
        for kind in ("refund.created", "refund.updated", "charge.refund.updated")
        for status, meaning in {
            "succeeded": BACK,
            "failed": NOT_BACK,
            "canceled": NOT_BACK,
            None: None,
        }.items()
    },
    ("refund.failed", None): NOT_BACK,
    ("charge.dispute.created", None): DISPUTED,
    ("charge.dispute.funds_withdrawn", None): DISPUTED,
    ("charge.dispute.funds_reinstated", None): DISPUTED,
    ("charge.dispute.closed", None): DISPUTED,
    ("charge.dispute.updated", None): None,
}

#: A state that no row of its own is about, by the beginning of the type.
ANY_OTHER = {
    "checkout.session.completed": "no_payment_required",
    "checkout.session.expired": "unpaid",
    "checkout.session.async_payment_failed": "unpaid",
    "checkout.session.async_payment_succeeded": "paid",
    "payment_intent.canceled": "requested_by_customer",
    "refund.failed": "failed",
}


def subject_of(kind: str, state: str | None) -> dict[str, Any]:
    """Return the object that an event of a type carries, in some state."""
    state = state or ANY_OTHER.get(kind, "pending")
    if kind.startswith("checkout.session."):
        changes = {"status": "expired", "expires_at": CREATED} if kind.endswith("expired") else {}
        return session(ATTEMPT, payment_status=state, **changes)
    if kind.startswith("payment_intent."):
        return intent(ATTEMPT, cancellation_reason=state if kind.endswith("canceled") else None)
    if kind.startswith("charge.dispute."):
        return dispute(ATTEMPT)
    return charge(ATTEMPT) if kind == "charge.refunded" else a_stripe_refund(REFUND, status=state)


def meaning_of(notice: Notice) -> object:
    """Name what a notice says as the table does."""
    if notice.dispute is not None:
        return DISPUTED
    if notice.refund is not None:
        return NOT_BACK if notice.refund.failed else BACK
    return notice.status


def test_the_table_has_the_rows_that_the_documentation_asks_for() -> None:
    """No row is missing, none is without its test, and each names its page."""
    assert set(EVENTS) == set(EXPECTED)
    assert all(row.source for row in EVENTS.values())


@pytest.mark.parametrize(("kind", "state"), EXPECTED, ids=str)
def test_each_row_of_the_table_is_read_as_it_says(kind: str, state: str | None) -> None:
    """An event of the type, in the state of its row, means that and nothing else; a success has its money."""
    notice = read(kind, subject_of(kind, state))

    is_paid = EXPECTED[kind, state] is SUCCEEDED
    assert meaning_of(notice) == EXPECTED[kind, state]
    assert notice.native_status.startswith(kind)
    assert notice.occurred_at == AT
    assert (notice.amount_minor, notice.currency) == ((AMOUNT_MINOR, "EUR") if is_paid else (None, None))
    assert notice.is_confirmed
    assert not notice.corrects
    assert notice.is_final is (notice.status is CANCELLED)


@pytest.mark.parametrize("kind", ["invoice.paid", "charge.succeeded", "v2.core.event", "x" * 255])
def test_an_unknown_type_says_nothing_that_concerns_us(kind: str) -> None:
    """Whatever it carries, it is stored and never guessed at."""
    assert read(kind, {"status": "succeeded"}) == Notice(kind)


# --- which payment is meant -----------------------------------------------------------------------------------------


def test_a_session_is_matched_by_our_attempt_id_and_by_its_own() -> None:
    """The session's id is the one transaction id that is ever given."""
    notice = read("checkout.session.completed", session(ATTEMPT))

    assert (notice.attempt_id, notice.transaction_id) == (ATTEMPT.attempt_id, SESSION_ID)


def test_an_intent_is_matched_by_our_attempt_id_alone() -> None:
    """Its id is not the one that we stored, so that it would look like another transaction."""
    notice = read("payment_intent.succeeded", intent(ATTEMPT))

    assert (notice.attempt_id, notice.transaction_id) == (ATTEMPT.attempt_id, None)


def test_all_events_of_one_payment_agree_with_what_is_stored() -> None:
    """Whichever comes first, none of the others is judged a mismatch."""
    attempt = replace(ATTEMPT, gateway_transaction_id=SESSION_ID)
    kinds = [kind for kind in EXPECTED if isinstance(EXPECTED[kind], AttemptStatus)]

    verdicts = {judge(attempt, read(*_event_of(kind))).verdict for kind in kinds}

    assert Verdict.MISMATCH not in verdicts


def _event_of(row: tuple[str, str | None]) -> tuple[str, dict[str, Any]]:
    return row[0], subject_of(*row)


@pytest.mark.parametrize("reference", ["somebody else's", "", None, 7, "\0", "x" * 5_000])
def test_a_reference_that_is_not_ours_is_passed_over(reference: object) -> None:
    """Other programs use the same account, and the same fields."""
    metadata = {"holdfast_attempt_id": reference}
    notice = read(
        "checkout.session.completed", session(ATTEMPT, metadata=metadata, client_reference_id=reference)
    )

    assert (notice.attempt_id, notice.transaction_id) == (None, SESSION_ID)


@pytest.mark.parametrize("metadata", [None, [], "x", {}])
def test_the_client_reference_is_as_good_as_metadata(metadata: object) -> None:
    """A session names our attempt twice; one is enough."""
    assert read("checkout.session.completed", session(ATTEMPT, metadata=metadata)).attempt_id == (
        ATTEMPT.attempt_id
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_payments_events_end_alike_in_any_order(data: st.DataObject) -> None:
    """Shuffled, repeated and partly lost, they settle the payment once, as long as one of its successes comes."""
    payment = an_open_payment()
    attempt = an_attempt_of(payment, created=False)
    told = [
        ("payment_intent.created", intent(attempt)),
        ("payment_intent.requires_action", intent(attempt)),
        ("payment_intent.payment_failed", intent(attempt)),
        ("payment_intent.processing", intent(attempt)),
        ("checkout.session.completed", session(attempt, payment_status="unpaid")),
        ("charge.succeeded", charge(attempt)),
    ]
    successes = [
        ("payment_intent.succeeded", intent(attempt)),
        ("checkout.session.async_payment_succeeded", session(attempt)),
    ]
    some = data.draw(st.lists(st.sampled_from(told + successes), max_size=12))
    order = data.draw(st.permutations([*some, data.draw(st.sampled_from(successes))]))

    for kind, subject in order:
        paying.hear(payment, attempt, read(kind, subject), cause="test", at=AT)

    assert attempt.status is SUCCEEDED
    assert (payment.settled_attempt_id, payment.settled_amount_minor) == (attempt.attempt_id, AMOUNT_MINOR)
    assert not payment.refunds


# --- how an attempt ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "status"), [(-60, EXPIRED), (0, EXPIRED), (1, CANCELLED), (900, CANCELLED)]
)
def test_a_session_that_is_gone_before_its_time_was_called_back(seconds: int, status: AttemptStatus) -> None:
    """Stripe leaves `expires_at` as it was when a session is expired by a call."""
    gone = session(ATTEMPT, status="expired", payment_status="unpaid", expires_at=CREATED + seconds)

    assert read("checkout.session.expired", gone).status is status
    assert stripe_events.read_session(gone, AT).status is status


def test_a_declined_card_fails_a_try_and_is_named() -> None:
    """The page stays open; the bank's word for it is kept, whatever else the error holds is not."""
    error = {"code": "card_declined", "decline_code": "insufficient_funds", "message": "4242 4242 4242 4242"}

    notice = read("payment_intent.payment_failed", intent(ATTEMPT, last_payment_error=error))

    assert (notice.status, notice.native_status) == (
        None,
        "payment_intent.payment_failed (insufficient_funds)",
    )


def test_with_a_live_key_the_test_mode_is_no_money() -> None:
    """An endpoint may be sent events of both modes; a test card pays for nothing."""
    live = a_gateway(secret_key="rk_live_x")

    assert live.read(event("checkout.session.completed", session(ATTEMPT))) == Notice(
        "checkout.session.completed in test mode"
    )
    assert live.read(event("checkout.session.completed", session(ATTEMPT), livemode=True)).status is SUCCEEDED


# --- what goes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "failed"), [("refund.updated", "succeeded", False), ("refund.failed", "failed", True)]
)
def test_a_refund_of_ours_is_read_with_both_ids(kind: str, status: str, *, failed: bool) -> None:
    """Ours comes back in its metadata, so that a refund is found however often it was asked for."""
    notice = read(kind, a_stripe_refund(REFUND, status=status, failure_reason="unknown"))

    assert notice.attempt_id == ATTEMPT.attempt_id
    assert notice.refund == RefundNotice(250, "EUR", "re_1Nispe2eZvKYlo2Cd31jOCgZ", REFUND.refund_id, failed)


def test_a_refund_made_by_hand_names_the_intent() -> None:
    """It has none of our metadata: only Stripe can say which attempt is meant."""
    notice = read("refund.created", a_stripe_refund(REFUND, metadata={}))

    assert notice.refund is not None
    assert (notice.attempt_id, notice.transaction_id, notice.alias) == (None, None, INTENT_ID)
    assert (notice.refund.refund_id, notice.refund.is_foreign) == (None, True)


def test_a_dispute_says_why_how_it_stands_and_how_much() -> None:
    """A person reads it; the charge's metadata is not in it, so it names the intent."""
    notice = read("charge.dispute.closed", dispute(ATTEMPT, reason="product_not_received", status="lost"))

    assert notice.dispute == "product_not_received: lost, 1250 EUR"
    assert (notice.status, notice.attempt_id, notice.transaction_id) == (None, None, None)
    assert notice.alias == INTENT_ID


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("succeeded", Refunded("re_1Nispe2eZvKYlo2Cd31jOCgZ")),
        ("pending", RefundPending("re_1Nispe2eZvKYlo2Cd31jOCgZ")),
        ("requires_action", RefundPending("re_1Nispe2eZvKYlo2Cd31jOCgZ")),
        ("failed", Declined("re_1Nispe2eZvKYlo2Cd31jOCgZ failed: lost_or_stolen_card")),
        ("canceled", Declined("re_1Nispe2eZvKYlo2Cd31jOCgZ canceled: lost_or_stolen_card")),
    ],
)
def test_each_status_of_a_refund_is_an_answer(status: str, expected: object) -> None:
    """What is not certain yet is pending; what failed is declined, with the bank's reason."""
    refund = a_stripe_refund(REFUND, status=status, failure_reason="lost_or_stolen_card")

    assert stripe_events.read_refund(refund) == expected


# --- sessions in answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "payment_status", "intent_status", "expected"),
    [
        ("open", "unpaid", None, PENDING),
        ("open", "unpaid", "requires_payment_method", PENDING),
        ("complete", "paid", "succeeded", SUCCEEDED),
        ("complete", "unpaid", "processing", PENDING),
        ("complete", "unpaid", "requires_action", PENDING),
        ("complete", "unpaid", "succeeded", PENDING),
        ("complete", "unpaid", "requires_capture", AUTHORIZED),
        ("complete", "unpaid", "requires_payment_method", FAILED),
        ("complete", "unpaid", "canceled", CANCELLED),
        ("complete", "no_payment_required", None, None),
        ("expired", "unpaid", None, CANCELLED),
        ("expired", "unpaid", "canceled", CANCELLED),
        ("something new", "unpaid", None, None),
    ],
)
def test_a_session_says_where_its_attempt_stands(
    status: str, payment_status: str, intent_status: str | None, expected: AttemptStatus | None
) -> None:
    """What is open is pending whatever became of the tries; what is complete depends on the intent."""
    whole = intent(ATTEMPT, status=intent_status) if intent_status else None
    found = session(ATTEMPT, status=status, payment_status=payment_status, payment_intent=whole)

    notice = stripe_events.read_session(found, AT)

    is_paid = expected is SUCCEEDED
    assert notice.status is expected
    assert (notice.amount_minor, notice.currency) == ((AMOUNT_MINOR, "EUR") if is_paid else (None, None))


# --- what is not as documented --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"type": 1}',
        orjson.dumps({"type": "checkout.session.completed", "created": 1}),
        orjson.dumps({"type": "checkout.session.completed", "created": 1, "data": {"object": []}}),
        event("checkout.session.completed", session(ATTEMPT), created="today"),
        event("checkout.session.completed", session(ATTEMPT), created=2**60),
        event("checkout.session.completed", session(ATTEMPT, id="")),
        event("checkout.session.completed", session(ATTEMPT, amount_total=None)),
        event("checkout.session.completed", session(ATTEMPT, amount_total=12.5)),
        event("checkout.session.completed", session(ATTEMPT, amount_total=-1)),
        event("checkout.session.completed", session(ATTEMPT, amount_total=True)),
        event("checkout.session.completed", session(ATTEMPT, currency="euro")),
        event("checkout.session.completed", session(ATTEMPT, currency="isk", amount_total=1_250)),
        event("checkout.session.expired", session(ATTEMPT, expires_at=None)),
        event("refund.updated", a_stripe_refund(REFUND, amount="250")),
        event("charge.dispute.created", dispute(ATTEMPT, payment_intent=7)),
    ],
)
def test_a_body_that_says_nothing_readable_is_malformed(body: bytes) -> None:
    """The signature does not make nonsense true."""
    with pytest.raises(Malformed):
        GATEWAY.read(body)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted({kind for kind, _ in EVENTS})),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        *(
                            "id",
                            "amount",
                            "amount_total",
                            "amount_received",
                            "currency",
                            "metadata",
                            "status",
                        ),
                        *("payment_status", "payment_intent", "last_payment_error", "expires_at", "reason"),
                    ]
                ),
                inner,
            )
        ),
        max_leaves=12,
    ),
)
def test_no_json_whatever_makes_the_reader_raise_anything_else(kind: str, subject: Any) -> None:
    """A signed body is a notice or malformed."""
    body = json.dumps({"type": kind, "created": CREATED, "data": {"object": subject}}).encode()
    try:
        notice = GATEWAY.read(body)
    except Malformed:
        return
    assert notice.native_status


def test_the_time_of_an_event_is_in_utc() -> None:
    """Stripe counts seconds since 1970."""
    notice = read("payment_intent.succeeded", intent(ATTEMPT), created=0)

    assert notice.occurred_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert notice.occurred_at.utcoffset() == timedelta(0)
