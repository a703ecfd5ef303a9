"""How are the bodies of requests read? Strictly; fields that are not known are passed over."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """What every body has in common."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")
