"""Do the operators' commands do on a running system what they say?"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psutil  # type: ignore[import-untyped]  # it publishes no types
import pytest

from shared.commands import command
from shared.events import OrderedLine, PlaceOrder
from shared.ids import new_id
from tests.end_to_end.driver import HOLDFAST, Driver


async def holdfast(
    *arguments: str | Path, given: bytes = b"", timeout_seconds: float = 60.0, **settings: str
) -> tuple[int, str, str]:
    """Run a command and return its exit status, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        HOLDFAST,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **settings},
    )
    async with asyncio.timeout(timeout_seconds):
        out, error = await process.communicate(given)
    return process.returncode or 0, out.decode(), error.decode()


async def on_the_system(system: Driver, *arguments: str, given: bytes = b"") -> tuple[int, Any]:
    """Run a command with --json on the running system and return its exit status and what it printed."""
    status, out, _ = await holdfast(
        *arguments, "--json", "--data-dir", str(system.ready["data_dir"]), given=given
    )
    return status, orjson.loads(out)


async def test_migrating_and_creating_topics_again_changes_nothing(system: Driver) -> None:
    """What `up` has done already is found done."""
    migrated = await on_the_system(system, "migrate")
    status, topics = await on_the_system(system, "topics")

    assert migrated == (0, {"order": [], "inventory": [], "payment": []})
    assert status == 0
    assert all(row["partitions"] == row["wanted"] and not row["created"] for row in topics["topics"])
    assert {row["topic"] for row in topics["topics"]} >= {
        "order.commands",
        "order.events.payment-service.dlq",
    }


async def test_sent_commands_become_orders(system: Driver) -> None:
    """A file of commands, here standard input, is published as it stands."""
    sku = await system.stock(1)
    order_id = new_id()
    data = {
        "order_id": str(order_id),
        "customer_id": "c-1",
        "currency": "EUR",
        "lines": [{"sku": sku, "quantity": 1}],
    }

    sent = await on_the_system(
        system, "send", "-", given=orjson.dumps({"type": "PlaceOrder.v1", "data": data}) + b"\n\n"
    )

    assert sent == (0, {"sent": 1})
    assert await system.until(order_id, "AWAITING_PAYMENT", "REJECTED") == "AWAITING_PAYMENT"


async def test_a_wrong_line_sends_nothing_and_is_named(system: Driver) -> None:
    """One bad command among good ones stops the file before anything is published."""
    sku = await system.stock(1)
    good = PlaceOrder(
        order_id=new_id(), customer_id="c-1", currency="EUR", lines=(OrderedLine(sku=sku, quantity=1),)
    )
    line = b'{"type": "PlaceOrder.v1", "data": ' + command(good).payload + b"}\n"

    status, _, error = await holdfast(
        *("send", "-", "--data-dir", system.ready["data_dir"]), given=line + b'{"type": "PlaceOrder.v2"}\n'
    )

    assert status == 1
    assert "line 2" in error
    assert await system.level(sku) == (1, 0, 0)


async def test_the_audit_of_a_sound_system_finds_nothing(system: Driver) -> None:
    """With the traffic of the other tests behind it, every book agrees."""
    status, report = await on_the_system(system, "audit")

    assert report["findings"] == []
    assert report["ok"]
    assert status == 0


async def test_the_topics_of_a_sound_system_lack_nothing(system: Driver) -> None:
    """Every event that the three services have counted is in its topic (A12)."""
    status, report = await on_the_system(system, "audit", "--kafka")

    assert report["findings"] == []
    assert report["counted"]["events"] > 0
    assert status == 0


async def test_the_lag_of_a_sound_system_is_within_its_limits(system: Driver) -> None:
    """Kafka and all three databases are asked, and nothing waits for too long; a limit of our own is exceeded."""
    status, report = await on_the_system(system, "lag", "--dead-letters-max", "100")
    tight, _ = await on_the_system(system, "lag", "--messages-max", "-1")

    assert report["problems"] == []
    assert status == 0, report
    assert {measure["what"] for measure in report["measures"]} >= {
        "consumer lag",
        "outbox",
        "open orders",
        "overdue holds",
        "refunds due",
    }
    assert tight == 1


@pytest.mark.parametrize("name", ["audit", "lag", "topics", "migrate"])
async def test_a_command_without_a_system_says_how_to_find_one(tmp_path: Path, name: str) -> None:
    """Where nothing runs, the error names the ways to go on, and the exit status is 2."""
    status, out, error = await holdfast(name, "--data-dir", tmp_path)

    assert status == 2
    assert out == ""
    assert "holdfast up" in error
    assert "HOLDFAST_ORDER_DATABASE_DSN" in error


async def test_a_misspelt_setting_stops_the_start_with_one_line(tmp_path: Path) -> None:
    """A name that is in no part's settings is an error, before anything is started."""
    status, out, error = await holdfast("up", "--data-dir", tmp_path, HOLDFAST_HOLD_SECOND="5")

    assert status == 2
    assert out == ""
    assert error.strip() == "holdfast: HOLDFAST_HOLD_SECOND: there is no such setting"


async def test_without_the_parts_up_says_what_to_do_and_leaves_nothing_running(tmp_path: Path) -> None:
    """Nothing cached and no way out: one message, exit status 1, and what had started is stopped."""
    nobody_listens = "http://127.0.0.1:9"
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    proxies: dict[str, Any] = {**dict.fromkeys(names, nobody_listens), "NO_PROXY": "", "no_proxy": ""}

    status, out, error = await holdfast(
        *("up", "--ports", "auto", "--data-dir", tmp_path / "data"),
        HOLDFAST_CACHE_DIR=str(tmp_path / "cache"),
        **proxies,
    )

    message = error.splitlines()[-1]
    assert (status, out) == (1, "")
    assert message.startswith("holdfast: Apache Kafka 4.4.0 could not be fetched")
    assert "copy the jars" in message
    assert "Traceback" not in error
    assert [process.pid for process in psutil.process_iter() if _is_at(process, tmp_path)] == []


def _is_at(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.NoSuchProcess):
        return str(folder) in " ".join(process.cmdline())
    return False
