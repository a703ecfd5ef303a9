"""Who hears the topics, and what does each make of what it hears? The real handlers, as their services wire them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.local.topics import SUBSCRIPTIONS
from services.inventory_service import handlers as inventory
from services.inventory_service.settings import HOLD_SECONDS
from services.order_service import handlers as order
from services.payment_service import handlers as payment
from shared.consumer import Handle
from shared.errors import Invalid
from shared.events import COMMANDS_TOPIC, INVENTORY_TOPIC, ORDER_TOPIC, PAYMENT_TOPIC, Wire
from shared.settings import load_lenient

#: In whose database it is kept what was done to a topic.
OWNERS: Mapping[str, str] = {
    COMMANDS_TOPIC: "order",
    ORDER_TOPIC: "order",
    INVENTORY_TOPIC: "inventory",
    PAYMENT_TOPIC: "payment",
}


class HandlerSettings(BaseSettings):
    """The services' settings of the same names that their handlers decide by."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    hold_seconds: int = Field(HOLD_SECONDS, ge=1)
    holds_per_customer_max: int = Field(0, ge=0)
    payment_attempts_max: int = Field(1, ge=1)
    payment_auto_initiate: bool = False
    default_gateway: str = "sandbox"


@dataclass(frozen=True, slots=True)
class Reader:
    """A group, the service it belongs to, the types it wants, and what handles them."""

    group: str
    service: str
    consumed: Sequence[type[Wire]]
    handle: Handle


def all_readers() -> dict[str, Reader]:
    """Return every group by its name, set up as the environment says.

    Raises:
        Misconfigured: a setting does not fit.
    """
    settings = load_lenient(HandlerSettings)
    payments = payment.Policy(
        attempts_max=settings.payment_attempts_max,
        auto_gateway=settings.default_gateway if settings.payment_auto_initiate else None,
    )
    orders = order.Policy(settings.holds_per_customer_max)
    readers = [
        Reader(order.CONSUMER, "order", order.CONSUMED, partial(order.handle, policy=orders)),
        Reader(
            inventory.CONSUMER,
            "inventory",
            inventory.CONSUMED,
            partial(inventory.handle, hold_seconds=settings.hold_seconds),
        ),
        Reader(payment.CONSUMER, "payment", payment.CONSUMED, partial(payment.handle, policy=payments)),
    ]
    return {reader.group: reader for reader in readers}


def readers_of(topics: Sequence[str], group: str | None) -> list[Reader]:
    """Return who reads at least one of the topics: all, or the one group that is meant.

    Raises:
        Invalid: there is no such group, or it reads none of the topics.
    """
    if group is not None and group not in SUBSCRIPTIONS:
        detail = f"{group} is none of the groups: {', '.join(SUBSCRIPTIONS)}."
        raise Invalid(detail)
    if group is not None and not set(SUBSCRIPTIONS[group]) & set(topics):
        detail = f"{group} does not read {', '.join(topics)}, but {', '.join(SUBSCRIPTIONS[group])}."
        raise Invalid(detail)
    return [
        reader
        for name, reader in all_readers().items()
        if set(SUBSCRIPTIONS[name]) & set(topics) and group in {None, name}
    ]
