"""Does the supervisor keep the parts alive, on the same ports, and start and stop them in order?"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local import supervisor as supervising
from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.process import PartFailed
from deploy.local.supervisor import DataDirInUse, Supervisor, exclusive
from tests.waiting import eventually

STORES = ("postgres", "kafka")


class ScriptedPart:
    """A part that notes what is done to it, and lives, dies or falls silent as the test says."""

    pid = None

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.starts_well = True
        self.answers = True
        self.died = asyncio.Event()
        self._notes = notes

    async def start(self) -> None:
        """Start, or fail to."""
        if not self.starts_well:
            raise PartFailed(f"{self.name} is broken")
        self._notes.append(f"start {self.name}")

    async def stop(self) -> None:
        """Stop."""
        self._notes.append(f"stop {self.name}")

    async def wait(self) -> int:
        """Live until the test says otherwise."""
        await self.died.wait()
        return 1

    async def is_healthy(self) -> bool:
        """Answer as the test says."""
        return self.answers


@pytest.fixture
def said() -> list[str]:
    """What the supervisor has told a person."""
    return []


@pytest.fixture
async def supervisor(said: list[str]) -> AsyncIterator[Supervisor]:
    """A supervisor that is stopped after the test."""
    supervisor = Supervisor(said.append)
    yield supervisor
    await supervisor.stop()


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the supervisor's pauses pass a thousand times faster."""
    for name in (
        "_PAUSE_SECONDS_MIN",
        "_PAUSE_SECONDS_MAX",
        "_PROBE_INTERVAL_SECONDS",
        "_SILENCE_SECONDS_MAX",
    ):
        monkeypatch.setattr(supervising, name, getattr(supervising, name) / 1000)


def times_ready(said: list[str], name: str) -> int:
    """Count how often a part was said to be ready."""
    return sum(line.startswith(f"{name} is ready") for line in said)


async def test_killed_stores_come_back_on_the_same_ports(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    """Kafka and Postgres, killed with -9, run again in a new process at the same address, and the supervisor says so."""
    postgres, kafka = EmbeddedPostgres(tmp_path / "postgres"), EmbeddedKafka(tmp_path / "kafka")
    await supervisor.start(postgres, kafka)
    addresses = (postgres.dsn("order"), kafka.bootstrap_servers)
    pids = (postgres.pid, kafka.pid)

    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    await eventually(lambda: [times_ready(said, name) for name in STORES] == [2, 2], timeout_seconds=60)
    assert {f"{name} died (exit code -9): starting it again in 0.2 s" for name in STORES} <= set(said)
    assert await postgres.is_healthy()
    assert await kafka.is_healthy()
    assert not {postgres.pid, kafka.pid} & {None, *pids}
    assert (postgres.dsn("order"), kafka.bootstrap_servers) == addresses


async def test_groups_start_one_after_the_other_and_stop_in_reverse(supervisor: Supervisor) -> None:
    """A later group starts when the earlier one is ready, and is stopped before it."""
    notes: list[str] = []
    await supervisor.start(ScriptedPart("store", notes))
    await supervisor.start(ScriptedPart("service", notes))

    await supervisor.stop()

    assert notes == ["start store", "start service", "stop service", "stop store"]


async def test_a_part_that_does_not_start_stops_the_start(supervisor: Supervisor) -> None:
    """The failure of one part reaches the caller, and what had started is stopped."""
    notes: list[str] = []
    await supervisor.start(ScriptedPart("store", notes))
    broken = ScriptedPart("service", notes)
    broken.starts_well = False

    with pytest.raises(PartFailed, match="service is broken"):
        await supervisor.start(broken)
    await supervisor.stop()

    assert notes == ["start store", "stop service", "stop store"]


async def test_a_part_aside_holds_nobody_up(
    supervisor: Supervisor, said: list[str], in_no_time: None
) -> None:
    """One that does not start is tried again until it does, while the others run."""
    notes: list[str] = []
    aside, service = ScriptedPart("console", notes), ScriptedPart("service", notes)
    aside.starts_well = False

    tried = supervisor.start_aside(aside)
    await supervisor.start(service)
    await asyncio.wait_for(tried.wait(), 5)
    before = notes[:]
    aside.starts_well = True
    await eventually(lambda: times_ready(said, "console") == 1)

    assert "start service" in before
    assert "start console" not in before
    assert any("console did not start (console is broken)" in line for line in said)


async def test_a_part_aside_comes_back_and_is_stopped_first(
    supervisor: Supervisor, said: list[str], in_no_time: None
) -> None:
    """It is watched like every other part, those who keep its process id are told, and nothing needs it longer."""
    notes: list[str] = []
    aside, told = ScriptedPart("console", notes), []
    supervisor.on_return = lambda: told.append("again")
    supervisor.start_aside(aside)
    await supervisor.start(ScriptedPart("service", notes))
    await eventually(lambda: times_ready(said, "console") == 1)

    aside.died.set()
    await eventually(lambda: times_ready(said, "console") >= 2)
    await eventually(lambda: len(told) >= 2)
    await supervisor.stop()

    assert supervisor.pids() == {}
    assert notes[-2:] == ["stop console", "stop service"]


async def test_pauses_grow_up_to_a_limit(supervisor: Supervisor, said: list[str], in_no_time: None) -> None:
    """A part that keeps failing is started again after 0.2, 0.4, 0.8… and never more than 10 seconds (here, ms)."""
    part = ScriptedPart("service", [])
    await supervisor.start(part)
    part.starts_well = False

    part.died.set()

    await eventually(lambda: sum("starting it again" in line for line in said) >= 9)
    pauses = [line.split(" in ")[1] for line in said if "starting it again" in line][:9]
    assert pauses == [f"{pause / 1000:g} s" for pause in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10)]
    assert "service did not start (service is broken): starting it again" in said[2]


async def test_a_part_that_falls_silent_is_started_again(
    supervisor: Supervisor, said: list[str], in_no_time: None
) -> None:
    """A part that lives but has not answered for the limit is stopped and started again."""
    notes: list[str] = []
    part = ScriptedPart("service", notes)
    await supervisor.start(part)

    part.answers = False

    await eventually(lambda: notes[:3] == ["start service", "stop service", "start service"])
    assert any("has not answered for" in line for line in said)


async def test_a_fault_of_the_supervisor_itself_is_not_hidden(supervisor: Supervisor) -> None:
    """If watching a part fails for a reason nobody foresaw, the whole run ends with that error."""
    part = ScriptedPart("service", [])

    async def wait() -> int:
        raise LookupError("unforeseen")

    part.wait = wait  # type: ignore[method-assign]  # this part breaks in a way that parts do not

    await supervisor.start(part)

    with pytest.raises(LookupError, match="unforeseen"):
        await supervisor.watch()


def test_a_data_directory_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    """A second holder is refused and told who the first one is; when the first has let go, the directory is free."""
    with (
        exclusive(tmp_path),
        pytest.raises(DataDirInUse, match=rf"{tmp_path} is in use .*process {os.getpid()}"),
        exclusive(tmp_path),
    ):
        pytest.fail("two held it")

    with exclusive(tmp_path):
        pass
