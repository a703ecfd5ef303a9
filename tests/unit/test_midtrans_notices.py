"""Does Midtrans's gateway read what is said exactly, and nothing into it?"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest

from services.payment_service.domain.attempts import AttemptStatus, Notice, RefundNotice
from services.payment_service.gateways.midtrans_statuses import STATUSES
from shared.errors import Malformed
from tests.midtrans_building import AMOUNT_MINOR, a_document, a_listed_refund, a_midtrans, signed

SUCCEEDED, FAILED, PENDING = AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.PENDING
AUTHORIZED, CANCELLED, EXPIRED = AttemptStatus.AUTHORIZED, AttemptStatus.CANCELLED, AttemptStatus.EXPIRED


def read(document: dict[str, Any]) -> Notice:
    """Return what the gateway makes of a notification."""
    return a_midtrans().read(orjson.dumps(document))


# --- statuses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fraud", "expected"),
    [
        ("capture", None, SUCCEEDED),
        ("capture", "accept", SUCCEEDED),
        ("capture", "challenge", AUTHORIZED),
        ("capture", "deny", FAILED),
        ("settlement", None, SUCCEEDED),
        ("settlement", "accept", SUCCEEDED),
        ("settlement", "challenge", SUCCEEDED),
        ("pending", "accept", PENDING),
        ("PENDING", "accept", PENDING),
        ("authorize", "accept", AUTHORIZED),
        ("deny", "accept", FAILED),
        ("deny", "deny", FAILED),
        ("cancel", None, CANCELLED),
        ("expire", None, EXPIRED),
        ("failure", None, FAILED),
        ("refund", "accept", None),
        ("partial_refund", "accept", SUCCEEDED),
        ("chargeback", "accept", None),
        ("partial_chargeback", "accept", None),
        ("capture", "review", None),
        ("something_new", None, None),
    ],
)
def test_each_status_is_read_as_our_word_for_it(
    status: str, fraud: str | None, expected: AttemptStatus | None
) -> None:
    """What no line of the table names says nothing that concerns us, and is kept by its own name."""
    notice = read(a_document(status, fraud_status=fraud))

    assert notice.status is expected
    assert notice.native_status.startswith(status.lower())


def test_every_line_of_the_table_has_its_source() -> None:
    """Each is read from a page of Midtrans's, and none stands for another that comes before it."""
    keys = [(line.native, fraud) for line in STATUSES for fraud in line.fraud or ("any",)]

    assert all(line.source.startswith("Transaction Status Cycle") for line in STATUSES)
    assert len(set(keys)) == len(keys)
    assert {line.native for line in STATUSES} == {
        *("capture", "settlement", "pending", "authorize", "deny", "cancel", "expire", "failure"),
        *("refund", "partial_refund", "chargeback", "partial_chargeback"),
    }


@pytest.mark.parametrize(
    "document",
    [
        a_document("settlement"),
        a_document("capture"),
        a_document("deny"),
        a_document("cancel"),
        a_document("expire"),
        a_document("failure"),
        a_document("refund", refunds=[a_listed_refund()]),
        a_document("partial_refund"),
        a_document("chargeback"),
        a_document("partial_chargeback"),
    ],
    ids=lambda document: document["transaction_status"],
)
def test_a_notification_that_moves_anything_is_not_confirmed(document: dict[str, Any]) -> None:
    """Its signature does not cover the status: whoever has seen one can write another."""
    assert not read(document).is_confirmed


@pytest.mark.parametrize(
    "document",
    [
        a_document("pending"),
        a_document("capture", fraud_status="challenge"),
        a_document("new"),
        a_document("refund"),
    ],
)
def test_a_notification_that_moves_nothing_needs_no_confirmation(document: dict[str, Any]) -> None:
    """Waiting for the customer, for a review or for the bank, and what is unknown, cost no further call."""
    assert read(document).is_confirmed


def test_a_forged_status_passes_the_signature_and_is_not_confirmed() -> None:
    """The same order, code and amount as in a true notification, with a status that is a lie."""
    truth = orjson.loads(signed(a_document("pending")))
    forged = orjson.dumps({**truth, "transaction_status": "settlement"})
    gateway = a_midtrans()

    event = gateway.verify({}, forged)
    notice = gateway.read(forged)

    assert event != gateway.verify({}, orjson.dumps(truth))
    assert (notice.status, notice.is_confirmed) == (SUCCEEDED, False)


@pytest.mark.parametrize(
    ("status", "payment_type", "is_taken_back"),
    [
        ("deny", "bank_transfer", True),
        ("deny", "echannel", True),
        ("deny", "cstore", True),
        ("deny", "credit_card", False),
        ("deny", "gopay", False),
        ("deny", None, False),
        ("cancel", "credit_card", True),
        ("cancel", "bank_transfer", False),
        ("expire", "bank_transfer", False),
        ("failure", "cstore", False),
    ],
)
def test_only_documented_corrections_take_a_success_back(
    status: str, payment_type: str | None, *, is_taken_back: bool
) -> None:
    """A settled transfer may be denied and a captured card cancelled, and only after Midtrans was asked."""
    notice = read(a_document(status, payment_type=payment_type))

    assert notice.corrects == (frozenset({SUCCEEDED}) if is_taken_back else frozenset())
    assert not notice.is_confirmed


@pytest.mark.parametrize("status", ["chargeback", "partial_chargeback"])
def test_a_chargeback_is_a_dispute_and_nothing_else(status: str) -> None:
    """It says so in words and moves nothing by itself."""
    notice = read(a_document(status))

    assert notice.dispute == status.replace("_", " ")
    assert (notice.status, notice.refund, notice.amount_minor) == (None, None, None)


# --- refunds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["refund", "partial_refund"])
def test_a_refund_is_told_when_the_bank_has_confirmed_it(status: str) -> None:
    """With our id, which was its key, and Midtrans's own."""
    entry = a_listed_refund()

    confirmed = read(a_document(status, refunds=[entry])).refund
    taken_on = read(a_document(status, refunds=[a_listed_refund(bank_confirmed_at=None)])).refund

    assert confirmed == RefundNotice(400_000, "IDR", "1", UUID(entry["refund_key"]))
    assert taken_on is None


def test_of_several_refunds_the_last_confirmed_is_told() -> None:
    """Midtrans lists them all each time; what the bank confirmed last is the news."""
    notice = read(
        a_document(
            "partial_refund",
            refunds=[
                a_listed_refund(refund_chargeback_id=1, bank_confirmed_at="2026-03-03 02:30:20"),
                a_listed_refund(refund_chargeback_id=2, bank_confirmed_at="2026-03-02 02:30:20"),
                a_listed_refund(refund_chargeback_id=3, bank_confirmed_at=None),
            ],
        )
    )

    assert notice.refund is not None
    assert notice.refund.gateway_refund_id == "1"


def test_a_refund_by_somebody_else_has_no_id_of_ours() -> None:
    """One that was made on Midtrans's dashboard has a key of its own."""
    notice = read(a_document("refund", refunds=[a_listed_refund(refund_key="dashboard-1")]))

    assert notice.refund == RefundNotice(400_000, "IDR", "1", None, is_foreign=True)


# --- amounts, times, names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "minor"),
    [
        ("10000.00", AMOUNT_MINOR),
        ("10000", AMOUNT_MINOR),
        ("10000.5", AMOUNT_MINOR + 50),
        ("0.00", 0),
        ("0.01", 1),
        ("90071992547409.91", 2**53 - 1),
        ("9007199254740.9900", 900719925474099),
    ],
)
def test_amounts_are_read_exactly(written: str, minor: int) -> None:
    """Rupiah with decimals become minor units without passing through a float."""
    notice = read(a_document(gross_amount=written))

    assert (notice.amount_minor, notice.currency) == (minor, "IDR")


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"gross_amount": text}
            for text in ("", "1e4", "10,000.00", "-1.00", "NaN", "Infinity", "1.", ".5")
        ),
        *(
            {"gross_amount": text}
            for text in ("10000.001", "90071992547409.92", "9" * 40, "\uff110000", " 1")
        ),
        *({"gross_amount": value} for value in (10000, 10000.0, None, True, ["1"])),
        {"currency": "rupiah"},
        {"currency": 360},
        *(
            {"transaction_time": text}
            for text in ("yesterday", "2026-02-30 00:00:00", "0001-01-01 00:00:00", 1)
        ),
        {"settlement_time": "9999-12-31 23:59:59-12:00"},
        {"transaction_status": None},
        {"transaction_status": 7},
        {"transaction_status": "x" * 300},
        {"transaction_status": "settle\nment"},
        {"fraud_status": {"a": 1}},
        {"payment_type": []},
        {"order_id": None},
    ],
    ids=ascii,
)
def test_a_success_that_says_nothing_readable_is_malformed(change: dict[str, Any]) -> None:
    """The signature does not make nonsense true, and nothing impossible gets any further."""
    with pytest.raises(Malformed):
        read(a_document(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"refunds": {}},
        {"refunds": "x"},
        {"refunds": [1]},
        {"refunds": [a_listed_refund(refund_amount=None)]},
        {"refunds": [a_listed_refund(refund_amount=4000)]},
        {"refunds": [a_listed_refund(bank_confirmed_at="soon")]},
        {"refunds": [a_listed_refund(refund_key=[])]},
        {"refunds": [a_listed_refund(refund_chargeback_id=True)]},
    ],
    ids=ascii,
)
def test_a_refund_that_says_nothing_readable_is_malformed(change: dict[str, Any]) -> None:
    """Money that went back is as exact as money that came."""
    with pytest.raises(Malformed):
        read(a_document("refund", **change))


def test_times_without_a_zone_are_western_indonesian() -> None:
    """Seven hours before UTC's clock shows the same; the time of settlement counts, where there is one."""
    captured = read(a_document(transaction_time="2026-03-01 06:59:59"))
    settled = read(a_document(settlement_time="2026-03-02 07:00:00"))
    zoned = read(a_document(settlement_time="2026-03-02T07:00:00+00:00"))

    assert captured.occurred_at == datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)
    assert settled.occurred_at == datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
    assert zoned.occurred_at == datetime(2026, 3, 2, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("order_id", "is_ours"),
    [
        ("0190163d-8694-739b-aea5-966c26f8ad91", True),
        ("0190163D-8694-739B-AEA5-966C26F8AD91", False),
        ("0190163d8694739baea5966c26f8ad91", False),
        ("{0190163d-8694-739b-aea5-966c26f8ad91}", False),
        ("pesanan-№-7", False),
    ],
)
def test_only_an_order_id_as_we_write_it_names_an_attempt(order_id: str, *, is_ours: bool) -> None:
    """It is our transaction id as well; Midtrans's own is not known when the page is opened."""
    notice = read(a_document(order_id=order_id))

    assert notice.attempt_id == (UUID(order_id) if is_ours else None)
    assert notice.transaction_id == order_id
