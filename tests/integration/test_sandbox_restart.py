"""Does the sandbox gateway, as a process of its own, survive being killed, and stop and refuse clearly?"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deploy.local.sandbox.journal import JournalError
from tests.integration.sandbox_harness import SECRET, Client, Receiver, eventually, receiving, sandbox, spawn

NEW = {"reference": "waiting", "amount_minor": 1, "currency": "EUR"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _environment(data_dir: Path, receiver: Receiver, port: int) -> dict[str, str]:
    return {
        "HOLDFAST_HTTP_PORT": str(port),
        "HOLDFAST_SANDBOX_DATA_DIR": str(data_dir),
        "HOLDFAST_SANDBOX_WEBHOOK_SECRETS": SECRET,
        "HOLDFAST_SANDBOX_WEBHOOK_URL": receiver.url,
    }


@asynccontextmanager
async def _process(
    data_dir: Path, receiver: Receiver, port: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Client]]:
    """The sandbox as a process that is ready; killed at the end if it still runs."""
    process = await spawn(**_environment(data_dir, receiver, port))
    try:
        async with aiohttp.ClientSession() as session:
            client = Client(f"http://127.0.0.1:{port}", session, receiver)

            async def ready() -> bool:
                assert process.returncode is None
                try:
                    return (await client.call("GET", "/readyz"))[0] == 200
                except aiohttp.ClientConnectorError:
                    return False

            await eventually(ready)
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_nothing_answered_is_lost_by_kill_9(tmp_path: Path) -> None:
    """After kill -9 the payments, refunds and owed webhooks are all there, and the webhooks keep their ids."""
    async with receiving() as receiver:
        receiver.answer = lambda _delivery: 503
        port = _free_port()
        async with _process(tmp_path, receiver, port) as (process, client):
            payments = [await client.create(f"attempt-{number}") for number in range(50)]
            settled = {(await client.settle(payment, times=2))["webhook_id"] for payment in payments}
            _, refund = await client.refund(payments[0], "key")
            before = [await client.get(payment) for payment in payments]
            process.kill()
            await process.wait()
        receiver.deliveries.clear()
        receiver.answer = lambda _delivery: 200

        async with _process(tmp_path, receiver, port) as (_, client):
            await client.everything_delivered()
            after = [await client.get(payment) for payment in payments]
            refunded_again = await client.refund(payments[0], "key")

    assert after == before
    assert refunded_again == (200, refund)
    assert {delivery["id"] for delivery in receiver.deliveries} > settled
    assert len(receiver.deliveries) == 101


async def test_what_was_delivered_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    """Of three deliveries, two accepted before a restart, one more is sent after it, and never another."""
    async with receiving() as receiver:
        receiver.answer = lambda _delivery: 200 if len(receiver.deliveries) <= 2 else 503
        async with sandbox(tmp_path, receiver) as client:
            await client.settle(await client.create(), times=3)

            async def one_is_left() -> bool:
                return bool((await client.control())["deliveries_pending"] == 1)

            await eventually(one_is_left)
        receiver.deliveries.clear()

        async with sandbox(tmp_path, receiver) as client:
            await client.everything_delivered()
        async with sandbox(tmp_path, receiver) as client:
            pending = (await client.control())["deliveries_pending"]

    assert len(receiver.deliveries) == 1
    assert pending == 0


async def test_a_torn_last_line_is_forgotten(tmp_path: Path) -> None:
    """A line that a kill cut short was never answered for: the start passes over it and goes on."""
    async with receiving() as receiver:
        async with sandbox(tmp_path, receiver) as client:
            payment = await client.create("whole")
        with (tmp_path / "journal.jsonl").open("ab") as journal:
            journal.write(b'[["payment",{"payment_id":"torn')

        async with sandbox(tmp_path, receiver) as client:
            await client.create("next")
        async with sandbox(tmp_path, receiver) as client:
            counts = await client.control()
            found = await client.get(payment)

    assert counts["payments"] == 2
    assert found["reference"] == "whole"


async def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    """A whole line that cannot be read stops the start, and names its line; nothing is dropped in silence."""
    (tmp_path / "journal.jsonl").write_bytes(b'[]\n[["payment",{}]]\n')

    with pytest.raises(JournalError, match="line 2"):
        async with receiving() as receiver, sandbox(tmp_path, receiver):
            pass


async def test_a_directory_serves_one_sandbox(tmp_path: Path) -> None:
    """A second sandbox on the same directory is refused while the first one runs."""
    async with receiving() as receiver, sandbox(tmp_path, receiver):
        with pytest.raises(JournalError, match="another sandbox"):
            async with sandbox(tmp_path, receiver):
                pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_gracefully(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end the process with 0, even while a caller is kept waiting."""
    async with receiving() as receiver, _process(tmp_path, receiver, _free_port()) as (process, client):
        await client.control(silent=True)
        creation = asyncio.create_task(client.call("POST", "/payments", NEW))

        async def stored() -> bool:
            return bool((await client.control())["payments"] == 1)

        await eventually(stored)
        process.send_signal(number)

        assert await asyncio.wait_for(process.wait(), timeout=10) == 0
        assert (await creation)[0] == 201


async def test_bad_settings_stop_the_start_with_one_line_each(tmp_path: Path) -> None:
    """Each setting that is missing or wrong has its line, the exit code is 2, and no secret is repeated."""
    process = await spawn(
        HOLDFAST_HTTP_PORT="eighty",
        HOLDFAST_SANDBOX_DATA_DIR=str(tmp_path),
        HOLDFAST_SANDBOX_WEBHOOK_SECRETS="whsec_not*base64",
    )

    _, errors = await process.communicate()

    lines = errors.decode().splitlines()
    assert process.returncode == 2
    assert sorted(line.split(":")[0] for line in lines) == [
        "HOLDFAST_HTTP_PORT",
        "HOLDFAST_SANDBOX_WEBHOOK_SECRETS",
        "HOLDFAST_SANDBOX_WEBHOOK_URL",
    ]
    assert "not*base64" not in errors.decode()
