"""How is a process configured?

By the environment: every name begins with HOLDFAST_, has a type and a unit, and may end in _FILE to be read from a
file. A name that no service knows, and a value that does not fit, stop the start with one clear line each.
"""

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shared.errors import Misconfigured
from shared.scopes import Scope

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
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


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


def _split(value: object) -> object:
    """Split a comma list; anything else is left to be refused."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _split_pairs(value: object) -> object:
    """Split a comma list of `word=scope`; anything else is left to be refused."""
    if not isinstance(value, str):
        return value
    pairs = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
    if any(not (word and scope) for word, _, scope in pairs):
        raise ValueError("every part is word=scope")
    return {word.strip(): scope.strip() for word, _, scope in pairs}


#: Signatures that only the holder of a private key can make; never `none`, never a shared secret.
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"
]


class AccessSettings(BaseSettings):
    """The settings that say who may call, and where operators' endpoints are."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    storefront_token: Token
    operator_token: Token
    authorization_characters_max: int = Field(
        4_096, ge=600, le=8_000, description="longest Authorization header that is looked at"
    )
    operator_http_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="a port of their own for the operators' routes; unset: on the same one",
    )
    operator_http_host: str | None = Field(
        None, min_length=1, description="the address of that port; unset: HOLDFAST_HTTP_HOST"
    )

    api_keys_file: Path | None = Field(None, description="API keys, one JSON object a line")
    api_keys_interval_seconds: float = Field(
        5.0, gt=0, le=3_600, description="time between looks whether the file of API keys has changed"
    )

    oidc_issuer: str | None = Field(None, min_length=1, description="the claim iss of tokens that are taken")
    oidc_audience: str | None = Field(None, min_length=1, description="what their claim aud has to name: us")
    oidc_jwks_url: AnyHttpUrl | None = Field(None, description="where the issuer's keys are")
    oidc_algorithms: Annotated[tuple[Algorithm, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("RS256", "ES256"), min_length=1, description="comma list: signatures that are taken"
    )
    oidc_leeway_seconds: int = Field(30, ge=0, le=300, description="how far clocks may differ")
    oidc_timeout_seconds: float = Field(5.0, gt=0, le=60, description="longest wait for the issuer's keys")
    oidc_cache_seconds: float = Field(300.0, ge=1, le=86_400, description="time between fetches of the keys")
    oidc_refetch_seconds_min: float = Field(
        30.0, gt=0, le=3_600, description="shortest time between fetches because of a key that is not known"
    )
    oidc_scope_claim: str = Field(
        "scope",
        min_length=1,
        description="the claim that says what a caller may do: a name, or a JSON pointer",
    )
    oidc_scopes: Annotated[dict[str, Scope], NoDecode, BeforeValidator(_split_pairs)] = Field(
        {f"holdfast:{scope}": scope for scope in Scope},
        min_length=1,
        description="comma list of word=scope: what the words of that claim mean",
    )
    oidc_customer_claim: str = Field(
        "sub", min_length=1, description="the claim that is a customer's id: a name, or a JSON pointer"
    )
    oidc_verified_seconds_max: float = Field(
        60.0, ge=0, le=3_600, description="how long a token that was found good is not verified again"
    )
    oidc_verified_tokens_max: int = Field(
        10_000, ge=1, le=1_000_000, description="how many such tokens are remembered"
    )

    @model_validator(mode="after")
    def _issuer_as_a_whole(self) -> Self:
        given = (self.oidc_issuer, self.oidc_audience, self.oidc_jwks_url)
        if any(part is None for part in given) and any(part is not None for part in given):
            raise ValueError(
                "HOLDFAST_OIDC_ISSUER, HOLDFAST_OIDC_AUDIENCE and HOLDFAST_OIDC_JWKS_URL are needed together"
            )
        url = self.oidc_jwks_url
        if url is not None and url.scheme != "https" and url.host not in _LOOPBACK:
            raise ValueError("HOLDFAST_OIDC_JWKS_URL: keys are fetched by https, or from this machine")
        return self


class ServiceSettings(KafkaConnection, AccessSettings):
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
    measure_interval_seconds: float = Field(
        15.0,
        gt=0,
        le=3_600,
        description="time between looks at what is told as metrics and has to be asked for",
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
