"""Are real receipts turned into baskets, prices and a count of the dirt?"""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

import benchmarks.baskets
from benchmarks.baskets import LINES_MAX, Row, collect, read_real_input
from shared.errors import Invalid


def row(
    product_id: int, quantity: int = 1, sales_value: float = 1.0, *, basket_id: int = 7, at: int = 0
) -> Row:
    """A line of a receipt that is fine unless told otherwise."""
    return Row(
        household_id=900,
        basket_id=basket_id,
        product_id=product_id,
        quantity=quantity,
        sales_value=sales_value,
        at=at,
    )


def test_baskets_of_the_same_moment_are_kept_apart() -> None:
    """Rows of two tills that ring at the same second become two baskets, in the order of their first rows."""
    rows = [row(1, basket_id=8), row(2, basket_id=7), row(3, basket_id=8)]

    baskets, _, _ = collect(rows, 10)

    assert [(basket.basket_id, [line.sku for line in basket.lines]) for basket in baskets] == [
        (8, ["1", "3"]),
        (7, ["2"]),
    ]


def test_no_more_is_read_than_is_needed() -> None:
    """With enough baskets, what follows them in time is not looked at beyond the next moment."""
    rows = iter([row(1, at=1), row(2, at=2, basket_id=8), row(3, at=3, basket_id=9)])

    baskets, _, _ = collect(rows, 1)

    assert len(baskets) == 1
    assert next(rows).at == 3


def test_lines_that_cannot_be_ordered_are_left_out_and_counted() -> None:
    """A quantity of 0 or above the limit drops its line alone."""
    rows = [row(1, 0), row(2, 1_000_001), row(3, 1_000_000, 5_000.0)]

    baskets, _, dirt = collect(rows, 10)

    assert [line.sku for line in baskets[0].lines] == ["3"]
    assert dirt["lines_without_quantity"] == 1
    assert dirt["lines_over_quantity_limit"] == 1


def test_a_basket_without_a_usable_line_is_left_out_and_counted() -> None:
    """Nothing is ordered for a receipt on which every quantity is 0."""
    baskets, _, dirt = collect([row(1, 0)], 10)

    assert baskets == ()
    assert dirt["baskets_left_empty"] == 1


def test_a_basket_with_too_many_lines_is_left_out_and_counted() -> None:
    """An order takes 500 lines and not one more."""
    rows = [row(product, basket_id=1, at=1) for product in range(LINES_MAX)]
    rows += [row(product, basket_id=2, at=2) for product in range(LINES_MAX + 1)]

    baskets, _, dirt = collect(rows, 10)

    assert [len(basket.lines) for basket in baskets] == [LINES_MAX]
    assert dirt["baskets_too_long"] == 1


@pytest.mark.parametrize(
    ("quantity", "sales_value", "price_minor"),
    [(1, 1.43, 143), (2, 2.79, 140), (3, 1.0, 33), (4, 0.0, 0), (12_000, 30.0, 1), (1, 0.285, 28)],
)
def test_a_unit_price_is_whole_cents(quantity: int, sales_value: float, price_minor: int) -> None:
    """It is rounded half up, at least one cent for what is not free, and 0 for what is."""
    _, prices, _ = collect([row(1, quantity, sales_value)], 10)

    assert prices == {"1": price_minor}


def test_the_price_of_a_product_is_the_median_of_what_was_paid() -> None:
    """One discount and one odd price do not decide what the catalog says; of two middle prices the lower one does."""
    rows = [
        row(1, 1, value, basket_id=number, at=number) for number, value in enumerate([2.0, 1.0, 9.0, 1.5])
    ]

    _, prices, _ = collect(rows, 10)

    assert prices == {"1": 150}


def test_the_real_data_gives_what_is_asked_for() -> None:
    """The first baskets of the wheel have lines, prices, names, and the dirt that is known to be in them."""
    real = read_real_input(100)

    assert len(real.baskets) == 100
    assert {line.sku for basket in real.baskets for line in basket.lines} == real.products.keys()
    assert real.products["1095275"].name == "ROLLS: BAGELS 4 OZ"
    assert real.dirt["lines_without_quantity"] > 0


def test_more_baskets_than_there_are_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for more than the data hold is told how many there are, and nothing is made up."""
    rows = [row(1, basket_id=number, at=number) for number in range(3)]
    columns = dict(zip([*Row._fields[:-1], "transaction_timestamp"], zip(*rows, strict=True), strict=True))
    parquet.write_table(pa.table(columns), tmp_path / "transactions.parquet")
    monkeypatch.setattr(benchmarks.baskets, "_data_folder", lambda: tmp_path)

    with pytest.raises(Invalid, match="There are 3 real baskets that can be ordered, not 4"):
        read_real_input(4)


def test_a_demo_of_nothing_is_an_error() -> None:
    """No baskets, no demo."""
    with pytest.raises(Invalid):
        read_real_input(0)
