"""What does every page of the console have at hand?"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession, web

from ops.console.access import Session
from ops.console.databases import Databases
from ops.console.frame import FORM, SESSION
from ops.console.jobs import Jobs
from ops.place import Place
from shared.errors import Invalid

REASON_CHARACTERS_MAX = 400
#: How many requests at once may read whole topics.
_HEAVY_MAX = 2


@dataclass(frozen=True, slots=True)
class Desk:
    """The system, seen from the console."""

    place: Place
    databases: Databases
    jobs: Jobs
    http: ClientSession
    payment_url: str
    operator_token: str
    data_dir: Path
    heavy: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_HEAVY_MAX))


def asked(request: web.Request, name: str) -> str | None:
    """Return a value of the address, without blanks around it; None if there is none."""
    return request.query.get(name, "").strip() or None


def session_of(request: web.Request) -> Session:
    """Return who asks."""
    return request[SESSION]


def reason_of(request: web.Request) -> str:
    """Return why an operator does something.

    Raises:
        Invalid: it is not said, or at great length.
    """
    reason = request[FORM].get("reason", "").strip()
    if not reason or len(reason) > REASON_CHARACTERS_MAX:
        detail = f"Say why, in 1 to {REASON_CHARACTERS_MAX} characters: it is kept with what you do."
        raise Invalid(detail)
    return reason


def signed_name(request: web.Request) -> str:
    """Return who does something, as it is recorded: the name that was given at the login, which nobody proved."""
    return f"{session_of(request).name} (console)"
