"""Does the watchdog tell a part that stands still from one that rests, works, or fails?"""

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from shared.access import Access
from shared.database import Database, DatabaseOptions
from shared.health import Health, Progress
from shared.web import make_app

WATCHDOG_SECONDS = 120.0


class Clock:
    """A time that the test sets."""

    seconds = 1_000.0

    def __call__(self) -> float:
        """Return it."""
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until a test moves it."""
    return Clock()


def test_a_part_that_owes_nothing_never_halts(clock: Clock) -> None:
    """Without work there is nothing to do: an idle night is no halt."""
    progress = Progress(clock)

    clock.seconds += 86_400

    assert progress.halted_seconds == 0


def test_what_is_owed_is_owed_since_the_first_time(clock: Clock) -> None:
    """Saying again that work waits does not make it younger."""
    progress = Progress(clock)

    for _ in range(5):
        progress.owes()
        clock.seconds += 30

    assert progress.halted_seconds == 150


def test_work_that_is_done_starts_the_time_anew(clock: Clock) -> None:
    """A part may be behind for hours; as long as it gets on, it does not halt."""
    progress = Progress(clock)

    for _ in range(100):
        progress.owes()
        clock.seconds += 100
        progress.done()
    progress.owes()
    clock.seconds += 7

    assert progress.halted_seconds == 7


def test_health_names_the_parts_that_halt(clock: Clock) -> None:
    """Only those over the limit, each with its seconds."""
    health = Health()
    parts = {name: Progress(clock) for name in ("relay", "orders", "sweeper")}
    for name, progress in parts.items():
        health.watch(name, progress)

    parts["relay"].owes()
    clock.seconds += 100
    parts["orders"].owes()
    clock.seconds += 50

    assert health.halted(WATCHDOG_SECONDS) == {"relay": 150}


@pytest.mark.parametrize(("stopping", "status"), [(False, 503), (True, 200)])
async def test_livez_tells_of_a_halt(clock: Clock, *, stopping: bool, status: int) -> None:
    """503 with the part's name, so that the process is restarted, unless it is stopping anyway."""
    health, progress = Health(started=True), Progress(clock)
    health.watch("relay", progress)
    app = make_app(
        [],
        access=Access(storefront=SecretStr("s" * 16), operator=SecretStr("o" * 16)),
        health=health,
        database=Database(DatabaseOptions(dsn="postgresql://nowhere")),
        openapi={},
        body_bytes_max=1_024,
        watchdog_seconds=WATCHDOG_SECONDS,
    )
    async with TestClient(TestServer(app)) as client:
        progress.owes()
        clock.seconds += WATCHDOG_SECONDS
        assert (await client.get("/livez")).status == 200
        clock.seconds += 1
        health.stopping = stopping

        response = await client.get("/livez")

        assert response.status == status
        assert stopping or "relay for 121 s" in await response.text()


async def test_metrics_tell_what_is_away_and_what_stands_still(clock: Clock) -> None:
    """What /readyz and /livez look at can be watched over time; a part that has come back is no longer away."""
    health = Health(started=True)
    health.watch("relay", Progress(clock))
    health.watched["relay"].owes()
    clock.seconds += 50
    health.down("kafka", "no broker answers")
    app = make_app(
        [],
        access=Access(storefront=SecretStr("storefront-token-1"), operator=SecretStr("operator-token-12")),
        health=health,
        database=Database(DatabaseOptions(dsn="postgresql://nowhere")),
        openapi={},
        body_bytes_max=1_024,
    )
    async with TestClient(TestServer(app)) as client:
        before = await (await client.get("/metrics")).text()
        health.up("kafka")
        health.down("relay", "away")
        after = await (await client.get("/metrics")).text()

    assert 'holdfast_part_away{part="kafka"} 1.0' in before
    assert 'holdfast_part_away{part="relay"} 0.0' in before
    assert 'holdfast_part_halted_seconds{part="relay"} 50.0' in before
    assert 'holdfast_part_away{part="kafka"}' not in after
    assert 'holdfast_part_away{part="relay"} 1.0' in after
