"""What does the payment service need to be told?"""

import base64
import binascii
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AnyHttpUrl, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from shared.settings import ServiceSettings

_SECRET_PREFIX = "whsec_"  # noqa: S105 (the public prefix of every Standard Webhooks secret)

GatewayName = Literal["sandbox", "stripe", "midtrans"]


def _split(value: object) -> object:
    """Split a comma list; anything else is left to be refused."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _split_seconds(value: object) -> object:
    """Split a comma list of seconds, which grow; anything else is left to be refused."""
    seconds = _split(value)
    try:
        numbers = tuple(float(part) for part in seconds) if isinstance(seconds, tuple) else ()
    except (TypeError, ValueError):
        return seconds
    if any(later <= sooner for sooner, later in pairwise(numbers)):
        raise ValueError("every number of seconds is larger than the one before")
    return seconds


def _split_secrets(value: object) -> object:
    """Split a comma list of Standard Webhooks secrets and check each without ever naming it."""
    secrets = _split(value)
    for secret in secrets if isinstance(secrets, tuple) else ():
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("every secret is whsec_ and padded base64") from error
        if not key or not secret.startswith(_SECRET_PREFIX):
            raise ValueError("every secret is whsec_ and padded base64")
    return secrets


_Secret = Annotated[SecretStr, Field(min_length=1, max_length=512)]


class Settings(ServiceSettings):
    """The settings of every service, the gateways, and the limits of what is asked of them."""

    gateways: Annotated[tuple[GatewayName, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("sandbox",), min_length=1, description="comma list of the gateways that are switched on"
    )
    default_gateway: GatewayName = Field("sandbox", description="gateway of attempts that name none")
    sandbox_url: AnyHttpUrl | None = Field(None, description="where the sandbox gateway is")
    sandbox_webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_secrets)] = (
        Field((), description="comma list: every one is accepted, while they are being changed")
    )
    stripe_secret_key: SecretStr | None = Field(None, description="the secret key of the account")
    stripe_webhook_secrets: Annotated[tuple[_Secret, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="comma list: signing secrets of the webhook endpoint, whsec_…"
    )
    stripe_base_url: AnyHttpUrl = Field(AnyHttpUrl("https://api.stripe.com"), description="Stripe's API")
    stripe_return_url: AnyHttpUrl | None = Field(
        None, description="where customers go afterwards whose attempt names no return_url"
    )
    midtrans_server_key: _Secret | None = Field(None, description="the server key of the account")
    midtrans_server_keys: Annotated[tuple[_Secret, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="comma list: other server keys that may sign, while they are being changed"
    )
    midtrans_base_url: AnyHttpUrl = Field(
        AnyHttpUrl("https://api.midtrans.com"), description="Midtrans's core API"
    )
    midtrans_snap_base_url: AnyHttpUrl = Field(
        AnyHttpUrl("https://app.midtrans.com"), description="Midtrans's Snap API"
    )

    payment_attempts_max: int = Field(
        1, ge=1, le=100, description="attempts allowed for one payment, failed or not"
    )
    payment_auto_initiate: bool = Field(False, description="start the first attempt without being asked")

    gateway_timeout_seconds: float = Field(
        10.0, gt=0, le=120, description="longest wait for a gateway's answer"
    )
    gateway_calls_max: int = Field(
        64, ge=1, le=1_000, description="calls under way to one gateway, of each kind"
    )
    gateway_interval_seconds: float = Field(
        0.25, gt=0, le=60, description="time between looks for due attempts and refunds"
    )
    gateway_retry_seconds_min: float = Field(
        0.5, gt=0, le=60, description="pause after the first unanswered call"
    )
    gateway_retry_seconds_max: float = Field(
        300.0, gt=0, le=86_400, description="longest pause between calls"
    )

    reconcile_schedule_seconds: Annotated[
        tuple[Annotated[float, Field(gt=0, le=2_592_000)], ...], NoDecode, BeforeValidator(_split_seconds)
    ] = Field(
        (300.0, 900.0, 3_600.0, 21_600.0, 86_400.0),
        min_length=1,
        max_length=20,
        description="comma list: ages at which an attempt is asked about that has not ended",
    )
    reconcile_before_expiry_seconds: float = Field(
        60.0, ge=0, le=86_400, description="how long before its hold ends an attempt is asked about once more"
    )
    reconcile_interval_seconds: float = Field(
        1.0, gt=0, le=60, description="time between looks for attempts to ask about"
    )

    judge_interval_seconds: float = Field(
        1.0, gt=0, le=60, description="time between looks for unjudged deliveries"
    )
    unmatched_seconds_max: float = Field(
        86_400.0, gt=0, le=2_592_000, description="how long a delivery waits for its attempt"
    )

    @property
    def midtrans_keys(self) -> tuple[SecretStr, ...]:
        """Every server key that may sign, the one that is also used to call first."""
        first = () if self.midtrans_server_key is None else (self.midtrans_server_key,)
        return (*first, *(key for key in self.midtrans_server_keys if key not in first))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.default_gateway not in self.gateways:
            raise ValueError("HOLDFAST_DEFAULT_GATEWAY is not among HOLDFAST_GATEWAYS")
        if "sandbox" in self.gateways and not (self.sandbox_url and self.sandbox_webhook_secrets):
            raise ValueError("the sandbox needs HOLDFAST_SANDBOX_URL and HOLDFAST_SANDBOX_WEBHOOK_SECRETS")
        if "stripe" in self.gateways and not (self.stripe_secret_key and self.stripe_webhook_secrets):
            raise ValueError("stripe needs HOLDFAST_STRIPE_SECRET_KEY and HOLDFAST_STRIPE_WEBHOOK_SECRETS")
        if "midtrans" in self.gateways and not self.midtrans_keys:
            raise ValueError("midtrans needs HOLDFAST_MIDTRANS_SERVER_KEY")
        return self
