"""In which units does Stripe count money, and where do they differ from ours?

Ours are the minor units of ISO 4217. Stripe's page "Supported currencies" says: two decimals "unless otherwise noted",
a list of currencies without decimals, five with three decimals whose last digit must be 0, and special cases. What is
not in `_RULES` is refused, since an amount that is wrong by a factor of 100 is worse than none:

- UGX stands both in the list without decimals and, with two, among the special cases;
- MGA has no decimals at Stripe, but two in ISO 4217;
- whatever the page lists no longer, or not yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.errors import Malformed


@dataclass(frozen=True, slots=True)
class _Rule:
    """How many of Stripe's units one of ours is, and of what each amount of Stripe's must be a multiple."""

    factor: int = 1
    multiple_of: int = 1


def _rules(rule: _Rule, codes: str) -> dict[str, _Rule]:
    return dict.fromkeys(codes.split(), rule)


_RULES: Final[Mapping[str, _Rule]] = {
    # "Supported currencies", section "Supported presentment currencies": two decimals there and in ISO 4217. Forints
    # and Taiwan dollars are among them: the special cases on that page concern payouts alone.
    **_rules(
        _Rule(),
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CNY COP CRC CVE "
        "CZK DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR JMD KES KGS KHR KYD "
        "KZT LAK LBP LKR LRD LSL MAD MDL MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK "
        "PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SEK SGD SHP SOS SRD SZL THB TJS TOP TRY TTD TWD TZS UAH USD UYU UZS "
        "WST XCD YER ZAR ZMW",  # codespell:ignore zar
    ),
    # "Supported currencies", section "Zero-decimal currencies": none there and none in ISO 4217.
    **_rules(_Rule(), "BIF CLP DJF GNF JPY KMF KRW PYG RWF VND VUV XAF XOF XPF"),
    # "Supported currencies", section "Three-decimal currencies": the last digit must be 0.
    **_rules(_Rule(multiple_of=10), "BHD JOD KWD OMR TND"),
    # "Supported currencies", section "Special cases": no decimals in ISO 4217, but two at Stripe, which are always 00.
    **_rules(_Rule(factor=100, multiple_of=100), "ISK"),
}


def stripe_amount(amount_minor: int, currency: str) -> int | None:
    """Return an amount of ours as Stripe counts it; None if Stripe cannot take it, or we are not sure how."""
    rule = _RULES.get(currency)
    if rule is None:
        return None
    amount = amount_minor * rule.factor
    return None if amount % rule.multiple_of else amount


def amount_minor(amount: int, currency: str) -> int:
    """Return an amount of Stripe's in our units; one in a currency that we never ask for stays as it is.

    Raises:
        Malformed: no amount of ours can be meant.
    """
    rule = _RULES.get(currency, _Rule())
    if amount % rule.factor:
        raise Malformed(f"{amount} is no whole amount of {currency}.")
    return amount // rule.factor
