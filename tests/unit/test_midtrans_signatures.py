"""Does Midtrans's gateway believe only what is signed, and does anything hostile get any further?"""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.payment_service.gateways import Gateways
from services.payment_service.gateways.midtrans import Midtrans, MidtransOptions
from services.payment_service.gateways.midtrans_statuses import STATUSES
from shared.errors import Malformed, Misconfigured
from tests.midtrans_building import SERVER_KEY, a_document, a_listed_refund, a_midtrans, signed

OTHER_KEY = "SB-Mid-server-another"
#: Inputs as published on Midtrans's page "Receiving Notifications"; the digest is that of `sha512sum`.
PUBLISHED_KEY = "askvnoibnosifnboseofinbofinfgbiufglnbfg"
PUBLISHED = {
    "order_id": "1111",
    "status_code": "200",
    "gross_amount": "100000.00",
    "signature_key": "edc076b21793ebe3e17926350f5b8ae67d902fe657b3d0aa31b932d5c127e237"
    "5d308a2bc94f3265ac2d80a1f181a79b997ac178a236fcff35af263fc4d4c231",
}


# --- signatures -----------------------------------------------------------------------------------------------------


def test_the_published_sample_is_accepted() -> None:
    """Order, code, amount and key of Midtrans's own page give the digest of their concatenation."""
    assert a_midtrans(PUBLISHED_KEY).verify({}, orjson.dumps(PUBLISHED))


@pytest.mark.parametrize("key", [SERVER_KEY, OTHER_KEY])
def test_every_key_of_a_rotation_is_accepted(key: str) -> None:
    """While keys are being changed, both the old and the new one sign."""
    assert a_midtrans(SERVER_KEY, OTHER_KEY).verify({}, signed(a_document(), key))


@pytest.mark.parametrize(
    "change",
    [
        {"signature_key": None},
        {"signature_key": ""},
        {"signature_key": "0" * 128},
        {"signature_key": "é" * 128},
        {"signature_key": "\ud7ff"},
        {"signature_key": 1},
        {"signature_key": ["x"]},
        {"order_id": "another"},
        {"order_id": None},
        {"status_code": "201"},
        {"status_code": 200},
        {"gross_amount": "10000.0"},
        {"gross_amount": "10000"},
        {"gross_amount": 10000.00},
        {"gross_amount": None},
    ],
    ids=ascii,
)
def test_a_notification_that_is_not_what_was_signed_is_malformed(change: dict[str, Any]) -> None:
    """The texts count exactly as they came; a signature that is missing or unreadable is as bad as a wrong one."""
    document = {**orjson.loads(signed(a_document())), **change}
    body = orjson.dumps({name: value for name, value in document.items() if value is not None})

    with pytest.raises(Malformed):
        a_midtrans().verify({}, body)


def test_a_strangers_key_is_refused() -> None:
    """A signature by any other key is malformed."""
    with pytest.raises(Malformed):
        a_midtrans().verify({}, signed(a_document(), OTHER_KEY))


def test_signed_texts_cannot_be_cut_elsewhere() -> None:
    """Nothing separates what is signed: moving a digit from one field to the next is malformed."""
    whole = a_document()
    cut = {**whole, "order_id": whole["order_id"] + "2", "status_code": "00"}
    body = orjson.dumps({**cut, "signature_key": orjson.loads(signed(whole))["signature_key"]})

    with pytest.raises(Malformed):
        a_midtrans().verify({}, body)


@pytest.mark.parametrize("keys", [[], [""], [SERVER_KEY, ""], ["a:b"], ["schlüssel"], ["a\nb"]], ids=ascii)
def test_keys_that_cannot_be_keys_stop_the_start(keys: Sequence[str]) -> None:
    """With an empty key everybody could sign, and none of the others fits into a header."""
    with pytest.raises(Misconfigured) as caught:
        Midtrans(MidtransOptions(keys))

    assert SERVER_KEY not in caught.value.detail


def test_it_is_a_gateway() -> None:
    """It has what the protocol asks for, and its name."""
    assert Gateways(a_midtrans()).names == ("midtrans",)


# --- events ---------------------------------------------------------------------------------------------------------


def test_repeated_deliveries_share_an_event_and_anything_else_is_another() -> None:
    """Transaction, status, code, amount, fraud status and refunds make an event; the rest does not."""
    gateway = a_midtrans()
    refunds = [a_listed_refund()]
    event = gateway.verify({}, signed(a_document(refunds=refunds)))

    repeated = gateway.verify({}, signed(a_document(refunds=refunds, transaction_time="2026-03-01 18:27:20")))
    changes: list[dict[str, Any]] = [
        {"transaction_id": "another"},
        {"transaction_status": "refund"},
        {"status_code": "202"},
        {"gross_amount": "10000"},
        {"fraud_status": None},
        {"refunds": None},
        {"refunds": [a_listed_refund(refund_key="another")]},
        {"refunds": [a_listed_refund(bank_confirmed_at=None)]},
    ]
    others = set()
    for change in changes:
        document: dict[str, Any] = {**a_document(refunds=refunds), **change}
        others.add(gateway.verify({}, signed(document)))

    assert repeated == event
    assert len(others - {event}) == 8
    assert len(event) <= 255


# --- hostile input --------------------------------------------------------------------------------------------------

_FIELDS = [*a_document(), "refunds", "refund_key", "bank_confirmed_at", "refund_amount", "signature_key"]
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["refund", "200", "1.00"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(_FIELDS), inner),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(document=_JSON, status=st.sampled_from([None, *sorted({line.native for line in STATUSES})]))
def test_no_json_whatever_makes_the_gateway_raise_anything_else(document: Any, status: str | None) -> None:
    """Whatever comes, signed or not, is a notice or malformed."""
    if isinstance(document, dict) and status is not None:
        document = {**a_document(status), **document}
    body = json.dumps(document).encode()
    gateway = a_midtrans()

    for act in (gateway.read, lambda raw: gateway.verify({}, raw)):
        with suppress(Malformed):
            act(body)


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=100))
def test_no_bytes_whatever_pass_or_raise_anything_else(body: bytes) -> None:
    """Hostile input is malformed and nothing worse."""
    with pytest.raises(Malformed):
        a_midtrans().verify({}, body)


def test_nesting_without_end_is_malformed() -> None:
    """A body deeper than any reader's stack raises nothing else."""
    deep = b"[" * 1000 + b"]" * 1000
    body = signed(a_document()).replace(b'"accept"', deep)

    with pytest.raises(Malformed):
        a_midtrans().verify({}, body)
