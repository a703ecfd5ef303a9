"""Does the page that connects Stripe and Midtrans say what is true, and do its commands run as they stand?"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ops.demo.banks import STRIPE_EVENTS
from services.payment_service.gateways.stripe_events import EVENTS
from shared.settings import of_services
from tests.end_to_end.driver import running

PAGE = (Path(__file__).parent.parent.parent / "docs" / "payments.md").read_text()
_DOUBLES_SECONDS_MAX = 20
_SCRIPT_SECONDS_MAX = 120


@asynccontextmanager
async def doubles(data_dir: Path) -> AsyncIterator[dict[str, str]]:
    """Run the doubles as the page says, on free ports, and lend the settings that they print."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.local.doubles", "--data-dir", str(data_dir)),
        *("--stripe-port", "0", "--midtrans-port", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        settings: dict[str, str] = {}
        async with asyncio.timeout(_DOUBLES_SECONDS_MAX):
            while "HOLDFAST_MIDTRANS_SNAP_BASE_URL" not in settings:
                line = (await process.stdout.readline()).decode()
                name, _, value = line.removeprefix("export ").strip().partition("=")
                settings[name] = value
        yield settings
    finally:
        process.terminate()
        await process.wait()


async def test_the_payments_page_runs_as_it_stands(parts_folder: Path, tmp_path: Path) -> None:
    """Its third terminal pays with a declined card, in rupiah, and with a lost webhook, and finds every book right."""
    started, *rest = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[1:]
    data_dir = parts_folder / "payments"
    (tmp_path / ".holdfast").symlink_to(data_dir)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    written = dict(re.findall(r"(HOLDFAST_\w+)=(\S+)", started))

    async with doubles(data_dir) as settings:
        schedule = {"HOLDFAST_RECONCILE_SCHEDULE_SECONDS": written["HOLDFAST_RECONCILE_SCHEDULE_SECONDS"]}
        async with running(data_dir, **settings, **schedule):
            process = await asyncio.create_subprocess_exec(
                *("bash", "-euo", "pipefail", "-c", "\n".join(rest)),
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "COLUMNS": "200"},
            )
            async with asyncio.timeout(_SCRIPT_SECONDS_MAX):
                output, errors = await process.communicate()

    said = output.decode()
    assert process.returncode == 0, said + errors.decode()
    assert said.splitlines().count("PROCESSING") == 3
    assert "Reconciled" in said
    assert "Audit clean" in said
    # Only the ports differ, which are free ones here.
    same = {name for name in written if not name.endswith("_BASE_URL")}
    assert {name: {**settings, **schedule}[name] for name in same} == {name: written[name] for name in same}


def test_the_page_subscribes_to_what_the_service_reads() -> None:
    """The types of the page are those that the demo's endpoint has, each known to the service, none left out."""
    between = re.search(r"<!-- stripe events -->(.*?)<!-- end -->", PAGE, re.DOTALL)
    assert between is not None
    listed = re.findall(r"`([a-z_.]+)`", between[1])

    moving = {kind for (kind, _), row in EVENTS.items() if row.meaning is not None}
    assert len(listed) == len(set(listed))
    assert set(listed) == STRIPE_EVENTS
    assert set(listed) <= {kind for kind, _ in EVENTS}
    # These say no more than others do: steps on the way, and the older name of refund.updated.
    assert moving - set(listed) == {
        "payment_intent.requires_action",
        "payment_intent.partially_funded",
        "charge.refund.updated",
    }


@pytest.mark.parametrize("name", sorted(set(re.findall(r"HOLDFAST_[A-Z_]*[A-Z]", PAGE))))
def test_every_setting_of_the_page_exists(name: str) -> None:
    """A misspelt name would stop the start."""
    known = frozenset().union(*of_services().values())
    assert name.removesuffix("_FILE") in known
