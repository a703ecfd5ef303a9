"""What can an operator say on the command line? Start here: `holdfast --help`."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from cyclopts import App, Parameter, validators
from rich.console import Console
from rich.table import Table

from deploy.local.migrations import SERVICES, migrate_all
from deploy.local.parts import importing
from deploy.local.ready import ReadyLine
from deploy.local.topics import check_topics, ensure_topics
from ops import place
from ops.audit.command import command as audit
from ops.config import config
from ops.dead_letters import dlq
from ops.demo import DemoSummary, render_summary, run_demo
from ops.demo.plan import SEED as DEMO_SEED
from ops.keys import keys
from ops.lag import LagLimits, measure_lag, render_lag
from ops.options import a_console
from ops.quarantine import quarantine
from ops.reconcile.command import command as reconcile
from ops.replay.command import command as replay
from ops.send import read_commands
from ops.timeline.command import command as timeline
from ops.webhooks import webhooks
from shared.commands import send
from shared.errors import HoldfastError, Misconfigured
from shared.masking import keep_secret, mask_text, password_of
from shared.settings import PREFIX

DataDir = Annotated[Path, Parameter(help="Folder of a running `holdfast up`.")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON object instead of a table.")
]

_LAG_LIMITS = LagLimits()
_SECRET_SETTING = re.compile(r"_(DSN|TOKEN|KEYS?|SECRETS?|PASSWORD)$")


def _examples(*examples: str) -> str:
    return "\n\n".join(("Examples:", *examples))


app = App(
    name="holdfast",
    help="Orders, stock and payments that hold fast: run the system here, feed it, and prove that it is right.",
    help_epilogue=_examples("holdfast up", "holdfast lag", "holdfast audit", "holdfast COMMAND --help"),
    version="0.1.0",
)


app.command(audit)
app.command(config)
app.command(replay)
app.command(reconcile)
app.command(timeline)
app.command(dlq)
app.command(webhooks)
app.command(keys)
app.command(quarantine)


def main() -> None:
    """Run the command line; an error is one clear message on standard error and exit status 1 (2: wrong settings)."""
    keep_secret(_secrets_of(os.environ))
    try:
        status = app()
    except HoldfastError as error:
        said = f"holdfast: {mask_text(error.detail)}"
        Console(stderr=True).print(said, style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(2 if isinstance(error, Misconfigured) else 1) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def _secrets_of(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what settings of ours hold that no message may repeat."""
    for name, value in environment.items():
        if name.startswith(PREFIX) and _SECRET_SETTING.search(name):
            for item in value.split(","):
                yield from password_of(item) or {item.strip()}


@app.command(
    help_epilogue=_examples("holdfast up", "holdfast up --data-dir /srv/holdfast --ports auto --copies 2")
)
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
    with importing():
        from deploy.local.system import run_up  # noqa: PLC0415 (an image of the services alone has no such part)

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


@app.command(help_epilogue=_examples("holdfast demo", "holdfast demo --orders 200 --json | jq .audit"))
async def demo(
    *,
    orders: int = 2_000,
    data_dir: Path | None = None,
    seed: int = DEMO_SEED,
    json: Json = False,
) -> int:
    """Run real grocery baskets through the whole system, then audit it.

    Customers pay through the sandbox and through doubles of Stripe and Midtrans: no real gateway is spoken to. Exit
    status 1 if an order is left open or the audit finds anything.

    Args:
        orders: how many baskets.
        data_dir: where to keep everything; without it a temporary folder, removed at the end.
        seed: decides which customer does what; the same seed ends every order in the same way.
        json: print the summary as one JSON object.
    """
    summary: DemoSummary = await run_demo(
        orders=orders, data_dir=data_dir, progress=sys.stderr.isatty(), seed=seed
    )
    if json:
        _print_json(summary.as_dict())
    else:
        render_summary(summary, a_console())
    return 0 if summary.ok else 1


@app.command(help_epilogue=_examples("holdfast migrate", "holdfast migrate payment --json"))
async def migrate(
    service: Literal["order", "inventory", "payment"] | None = None,
    *,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> None:
    """Apply the migrations that are missing, of one service or of all.

    Args:
        service: only this one.
        data_dir: folder of a running `holdfast up`.
        json: print what was applied, by service, as one JSON object.
    """
    found = place.find(data_dir)
    wanted = [service] if service else list(SERVICES)
    applied = await migrate_all({name: found.dsns[name] for name in wanted})
    if json:
        _print_json(applied)
        return
    for name, migrations in applied.items():
        print(f"{name}: {', '.join(migrations) if migrations else 'up to date'}")


@app.command(
    help_epilogue=_examples(
        "holdfast topics",
        "holdfast topics --replication-factor 3",
        "holdfast topics --json | jq '.topics[] | select(.created)'",
    )
)
async def topics(
    *,
    replication_factor: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=9))] = 1,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Create the topics that are missing and check the others. Exit status 1 if one is not as it should be.

    Args:
        replication_factor: brokers that each partition of a new topic is on; all but one must have what is acknowledged.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object.
    """
    kafka = place.find(data_dir).kafka
    created = await ensure_topics(kafka, replication_factor=replication_factor)
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
        a_console().print(table)
    return 0 if all(there == spec.partitions for spec, there in checked) else 1


@app.command(
    name="send",
    help_epilogue=_examples(
        "holdfast send orders.jsonl", "grep PlaceOrder commands.jsonl | holdfast send - --json"
    ),
)
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


@app.command(
    name="lag",
    help_epilogue=_examples(
        "holdfast lag",
        "holdfast lag --messages-max 1000 --dead-letters-max 5",
        "holdfast lag --json | jq '.measures[] | select(.ok | not)'",
    ),
)
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
        render_lag(report, a_console())
    return 0 if report.ok else 1


@app.command(
    help_epilogue=_examples(
        "source <(holdfast completion bash)",
        "holdfast completion zsh > ~/.zfunc/_holdfast",
        "holdfast completion fish > ~/.config/fish/completions/holdfast.fish",
    )
)
def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the script that completes commands and options in a shell.

    Args:
        shell: for which shell.
    """
    print(app.generate_completion(shell=shell))


def _print_json(data: object) -> None:
    print(orjson.dumps(data, default=str).decode())
