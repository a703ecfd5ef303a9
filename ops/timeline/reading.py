"""How is everything about one order gathered? Each database in one snapshot, then the topics, then the inboxes.

Each source is asked by itself: where one is away, what the others say is still told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from ops.actions import connected
from ops.place import Place
from ops.timeline import store
from ops.timeline.conclusion import conclude
from ops.timeline.entries import Entry, event_ids, list_entries
from ops.timeline.facts import Facts, InboxRow, OrderFacts, PaymentFacts, StockFacts
from ops.timeline.limits import TimelineLimits
from ops.timeline.positions import find_positions
from ops.timeline.standing import Standing, stand
from shared.database import Connection, is_transient
from shared.errors import HoldfastError, NotFound

T = TypeVar("T")

_UNDEFINED_COLUMN = "42703"
_DEFAULT_LIMITS = TimelineLimits()


@dataclass(frozen=True, slots=True)
class Timeline:
    """One order's answer.

    Attributes:
        order_id: the order.
        standing: where order, reservation and payment stand.
        conclusion: one sentence that says why.
        entries: what happened, in the order of time.
        notes: what was not looked at.
        problems: one sentence for each part of the system that did not answer.
    """

    order_id: UUID
    standing: Standing
    conclusion: str
    entries: list[Entry]
    notes: list[str]
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether everything that was asked answered."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return the timeline as `--json` prints it."""
        return {
            "ok": self.ok,
            "order_id": self.order_id,
            "conclusion": self.conclusion,
            **self.standing.as_dict(),
            "entries": [entry.as_dict() for entry in self.entries],
            "notes": self.notes,
            "problems": self.problems,
        }


async def read_timeline(
    place: Place,
    order_id: UUID,
    *,
    kafka: bool = True,
    limits: TimelineLimits = _DEFAULT_LIMITS,
) -> Timeline:
    """Tell what is known of an order; `kafka` says whether to look into the topics, too.

    Raises:
        NotFound: everything answered, and nothing knows the order.
    """
    facts, notes, problems = await read_facts(place, order_id, kafka=kafka, limits=limits)
    return Timeline(
        order_id=order_id,
        standing=stand(facts),
        conclusion=conclude(facts, datetime.now(UTC)),
        entries=list_entries(facts, body_characters_max=limits.body_characters_max),
        notes=notes,
        problems=problems,
    )


async def read_facts(
    place: Place,
    order_id: UUID,
    *,
    kafka: bool = True,
    limits: TimelineLimits = _DEFAULT_LIMITS,
) -> tuple[Facts, list[str], list[str]]:
    """Gather what is known of an order, what was not looked at, and who did not answer.

    Raises:
        NotFound: everything answered, and nothing knows the order.
    """
    problems: list[str] = []
    order, stock, payment = await asyncio.gather(
        _ask("order", problems, _read(place, "order", order_id, limits, read_order)),
        _ask("inventory", problems, _read(place, "inventory", order_id, limits, read_stock)),
        _ask("payment", problems, _read(place, "payment", order_id, limits, read_payment)),
    )
    facts = Facts(order, stock, payment)
    notes: list[str] = []
    if kafka:
        found = await _ask(
            "Kafka", problems, find_positions(place.kafka, order_id, limits, since=facts.began_at)
        )
        if found is not None:
            facts, notes = replace(facts, positions=found.positions), found.notes
    if not problems and not facts.is_known:
        detail = f"No service knows the order {order_id}, and no topic holds a message about it."
        raise NotFound(detail if kafka else f"No service knows the order {order_id}.")
    facts = replace(facts, inboxes=await _read_inboxes(place, facts, limits, problems))
    return facts, notes, problems


async def _ask(name: str, problems: list[str], answer: Awaitable[T]) -> T | None:
    """Return an answer, or None and note why there is none."""
    try:
        return await answer
    except HoldfastError as error:
        problems.append(error.detail)
    except Exception as error:
        if getattr(error, "sqlstate", None) == _UNDEFINED_COLUMN:
            problems.append(f"{name}: {error}. `holdfast migrate {name}` brings the tables up to date.")
        elif is_transient(error):
            problems.append(f"{name}: {error}")
        else:
            raise
    return None


async def _read(
    place: Place,
    service: str,
    order_id: UUID,
    limits: TimelineLimits,
    read: Callable[[Connection, UUID, TimelineLimits], Awaitable[T]],
) -> T:
    """Read a database as of one moment."""
    async with connected(service, place.dsns[service]) as connection:
        await store.limit_statements(connection, limits.statement_seconds_max)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await read(connection, order_id, limits)


async def read_order(tx: Connection, order_id: UUID, limits: TimelineLimits) -> OrderFacts:
    """Return what the order service's database holds."""
    return OrderFacts(
        await store.find_order(tx, order_id),
        await store.list_history(tx, order_id),
        await store.list_waiting(tx, order_id, limits.rows_max),
    )


async def read_stock(tx: Connection, order_id: UUID, limits: TimelineLimits) -> StockFacts:
    """Return what inventory's database holds."""
    return StockFacts(
        await store.find_reservation(tx, order_id),
        await store.list_movements(tx, order_id),
        await store.list_waiting(tx, order_id, limits.rows_max),
    )


async def read_payment(tx: Connection, order_id: UUID, limits: TimelineLimits) -> PaymentFacts:
    """Return what the payment service's database holds."""
    attempts = await store.list_attempts(tx, order_id)
    return PaymentFacts(
        await store.find_payment(tx, order_id),
        attempts,
        await store.list_webhooks(tx, order_id, attempts, limits.rows_max),
        await store.list_refunds(tx, order_id),
        await store.list_resolutions(tx, order_id),
        await store.list_waiting(tx, order_id, limits.rows_max),
    )


async def _read_inboxes(
    place: Place, facts: Facts, limits: TimelineLimits, problems: list[str]
) -> Mapping[str, list[InboxRow]]:
    """Return what the services that answered remember of the messages that are known by now."""
    ids = sorted(event_ids(facts))
    answered = {"order": facts.order, "inventory": facts.stock, "payment": facts.payment}
    inboxes = {}
    for service, rows in answered.items():
        if rows is None or not ids:
            continue
        found = await _ask(service, problems, _read_inbox(place, service, ids, limits))
        inboxes[service] = found or []
    return inboxes


async def _read_inbox(place: Place, service: str, ids: list[UUID], limits: TimelineLimits) -> list[InboxRow]:
    async with connected(service, place.dsns[service]) as connection:
        await store.limit_statements(connection, limits.statement_seconds_max)
        return await store.list_inbox(connection, f"{service}-service", ids)
