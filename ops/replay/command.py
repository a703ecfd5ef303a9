"""What can an operator say about replaying? `holdfast replay`: a plan first, and `--execute` to carry it out."""

import asyncio
import csv
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TextIO
from uuid import UUID

from cyclopts import App, Parameter
from rich.console import Console

from ops import place as places
from ops.options import DataDir, Execute, Json, Yes, consent, print_json
from ops.place import Place
from ops.replay.checkpoint import Checkpoint, Reached
from ops.replay.execute import Done, execute_republish, execute_rewind, resume
from ops.replay.options import ALL, ANY, FilterOptions, ScopeOptions, read_request
from ops.replay.plan import Plan, make_plan
from ops.replay.readers import readers_of
from ops.replay.render import progress_bar, render_done, render_plan
from ops.replay.request import Request
from ops.replay.rewind import Move, plan_moves, refuse_active, spans_of
from ops.replay.scope import count_records
from shared.errors import Misconfigured

_PAUSED = 130
_STDOUT = Path("-")

command = App(
    name="replay",
    help_epilogue=(
        "Examples:\n\n"
        "holdfast replay --topic order.events --by-duration PT2H\n\n"
        "holdfast replay --topic order.events:0,3 --from-offset 1200 --to-offset 1300 --group payment-service --execute\n\n"
        "holdfast replay --topic inventory.events --order-id 0198c0de-0000-7000-8000-000000000001 --execute --yes\n\n"
        "holdfast replay --topic order.events --from-datetime 2h --type OrderCancelled --group inventory-service "
        "--reprocess --reason 'cancellations were lost, see #214' --rate 200 --execute\n\n"
        "holdfast replay --topic order.events --from-datetime 1d --group payment-service --rewind --execute\n\n"
        "holdfast replay --topic order.events --export events.csv && holdfast replay --from-file events.csv"
    ),
)


@dataclass(frozen=True, slots=True)
class _How:
    """What is to be done with it."""

    execute: bool
    yes: bool
    rate: float
    preview: bool
    orders_max: int
    export: Path | None
    data_dir: Path
    json: bool

    @property
    def console(self) -> Console:
        """Where a person reads; standard output may carry the CSV."""
        return Console(stderr=self.export == _STDOUT)


@command.default
async def replay(
    *,
    scope: Annotated[ScopeOptions, Parameter(name="*")] = ALL,
    filters: Annotated[FilterOptions, Parameter(name="*")] = ANY,
    group: str | None = None,
    rewind: Annotated[bool, Parameter(negative="")] = False,
    reprocess: Annotated[bool, Parameter(negative="")] = False,
    reason: str | None = None,
    rate: float = 0,
    export: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    preview: bool = True,
    orders_max: int = 20,
    resume: UUID | None = None,
    execute: Execute = False,
    yes: Yes = False,
    data_dir: DataDir = places.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Have events heard again: published again to their topic, or read again by a group that is set back.

    Without --execute nothing is changed: what would happen is found out by the real handlers, in transactions that are
    rolled back. For each group: how many events would be applied, are duplicates (handled already), stale (new, but
    they change nothing), would be refused, and are passed over (of no interest to it); and which orders would change.

    Where the range ends is fixed at the start. Ctrl-C pauses a replay; --resume takes it up again.

    Exit status 0 if all was done or planned, 1 if something was refused or not agreed to, 130 if it was paused.

    Args:
        scope: which part of which topics.
        filters: what the records must be about.
        group: only this group is to hear them: order-service, inventory-service or payment-service.
        rewind: set the --group back instead of publishing; refused while it is active. It reads all there is from there.
        reprocess: have the --group forget that it handled exactly these events, after a bug was fixed; needs --reason.
        reason: why; kept with who did it, when, and how much.
        rate: records published a second at most; 0: as fast as it goes.
        export: write topic,partition,offset of what is meant to this file (- for standard output); rewinding, the new
            offsets.
        preview: try it on the handlers first; --no-preview only counts.
        orders_max: how many changes of orders are listed, for each group.
        resume: the id of a replay that was paused or cut off.
        execute: do it; without this only the plan is shown and nothing changes.
        yes: do not ask; needed together with --execute where nobody can answer.
        data_dir: folder of a running `holdfast up`; checkpoints are kept there.
        json: print one JSON object instead of tables.
    """
    how = _How(execute, yes, rate, preview, orders_max, export, data_dir, json)
    _check_numbers(how)
    if resume is not None:
        return await _resume(resume, how, others=[scope != ALL, filters != ANY, group, rewind, reprocess])
    request, found = await read_request(
        scope,
        filters,
        group=group,
        rewind=rewind,
        reprocess=reprocess,
        reason=reason,
        data_dir=data_dir,
    )
    if rewind:
        return await _rewind(found, request, how)
    return await _republish(found, request, how)


def _check_numbers(how: _How) -> None:
    if how.rate < 0 or how.orders_max < 0:
        raise Misconfigured("--rate and --orders-max are not below zero.")


async def _republish(found: Place, request: Request, how: _How) -> int:
    plan = await _plan(found, request, how)
    _show(plan, [], how)
    if not how.execute:
        return 0
    if not plan.selected:
        return _tell(plan, None, how)
    whom = request.group or "every group"
    if not consent(f"Publish {plan.selected:,} records again, for {whom}?", yes=how.yes):
        return 1
    with progress_bar(count_records(request.spans), "publishing") as bar:
        async with _pausing() as stopping:
            done = await execute_republish(
                found,
                how.data_dir,
                request,
                rate=how.rate,
                stopping=stopping,
                progress=None if bar is None else lambda reached: bar.show(*_reached(reached)),
            )
    return _tell(plan, done, how)


async def _rewind(found: Place, request: Request, how: _How) -> int:
    group = request.group or ""
    moves = await plan_moves(found.kafka, group, request.spans)
    if how.execute and moves:
        await refuse_active(found.kafka, group)
    request = replace(request, spans=spans_of(moves))
    plan = await _plan(found, request, replace(how, export=None))
    with _exporting(how.export) as lines:
        if lines is not None:
            rows = ((move.topic, move.partition, move.new) for move in moves)
            csv.writer(lines, lineterminator="\n").writerows(rows)
    _show(plan, moves, how)
    if not how.execute:
        return 0
    if not moves:
        return _tell(plan, None, how)
    if not consent(f"Set {group} back in {len(moves)} partitions?", yes=how.yes):
        return 1
    return _tell(plan, await execute_rewind(found, request, moves), how)


async def _resume(replay_id: UUID, how: _How, *, others: Sequence[object]) -> int:
    if any(others):
        raise Misconfigured(
            "--resume goes on with what was said at first: give no other scope, filter or group."
        )
    found = places.find(how.data_dir)
    run, reached = Checkpoint(how.data_dir, replay_id).load()
    left = replace(run.request, spans=reached.spans_left(run.request.spans))
    plan = await _plan(found, left, how)
    _show(plan, [], how)
    if not how.execute:
        return 0
    if not consent(f"Go on with replay {replay_id}: {plan.selected:,} records?", yes=how.yes):
        return 1
    with progress_bar(count_records(run.request.spans), "publishing") as bar:
        async with _pausing() as stopping:
            done = await resume(
                found,
                how.data_dir,
                replay_id,
                rate=how.rate,
                stopping=stopping,
                progress=None if bar is None else lambda reached: bar.show(*_reached(reached)),
            )
    return _tell(plan, done, how)


def _reached(reached: Reached) -> tuple[int, int]:
    return reached.looked_at, reached.published


async def _plan(found: Place, request: Request, how: _How) -> Plan:
    readers = readers_of(list(request.spans), request.group) if how.preview and request.spans else []
    with progress_bar(count_records(request.spans), "planning") as bar, _exporting(how.export) as lines:
        return await make_plan(
            found,
            request,
            readers,
            orders_max=how.orders_max,
            export=lines,
            progress=None if bar is None else bar.show,
        )


@contextmanager
def _exporting(export: Path | None) -> Iterator[TextIO | None]:
    """Lend what takes the CSV, if one is wanted."""
    if export is None:
        yield None
        return
    try:
        file = (
            nullcontext(sys.stdout) if export == _STDOUT else export.open("w", encoding="utf-8", newline="")
        )
    except OSError as error:
        detail = f"{export} cannot be written: {error.strerror}"
        raise Misconfigured(detail) from error
    with file as lines:
        yield lines


@asynccontextmanager
async def _pausing() -> AsyncIterator[asyncio.Event]:
    """Have Ctrl-C and SIGTERM pause what is under way instead of ending the process."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield stopping
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _show(plan: Plan, moves: Sequence[Move], how: _How) -> None:
    """Show a plan; as JSON only if it is not carried out, since one object is printed."""
    if not how.json:
        render_plan(plan, moves, how.console)
        if not how.execute:
            how.console.print("Nothing was changed. Give --execute to do this.")
    elif not how.execute:
        print_json({"executed": False, **_as_dict(plan, moves)})


def _tell(plan: Plan, done: Done | None, how: _How) -> int:
    """Tell what came of it, and return the exit status; None: there was nothing to do."""
    if how.json:
        run = None if done is None else done.as_dict()
        print_json({"executed": True, **_as_dict(plan, done.moves if done else []), "run": run})
    elif done is None:
        how.console.print("There is nothing to do.")
    else:
        render_done(done, how.console)
    if done is not None and not done.finished:
        return _PAUSED
    return 0 if done is None or done.ok else 1


def _as_dict(plan: Plan, moves: Sequence[Move]) -> dict[str, Any]:
    shown = plan.as_dict()
    if plan.request.way == "rewind":
        shown["moves"] = [
            {"topic": move.topic, "partition": move.partition, "committed": move.committed, "new": move.new}
            for move in moves
        ]
    return shown
