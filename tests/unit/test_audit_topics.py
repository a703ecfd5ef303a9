"""Does the audit know which numbers of a key came, in whatever order, and how often?"""

from hypothesis import given
from hypothesis import strategies as st

from ops.audit.topics import Seen


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 12)), max_size=40))
def test_what_was_seen_is_known_in_any_order(events: list[tuple[str, int]]) -> None:
    """Each key's missing numbers, lowest and highest are those of the plain set of its numbers."""
    seen = Seen()

    for key, number in events:
        seen.add(key, number)

    for key in ("a", "b"):
        expected = {number for other, number in events if other == key}
        numbers = seen.take(key)
        if numbers is None:
            assert not expected
            continue
        assert {*numbers.missing(1, 14)} == {*range(1, 15)} - expected
        assert (numbers.lowest, numbers.highest) == (min(expected), max(expected))


def test_what_is_taken_is_forgotten() -> None:
    """What remains has a key that nobody asked for, with its highest number."""
    seen = Seen()
    for key, number in [("a", 1), ("b", 1), ("b", 2), ("c", 4), ("c", 9)]:
        seen.add(key, number)

    seen.take("a")

    assert seen.rest() == {"b": 2, "c": 9}
    assert seen.take("a") is None
