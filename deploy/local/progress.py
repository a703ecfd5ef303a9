"""What does a person see on stderr while the system starts, runs and stops?"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text


class Progress:
    """A line for everything that happens, and on a terminal a spinner while something is awaited."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("starting")
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self.waiting("starting")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def say(self, text: str) -> None:
        """Print one thing that happened, with the time since the start."""
        line = Text.assemble((f"{time.monotonic() - self._began:7.1f} s  ", "dim"), text)
        self._console.print(line, soft_wrap=True)

    def waiting(self, what: str) -> None:
        """Show that something takes a while."""
        if self._console.is_terminal:
            self._status.update(what)
            self._status.start()

    def settled(self) -> None:
        """Show that nothing is awaited any more."""
        self._status.stop()
