"""Who changed what by an operator's command, when, why, and how much of it?

Each service's database keeps what operators did to it in `operator_actions`, which nothing is ever deleted from. What
takes a while is begun before it acts and finished after it, so that an action that was cut off can be seen, too.
"""

import getpass
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.database import Connection, DedicatedConnection, connect
from shared.errors import Misconfigured, NotFound, Unavailable
from shared.ids import new_id

#: The setting that says who an operator is; without it the login name counts.
NAME_VARIABLE = "HOLDFAST_OPERATOR_NAME"
_NAME_CHARACTERS_MAX = 200
_UNDEFINED_TABLE = "42P01"


@dataclass(frozen=True, slots=True)
class Action:
    """Something an operator did; `finished_at` is None while it is under way, or if it was cut off.

    `details` says to what (topic, group, filters, …), `counts` how much of it.
    """

    id: UUID
    at: datetime
    finished_at: datetime | None
    who: str
    command: str
    reason: str | None
    details: Mapping[str, Any]
    counts: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return asdict(self)


def operator_name() -> str:
    """Return who is asking: HOLDFAST_OPERATOR_NAME, or else the login name.

    Raises:
        Misconfigured: there is neither.
    """
    given = os.environ.get(NAME_VARIABLE, "").strip()
    if given:
        return given[:_NAME_CHARACTERS_MAX]
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:
        detail = f"It cannot be told who you are: this account has no name. Set {NAME_VARIABLE}."
        raise Misconfigured(detail) from error


@asynccontextmanager
async def connected(service: str, dsn: str) -> AsyncIterator[DedicatedConnection]:
    """Lend a connection to a service's database (`order`, `inventory`, `payment`); what goes wrong says what to do.

    Raises:
        Unavailable: the database does not answer, or lacks tables.
    """
    try:
        connection = await connect(dsn, application_name="holdfast-operator")
    except Unavailable as error:
        variable = f"HOLDFAST_{service.upper()}_DATABASE_DSN"
        detail = (
            f"{service}: {error.detail} Is Postgres running, and does {variable} (or --data-dir) lead to it?"
        )
        raise Unavailable(detail) from error
    try:
        yield connection
    except Exception as error:
        if getattr(error, "sqlstate", None) != _UNDEFINED_TABLE:
            raise
        detail = f"{service}: {error}. `holdfast migrate {service}` makes the tables."
        raise Unavailable(detail) from error
    finally:
        await connection.close()


async def record_action(
    connection: Connection,
    *,
    command: str,
    details: Mapping[str, Any],
    counts: Mapping[str, int],
    reason: str | None = None,
    who: str | None = None,
) -> UUID:
    """Keep an action that is done when this transaction commits, and return its id; `who` is the operator by default."""
    return await _insert_action(
        connection, command=command, details=details, counts=counts, reason=reason, who=who, is_finished=True
    )


async def begin_action(
    connection: Connection,
    *,
    command: str,
    details: Mapping[str, Any],
    counts: Mapping[str, int],
    reason: str | None = None,
    who: str | None = None,
) -> UUID:
    """Keep an action that is about to be done, and return its id for `finish_action`."""
    return await _insert_action(
        connection, command=command, details=details, counts=counts, reason=reason, who=who, is_finished=False
    )


async def _insert_action(
    connection: Connection,
    *,
    command: str,
    details: Mapping[str, Any],
    counts: Mapping[str, int],
    reason: str | None,
    who: str | None,
    is_finished: bool,
) -> UUID:
    action_id = new_id()
    await connection.execute(
        """
        INSERT INTO operator_actions (id, who, command, reason, details, counts, finished_at)
        VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN now() END)
        """,
        action_id,
        who or operator_name(),
        command,
        reason,
        dict(details),
        dict(counts),
        is_finished,
    )
    return action_id


async def finish_action(
    connection: Connection,
    action_id: UUID,
    *,
    counts: Mapping[str, int],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Note that an action has ended, with what it came to; `details` are put beside those it began with.

    Raises:
        NotFound: there is no such action, or it was finished before.
    """
    done = await connection.execute(
        """
        UPDATE operator_actions
        SET finished_at = clock_timestamp(), counts = $2, details = details || $3
        WHERE id = $1 AND finished_at IS NULL
        """,
        action_id,
        dict(counts),
        dict(details or {}),
    )
    if done != "UPDATE 1":
        detail = f"No action {action_id} is under way."
        raise NotFound(detail)


async def list_actions(
    connection: Connection, *, command: str | None = None, limit: int = 100, before: UUID | None = None
) -> list[Action]:
    """Return actions, the newest first: of one command or of all, `limit` at most, older than the action `before`."""
    rows = await connection.fetch(
        """
        SELECT id, at, finished_at, who, command, reason, details, counts
        FROM operator_actions
        WHERE ($1::text IS NULL OR command = $1) AND ($2::uuid IS NULL OR id < $2)
        ORDER BY id DESC LIMIT $3
        """,
        command,
        before,
        limit,
    )
    return [Action(**row) for row in rows]
