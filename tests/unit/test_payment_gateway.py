"""Does the sandbox gateway believe only what is signed, and understand only what makes sense?"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.payment_service.domain.attempts import AttemptStatus, RefundNotice
from services.payment_service.gateways.sandbox import Sandbox, SandboxOptions
from shared.errors import Malformed
from tests.integration.payment_harness import SECRET, signed, webhook_body
from tests.payment_building import AMOUNT_MINOR, an_attempt_of, an_open_payment

OTHER_SECRET = "whsec_bmV3"
ATTEMPT = an_attempt_of(an_open_payment())
BODY = webhook_body(ATTEMPT)


def a_sandbox(*secrets: str) -> Sandbox:
    """Return the gateway as it is switched on with some secrets."""
    return Sandbox(SandboxOptions("http://127.0.0.1:1", secrets or [SECRET]))


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
def test_every_secret_of_a_rotation_is_accepted(secret: str) -> None:
    """While secrets are being changed, both the old and the new one sign."""
    headers = signed(BODY, "e-1", secret=secret)

    assert a_sandbox(SECRET, OTHER_SECRET).verify(headers, BODY) == "e-1"


def test_a_strangers_secret_is_refused() -> None:
    """A signature by any other secret is malformed."""
    with pytest.raises(Malformed):
        a_sandbox().verify(signed(BODY, "e-1", secret=OTHER_SECRET), BODY)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": ""},
        {"webhook-id": "e-2"},
        {"webhook-id": "x" * 300},
        {"webhook-id": "e\udcff"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "NaN"},
        {"webhook-timestamp": "1e400"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,A"},
        {"webhook-signature": "v1,\udcff\udcfe"},
        {"webhook-signature": "v2,AAAA v1a,BBBB"},
    ],
    ids=ascii,
)
def test_whatever_is_wrong_with_the_headers_is_malformed(change: dict[str, str]) -> None:
    """Also where the verifier itself would raise something else; a missing header is as bad."""
    headers = {**signed(BODY, "e-1"), **change}
    missing = {name: value for name, value in headers.items() if name not in change}

    for given_headers in (headers, missing):
        with pytest.raises(Malformed):
            a_sandbox().verify(given_headers, BODY)


@pytest.mark.parametrize(("seconds", "accepted"), [(-310, False), (-290, True), (290, True), (310, False)])
def test_the_tolerance_of_the_time_is_300_seconds_either_way(*, seconds: int, accepted: bool) -> None:
    """An old or early delivery is refused although it is signed."""
    headers = signed(BODY, "e-1", at=datetime.now(UTC) + timedelta(seconds=seconds))

    if accepted:
        assert a_sandbox().verify(headers, BODY) == "e-1"
    else:
        with pytest.raises(Malformed):
            a_sandbox().verify(headers, BODY)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=100), identity=st.text(), stamp=st.text(), signature=st.text())
def test_no_bytes_whatever_pass_or_raise_anything_else(
    body: bytes, identity: str, stamp: str, signature: str
) -> None:
    """Hostile input is malformed and nothing worse."""
    headers = {"webhook-id": identity, "webhook-timestamp": stamp, "webhook-signature": signature}

    with pytest.raises(Malformed):
        a_sandbox().verify(headers, body)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["type", "data", "payment_id", "reference", "amount_minor"]), inner
            )
        ),
        max_leaves=6,
    )
)
def test_no_json_whatever_makes_the_reader_raise_anything_else(document: Any) -> None:
    """A signed body is a notice or malformed."""
    try:
        notice = a_sandbox().read(json.dumps(document).encode())
    except Malformed:
        return
    assert notice.native_status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"type": 1, "data": {}}',
        b'{"type": "payment.succeeded"}',
        b'{"type": "payment.succeeded", "data": {"payment_id": "p"}}',
        webhook_body(ATTEMPT, amount_minor="1250"),
        webhook_body(ATTEMPT, amount_minor=-1),
        webhook_body(ATTEMPT, amount_minor=2**53),
        webhook_body(ATTEMPT, amount_minor=12.5),
        webhook_body(ATTEMPT, amount_minor=True),
        webhook_body(ATTEMPT, currency="EURO"),
        webhook_body(ATTEMPT, payment_id="p\0"),
        webhook_body(ATTEMPT, occurred_at="yesterday"),
        webhook_body(ATTEMPT, occurred_at="2026-03-01T12:00:00"),
        webhook_body(ATTEMPT, occurred_at="0001-01-01T00:00:00+23:00"),
    ],
)
def test_a_body_that_says_nothing_readable_is_malformed(body: bytes) -> None:
    """The gateway's signature does not make nonsense true."""
    with pytest.raises(Malformed):
        a_sandbox().read(body)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("succeeded", AttemptStatus.SUCCEEDED),
        ("failed", AttemptStatus.FAILED),
        ("expired", AttemptStatus.EXPIRED),
        ("created", None),
    ],
)
def test_each_type_of_webhook_is_read_as_our_word_for_it(kind: str, status: AttemptStatus | None) -> None:
    """An unknown type says nothing that concerns us."""
    notice = a_sandbox().read(webhook_body(ATTEMPT, kind))

    assert notice.status is status
    assert notice.attempt_id == (ATTEMPT.attempt_id if status else None)


def test_a_refund_is_read_with_the_gateways_id() -> None:
    """What went back, and under which name the gateway knows it."""
    notice = a_sandbox().read(webhook_body(ATTEMPT, "refunded", refund_id="r-1"))

    assert (notice.status, notice.refund) == (None, RefundNotice(AMOUNT_MINOR, "EUR", "r-1"))


def test_a_reference_that_is_not_ours_is_passed_over() -> None:
    """The gateway's own id may still name the attempt."""
    notice = a_sandbox().read(webhook_body(ATTEMPT, reference="somebody else's"))

    assert (notice.attempt_id, notice.transaction_id) == (None, ATTEMPT.gateway_transaction_id)
