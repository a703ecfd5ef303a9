"""What does the inventory service need to be told?"""

from pydantic import Field

from shared.settings import ServiceSettings

HOLD_SECONDS = 900


class Settings(ServiceSettings):
    """The settings of every service, and how long stock is held."""

    hold_seconds: int = Field(
        HOLD_SECONDS, ge=1, le=86_400, description="hold of an order that does not say how long"
    )
    hold_grace_seconds: float = Field(
        60.0, ge=0, le=86_400, description="time from the end of a hold to its sweep"
    )
    sweep_interval_seconds: float = Field(
        1.0, gt=0, le=3_600, description="time between sweeps when nothing is due"
    )
    sweep_batch_max: int = Field(500, ge=1, le=10_000, description="holds released in one transaction")
    receipts_batch_max: int = Field(
        50, ge=1, le=1_000, description="receipts and adjustments in one transaction"
    )
    receipt_bytes_max: int = Field(
        2_097_152, ge=65_536, le=16_777_216, description="bytes of one stock receipt"
    )
