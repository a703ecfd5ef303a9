"""Does one bad item stand alone in the end, while its neighbours go through in order?"""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.splitting import apply_splitting


class Away(Exception):
    """Something that passes by itself."""


class Edge:
    """Applies batches of numbers, all or nothing; some numbers are bad."""

    def __init__(self, bad: set[int], *, away_at_call: int | None = None) -> None:
        self.applied: list[int] = []
        self.refused: list[int] = []
        self.calls = 0
        self._bad = bad
        self._away_at_call = away_at_call

    async def apply(self, items: Sequence[int]) -> None:
        """Apply a batch, unless one of it is bad."""
        self.calls += 1
        if self.calls == self._away_at_call:
            raise Away
        if self._bad & {*items}:
            raise ValueError(items)
        self.applied += items

    async def refuse(self, item: int, error: Exception) -> None:
        """Take what fails alone."""
        assert isinstance(error, ValueError)
        self.refused.append(item)

    async def run(self, items: Sequence[int]) -> None:
        """Apply with splitting."""
        await apply_splitting(
            items, self.apply, is_transient=lambda error: isinstance(error, Away), refuse=self.refuse
        )


async def test_a_good_batch_is_applied_once_as_a_whole() -> None:
    """Nothing is split without need."""
    edge = Edge(bad=set())

    await edge.run(range(100))

    assert (edge.applied, edge.refused, edge.calls) == ([*range(100)], [], 1)


async def test_one_bad_item_costs_two_tries_a_halving() -> None:
    """Among 512 items one bad one is found in 1 + 2 * 9 tries, and only it is refused."""
    edge = Edge(bad={300})

    await edge.run(range(512))

    assert edge.refused == [300]
    assert edge.applied == [number for number in range(512) if number != 300]
    assert edge.calls == 19


@settings(deadline=None)
@given(size=st.integers(1, 40), bad=st.sets(st.integers(0, 39)))
async def test_good_items_are_applied_in_order_and_bad_ones_refused_in_order(
    size: int, bad: set[int]
) -> None:
    """Whichever items are bad, each is applied or refused, once, in the order given."""
    edge = Edge(bad=bad)

    await edge.run(range(size))

    assert edge.applied == [number for number in range(size) if number not in bad]
    assert edge.refused == [number for number in range(size) if number in bad]


async def test_a_transient_error_is_nobody_s_fault() -> None:
    """It is raised as it is, and no item is refused for it."""
    edge = Edge(bad=set(), away_at_call=1)

    with pytest.raises(Away):
        await edge.run(range(8))

    assert (edge.applied, edge.refused, edge.calls) == ([], [], 1)


async def test_a_transient_error_in_a_half_stops_the_splitting() -> None:
    """What was applied before stays applied; the rest is left to whoever tries again."""
    edge = Edge(bad={0}, away_at_call=3)

    with pytest.raises(Away):
        await edge.run(range(8))

    assert (edge.applied, edge.refused) == ([], [])
    assert edge.calls == 3
