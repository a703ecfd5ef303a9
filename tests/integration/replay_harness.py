"""How do tests replay? A whole small system in this process, on a Kafka of its own, whose services can be stopped."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from cyclopts import App

from deploy.local import ready
from deploy.local.ready import ReadyLine
from ops.place import Place
from ops.replay.command import command as replay
from services.inventory_service import handlers as inventory
from services.inventory_service.domain.stock import Receipt
from shared.commands import OutgoingCommand, command, send
from shared.database import Database
from shared.envelope import Record
from shared.ids import new_id
from shared.kafka import Span, list_committed_offsets, measure_topics, read_spans
from shared.settings import KafkaSettings
from tests.order_building import place_order
from tests.order_database import stock_catalog
from tests.services import TOPICS, running_services, until_empty
from tests.waiting import eventually

GROUPS = {
    "order-service": ("order.commands", "inventory.events", "payment.events"),
    "inventory-service": ("order.events", "payment.events"),
    "payment-service": ("order.events",),
}
#: What a replay must leave alone; without what operators did, and without what is on its way.
_TABLES = {
    "order": ("orders", "order_lines", "order_history", "product_availability", "carts", "processed_events"),
    "inventory": (
        *("reservations", "reservation_lines", "stock_levels", "stock_movements"),
        "processed_events",
    ),
    "payment": ("payments", "attempts", "refunds", "processed_events"),
}


@dataclass
class System:
    """Three databases and a Kafka, and the data directory by which commands find them."""

    databases: Mapping[str, Database]
    kafka: KafkaSettings
    data_dir: Path
    begins: Mapping[str, Mapping[int, Span]] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place({name: database.dsn for name, database in self.databases.items()}, self.kafka)

    async def prepare(self) -> None:
        """Fill the catalog and the shelves, and leave word where everything is."""
        await stock_catalog(self.databases["order"])
        async with self.databases["inventory"].transaction() as tx:
            await inventory.change_stock(tx, [Receipt("first", {"APPLE": 1_000_000}, "tests")])
        dsns = {name: database.dsn for name, database in self.databases.items()}
        line = ReadyLine(
            "", "", "", "", None, self.kafka.bootstrap_servers, dsns, {}, {}, str(self.data_dir), {}
        )
        ready.save(line)

    @asynccontextmanager
    async def services(self) -> AsyncIterator[None]:
        """Run the three services; when this ends, their groups have no members."""
        dsns = {name: database.dsn for name, database in self.databases.items()}
        async with running_services(
            dsns,
            kafka_bootstrap_servers=self.kafka.bootstrap_servers,
            session_timeout_seconds=6,
            offsets_interval_seconds=0.05,
            batch_pause_seconds=0.01,
        ):
            yield
            await self.settled()
        for group in GROUPS:
            await until_empty(self.kafka, group)

    async def settled(self) -> None:
        """Wait until every group has read everything and nothing waits in an outbox."""

        async def is_settled() -> bool:
            waiting = [await self.fetchval(name, "SELECT count(*) FROM outbox") for name in self.databases]
            spans = await measure_topics(self.kafka, TOPICS)
            for group, topics in GROUPS.items():
                committed = await list_committed_offsets(self.kafka, group)
                for topic in topics:
                    for number, span in spans[topic].items():
                        waiting.append(span.end - committed.get((topic, number), span.begin))
            return not any(waiting)

        await eventually(is_settled, timeout_seconds=40, what="every topic is read and every outbox empty")

    async def order(self, count: int, sku: str = "APPLE") -> list[UUID]:
        """Place orders; the services must be running. Returns when each waits for its payment."""
        orders = [place_order(new_id(), (sku, 1)) for _ in range(count)]
        await send(self.kafka, [self.command(order) for order in orders])
        ids = [order.order_id for order in orders]

        async def are_waiting() -> bool:
            payments: int = await self.fetchval(
                "payment", "SELECT count(*) FROM payments WHERE order_id = ANY($1)", ids
            )
            return payments == count

        await eventually(are_waiting, timeout_seconds=40, what="every order waits for its payment")
        await self.settled()
        return ids

    def command(self, order: Any) -> OutgoingCommand:
        """Return a command as it is sent."""
        return command(order)

    async def mark(self) -> None:
        """Note where the topics end: `records` are those that came after this."""
        self.begins = await measure_topics(self.kafka, TOPICS)

    async def records(self, topic: str) -> list[Record]:
        """Return what came to a topic since the mark."""
        ends = await measure_topics(self.kafka, [topic])
        spans = {
            topic: {
                number: Span(self.begins[topic][number].end, end) for number, (_, end) in ends[topic].items()
            }
        }
        return [record async for record in read_spans(self.kafka, spans)]

    async def fetchval(self, service: str, query: str, *values: Any) -> Any:
        """Return one value."""
        async with self.databases[service].connection() as connection:
            return await connection.fetchval(query, *values)

    async def run(self, service: str, statement: str, *values: Any) -> None:
        """Change rows by hand."""
        async with self.databases[service].connection() as connection:
            await connection.execute(statement, *values)

    async def snapshot(self) -> dict[str, list[tuple[str, str]]]:
        """Return every row of the three databases, with the transaction that wrote it."""
        found = {}
        for service, tables in _TABLES.items():
            for table in tables:
                async with self.databases[service].connection() as connection:
                    query = f"SELECT t::text, t.xmin::text FROM {table} AS t ORDER BY 1"  # noqa: S608 (our own names)
                    found[f"{service}.{table}"] = [tuple(row) for row in await connection.fetch(query)]
        return found


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered: its exit status, and its JSON."""

    status: int
    json: Any

    def consumer(self, group: str) -> dict[str, int]:
        """Return what a plan says of one group, without its name."""
        (found,) = [item for item in self.json["consumers"] if item["consumer"] == group]
        return {name: number for name, number in found.items() if name != "consumer"}


class Cli:
    """Runs a command (`holdfast replay` by default) with --json on a system."""

    def __init__(self, system: System, capsys: pytest.CaptureFixture[str], command: App = replay) -> None:
        self._system = system
        self._capsys = capsys
        self._command = command

    async def __call__(self, *words: str | UUID) -> Said:
        """Run it and return what it said."""
        status, text = await self._run(*words, "--json")
        return Said(status, orjson.loads(text))

    async def text(self, *words: str | UUID) -> str:
        """Run it without --json, and return what a person reads."""
        _, text = await self._run(*words)
        return text

    async def _run(self, *words: str | UUID) -> tuple[int, str]:
        tokens = [*map(str, words), "--data-dir", str(self._system.data_dir)]
        self._capsys.readouterr()
        status = await self._command.run_async(tokens, exit_on_error=False, result_action="return_value")
        return status, self._capsys.readouterr().out


def each(option: str, values: Sequence[object]) -> list[str]:
    """Return an option once for each value."""
    return [word for value in values for word in (option, str(value))]
