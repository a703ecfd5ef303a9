"""What can an operator say on the command line? Start here: `holdfast --help`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from deploy.local.migrations import SERVICES, migrate_all
from deploy.local.ready import ReadyLine
from deploy.local.system import run_up
from deploy.local.topics import check_topics, ensure_topics
from ops import place
from ops.audit import AuditLimits, AuditReport, Topics, audit, render
from ops.dead_letters import dlq
from ops.demo import DemoSummary, render_summary, run_demo
from ops.lag import LagLimits, measure_lag, render_lag
from ops.reconcile.command import command as reconcile
from ops.replay.command import command as replay
from ops.send import read_commands
from ops.timeline.command import command as timeline
from ops.webhooks import webhooks
from shared.commands import send
from shared.errors import HoldfastError, Misconfigured

DataDir = Annotated[Path, Parameter(help="Folder of a running `holdfast up`.")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON object instead of a table.")
]

_LAG_LIMITS = LagLimits()

app = App(
    name="holdfast",
    help="Orders, stock and payments that hold fast: run the system here, feed it, and prove that it is right.",
    version="0.1.0",
)


app.command(replay)
app.command(reconcile)
app.command(timeline)
app.command(dlq)
app.command(webhooks)


def main() -> None:
    """Run the command line; an error is one clear message on standard error and exit status 1 (2: wrong settings)."""
    try:
        status = app()
    except HoldfastError as error:
        Console(stderr=True).print(f"holdfast: {error.detail}", style="red", highlight=False, soft_wrap=True)
        raise SystemExit(2 if isinstance(error, Misconfigured) else 1) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(status if isinstance(status, int) else 0)


@app.command
async def up(
    *,
    data_dir: Path = place.DEFAULT_DATA_DIR,
    ports: Literal["auto", "fixed"] = "fixed",
    services: Annotated[bool, Parameter(negative="--no-services")] = True,
    copies: int = 1,
    console: Annotated[bool, Parameter(negative="--no-console")] = True,
) -> None:
    """Start the whole system on this machine and stay until Ctrl-C.

    Postgres, Kafka, migrations, topics, the sandbox gateway, the three services and the operators' console. When all
    are ready, one line of JSON on standard output says where everything is.

    Args:
        data_dir: where everything is kept; a later start on it finds it again.
        ports: documented ports, or free ones, chosen once and kept.
        services: whether to start the services, or only what they stand on.
        copies: processes of each service.
        console: whether to start the operators' console; it needs the services.
    """
    await run_up(
        data_dir,
        ports=ports,
        services=services,
        copies=copies,
        console=console,
        on_ready=_announce,
    )


def _announce(line: ReadyLine) -> None:
    print(line.as_json(), flush=True)


@app.command
async def demo(*, orders: int = 2_000, data_dir: Path | None = None, json: Json = False) -> int:
    """Run real grocery baskets through the whole system, then audit it.

    Exit status 1 if an order is left open or the audit finds anything.

    Args:
        orders: how many baskets.
        data_dir: where to keep everything; without it a temporary folder, removed at the end.
        json: print the summary as one JSON object.
    """
    summary: DemoSummary = await run_demo(orders=orders, data_dir=data_dir, progress=sys.stderr.isatty())
    if json:
        _print_json(summary.as_dict())
    else:
        render_summary(summary, Console())
    return 0 if summary.ok else 1


@app.command
async def migrate(
    service: Literal["order", "inventory", "payment"] | None = None,
    *,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Apply the migrations that are missing, of one service or of all."""
    found = place.find(data_dir)
    wanted = [service] if service else list(SERVICES)
    applied = await migrate_all({name: found.dsns[name] for name in wanted})
    if json:
        _print_json(applied)
        return
    for name, migrations in applied.items():
        print(f"{name}: {', '.join(migrations) if migrations else 'up to date'}")


@app.command
async def topics(*, data_dir: DataDir = place.DEFAULT_DATA_DIR, json: Json = False) -> int:
    """Create the topics that are missing and check the others. Exit status 1 if one is not as it should be."""
    kafka = place.find(data_dir).kafka
    created = await ensure_topics(kafka)
    checked = await check_topics(kafka)
    rows: list[dict[str, Any]] = [
        {
            "topic": spec.name,
            "partitions": there,
            "wanted": spec.partitions,
            "created": spec.name in created,
            "config": dict(spec.config),
        }
        for spec, there in checked
    ]
    if json:
        _print_json({"topics": rows})
    else:
        table = Table("topic", "partitions", "wanted", "created now")
        for row in rows:
            table.add_row(
                row["topic"], str(row["partitions"]), str(row["wanted"]), "yes" if row["created"] else ""
            )
        Console().print(table)
    return 0 if all(there == spec.partitions for spec, there in checked) else 1


@app.command(name="send")
async def send_file(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Publish order commands from a file, one JSON object a line.

    Nothing is sent if a line is wrong.

    Args:
        file: the path, or - for standard input.
        data_dir: folder of a running `holdfast up`.
        json: print the count as one JSON object.
    """
    commands = await asyncio.to_thread(_read_file, file)
    sent = await send(place.find(data_dir).kafka, commands)
    if json:
        _print_json({"sent": sent})
    else:
        print(f"{sent} commands sent")


def _read_file(file: str) -> Any:
    if file == "-":
        return read_commands(sys.stdin.buffer)
    try:
        with Path(file).open("rb") as lines:
            return read_commands(lines)
    except OSError as error:
        detail = f"{file} cannot be read: {error.strerror}"
        raise Misconfigured(detail) from error


@app.command(name="lag")
async def lag(
    *,
    limits: Annotated[LagLimits, Parameter(name="*")] = _LAG_LIMITS,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Say what waits: messages, dead letters, outboxes, open orders, overdue holds, webhooks, refunds.

    Exit status 1 if something is beyond its limit, or does not answer.
    """
    times = place.hold_times()
    report = await measure_lag(place.find(data_dir), limits, hold_grace_seconds=times.hold_grace_seconds)
    if json:
        _print_json(report.as_dict())
    else:
        render_lag(report, Console())
    return 0 if report.ok else 1


@app.command(name="audit")
async def audit_system(
    *,
    kafka: Annotated[bool, Parameter(negative="")] = False,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Prove from the three databases that nothing was sold twice, lost or left hanging. Exit status 1 on findings.

    HOLDFAST_HOLD_SECONDS and HOLDFAST_HOLD_GRACE_SECONDS, where they are not the defaults, have to be those of the
    inventory service.

    Args:
        kafka: also read the topics from beginning to end, and prove that no event is missing (A12).
        data_dir: folder of a running `holdfast up`.
        json: print the report as one JSON object.
    """
    found = place.find(data_dir)
    times = place.hold_times()
    limits = AuditLimits(hold_seconds=times.hold_seconds, hold_grace_seconds=times.hold_grace_seconds)
    topics = Topics(found.kafka) if kafka else None
    report: AuditReport = await audit(found.dsns, topics=topics, limits=limits)
    if json:
        _print_json(report.as_dict())
    else:
        render(report, Console())
    return 0 if report.ok else 1


def _print_json(data: object) -> None:
    print(orjson.dumps(data, default=str).decode())
