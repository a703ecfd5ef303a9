"""Is it understood how long each payment method may take, and is anything else refused by its name?"""

import pytest

from services.order_service.settings import Settings
from shared.errors import Misconfigured
from shared.settings import load

_NEEDED = {
    "HOLDFAST_DATABASE_DSN": "postgresql://127.0.0.1/order",
    "HOLDFAST_HTTP_PORT": "0",
    "HOLDFAST_STOREFRONT_TOKEN": "storefront-token",
    "HOLDFAST_OPERATOR_TOKEN": "operator-token-1",
}


def settings_with(value: str) -> Settings:
    """Load the service's settings with holds by method."""
    return load(Settings, environment={**_NEEDED, "HOLDFAST_HOLD_SECONDS_BY_METHOD": value})


def test_each_method_has_its_hold() -> None:
    """A comma list, with room to breathe."""
    settings = settings_with("card=600, bank_transfer = 86400,")

    assert settings.hold_seconds_by_method == {"card": 600, "bank_transfer": 86_400}


def test_without_any_every_order_is_held_alike() -> None:
    """Then inventory decides."""
    assert load(Settings, environment=_NEEDED).hold_seconds_by_method == {}


@pytest.mark.parametrize(
    "value",
    ["card", "card=", "card=soon", "card=9", "card=86401", "card=-60", "Card=60", "=60", "card=60,card=70"],
)
def test_anything_else_stops_the_start(value: str) -> None:
    """No number, out of the limits of a hold, no name, or a name twice."""
    with pytest.raises(Misconfigured, match="HOLDFAST_HOLD_SECONDS_BY_METHOD"):
        settings_with(value)
