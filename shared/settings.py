"""How is a process configured?

By the environment: every name begins with HOLDFAST_, has a type and a unit, and may end in _FILE to be read from a
file. A name that no service knows, and a value that does not fit, stop the start with one clear line each.
"""

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.errors import Misconfigured

PREFIX = "HOLDFAST_"
_FILE_SUFFIX = "_FILE"

#: Settings of other processes that may stand in the same environment: the operators' commands, `up`, the sandbox.
NOT_OF_A_SERVICE = frozenset(
    {
        "HOLDFAST_ORDER_DATABASE_DSN",
        "HOLDFAST_INVENTORY_DATABASE_DSN",
        "HOLDFAST_PAYMENT_DATABASE_DSN",
        "HOLDFAST_ORDER_URL",
        "HOLDFAST_INVENTORY_URL",
        "HOLDFAST_PAYMENT_URL",
        "HOLDFAST_CACHE_DIR",
        "HOLDFAST_DATA_DIR",
        "HOLDFAST_OPERATOR_NAME",
        "HOLDFAST_SANDBOX_DATA_DIR",
        "HOLDFAST_SANDBOX_WEBHOOK_URL",
    }
)

Token = Annotated[SecretStr, Field(min_length=16, max_length=512)]
Dsn = Annotated[str, StringConstraints(pattern=r"^postgres(ql)?://")]


class KafkaSettings(BaseModel):
    """How to reach Kafka, and the limits of what is sent and read at once."""

    model_config = ConfigDict(frozen=True)

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    request_timeout_seconds: float = 10.0


class KafkaConnection(BaseSettings):
    """The settings that say where Kafka is."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="comma-separated host:port", min_length=1
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = Field(None, description="certificates of the authorities to trust")
    kafka_ssl_certfile: Path | None = Field(None, description="our own certificate")
    kafka_ssl_keyfile: Path | None = Field(None, description="the key of our own certificate")
    kafka_request_timeout_seconds: float = Field(10.0, gt=0, le=300)

    def kafka(self) -> KafkaSettings:
        """Return where Kafka is and how to speak to it."""
        return KafkaSettings(
            bootstrap_servers=self.kafka_bootstrap_servers,
            security_protocol=self.kafka_security_protocol,
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_sasl_username,
            sasl_password=self.kafka_sasl_password,
            ssl_cafile=self.kafka_ssl_cafile,
            ssl_certfile=self.kafka_ssl_certfile,
            ssl_keyfile=self.kafka_ssl_keyfile,
            request_timeout_seconds=self.kafka_request_timeout_seconds,
        )


class ServiceSettings(KafkaConnection):
    """What every service needs to be told."""

    database_dsn: Dsn = Field(description="postgresql:// URI of the service's own database")
    database_pool_size_max: int = Field(6, ge=2, le=100, description="connections")
    database_acquire_timeout_seconds: float = Field(5.0, gt=0, le=60)
    database_statement_timeout_seconds: float = Field(30.0, gt=0, le=600)
    database_lock_timeout_seconds: float = Field(5.0, gt=0, le=60)

    http_host: str = "127.0.0.1"
    http_port: int = Field(ge=0, le=65_535)
    http_body_bytes_max: int = Field(65_536, ge=1_024, le=16_777_216, description="bytes of one request body")
    http_body_seconds_max: float = Field(20.0, gt=0, le=600, description="time for a body to come")
    http_idle_seconds_max: float = Field(
        75.0, gt=0, le=3_600, description="time for a connection to ask for something, at first and again"
    )
    http_connections_max: int = Field(2_000, ge=1, le=100_000, description="connections open at once")
    storefront_token: Token
    operator_token: Token

    batch_records_max: int = Field(
        500, ge=1, le=10_000, description="messages or requests in one transaction"
    )
    batch_pause_seconds: float = Field(
        0.08, ge=0, le=1, description="wait after a large batch, so the next is large"
    )
    batch_pause_records_min: int = Field(
        4, ge=1, le=10_000, description="size from which a batch is large: the system is busy"
    )
    fetch_bytes_max: int = Field(8_388_608, ge=65_536, le=268_435_456, description="bytes of one poll")
    session_timeout_seconds: float = Field(15.0, ge=6, le=300)
    poll_interval_seconds_max: float = Field(120.0, ge=10, le=3_600)
    offsets_interval_seconds: float = Field(1.0, ge=0, le=60, description="time between commits of offsets")
    request_pause_seconds: float = Field(
        0.02, ge=0, le=1, description="wait after a large batch of requests, so the next is large"
    )
    queue_max: int = Field(5_000, ge=1, le=1_000_000, description="requests waiting for a batch")
    relay_rows_max: int = Field(2_000, ge=1, le=50_000, description="outbox rows sent at once")
    relay_interval_seconds: float = Field(
        1.0, gt=0, le=60, description="poll of the outbox when nothing wakes it"
    )
    inbox_retention_seconds: float = Field(
        14 * 86_400, ge=3_600, description="must outlive the topics' retention"
    )
    inbox_pruning_interval_seconds: float = Field(
        10.0, gt=0, le=3_600, description="time between looks at the next part of the inbox"
    )
    watchdog_seconds: float = Field(
        120.0, ge=1, le=3_600, description="how long work may wait with none done until /livez answers 503"
    )
    drain_seconds_max: float = Field(
        20.0, gt=0, le=300, description="time to finish what is under way at a stop"
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the signature is pydantic's, here and below)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load` hands over: pydantic would also take names in lower case, which nobody checked."""
        return (init_settings,)


S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S], *, environment: Mapping[str, str] | None = None) -> S:
    """Read settings from the environment; other services' names are passed over.

    Args:
        settings: the class that says what there is.
        environment: instead of the process's own.

    Raises:
        Misconfigured: one line for each name that is unknown or missing and each value that does not fit.
    """
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    own = names_of(settings)
    values, problems = _read(given, own, own | NOT_OF_A_SERVICE | frozenset().union(*of_services().values()))
    try:
        loaded = settings.model_validate(values)
    except ValidationError as error:
        raise Misconfigured("\n".join(problems + _problems(error))) from error
    if problems:
        raise Misconfigured("\n".join(problems))
    return loaded


def load_lenient(settings: type[S], **given: object) -> S:
    """Read settings for an operator's command: what is given first, then the environment; other names do not matter.

    Raises:
        Misconfigured: one line for each value that does not fit.
    """
    own = names_of(settings)
    environment = {
        name: value for name, value in os.environ.items() if name.removesuffix(_FILE_SUFFIX) in own
    }
    values, problems = _read(environment, own, own)
    if problems:
        raise Misconfigured("\n".join(problems))
    try:
        return settings.model_validate({**values, **given})
    except ValidationError as error:
        raise Misconfigured("\n".join(_problems(error))) from error


@cache
def of_services() -> dict[str, frozenset[str]]:
    """Return the names of each installed service's settings, found by the entry points `holdfast.settings`."""
    return {point.name: names_of(point.load()) for point in entry_points(group="holdfast.settings")}


def names_of(settings: type[BaseSettings]) -> frozenset[str]:
    """Return the environment names of a settings class."""
    return frozenset(f"{PREFIX}{field.upper()}" for field in settings.model_fields)


def _read(
    given: Mapping[str, str], own: frozenset[str], known: frozenset[str]
) -> tuple[dict[str, str], list[str]]:
    values: dict[str, str] = {}
    problems: list[str] = []
    for name, value in sorted(given.items()):
        base = name.removesuffix(_FILE_SUFFIX) if name not in known else name
        if base not in known:
            problems.append(f"{name}: there is no such setting")
        elif base in own:
            field = base.removeprefix(PREFIX).lower()
            if field in values:
                problems.append(f"{name}: is given twice, as a value and as a file")
            try:
                values[field] = value if base == name else Path(value).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{name}: the file cannot be read: {error}")
    return values, problems


def _problems(error: ValidationError) -> list[str]:
    """Return one line for each bad value, without the value: it may be a secret."""
    return [
        f"{PREFIX}{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
