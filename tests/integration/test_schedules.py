"""Do orders always end with goods or with the money back, whatever comes when, and however often?

A seed makes a schedule. `HOLDFAST_TEST_SEED=17` runs that one alone.
"""

import os
from collections import Counter
from collections.abc import Sequence

import pytest

from ops.audit import AuditLimits, audit
from shared.database import Database
from tests.scheduled_saga import FINAL, World

_LANES = 25
_ONE_SEED = os.environ.get("HOLDFAST_TEST_SEED")


def _seeds(first: int, count: int) -> Sequence[int]:
    return [int(_ONE_SEED)] if _ONE_SEED else range(first, first + count)


@pytest.mark.parametrize(
    ("first", "worlds"),
    [
        pytest.param(1, 4, id="a-hundred"),
        pytest.param(1_000, 200, marks=[pytest.mark.long, pytest.mark.timeout(3_600)], id="thousands"),
    ],
)
async def test_every_schedule_ends_with_goods_or_with_the_money_back(
    order_db: Database, inventory_db: Database, payment_db: Database, first: int, worlds: int
) -> None:
    """Whatever is early, late, repeated, lost or out of order: goods or the money back, exactly one; the audit agrees."""
    ends: Counter[str] = Counter()
    for seed in _seeds(first, worlds):
        world = World(seed, order=order_db, inventory_=inventory_db, payment=payment_db, lanes=_LANES)
        await world.run()
        ends += world.ends

    dsns = {"order": order_db.dsn, "inventory": inventory_db.dsn, "payment": payment_db.dsn}
    report = await audit(dsns, limits=AuditLimits(settle_seconds=0.0, second_look_seconds=0.01))
    assert report.findings == []
    assert _ONE_SEED or set(ends) == FINAL, ends
