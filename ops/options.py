"""Which options do several operators' commands share, and how is an operator asked before something changes?"""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import Parameter, Token
from rich.console import Console

from shared.errors import Conflict

_PIPE_COLUMNS = 200
_AGO = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_moment(text: str, now: datetime) -> datetime:
    """Return the time that an operator means: RFC 3339 (UTC where no zone is said), or how long ago (`90s 15m 2h 3d`).

    Raises:
        ValueError: it is neither.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError) as error:
        detail = f"{text!r} is no time: give 2026-03-01T12:00:00Z, or how long ago (90s, 15m, 2h, 3d)"
        raise ValueError(detail) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _convert_moment(_: type, tokens: Sequence[Token]) -> datetime:
    return read_moment(tokens[0].value, datetime.now(UTC))


DataDir = Annotated[Path, Parameter(help="Folder of a running `holdfast up`.")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON object instead of a table.")
]
Execute = Annotated[
    bool, Parameter(negative="", help="Do it; without this only the plan is shown and nothing changes.")
]
Yes = Annotated[
    bool, Parameter(negative="", help="Do not ask; needed together with --execute where nobody can answer.")
]


def _at_least_one(_: type, limit: int) -> None:
    if limit < 1:
        raise ValueError("must be at least 1")


Limit = Annotated[int, Parameter(validator=_at_least_one)]
Moment = Annotated[datetime, Parameter(converter=_convert_moment, accepts_keys=False, n_tokens=1)]


def print_json(data: object) -> None:
    """Print one JSON object on one line."""
    print(orjson.dumps(data, default=str).decode())


def consent(question: str, *, yes: bool) -> bool:
    """Return whether the operator wants it done; asked on standard error, so that standard output can be piped.

    Raises:
        Conflict: nobody can be asked, and `--yes` was not given.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Conflict(
            "Nothing was changed: this is no terminal, so nobody can be asked. Look at the plan (without --execute), "
            "then give --execute --yes."
        )
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def a_console() -> Console:
    """Return where tables are printed; in a file or a pipe they are wide, so that nothing has to be cut."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def in_utc(moment: datetime | None) -> str:
    """Return a time as tables show it: UTC, to the second; nothing for None."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
