"""Is every household of the demo in the market of its gateway?"""

import sys

import pytest

from benchmarks.baskets import Basket, Line, Product, RealInput
from ops.demo.market import choose_gateways, find_gateways, localize

BASKETS = (Basket(1, "900", (Line("a", 2),)), Basket(2, "901", (Line("a", 1),)))
REAL = RealInput(BASKETS, {"a": Product("a", "Tea", 139)}, {})


def test_who_pays_in_rupiah_buys_the_same_product_at_whole_rupiah() -> None:
    """Midtrans takes rupiah without decimals: the product has an SKU and a price of that market beside its own."""
    baskets, offers = localize(REAL, {"900": "stripe", "901": "midtrans"})

    assert [basket.lines for basket in baskets] == [(Line("a", 2),), (Line("a:IDR", 1),)]
    assert {sku: (offer.price_minor, offer.currency) for sku, offer in offers.items()} == {
        "a": (139, "USD"),
        "a:IDR": (2_224_000, "IDR"),
    }
    assert offers["a:IDR"].price_minor % 100 == 0


def test_without_the_package_of_stripe_its_customers_pay_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the extra has a demo all the same, and is told what is missing."""
    monkeypatch.setitem(sys.modules, "stripe", None)

    names, left_out = find_gateways()

    assert names == ("sandbox", "midtrans")
    assert left_out == {"stripe": "the package stripe is not installed: install holdfast[stripe]"}
    assert set(choose_gateways(BASKETS, names).values()) == {"sandbox", "midtrans"}
