"""How does the sandbox go wrong on purpose? By knobs that tests turn; they are forgotten at a restart."""

import asyncio
from http import HTTPStatus

from pydantic import BaseModel, ConfigDict, Field

from deploy.local.sandbox.problems import Problem

_MILLISECONDS_PER_SECOND = 1_000


class Knobs(BaseModel):
    """What `POST /control` takes, each of them optional; the package's docstring says what each does."""

    model_config = ConfigDict(strict=True, extra="forbid")

    create_delay_ms: int = Field(default=0, ge=0, le=600_000)
    silent: bool = False
    fail_next: int = Field(default=0, ge=0, le=1_000_000)
    refund_failures: int = Field(default=0, ge=0, le=1_000_000)


class Faults:
    """The knobs as they stand, and what they do to a request."""

    def __init__(self) -> None:
        self.knobs = Knobs()
        self._answering = asyncio.Event()
        self._answering.set()

    def turn(self, knobs: Knobs) -> None:
        """Take over those knobs that were given."""
        self.knobs = self.knobs.model_copy(update=knobs.model_dump(exclude_unset=True))
        if self.knobs.silent:
            self._answering.clear()
        else:
            self._answering.set()

    def before_creation(self) -> None:
        """Raise if this creation is one that must fail."""
        if self.knobs.fail_next:
            self.knobs.fail_next -= 1
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The sandbox was told to fail this creation.")

    def before_refund(self) -> None:
        """Raise if this refund is one that must fail."""
        if self.knobs.refund_failures:
            self.knobs.refund_failures -= 1
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The sandbox was told to fail this refund.")

    async def before_creation_answer(self) -> None:
        """Hold back the answer to what is already stored."""
        if self.knobs.create_delay_ms:
            await asyncio.sleep(self.knobs.create_delay_ms / _MILLISECONDS_PER_SECOND)
        await self._answering.wait()

    async def before_refund_answer(self) -> None:
        """Hold back the answer to what is already stored."""
        await self._answering.wait()

    def let_go(self) -> None:
        """Answer whoever still waits: the process ends."""
        self._answering.set()
