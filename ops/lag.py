"""What waits, where, and for how long? `holdfast lag`: messages, outboxes, and work whose time has come.

Each of the three databases and Kafka is asked by itself: where one is away, what the others say is still told. The SQL
stands here and not with the audit's: that proves what must be true, this only counts what is late.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from deploy.local.topics import DEAD_LETTER_TOPICS, SUBSCRIPTIONS
from ops.place import Place
from shared.database import Connection, connect
from shared.errors import HoldfastError, NotFound, Unavailable
from shared.kafka import list_committed_offsets, measure_topics
from shared.settings import KafkaSettings

_UNDEFINED_TABLE = "42P01"


@dataclass(frozen=True, slots=True)
class LagLimits:
    """Beyond which numbers `lag` says that something is wrong.

    Attributes:
        messages_max: messages of one topic that a group has still to read.
        dead_letters_max: messages that a service refused and nobody has redriven or laid aside.
        outbox_seconds_max: age of the oldest event that has not reached Kafka.
        open_order_seconds_max: age of the oldest order that has not ended.
        overdue_seconds_max: time since the oldest hold should have been swept.
        unmatched_webhooks_max: deliveries that fit no attempt.
        refund_seconds_max: age of the oldest refund that the gateway has not made.
        refused_refunds_max: refunds that a gateway refuses, or has taken back; it is asked again all the same.
        quarantine_max: attempts about whose money an operator must decide.
    """

    messages_max: int = 10_000
    dead_letters_max: int = 0
    outbox_seconds_max: float = 60.0
    open_order_seconds_max: float = 86_400.0
    overdue_seconds_max: float = 30.0
    unmatched_webhooks_max: int = 100
    refund_seconds_max: float = 3_600.0
    refused_refunds_max: int = 0
    quarantine_max: int = 100


class Measure(NamedTuple):
    """One number: what it counts, of what, in which unit, and how large it may be (None: it is only told)."""

    what: str
    of: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def ok(self) -> bool:
        """Whether it is within its limit."""
        return self.limit is None or self.value <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {**self._asdict(), "ok": self.ok}


@dataclass(frozen=True, slots=True)
class LagReport:
    """All measures, and one sentence for each part of the system that did not answer."""

    measures: Sequence[Measure]
    problems: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether everything answered and is within its limit."""
        return not self.problems and all(measure.ok for measure in self.measures)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as `--json` prints it."""
        return {
            "ok": self.ok,
            "measures": [measure.as_dict() for measure in self.measures],
            "problems": list(self.problems),
        }


async def measure_lag(place: Place, limits: LagLimits, *, hold_grace_seconds: float) -> LagReport:
    """Ask Kafka and the three databases what waits; `hold_grace_seconds` is the inventory's setting."""

    async def inventory(connection: Connection) -> list[Measure]:
        return await measure_holds(connection, limits, hold_grace_seconds)

    databases: Mapping[str, Callable[[Connection], Awaitable[list[Measure]]]] = {
        "order": lambda connection: measure_orders(connection, limits),
        "inventory": inventory,
        "payment": lambda connection: measure_payments(connection, limits),
    }
    answers = await asyncio.gather(
        _ask_kafka(place.kafka, limits),
        *(_ask_database(name, place.dsns[name], limits, ask) for name, ask in databases.items()),
        return_exceptions=True,
    )
    measures: list[Measure] = []
    problems: list[str] = []
    for answer in answers:
        if isinstance(answer, HoldfastError):
            problems.append(answer.detail)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            measures += answer
    return LagReport(measures, problems)


async def _ask_kafka(kafka: KafkaSettings, limits: LagLimits) -> list[Measure]:
    """Return how far each group is behind in each of its topics, and how many letters each dead-letter topic holds."""
    try:
        topics = {topic for topics in SUBSCRIPTIONS.values() for topic in topics}
        spans = await measure_topics(kafka, {*topics, *DEAD_LETTER_TOPICS})
        committed = {group: await list_committed_offsets(kafka, group) for group in SUBSCRIPTIONS}
    except NotFound as error:
        detail = f"{error.detail} `holdfast topics` creates what is missing."
        raise NotFound(detail) from error
    except Unavailable as error:
        detail = (
            f"{error.detail} Is Kafka running? Its address comes from HOLDFAST_KAFKA_BOOTSTRAP_SERVERS, "
            "or from the `holdfast up` of --data-dir."
        )
        raise Unavailable(detail) from error
    lags = [
        Measure(
            "consumer lag",
            f"{group} {topic}",
            sum(
                max(0, span.end - max(span.begin, committed[group].get((topic, number), 0)))
                for number, span in spans[topic].items()
            ),
            "messages",
            limits.messages_max,
        )
        for group, topics in SUBSCRIPTIONS.items()
        for topic in topics
    ]
    letters = [
        Measure(
            "dead letters kept",
            topic,
            sum(span.end - span.begin for span in spans[topic].values()),
            "messages",
        )
        for topic in DEAD_LETTER_TOPICS
    ]
    return lags + letters


async def _ask_database(
    name: str, dsn: str, limits: LagLimits, ask: Callable[[Connection], Awaitable[list[Measure]]]
) -> list[Measure]:
    async with _connected(name, dsn) as connection:
        return [*await measure_outbox(connection, name, limits), *await ask(connection)]


@asynccontextmanager
async def _connected(name: str, dsn: str) -> AsyncIterator[Connection]:
    """Lend a connection; what goes wrong with it says what to do."""
    variable = f"HOLDFAST_{name.upper()}_DATABASE_DSN"
    try:
        connection = await connect(dsn, application_name="holdfast-lag")
    except Unavailable as error:
        detail = (
            f"{name}: {error.detail} Is Postgres running, and does {variable} (or --data-dir) lead to it?"
        )
        raise Unavailable(detail) from error
    try:
        yield connection
    except Exception as error:
        if getattr(error, "sqlstate", None) != _UNDEFINED_TABLE:
            raise
        detail = f"{name}: {error}. `holdfast migrate {name}` makes the tables."
        raise Unavailable(detail) from error
    finally:
        await connection.close()


async def measure_outbox(connection: Connection, name: str, limits: LagLimits) -> list[Measure]:
    """Return what has not reached Kafka, and what was refused and neither redriven nor laid aside since."""
    rows, age, dead = await _row(
        connection,
        # What an operator did last with a letter is what counts: one that was laid aside may be sent again.
        """
        WITH decided AS (
            SELECT DISTINCT ON (event_id) event_id, command
            FROM (
                SELECT (letter ->> 2)::uuid AS event_id, action.command, action.at, action.id
                FROM operator_actions AS action, jsonb_array_elements(action.details -> 'letters') AS letter
                WHERE action.command IN ('dlq discard', 'dlq redrive') AND action.finished_at IS NOT NULL
            ) AS decision
            ORDER BY event_id, at DESC, id DESC
        )
        SELECT (SELECT count(*) FROM outbox) AS rows,
               (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM outbox) AS age,
               (
                   SELECT count(*) FROM processed_events LEFT JOIN decided USING (event_id)
                   WHERE outcome = 'dead' AND command IS DISTINCT FROM 'dlq discard'
               ) AS dead
        """,
    )
    return [
        Measure("outbox", name, rows, "rows"),
        Measure("oldest in the outbox", name, age, "seconds", limits.outbox_seconds_max),
        Measure("dead letters not redriven", name, dead, "messages", limits.dead_letters_max),
    ]


async def measure_orders(connection: Connection, limits: LagLimits) -> list[Measure]:
    """Return which orders have not ended."""
    orders, age = await _row(
        connection,
        """
        SELECT count(*) AS orders, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS age
        FROM orders
        WHERE status IN ('REQUESTED', 'AWAITING_PAYMENT', 'REFUND_DUE')
        """,
    )
    return [
        Measure("open orders", "order", orders, "orders"),
        Measure("oldest open order", "order", age, "seconds", limits.open_order_seconds_max),
    ]


async def measure_holds(
    connection: Connection, limits: LagLimits, hold_grace_seconds: float
) -> list[Measure]:
    """Return which holds should have been swept."""
    holds, late = await _row(
        connection,
        """
        SELECT count(*) AS holds,
               coalesce(extract(epoch FROM now() - min(expires_at)) - $1::float8, 0)::float8 AS late
        FROM reservations
        WHERE status = 'HELD' AND expires_at < now() - make_interval(secs => $1::float8)
        """,
        hold_grace_seconds,
    )
    return [
        Measure("overdue holds", "inventory", holds, "holds"),
        Measure("oldest overdue hold", "inventory", late, "seconds", limits.overdue_seconds_max),
    ]


async def measure_payments(connection: Connection, limits: LagLimits) -> list[Measure]:
    """Return which deliveries fit no attempt, which refunds the gateways have not made, and what a person must decide."""
    unmatched, refunds, age, refused, quarantined = await _row(
        connection,
        """
        SELECT (SELECT count(*) FROM webhooks WHERE verdict = 'unmatched') AS unmatched,
               (SELECT count(*) FROM refunds WHERE next_try_at IS NOT NULL) AS refunds,
               (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
                FROM refunds WHERE next_try_at IS NOT NULL) AS age,
               (SELECT count(*) FROM refunds WHERE next_try_at IS NOT NULL AND status = 'FAILED') AS refused,
               (SELECT count(*) FROM attempts WHERE review_at IS NOT NULL) AS quarantined
        """,
    )
    return [
        Measure("unmatched webhooks", "payment", unmatched, "deliveries", limits.unmatched_webhooks_max),
        Measure("refunds due", "payment", refunds, "refunds"),
        Measure("oldest refund due", "payment", age, "seconds", limits.refund_seconds_max),
        Measure("refunds refused", "payment", refused, "refunds", limits.refused_refunds_max),
        Measure("quarantine", "payment", quarantined, "attempts", limits.quarantine_max),
    ]


async def _row(connection: Connection, statement: str, *values: Any) -> tuple[float, ...]:
    row = await connection.fetchrow(statement, *values)
    return tuple(row or ())


def render_lag(report: LagReport, console: Console) -> None:
    """Print a table, what is beyond its limit in red, and what did not answer below it."""
    table = Table("what", "of", "", "limit", "")
    for column in (2, 3):
        table.columns[column].justify = "right"
    for measure in report.measures:
        limit = "" if measure.limit is None else f"{measure.limit:,.0f}"
        table.add_row(
            measure.what,
            measure.of,
            f"{measure.value:,.0f}",
            limit,
            measure.unit,
            style=None if measure.ok else "bold red",
        )
    console.print(table)
    for problem in report.problems:
        console.print(problem, style="bold red", soft_wrap=True, highlight=False)
