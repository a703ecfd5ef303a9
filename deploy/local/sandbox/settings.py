"""What does the sandbox need to know, and where does it read it?"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AnyHttpUrl, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

SECRET_PREFIX = "whsec_"  # noqa: S105  (the public prefix of every Standard Webhooks secret)


class SettingsError(Exception):
    """The environment does not hold usable settings; one line for each thing that is wrong."""


def _secrets(value: Any) -> Any:
    """Split the comma list and check each secret without ever naming it."""
    secrets = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    for secret in secrets:
        try:
            key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("every secret is whsec_ and padded base64") from error
        if not key or not secret.startswith(SECRET_PREFIX):
            raise ValueError("every secret is whsec_ and padded base64")
    return secrets


class Settings(BaseModel):
    """Everything that can be set; `HOLDFAST_*_FILE` reads a value from a file."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, hide_input_in_errors=True)

    http_host: str = Field(default="127.0.0.1", alias="HOLDFAST_HTTP_HOST")
    http_port: int = Field(default=8004, ge=0, le=65_535, alias="HOLDFAST_HTTP_PORT")
    data_dir: Path = Field(alias="HOLDFAST_SANDBOX_DATA_DIR")
    webhook_url: AnyHttpUrl = Field(alias="HOLDFAST_SANDBOX_WEBHOOK_URL")
    # The first one signs; the others are what a receiver may still accept while secrets change.
    webhook_secrets: Annotated[tuple[str, ...], BeforeValidator(_secrets)] = Field(
        min_length=1, repr=False, alias="HOLDFAST_SANDBOX_WEBHOOK_SECRETS"
    )
    # How a browser reaches the pay page, where that is not the address listened on.
    public_url: AnyHttpUrl | None = Field(default=None, alias="HOLDFAST_SANDBOX_PUBLIC_URL")
    deliveries_max: int = Field(default=64, ge=1, le=1_000, alias="HOLDFAST_SANDBOX_DELIVERIES_MAX")
    delivery_timeout_seconds: float = Field(
        default=10, gt=0, le=300, alias="HOLDFAST_SANDBOX_DELIVERY_TIMEOUT_SECONDS"
    )
    retry_pause_seconds_max: float = Field(
        default=5, gt=0, le=3_600, alias="HOLDFAST_SANDBOX_RETRY_PAUSE_SECONDS_MAX"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", alias="HOLDFAST_LOG_LEVEL"
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings, or raise SettingsError with one line for each bad or missing one."""
        names = [field.alias for field in cls.model_fields.values() if field.alias]
        values = {name: value for name in names if (value := _value(environment, name)) is not None}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors(include_url=False)]
            raise SettingsError("\n".join(lines)) from None


def _value(environment: Mapping[str, str], name: str) -> str | None:
    """The variable itself, or the content of the file that `<name>_FILE` names."""
    if name in environment:
        return environment[name]
    path = environment.get(f"{name}_FILE")
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE: cannot be read: {error}") from error
