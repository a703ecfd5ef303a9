"""Where are the services' migrations, and how are they applied?"""

from collections.abc import Mapping
from pathlib import Path

from services import inventory_service, order_service, payment_service
from shared.migrate import Migration, migrate, read_migrations

_PACKAGES = {"order": order_service, "inventory": inventory_service, "payment": payment_service}
SERVICES = tuple(_PACKAGES)


def migrations_of(service: str) -> list[Migration]:
    """Return the migrations of a service (`order`, `inventory`, `payment`) in order."""
    return read_migrations(Path(_PACKAGES[service].__path__[0]) / "migrations")


async def migrate_all(dsns: Mapping[str, str]) -> dict[str, list[str]]:
    """Apply what is missing in each database; return what was applied, by service.

    Raises:
        Misconfigured: a database was migrated by other files than these.
        Unavailable: a database does not answer.
    """
    return {service: await migrate(dsn, migrations_of(service)) for service, dsn in dsns.items()}
