"""How is a program run as a child that never outlives us, and whose end is always noticed?"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types

from deploy.local.ports import is_free
from shared.errors import HoldfastError

_POLL_SECONDS = 0.05
_LOG_BYTES_MAX = 16 * 1024 * 1024
_LOG_TAIL_LINES = 15
_KILL_TIMEOUT_SECONDS = 10.0
_LEFTOVER_TIMEOUT_SECONDS = 10.0
_COMMAND_TIMEOUT_SECONDS = 120.0
_CAP_DAC_READ_SEARCH = 2  # linux/capability.h


class PartFailed(HoldfastError):
    """A part of the local system did not start."""

    reason = "part_failed"


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user that a child runs as when we are root."""

    user_id: int
    group_id: int
    may_pass_folders: bool = False


def can_lend_passage() -> bool:
    """Tell whether we may let another account pass through folders that only root may enter, such as root's home."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return False
    permitted = next((line.split()[1] for line in status.splitlines() if line.startswith("CapPrm:")), "0")
    return shutil.which("setpriv") is not None and bool(int(permitted, 16) >> _CAP_DAC_READ_SEARCH & 1)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and how to end it."""

    name: str
    command: Sequence[str | Path]
    log_file: Path
    pid_file: Path
    ports: Sequence[int] = ()
    environment: Mapping[str, str] | None = None  # the whole of it; ours if there is none
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_seconds: float = 20.0


class Child:
    """One run of a program: it writes to its log file, and its pid file lets a later run end what we left behind."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or none while nothing runs."""
        return self._process.pid if self._process is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Tell whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The code that the last run ended with; negative for a signal."""
        return None if self._process is None else self._process.poll()

    async def start(self) -> None:
        """Start the program, after ending what an earlier, interrupted run of it left behind.

        Raises:
            PartFailed: another program listens on one of its ports.
        """
        await end_leftover(self.program.pid_file)
        for port in self.program.ports:
            # Without this the other program's answers would be taken for ours.
            if not is_free(port):
                raise PartFailed(f"{self.program.name} needs port {port}, but another program listens on it")
        _rotate(self.program.log_file)
        with self.program.log_file.open("ab") as log:
            self._process = spawn(self.program, log.fileno())
        _note(self.program, self._process.pid)

    async def wait(self) -> int:
        """Wait for the end of the process and give its exit code."""
        process = self._process
        if process is None:
            raise PartFailed(f"{self.program.name} was never started")
        while (code := process.poll()) is None:
            await asyncio.sleep(_POLL_SECONDS)
        return code

    async def wait_until(self, is_ready: Callable[[], Awaitable[bool]], timeout_seconds: float) -> None:
        """Wait until the program answers.

        Raises:
            PartFailed: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (await is_ready() and self.is_running):
            if not self.is_running:
                raise PartFailed(
                    f"{self.program.name} ended with exit code {self.exit_code}{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise PartFailed(
                    f"{self.program.name} was not ready after {timeout_seconds:g} s{self._log_tail()}"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Ask the process to end, then end it, with everything in its process group."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.program.stop_signal)
            try:
                async with asyncio.timeout(self.program.stop_timeout_seconds):
                    await self.wait()
            except TimeoutError:
                pass
            finally:
                _kill_group(process.pid)
        async with asyncio.timeout(_KILL_TIMEOUT_SECONDS):
            await self.wait()
        _forget(self.program.pid_file)

    def _log_tail(self) -> str:
        try:
            lines = self.program.log_file.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        except OSError:
            lines = []
        return "".join(f"\n  {line}" for line in [f"(last lines of {self.program.log_file})", *lines])


def spawn(program: Program, output: int) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C in the terminal reaches only us."""
    return subprocess.Popen(  # noqa: S603 (a list, no shell)
        [*_launcher(program.account, program.stop_signal), *map(str, program.command)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=None if program.environment is None else dict(program.environment),
        start_new_session=True,
        **_switch_user(program.account),
    )


async def run(
    command: Sequence[str | Path],
    *,
    account: Account | None = None,
    variables: Mapping[str, str] | None = None,
    text: str = "",
    timeout_seconds: float = _COMMAND_TIMEOUT_SECONDS,
) -> str:
    """Run a command to its end, with `text` as its input and `variables` added to our environment; give its output.

    Raises:
        PartFailed: it ended with an error, or not in time.
    """
    name = Path(command[0]).name
    call = partial(
        subprocess.run,
        [*_launcher(account, None), *map(str, command)],
        input=text,
        capture_output=True,
        check=False,
        text=True,
        timeout=timeout_seconds,
        env={**os.environ, **(variables or {})},
        **_switch_user(account),
    )
    try:
        done: subprocess.CompletedProcess[str] = await asyncio.to_thread(call)
    except subprocess.TimeoutExpired as error:
        raise PartFailed(f"{name} did not end within {timeout_seconds:g} s") from error
    if done.returncode != 0:
        raise PartFailed(
            f"{name} ended with exit code {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


async def end_leftover(pid_file: Path, timeout_seconds: float = _LEFTOVER_TIMEOUT_SECONDS) -> None:
    """End the process that a pid file names, if it is still the very same process; then forget it."""
    noted = _noted_process(pid_file)
    if noted is not None:
        process, stop_signal = noted
        deadline = time.monotonic() + timeout_seconds
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(stop_signal)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > deadline:
                    process.kill()
                await asyncio.sleep(_POLL_SECONDS)
    _forget(pid_file)


def _note(program: Program, pid: int) -> None:
    # The start time tells the process from a later one that was given the same number.
    with contextlib.suppress(psutil.NoSuchProcess):
        program.pid_file.write_text(
            f"{pid} {psutil.Process(pid).create_time()} {program.stop_signal.value}\n"
        )


def _forget(pid_file: Path) -> None:
    pid_file.unlink(missing_ok=True)


def _noted_process(pid_file: Path) -> tuple[psutil.Process, int] | None:
    try:
        pid, started, stop_signal = pid_file.read_text(encoding="ascii").split()
        process = psutil.Process(int(pid))
        return (process, int(stop_signal)) if process.create_time() == float(started) else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Already gone; macOS says "not permitted" for a group of zombies.
        return


def _rotate(log_file: Path) -> None:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    if log_file.exists() and log_file.stat().st_size > _LOG_BYTES_MAX:
        log_file.replace(log_file.with_suffix(".log.1"))


def _launcher(account: Account | None, death_signal: signal.Signals | None) -> list[str]:
    """Return the prefix that makes a program end when we die, and run under another account.

    Linux's `setpriv` does both without code of ours between fork and exec. Without it, a program that we left behind
    is ended by the next start.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    options = [] if death_signal is None else [f"--pdeathsig={death_signal.name.removeprefix('SIG')}"]
    if account is not None:
        options += [f"--reuid={account.user_id}", f"--regid={account.group_id}", "--clear-groups"]
        if account.may_pass_folders:
            options += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [setpriv, *options, "--"] if options else []


def _switch_user(account: Account | None) -> dict[str, Any]:
    """Return how `subprocess` itself changes the account, where there is no `setpriv` to do it."""
    if account is None or shutil.which("setpriv") is not None:
        return {}
    return {"user": account.user_id, "group": account.group_id, "extra_groups": []}
