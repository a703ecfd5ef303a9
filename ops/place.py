"""Where is the system that an operator speaks of?

Found by the settings if they name it, and otherwise by the data directory of `holdfast up`, which keeps there what its
ready line said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.local import ready
from deploy.local.migrations import SERVICES
from services.inventory_service.settings import HOLD_SECONDS
from shared.errors import Misconfigured
from shared.masking import keep_secret, password_of
from shared.settings import PREFIX, KafkaConnection, KafkaSettings, load_lenient

DEFAULT_DATA_DIR = Path(".holdfast")


class HoldTimes(BaseSettings):
    """The inventory's settings of the same names, where the operator's command is told of them."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    hold_seconds: float = Field(HOLD_SECONDS, ge=0)
    hold_grace_seconds: float = Field(60.0, ge=0)


@dataclass(frozen=True, slots=True)
class Place:
    """How to reach the databases and Kafka of one system."""

    dsns: Mapping[str, str]
    kafka: KafkaSettings


class Databases(BaseSettings):
    """Where the databases are; each name may end in _FILE, as for the services."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    order_database_dsn: str = ""
    inventory_database_dsn: str = ""
    payment_database_dsn: str = ""


def hold_times() -> HoldTimes:
    """Return how long stock is held; raise `Misconfigured` for a value that does not fit."""
    return load_lenient(HoldTimes)


def find(data_dir: Path) -> Place:
    """Return where the system is.

    Raises:
        Misconfigured: the settings name only a part of it, or nothing runs on the data directory.
    """
    databases = load_lenient(Databases)
    named: dict[str, str] = {service: getattr(databases, f"{service}_database_dsn") for service in SERVICES}
    if all(named.values()):
        for dsn in named.values():
            keep_secret(password_of(dsn))
        return Place(named, load_lenient(KafkaConnection).kafka())
    if any(named.values()):
        missing = ", ".join(
            f"HOLDFAST_{service.upper()}_DATABASE_DSN" for service in SERVICES if not named[service]
        )
        detail = f"The settings name a part of the system only; {missing} is missing."
        raise Misconfigured(detail)
    running = ready.load(data_dir)
    if running is None:
        detail = (
            f"No system is running on {data_dir}. Start one with `holdfast up`, name its folder with --data-dir, "
            "or set HOLDFAST_ORDER_DATABASE_DSN, HOLDFAST_INVENTORY_DATABASE_DSN, HOLDFAST_PAYMENT_DATABASE_DSN "
            "and HOLDFAST_KAFKA_BOOTSTRAP_SERVERS."
        )
        raise Misconfigured(detail)
    for dsn in running.postgres.values():
        keep_secret(password_of(dsn))
    kafka = load_lenient(KafkaConnection, kafka_bootstrap_servers=running.kafka_bootstrap_servers).kafka()
    return Place(running.postgres, kafka)
