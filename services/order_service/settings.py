"""How is the order service configured?"""

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from shared.events import HoldSeconds, PaymentMethod
from shared.settings import ServiceSettings


def _split_pairs(value: object) -> object:
    """Split a comma list of `name=number`; anything else is left to be refused."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(number.strip().isascii() and number.strip().isdecimal() for _, _, number in pairs):
        raise ValueError("is a comma list of method=seconds, such as card=900,bank_transfer=86400")
    if len({name.strip() for name, _, _ in pairs}) < len(pairs):
        raise ValueError("names a method twice")
    return {name.strip(): int(number) for name, _, number in pairs}


class Settings(ServiceSettings):
    """What the order service needs to be told."""

    holds_per_customer_max: int = Field(
        0, ge=0, le=1_000_000, description="unpaid orders that a customer may have open at once; 0: no limit"
    )
    hold_seconds_by_method: Annotated[
        dict[PaymentMethod, HoldSeconds], NoDecode, BeforeValidator(_split_pairs)
    ] = Field(
        default_factory=dict,
        max_length=100,
        description="comma list method=seconds: hold of an order that names its payment_method and no hold_seconds",
    )
    idempotency_retention_hours: int = Field(
        24, ge=1, le=8_760, description="how long the answer to a request under an Idempotency-Key is kept"
    )
    cart_retention_hours: int = Field(
        2_160, ge=1, le=87_600, description="how long an open cart is kept that nobody touches"
    )
    housekeeping_interval_seconds: float = Field(
        60.0, gt=0, le=86_400, description="time between looks for old keys and carts"
    )
