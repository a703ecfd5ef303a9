"""How does each household of the demo pay, and in which money?

Midtrans takes rupiah alone. So the households that pay there live where that is money, and buy the same real products
under SKUs and prices of that market.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias

from benchmarks.baskets import CURRENCY, Basket, Line, Product, RealInput

GatewayName: TypeAlias = Literal["sandbox", "stripe", "midtrans"]

#: How the orders are shared out among the gateways.
WEIGHTS: Final[Mapping[GatewayName, int]] = {"sandbox": 2, "stripe": 1, "midtrans": 1}
RUPIAH: Final = "IDR"
#: A round rate; prices stay whole rupiah, as Midtrans wants them.
RUPIAH_PER_DOLLAR: Final = 16_000

_STRIPE_LEFT_OUT: Final = "the package stripe is not installed: install holdfast[stripe]"


@dataclass(frozen=True, slots=True)
class Offer:
    """A product as one market's catalog has it."""

    sku: str
    name: str
    price_minor: int
    currency: str


def find_gateways() -> tuple[tuple[GatewayName, ...], dict[str, str]]:
    """Return the gateways that can take part here, and why each of the others cannot."""
    if find_spec("stripe") is None:
        return ("sandbox", "midtrans"), {"stripe": _STRIPE_LEFT_OUT}
    return tuple(WEIGHTS), {}


def currency_of(gateway: GatewayName) -> str:
    """Return the currency of a gateway's customers."""
    return RUPIAH if gateway == "midtrans" else CURRENCY


def choose_gateways(baskets: Iterable[Basket], names: Sequence[GatewayName]) -> dict[str, GatewayName]:
    """Return how each household pays, always in the same way, so that every gateway gets its share of the baskets."""
    chosen: dict[str, GatewayName] = {}
    counts: Counter[GatewayName] = Counter()
    for basket in baskets:
        if basket.customer_id not in chosen:
            chosen[basket.customer_id] = min(names, key=lambda name: counts[name] / WEIGHTS[name])
        counts[chosen[basket.customer_id]] += 1
    return chosen


def localize(
    real: RealInput, gateways: Mapping[str, GatewayName]
) -> tuple[tuple[Basket, ...], dict[str, Offer]]:
    """Return the baskets in the SKUs of their markets, and what the catalog offers there, by SKU."""
    baskets = []
    offers: dict[str, Offer] = {}
    for basket in real.baskets:
        currency = currency_of(gateways[basket.customer_id])
        lines = []
        for line in basket.lines:
            offer = _offer(real.products[line.sku], currency)
            offers[offer.sku] = offer
            lines.append(Line(offer.sku, line.quantity))
        baskets.append(replace(basket, lines=tuple(lines)))
    return tuple(baskets), offers


def _offer(product: Product, currency: str) -> Offer:
    if currency == CURRENCY:
        return Offer(product.sku, product.name, product.price_minor, currency)
    # Cents of a dollar at so many rupiah a dollar are as many hundredths of a rupiah as cents times the rate.
    return Offer(f"{product.sku}:{currency}", product.name, product.price_minor * RUPIAH_PER_DOLLAR, currency)
