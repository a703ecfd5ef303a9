"""What does the console need to know?"""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from ops.place import DEFAULT_DATA_DIR, Place
from services.payment_service.settings import GatewayName
from shared.settings import Dsn, KafkaConnection, Token

#: How long a login lasts.
SESSION_SECONDS = 8 * 3_600.0
#: How often what the overview shows is gathered, once for everybody who looks.
REFRESH_SECONDS = 2.0
#: Reading must not weigh on the services' databases.
POOL_SIZE_MAX = 3
STATEMENT_SECONDS_MAX = 5.0
#: Pages open at once that follow live.
STREAMS_MAX = 100
CONNECTIONS_MAX = 500
BODY_BYTES_MAX = 65_536
#: How many rows a page lists.
ROWS = 50
#: Who may have delivered a webhook, or been asked for money.
GATEWAYS = get_args(GatewayName)


class Settings(KafkaConnection):
    """Where the parts of the system are, where to listen, and who is let in."""

    order_database_dsn: Dsn = Field(description="postgresql:// URI of the order service's database")
    inventory_database_dsn: Dsn = Field(description="the same of the inventory service")
    payment_database_dsn: Dsn = Field(description="the same of the payment service")
    payment_url: str = Field(
        "http://127.0.0.1:8003", pattern=r"^https?://", description="where the payment service answers"
    )
    http_host: str = "127.0.0.1"
    http_port: int = Field(8005, ge=0, le=65_535)
    operator_token: Token
    api_keys_file: Path | None = Field(
        None, description="API keys, one JSON object a line; operators' open the console"
    )
    api_keys_interval_seconds: float = Field(
        5.0, gt=0, le=3_600, description="time between looks at that file"
    )
    data_dir: Path = Field(
        DEFAULT_DATA_DIR, description="folder in which replays keep how far they have come"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def place(self) -> Place:
        """How to reach the databases and Kafka."""
        dsns = {
            "order": self.order_database_dsn,
            "inventory": self.inventory_database_dsn,
            "payment": self.payment_database_dsn,
        }
        return Place(dsns, self.kafka())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the signature is pydantic's, here and below)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `shared.settings.load` hands over, as the services do."""
        return (init_settings,)
