"""Does the demonstration that newcomers run first end as it promises?"""

import orjson
import pytest

from ops.demo.plan import Story
from tests.end_to_end.test_commands import holdfast

#: Enough for every story at every gateway.
_ORDERS = 120


async def test_real_baskets_all_end_and_the_audit_is_clean() -> None:
    """With every kind of trouble at each of three gateways no order is left open, nothing is found, all money is right.

    The caller's keys, if there are any, are not those that the demo uses: with them its doubles would refuse every call.
    """
    keys = {
        "HOLDFAST_GATEWAYS": "stripe",
        "HOLDFAST_DEFAULT_GATEWAY": "stripe",
        "HOLDFAST_STRIPE_SECRET_KEY": "sk_live_somebody-else-s",
        "HOLDFAST_STRIPE_WEBHOOK_SECRETS_FILE": "/nowhere",
        "HOLDFAST_MIDTRANS_SERVER_KEY": "Mid-server-somebody-else-s",
    }

    status, out, error = await holdfast(
        "demo", "--orders", str(_ORDERS), "--json", given=b"", timeout_seconds=180, **keys
    )

    assert status == 0, error[-3_000:]
    summary = orjson.loads(out)
    assert summary["ok"], summary["problems"]
    assert summary["audit"]["findings"] == []
    assert summary["open_orders"] == []
    assert sum(summary["by_status"].values()) == summary["orders"] == _ORDERS
    assert summary["duplicates_absorbed"] > 0
    assert set(summary["by_story"]) >= {story.value for story in Story} - {Story.GETS_IT_FREE.value}
    assert [(name, at["orders"]) for name, at in summary["gateways"].items()] == [
        ("sandbox", 60),
        ("stripe", 30),
        ("midtrans", 30),
    ]
    for at in summary["gateways"].values():
        assert at["taken_minor"] > at["given_back_minor"] > 0
        assert at["webhooks"]["duplicate"] > 0
        assert at["found_by_asking"] >= 1
        assert set(at["by_status"]) == set(summary["by_status"])
    mended = summary["mended"]
    assert mended["found_by_reconciliation"] == mended["webhooks_lost"] == 3
    assert mended["second_payments_refunded"] == mended["paid_twice"] == 3
    assert mended["late_with_money_back"] == 3
    assert mended["paid_late"] == mended["late_with_goods"] + mended["late_with_money_back"]
    assert mended["refunded_by_operator"] == 3


@pytest.mark.parametrize(
    "name",
    ["HOLDFAST_PAYMENT_DATABASE_DSN", "HOLDFAST_ORDER_DATABASE_DSN_FILE", "HOLDFAST_KAFKA_BOOTSTRAP_SERVERS"],
)
async def test_the_demo_keeps_away_from_real_stores(name: str) -> None:
    """Where the settings name a database or a Kafka it sells nothing: it could be the shop's own."""
    status, out, error = await holdfast(
        "demo", "--orders", "1", given=b"", timeout_seconds=60, **{name: "somewhere"}
    )

    assert (status, out) == (2, "")
    assert f"unset {name}" in error
