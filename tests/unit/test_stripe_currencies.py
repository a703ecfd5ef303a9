"""Is Stripe asked for exactly the money that is meant, in each currency's own units?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment_service.gateways.stripe_currencies import _RULES, amount_minor, stripe_amount
from shared.errors import Malformed


@pytest.mark.parametrize(
    ("currency", "minor", "expected"),
    [
        ("EUR", 1_250, 1_250),
        ("USD", 1, 1),
        ("HUF", 1_045, 1_045),
        ("TWD", 80_045, 80_045),
        ("JPY", 500, 500),
        ("KRW", 500, 500),
        ("ISK", 5, 500),
        ("KWD", 5_120, 5_120),
        ("KWD", 5_124, None),
        ("UGX", 500, None),
        ("MGA", 500, None),
        ("XAU", 500, None),
        ("eur", 500, None),
    ],
)
def test_an_amount_is_asked_for_as_the_vendor_counts(currency: str, minor: int, expected: int | None) -> None:
    """The examples of the page "Supported currencies"; what is not certain is not asked for at all."""
    assert stripe_amount(minor, currency) == expected


@given(st.sampled_from(sorted(_RULES)), st.integers(0, 10**9))
def test_what_is_asked_for_is_what_is_read_back(currency: str, minor: int) -> None:
    """An amount that Stripe repeats means the same to us."""
    asked = stripe_amount(minor, currency)

    assert asked is None or amount_minor(asked, currency) == minor


def test_a_fraction_that_cannot_be_is_malformed() -> None:
    """There is no half krona that we could have asked for."""
    with pytest.raises(Malformed):
        amount_minor(550, "ISK")


def test_another_currency_is_read_as_it_stands() -> None:
    """It was never asked for, so that the judge sees a mismatch of currency and not an unreadable delivery."""
    assert amount_minor(777, "UGX") == 777
