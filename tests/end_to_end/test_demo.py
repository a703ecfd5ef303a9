"""Does the demonstration that newcomers run first end as it promises?"""

import orjson

from tests.end_to_end.test_commands import holdfast

_ORDERS = 60


async def test_real_baskets_all_end_and_the_audit_is_clean() -> None:
    """Real baskets, with every kind of trouble among their customers, leave no order open and no finding."""
    status, out, error = await holdfast("demo", "--orders", str(_ORDERS), "--json", timeout_seconds=180)

    assert status == 0, error[-3_000:]
    summary = orjson.loads(out)
    assert summary["ok"], summary["problems"]
    assert summary["audit"]["findings"] == []
    assert summary["open_orders"] == []
    assert sum(summary["by_status"].values()) == summary["orders"] == _ORDERS
    assert summary["duplicates_absorbed"] > 0
