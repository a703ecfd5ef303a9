"""How is the sandbox run as a process? `python -m deploy.local.sandbox`, until SIGTERM or Ctrl-C."""

import asyncio
import logging
import os
import signal
import sys

import uvloop

from deploy.local.sandbox.journal import JournalError
from deploy.local.sandbox.main import start
from deploy.local.sandbox.settings import Settings, SettingsError

logger = logging.getLogger("deploy.local.sandbox")


async def _run(settings: Settings) -> None:
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    sandbox = await start(settings)
    logger.info("the sandbox gateway listens on %s", sandbox.url)
    await asked_to_stop.wait()
    await sandbox.stop()
    logger.info("the sandbox gateway has stopped")


def main() -> int:
    """Run until told to stop; 2 and one clear line each if the settings are not usable."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        uvloop.run(_run(settings))
    except (JournalError, OSError) as error:
        sys.stderr.write(f"the sandbox gateway cannot run: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
