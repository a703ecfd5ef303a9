"""Does the Stripe gateway believe only what Stripe signed, lately, under one of our secrets?"""

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.payment_service.gateways.stripe import Stripe, StripeOptions
from shared.errors import Malformed, Misconfigured
from tests.stripe_building import (
    SECRET_KEY,
    WEBHOOK_SECRET,
    a_gateway,
    an_attempt,
    event,
    session,
    signed,
)

BODY = event("checkout.session.completed", session(an_attempt()))
EVENT_ID = "evt_1NG8Du2eZvKYlo2CUI79vXWy"
OTHER_SECRET = "whsec_another"


@pytest.mark.parametrize("secret", [WEBHOOK_SECRET, OTHER_SECRET])
def test_every_secret_of_a_rotation_is_accepted(secret: str) -> None:
    """While secrets are being changed, both the old and the new one sign; the event's id comes back."""
    gateway = a_gateway(webhook_secrets=[WEBHOOK_SECRET, OTHER_SECRET])

    assert gateway.verify(signed(BODY, secret=secret), BODY) == EVENT_ID


def test_one_of_several_signatures_is_enough() -> None:
    """While Stripe rolls a secret it signs with both; schemes that we do not know are passed over."""
    ours = signed(BODY)["stripe-signature"]
    stamp, right = ours.split(",")
    header = f"{stamp},v1={'0' * 64},{right},v0={'1' * 64}"

    assert a_gateway().verify({"stripe-signature": header}, BODY) == EVENT_ID


def test_a_strangers_secret_is_refused() -> None:
    """A signature by any other secret is malformed; with no secret at all everything is."""
    for gateway in (a_gateway(), a_gateway(webhook_secrets=[])):
        with pytest.raises(Malformed):
            gateway.verify(signed(BODY, secret=OTHER_SECRET), BODY)


def test_a_changed_body_is_refused() -> None:
    """The signature is over the bytes as they came."""
    headers = signed(BODY)

    with pytest.raises(Malformed):
        a_gateway().verify(headers, BODY.replace(b"1250", b"1251"))


@pytest.mark.parametrize(("seconds", "accepted"), [(-310, False), (-290, True), (0, True)])
def test_a_delivery_is_good_for_300_seconds(*, seconds: int, accepted: bool) -> None:
    """An older one is refused although it is signed: whoever recorded it cannot send it for ever."""
    headers = signed(BODY, at=time.time() + seconds)

    if accepted:
        assert a_gateway().verify(headers, BODY) == EVENT_ID
    else:
        with pytest.raises(Malformed):
            a_gateway().verify(headers, BODY)


@pytest.mark.parametrize(
    "header",
    [
        *("", "t", "t=", "v1=", "t=1", "t=NaN,v1=a", "t=1e400,v1=a", "t=-1,v1=a", ",", "=,=", "t=1,v1"),
        *("t=1,v1=\udcff", "t=\udcff,v1=a", "t=" + "9" * 5_000 + ",v1=a", "t=1,t=2,v1=", "\0", "t=1,v1=é"),
    ],
    ids=ascii,
)
def test_whatever_is_wrong_with_the_header_is_malformed(header: str) -> None:
    """Also where the verifier itself would raise something else; no header is as bad."""
    for headers in ({"stripe-signature": header}, {}):
        with pytest.raises(Malformed):
            a_gateway().verify(headers, BODY)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=100), header=st.text() | st.from_regex(r"t=[0-9]{1,12},v1=.*", fullmatch=True))
def test_no_bytes_whatever_pass_or_raise_anything_else(body: bytes, header: str) -> None:
    """Hostile input is malformed and nothing worse."""
    with pytest.raises(Malformed):
        a_gateway().verify({"stripe-signature": header}, body)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b"{}", b'{"id": 7}', b'{"id": ""}', b'{"id": "\\u0000"}']
)
def test_a_signed_body_without_a_usable_id_is_malformed(body: bytes) -> None:
    """Repeated deliveries are known by the event's id."""
    with pytest.raises(Malformed):
        a_gateway().verify(signed(body), body)


def test_nothing_that_is_raised_repeats_the_secret_or_the_body() -> None:
    """An error is logged with all that it was raised from."""
    with pytest.raises(Malformed) as raised:
        a_gateway().verify(signed(BODY, secret=OTHER_SECRET), BODY)

    error: BaseException | None = raised.value
    while error is not None:
        assert WEBHOOK_SECRET not in repr(vars(error)) + repr(error)
        assert "Jenny Rosen" not in repr(vars(error)) + repr(error)
        error = error.__cause__ or error.__context__


# --- the optional package -------------------------------------------------------------------------------------------


def test_without_the_package_the_gateway_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is switched on and cannot verify anything must not start."""
    monkeypatch.setitem(sys.modules, "stripe", None)

    with pytest.raises(Misconfigured, match=r"holdfast\[stripe\]"):
        Stripe(StripeOptions(SECRET_KEY, [WEBHOOK_SECRET]))


def test_the_service_does_not_load_the_package_while_the_gateway_is_off() -> None:
    """Importing the gateway's module and the whole service needs nothing of it."""
    program = (
        "import sys; sys.modules['stripe'] = None; import services.payment_service.main; "
        "import services.payment_service.gateways.stripe"
    )

    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)  # noqa: S603 (ours)

    assert done.returncode == 0, done.stderr.decode()
