"""Is the payment service told in one clear line what its gateways still need?"""

from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.payment_service.main import wire
from services.payment_service.settings import Settings
from shared.database import Database, DatabaseOptions
from shared.errors import Misconfigured
from shared.runtime import Service
from shared.settings import load

NEEDED = {
    "HOLDFAST_DATABASE_DSN": "postgresql://nowhere",
    "HOLDFAST_HTTP_PORT": "0",
    "HOLDFAST_STOREFRONT_TOKEN": "storefront-token-1",
    "HOLDFAST_OPERATOR_TOKEN": "operator-token-12",
    "HOLDFAST_SANDBOX_URL": "http://127.0.0.1:1",
    "HOLDFAST_SANDBOX_WEBHOOK_SECRETS": "whsec_c2VjcmV0",
}
STRIPE = {"HOLDFAST_STRIPE_SECRET_KEY": "sk_test_1", "HOLDFAST_STRIPE_WEBHOOK_SECRETS": "whsec_a,whsec_b"}
MIDTRANS = {"HOLDFAST_MIDTRANS_SERVER_KEY": "SB-1", "HOLDFAST_MIDTRANS_SERVER_KEYS": "SB-1,SB-2"}
ALL = {"HOLDFAST_GATEWAYS": "sandbox,stripe,midtrans", **STRIPE, **MIDTRANS}


def settings_with(**given: str) -> Settings:
    """Return the settings that an environment makes."""
    return load(Settings, environment={**NEEDED, **given})


@pytest.mark.parametrize(
    ("gateways", "given", "missing"),
    [
        ("sandbox,stripe", {}, "HOLDFAST_STRIPE_SECRET_KEY"),
        (
            "sandbox,stripe",
            {"HOLDFAST_STRIPE_SECRET_KEY": "sk_test_1"},
            "HOLDFAST_STRIPE_WEBHOOK_SECRETS",
        ),
        ("sandbox,midtrans", {}, "HOLDFAST_MIDTRANS_SERVER_KEY"),
        ("sandbox,paypal", {}, "HOLDFAST_GATEWAYS"),
        ("stripe", STRIPE, "HOLDFAST_DEFAULT_GATEWAY"),
    ],
)
def test_a_gateway_without_its_secrets_stops_the_start(
    gateways: str, given: dict[str, str], missing: str
) -> None:
    """One line that names what is missing, and no secret."""
    with pytest.raises(Misconfigured) as refused:
        settings_with(HOLDFAST_GATEWAYS=gateways, **given)

    assert missing in refused.value.detail
    assert "\n" not in refused.value.detail
    assert "sk_test_1" not in refused.value.detail


def test_secrets_of_gateways_that_are_off_are_passed_over() -> None:
    """A gateway that is not named is off, whether or not its secrets are there."""
    settings = settings_with(**STRIPE, **MIDTRANS)

    assert settings.gateways == ("sandbox",)
    assert "sk_test_1" not in repr(settings)


def test_several_server_keys_may_sign_at_once() -> None:
    """The one that is also used to call comes first, and none twice."""
    settings = settings_with(**ALL)

    assert [key.get_secret_value() for key in settings.midtrans_keys] == ["SB-1", "SB-2"]


async def parts_of(**given: str) -> list[str]:
    """Return the names of the parts of a service that is wired and not started."""
    async with AsyncExitStack() as stack:
        database = Database(DatabaseOptions(dsn="postgresql://nowhere"))
        service: Service[Settings] = Service("payment-service", settings_with(**given), database, stack)
        await wire(service)
        return [part.name for part in service.parts]


async def test_each_gateway_that_is_on_has_its_own_workers() -> None:
    """Attempts, refunds and reconciliation of one gateway do not wait for another."""
    names = await parts_of(**ALL)

    assert {f"{name}_reconciling" for name in ("sandbox", "stripe", "midtrans")} <= {*names}


@pytest.mark.parametrize("value", ["", "0,1", "300,300", "900,300", "soon", ",".join(["1"] * 21)])
def test_a_schedule_is_a_list_of_growing_seconds(value: str) -> None:
    """Anything else is refused by its name."""
    with pytest.raises(Misconfigured, match="HOLDFAST_RECONCILE_SCHEDULE_SECONDS"):
        settings_with(HOLDFAST_RECONCILE_SCHEDULE_SECONDS=value)


def test_the_schedule_is_what_was_given() -> None:
    """Seconds, in any notation of numbers."""
    settings: Any = settings_with(HOLDFAST_RECONCILE_SCHEDULE_SECONDS="0.5, 300,900")

    assert settings.reconcile_schedule_seconds == (0.5, 300.0, 900.0)
