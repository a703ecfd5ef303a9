"""Do pauses grow, within their limits, and never in step?"""

from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import Backoff


@given(tries=st.integers(1, 10_000))
def test_a_pause_stays_within_its_limits(tries: int) -> None:
    """However often something failed, the pause is neither nothing nor longer than the maximum."""
    backoff = Backoff(seconds_min=0.1, seconds_max=5.0)

    assert 0.05 <= backoff.seconds(tries) <= 5.0


def test_the_ceiling_doubles_up_to_the_maximum() -> None:
    """Pauses after few failures are short, and later ones reach towards the maximum."""
    backoff = Backoff(seconds_min=0.1, seconds_max=5.0)

    longest = [max(backoff.seconds(tries) for _ in range(500)) for tries in (1, 2, 3, 12)]

    assert longest[0] <= 0.1 < longest[1] <= 0.2 < longest[2] <= 0.4 < longest[3] <= 5.0


def test_two_clients_do_not_come_back_at_once() -> None:
    """Pauses after the same number of failures differ."""
    backoff = Backoff()

    assert len({backoff.seconds(5) for _ in range(20)}) > 1
