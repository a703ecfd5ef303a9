"""What can an operator say about money that waits for a decision? `holdfast quarantine list|decisions|resolve`."""

import sys
from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter

from ops import place
from ops.actions import connected
from ops.options import DataDir, Execute, Json, Limit, Yes, a_console, consent, print_json
from ops.quarantine import rendering
from ops.quarantine.resolving import decide, try_out
from services.payment_service import store
from services.payment_service.domain.resolving import Action

_SERVICE = "payment"
_LIST_LIMIT = 100
_REASON_CHARACTERS_MAX = 500

quarantine = App(
    name="quarantine",
    help="Decide about money that came otherwise than asked for, and about money that somebody contests.",
    help_epilogue=(
        "Examples:\n\n"
        "holdfast quarantine list\n\n"
        "holdfast quarantine resolve 0190f5a0-… --action refund --reason 'customer agreed by telephone'\n\n"
        "holdfast quarantine resolve 0190f5a0-… --action accept --reason 'rounding' --execute --yes\n\n"
        "holdfast quarantine decisions"
    ),
)


def _check_reason(_: type, reason: str) -> None:
    if not 0 < len(reason.strip()) <= _REASON_CHARACTERS_MAX or "\0" in reason:
        detail = f"must be of 1 to {_REASON_CHARACTERS_MAX} characters"
        raise ValueError(detail)


Reason = Annotated[str, Parameter(validator=_check_reason)]


@quarantine.command(name="list")
async def list_waiting(
    *,
    after: UUID | None = None,
    limit: Limit = _LIST_LIMIT,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """List attempts about whose money nobody has decided yet. Exit status 1 if there are any.

    Args:
        after: only those behind this attempt; the last one of a list leads to the next.
        limit: how many at most.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of a table.
    """
    found = place.find(data_dir)
    async with connected(_SERVICE, found.dsns[_SERVICE]) as connection:
        rows = [dict(row) for row in await store.list_attempts_to_review(connection, after, limit)]
    if json:
        following = rows[-1]["attempt_id"] if len(rows) == limit else None
        print_json({"items": [rendering.waiting_as_dict(row) for row in rows], "next": following})
    else:
        rendering.render_waiting(rows, a_console())
    return 1 if rows else 0


@quarantine.command
async def decisions(
    *,
    attempt_id: UUID | None = None,
    limit: Limit = _LIST_LIMIT,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """List what was decided, by whom, when and why, the newest first.

    Args:
        attempt_id: about this attempt only.
        limit: how many at most.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of a table.
    """
    found = place.find(data_dir)
    async with connected(_SERVICE, found.dsns[_SERVICE]) as connection:
        resolutions = await store.list_newest_resolutions(connection, attempt_id, limit)
    if json:
        print_json({"items": [rendering.resolution_as_dict(resolution) for resolution in resolutions]})
    else:
        rendering.render_resolutions(resolutions, a_console())
    return 0


@quarantine.command
async def resolve(
    attempt_id: UUID,
    *,
    action: Action,
    reason: Reason,
    execute: Execute = False,
    yes: Yes = False,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Accept the money of an attempt as it came, or give it back. Each is decided once.

    Without --execute nothing changes: what would follow is found by the payment service's own rules, and undone.

    Args:
        attempt_id: which one, as `quarantine list` says.
        action: accept (what came counts as paid; contested money stays) or refund (all of it goes back).
        reason: why; it is kept with who decided and when.
        execute: do it; without this only the plan is shown and nothing changes.
        yes: do not ask; needed together with --execute where nobody can answer.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of sentences.
    """
    found = place.find(data_dir)
    planned = await try_out(found, attempt_id, action, reason)
    if not json:
        rendering.render_outcome(planned, a_console(), is_done=False)
    if planned.is_known or not execute:
        if json:
            print_json({"executed": False, **rendering.outcome_as_dict(planned)})
        elif not planned.is_known:
            print("Nothing was changed. Give --execute to do this.")
        return 0
    if not consent(f"{action.value.capitalize()} it?", yes=yes):
        print("Nothing was changed.", file=sys.stderr)
        return 1
    outcome = await decide(found, attempt_id, action, reason)
    if json:
        print_json({"executed": True, **rendering.outcome_as_dict(outcome)})
    else:
        rendering.render_outcome(outcome, a_console(), is_done=True)
    return 0
