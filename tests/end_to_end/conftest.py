"""Which system do the end-to-end tests speak to? One `holdfast up` a run, with short holds so that they can expire."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end.driver import Driver, running

FAST = {
    "HOLDFAST_HOLD_GRACE_SECONDS": "1",
    "HOLDFAST_SWEEP_INTERVAL_SECONDS": "0.2",
    "HOLDFAST_PAYMENT_ATTEMPTS_MAX": "3",
    # A group waits so long for a member that was killed; Kafka allows no less.
    "HOLDFAST_SESSION_TIMEOUT_SECONDS": "6",
}


@pytest.fixture(scope="package")
async def system(parts_folder: Path) -> AsyncIterator[Driver]:
    """A whole system of its own processes; each test brings its own SKUs and orders."""
    async with running(parts_folder / "system", **FAST) as driver:
        yield driver
