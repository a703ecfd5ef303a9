"""Does `up` start the whole system, say where it is, refuse a second one, and leave nothing behind?"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from deploy.local import ready
from deploy.local.environment import Caller
from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import SERVICES, EmbeddedPostgres
from deploy.local.ready import ReadyLine
from deploy.local.supervisor import DataDirInUse
from deploy.local.system import run_up
from ops.console.settings import Settings as ConsoleSettings
from ops.place import HoldTimes
from shared.errors import Misconfigured
from shared.settings import NOT_OF_A_SERVICE, KafkaConnection, names_of, of_services
from tests.waiting import eventually

KEYS_OF_THE_CONTRACT = {
    "order_url",
    "inventory_url",
    "payment_url",
    "gateway_url",
    "console_url",
    "kafka_bootstrap_servers",
    "postgres",
    "tokens",
    "webhook_secrets",
    "data_dir",
    "pids",
}
UP = """
import asyncio, pathlib, sys
from deploy.local.system import run_up
asyncio.run(run_up(pathlib.Path(sys.argv[1]), ports="auto", services=False, on_ready=lambda line: print(line.as_json(), flush=True)))
"""


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReadyLine]:
    """The line of a running system without the three services."""
    lines: asyncio.Queue[ReadyLine] = asyncio.Queue()
    running = asyncio.create_task(
        run_up(tmp_path_factory.mktemp("up"), ports="auto", services=False, on_ready=lines.put_nowait)
    )
    first = asyncio.create_task(lines.get())
    await asyncio.wait([running, first], return_when=asyncio.FIRST_COMPLETED, timeout=90)
    if not first.done():
        first.cancel()
        running.cancel()
        await running
    yield first.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def status_of(url: str) -> int:
    """Ask for a page and give the status of the answer."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def start_up(data_dir: Path) -> tuple[Process, dict[str, Any]]:
    """Run `up` as a process of its own; give it and its ready line."""
    with (data_dir.parent / "stderr").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", UP, str(data_dir), stdout=PIPE, stderr=errors
        )
    assert process.stdout is not None
    async with asyncio.timeout(90):
        return process, json.loads(await process.stdout.readline())


def running(pids: Mapping[str, int | None]) -> list[str]:
    """Name the parts whose processes are alive."""
    return [name for name, pid in pids.items() if pid is not None and psutil.pid_exists(pid)]


async def test_the_ready_line_has_every_key_of_the_contract(up: ReadyLine) -> None:
    """The line is one JSON object with the keys that the contract lists, and what it names answers."""
    line = json.loads(up.as_json())

    assert set(line) == KEYS_OF_THE_CONTRACT
    assert "\n" not in up.as_json()
    assert set(line["postgres"]) == set(SERVICES)
    assert set(line["tokens"]) == {"storefront", "operator"}
    assert line["webhook_secrets"]["sandbox"].startswith("whsec_")
    assert {"postgres", "kafka", "order_service", "inventory_service", "payment_service"} <= set(line["pids"])
    assert running(line["pids"]) == ["postgres", "kafka", "sandbox"]
    assert await status_of(f"{up.gateway_url}/readyz") == 200


async def test_operators_find_the_system_by_its_data_directory(up: ReadyLine) -> None:
    """The line is kept in the data directory as long as the system runs."""
    assert ready.load(Path(up.data_dir)) == up


async def test_a_second_up_on_the_same_directory_is_refused(up: ReadyLine) -> None:
    """The second one ends with a clear error, and the first one is not disturbed."""
    with pytest.raises(DataDirInUse, match="in use by another `holdfast up`"):
        await run_up(Path(up.data_dir), ports="auto", services=False, on_ready=lambda _: None)

    assert running(up.pids) == ["postgres", "kafka", "sandbox"]
    assert ready.load(Path(up.data_dir)) == up


async def test_a_killed_up_leaves_nothing_behind_and_the_next_has_the_same_addresses(tmp_path: Path) -> None:
    """After kill -9 of `up` its parts end by themselves; a new one answers at the same addresses with the same keys; SIGTERM ends it with 0 and nothing else on stdout."""
    killed, before = await start_up(tmp_path / "data")
    killed.kill()
    await killed.wait()
    await eventually(lambda: running(before["pids"]) == [], timeout_seconds=30)

    process, after = await start_up(tmp_path / "data")
    process.send_signal(signal.SIGTERM)
    output, _ = await process.communicate()

    assert {**before, "pids": None} == {**after, "pids": None}
    assert (process.returncode, output) == (0, b"")
    assert running(after["pids"]) == []
    assert ready.load(tmp_path / "data") is None


async def test_a_part_that_was_started_again_is_found_under_its_new_process_id(tmp_path: Path) -> None:
    """What operators read in the data directory follows; the line on stdout stays the only one."""
    process, before = await start_up(tmp_path / "data")
    os.kill(before["pids"]["sandbox"], signal.SIGKILL)

    def follows() -> bool:
        line = ready.load(tmp_path / "data")
        return line is not None and line.pids["sandbox"] not in {None, before["pids"]["sandbox"]}

    await eventually(follows, timeout_seconds=30, what="the new process id of the sandbox")
    process.send_signal(signal.SIGTERM)
    output, _ = await process.communicate()
    assert (process.returncode, output) == (0, b"")


async def test_stores_that_are_run_elsewhere_are_used_and_prepared(
    kafka: EmbeddedKafka, postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With addresses in the environment nothing is embedded; migrations and topics get those addresses before all is ready."""
    databases = {service: postgres.dsn(service) for service in SERVICES}
    for service, dsn in databases.items():
        monkeypatch.setenv(f"HOLDFAST_{service.upper()}_DATABASE_DSN", dsn)
    monkeypatch.setenv("HOLDFAST_KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    happened: list[object] = []

    async def prepare(databases: Mapping[str, str], bootstrap_servers: str) -> None:
        happened.append((dict(databases), bootstrap_servers))

    def on_ready(line: ReadyLine) -> None:
        happened.append((line.postgres, line.kafka_bootstrap_servers, running(line.pids)))
        os.kill(os.getpid(), signal.SIGTERM)

    await run_up(
        tmp_path,
        ports="auto",
        services=False,
        on_ready=on_ready,
        prepare=prepare,
    )

    given = (databases, kafka.bootstrap_servers)
    assert happened == [given, (*given, ["sandbox"])]


async def test_a_failure_while_preparing_stops_everything(tmp_path: Path) -> None:
    """If the migrations fail, the error reaches the caller and no process is left."""

    async def prepare(_databases: Mapping[str, str], _bootstrap_servers: str) -> None:
        raise Misconfigured("migration 7 does not apply")

    children = psutil.Process().children()
    with pytest.raises(Misconfigured, match="migration 7"):
        await run_up(tmp_path, ports="auto", services=False, on_ready=lambda _: None, prepare=prepare)

    assert psutil.Process().children() == children


def test_a_setting_that_nobody_knows_stops_the_start() -> None:
    """Every unknown name is reported in a line of its own, and so is what is only for a single process."""
    with pytest.raises(Misconfigured) as caught:
        Caller(
            {
                "HOLDFAST_TYPO": "1",
                "HOLDFAST_HTTP_PORT": "1",
                "HOLDFAST_OPERATOR_HTTP_PORT": "2",
                "HOLDFAST_LOG_LEVEL": "INFO",
                "HOME": "/",
            }
        )

    assert caught.value.detail.splitlines() == [
        "HOLDFAST_HTTP_PORT: is for a process that is run alone; for the whole system there is --ports",
        "HOLDFAST_OPERATOR_HTTP_PORT: is for a process that is run alone; for the whole system there is --ports",
        "HOLDFAST_TYPO: there is no such setting",
    ]


def test_a_setting_reaches_only_the_services_that_know_it() -> None:
    """The inventory's setting is not shown to the order service; what is no setting of ours goes to all."""
    caller = Caller({"HOLDFAST_HOLD_GRACE_SECONDS": "7", "HOLDFAST_LOG_LEVEL": "DEBUG", "PATH": "/bin"})
    decided = {
        "HOLDFAST_DATABASE_DSN": "postgresql://a:b@127.0.0.1/c",
        "HOLDFAST_HTTP_PORT": "8001",
        "HOLDFAST_STOREFRONT_TOKEN": "s" * 16,
        "HOLDFAST_OPERATOR_TOKEN": "o" * 16,
    }

    order, inventory = (caller.environment_of(service, decided) for service in ("order", "inventory"))

    assert "HOLDFAST_HOLD_GRACE_SECONDS" not in order
    assert inventory["HOLDFAST_HOLD_GRACE_SECONDS"] == "7"
    assert order["HOLDFAST_LOG_LEVEL"] == inventory["HOLDFAST_LOG_LEVEL"] == "DEBUG"
    assert order["PATH"] == "/bin"


def test_the_console_gets_what_it_knows_and_no_keys_of_gateways() -> None:
    """Its names are written down beside `up`, which may not ask it: they are those of its own settings."""
    own = names_of(ConsoleSettings) | names_of(HoldTimes)
    caller = Caller(
        {
            "HOLDFAST_KAFKA_SECURITY_PROTOCOL": "SSL",
            "HOLDFAST_HOLD_SECONDS": "7",
            "HOLDFAST_LOG_LEVEL": "DEBUG",
            "HOLDFAST_STRIPE_SECRET_KEY": "sk_test_secret",
            "HOLDFAST_STOREFRONT_TOKEN": "s" * 16,
        }
    )

    console = caller.environment_of("console", {"HOLDFAST_OPERATOR_TOKEN": "o" * 16})

    given = {name for name in console if name.startswith("HOLDFAST_")}
    assert given <= own
    assert given == {
        "HOLDFAST_KAFKA_SECURITY_PROTOCOL",
        "HOLDFAST_HOLD_SECONDS",
        "HOLDFAST_LOG_LEVEL",
        "HOLDFAST_OPERATOR_TOKEN",
    }
    assert names_of(KafkaConnection) <= own


def test_the_names_of_the_console_disturb_nobody() -> None:
    """One environment may hold the settings of all: a service passes over those of the console."""
    known = NOT_OF_A_SERVICE | frozenset().union(*of_services().values())

    assert names_of(ConsoleSettings) <= known


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    """A name that ends in `_FILE` gives the content of the file, without the end of the line."""
    (tmp_path / "token").write_text("from-a-file\n")

    caller = Caller({"HOLDFAST_OPERATOR_TOKEN_FILE": str(tmp_path / "token")})

    assert caller.value("HOLDFAST_OPERATOR_TOKEN") == "from-a-file"


def test_databases_are_named_all_or_none() -> None:
    """The database of one service alone cannot be elsewhere; the message names what is missing."""
    caller = Caller({"HOLDFAST_ORDER_DATABASE_DSN": "postgresql://a:b@127.0.0.1/c"})

    with pytest.raises(
        Misconfigured, match="HOLDFAST_INVENTORY_DATABASE_DSN, HOLDFAST_PAYMENT_DATABASE_DSN: missing"
    ):
        caller.databases()
