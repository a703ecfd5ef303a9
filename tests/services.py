"""How do tests run the three real services, each on its own database, without a process of its own?"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from services.inventory_service import main as inventory
from services.inventory_service.settings import Settings as InventorySettings
from services.order_service import main as order
from services.order_service.settings import Settings as OrderSettings
from services.payment_service import main as payment
from services.payment_service.settings import Settings as PaymentSettings
from shared.database import Database, DatabaseOptions
from shared.kafka import commit_offsets, describe_group, measure_topics
from shared.runtime import Service, start
from shared.settings import KafkaSettings
from tests.waiting import eventually

STOREFRONT = "storefront-token-1"
OPERATOR = "operator-token-12"
SERVICES = ("order", "inventory", "payment")
TOPICS = ("order.commands", "order.events", "inventory.events", "payment.events")
_SANDBOX_SECRET = "whsec_" + "c2FuZGJveC1zZWNyZXQtMTIzNA=="


def _parts(service: str) -> tuple[type[Any], Any]:
    """Return the settings and the wiring of a service."""
    match service:
        case "order":
            return OrderSettings, order.wire
        case "inventory":
            return InventorySettings, inventory.wire
        case _:
            return PaymentSettings, payment.wire


def settings_of(service: str, dsn: str, **given: Any) -> Any:
    """Return the settings of a service on a free port."""
    settings, _ = _parts(service)
    common = {
        "database_dsn": dsn,
        "http_port": 0,
        "storefront_token": STOREFRONT,
        "operator_token": OPERATOR,
        "kafka_bootstrap_servers": "127.0.0.1:1",
    }
    if service == "payment":
        common |= {"sandbox_url": "http://127.0.0.1:1", "sandbox_webhook_secrets": _SANDBOX_SECRET}
    return settings.model_validate(common | given)


@asynccontextmanager
async def wired(service: str) -> AsyncIterator[Service[Any]]:
    """Wire a service and start nothing: no database, no Kafka, no port."""
    _, wire = _parts(service)
    dsn = "postgresql://nowhere"
    async with AsyncExitStack() as stack:
        made: Service[Any] = Service(
            f"{service}-service", settings_of(service, dsn), Database(DatabaseOptions(dsn=dsn)), stack
        )
        await wire(made)
        yield made


@asynccontextmanager
async def started_services(dsns: Mapping[str, str], **given: Any) -> AsyncIterator[dict[str, Service[Any]]]:
    """Run all three and lend them; settings that a service does not know are not given to it."""
    async with AsyncExitStack() as stack:
        running = {}
        for service in SERVICES:
            known, wire = _parts(service)
            own = {name: value for name, value in given.items() if name in known.model_fields}
            running[service] = await stack.enter_async_context(
                start(f"{service}-service", settings_of(service, dsns[service], **own), wire)
            )
        yield running


@asynccontextmanager
async def running_services(dsns: Mapping[str, str], **given: Any) -> AsyncIterator[dict[str, str]]:
    """Run all three and lend their URLs."""
    async with started_services(dsns, **given) as running:
        yield {name: f"http://127.0.0.1:{service.http_port}" for name, service in running.items()}


async def pass_over_what_is_there(kafka: KafkaSettings) -> None:
    """Have the services' groups begin where the topics end: what other tests left there is not for a fresh database."""
    spans = await measure_topics(kafka, TOPICS)
    ends = {(topic, number): span.end for topic, found in spans.items() for number, span in found.items()}
    for group in [f"{service}-service" for service in SERVICES]:
        await until_empty(kafka, group)
        await commit_offsets(kafka, group, ends)


async def until_empty(kafka: KafkaSettings, group: str) -> None:
    """Wait until a group has no members."""

    async def is_empty() -> bool:
        return not (await describe_group(kafka, group)).is_active

    await eventually(is_empty, timeout_seconds=30, what=f"{group} has no members")
