"""What do the orders of a measurement look like?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.baskets import read_real_input
from shared.events import OrderedLine, PlaceOrder
from shared.ids import new_id

_CUSTOMERS = 1_000
# Fuel is sold by thousandths of a gallon: some real quantities would empty any shelf, and say nothing about speed.
_QUANTITY_MAX = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of orders: every SKU that they name, and the lines of the n-th of them."""

    name: str
    skus: Sequence[str]
    lines: Callable[[int], tuple[OrderedLine, ...]]

    def orders(self, count: int) -> list[PlaceOrder]:
        """Return so many orders, each with an id of its own."""
        return [
            PlaceOrder(
                order_id=new_id(),
                customer_id=f"customer-{number % _CUSTOMERS}",
                currency="EUR",
                lines=self.lines(number),
            )
            for number in range(count)
        ]


def uniform(name: str, *, skus: int, lines: int) -> Shape:
    """Return orders of one unit a line that go round all SKUs."""
    names = [f"bench-{skus}-{number}" for number in range(skus)]

    def lines_of(number: int) -> tuple[OrderedLine, ...]:
        first = number * lines
        return tuple(OrderedLine(sku=names[(first + line) % skus], quantity=1) for line in range(lines))

    return Shape(name, names, lines_of)


def synthetic_shapes() -> list[Shape]:
    """Return the shapes that need no data: one line of many SKUs, three lines, one hot SKU."""
    return [
        uniform("1 line of 10,000 SKUs", skus=10_000, lines=1),
        uniform("3 lines of 9,999 SKUs", skus=9_999, lines=3),
        uniform("1 line, one hot SKU", skus=1, lines=1),
    ]


def real_baskets(count: int) -> Shape:
    """Return real grocery baskets, over and over if there are not enough; what a basket names twice is one line.

    Raises:
        Misconfigured: the extra `demo` is not installed.
    """
    real = read_real_input(count)
    baskets = []
    for basket in real.baskets:
        quantities: dict[str, int] = {}
        for line in basket.lines:
            quantities[line.sku] = min(quantities.get(line.sku, 0) + line.quantity, _QUANTITY_MAX)
        lines = tuple(OrderedLine(sku=sku, quantity=quantity) for sku, quantity in quantities.items())
        baskets.append(lines)
    return Shape(
        f"{count:,} real baskets", sorted(real.products), lambda number: baskets[number % len(baskets)]
    )
