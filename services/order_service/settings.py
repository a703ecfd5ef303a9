"""How is the order service configured?"""

from pydantic import Field

from shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the order service needs to be told."""

    holds_per_customer_max: int = Field(
        0, ge=0, le=1_000_000, description="unpaid orders that a customer may have open at once; 0: no limit"
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
