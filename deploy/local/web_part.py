"""How is a Python module that answers HTTP run as a part: the services and the sandbox gateway?"""

import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from deploy.local.ports import HOST
from deploy.local.process import Child, Program

_START_TIMEOUT_SECONDS = 60.0
# Longer than a service takes to finish what is under way (`HOLDFAST_DRAIN_SECONDS_MAX`, 20 s unless told).
_STOP_TIMEOUT_SECONDS = 30.0
_ANSWER_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


class WebPart:
    """A module run by this Python, ready when `/readyz` answers 200, alive as long as `/livez` does."""

    def __init__(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str],
        *,
        port: int,
        log_dir: Path,
        run_dir: Path,
    ) -> None:
        """Take the whole environment of the process, and the port that it will answer on."""
        self.name = name
        self._url = f"http://{HOST}:{port}"
        program = Program(
            name=name,
            command=[sys.executable, "-m", module],
            log_file=log_dir / f"{name}.log",
            pid_file=run_dir / f"{name}.pid",
            ports=(port,),
            environment=environment,
            stop_timeout_seconds=_STOP_TIMEOUT_SECONDS,
        )
        self._child = Child(program)

    @property
    def pid(self) -> int | None:
        """The process id, or none while it does not run."""
        return self._child.pid

    async def start(self) -> None:
        """Start the process and return when it is ready.

        Raises:
            PartFailed: it ended, or was not ready in time.
        """
        try:
            await self._child.start()
            await self._child.wait_until(self._is_ready, _START_TIMEOUT_SECONDS)
        except BaseException:
            await self._child.stop()
            raise

    async def stop(self) -> None:
        """Ask the process to finish and to end."""
        await self._child.stop()

    async def wait(self) -> int:
        """Wait for the end of the process and give its exit code."""
        return await self._child.wait()

    async def is_healthy(self) -> bool:
        """Tell whether the process says that it is alive."""
        return await _answers_well(f"{self._url}/livez")

    async def _is_ready(self) -> bool:
        return await _answers_well(f"{self._url}/readyz")


async def _answers_well(url: str) -> bool:
    try:
        async with aiohttp.ClientSession(timeout=_ANSWER_TIMEOUT) as session, session.get(url) as response:
            return response.status == 200  # noqa: PLR2004 (OK)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
