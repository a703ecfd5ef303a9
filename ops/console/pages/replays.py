"""How are events heard again from the console? A form, a plan that changes nothing, a run, and a page to watch it.

Only publishing again is offered here. Setting a group back needs its consumers stopped, which is done where the command
is given: `holdfast replay --rewind`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiohttp import web

from deploy.local.topics import SUBSCRIPTIONS
from ops.console import frame
from ops.console.access import Session
from ops.console.desk import Desk, reason_of, session_of, signed_name
from ops.console.jobs import Job, State
from ops.console.live import Live
from ops.console.pages.orders import read_uuid
from ops.console.rendering import Renderer
from ops.options import read_moment
from ops.replay import (
    Filters,
    Plan,
    Request,
    Scope,
    execute_republish,
    make_plan,
    parse_topics,
    readers_of,
    resolve_scope,
    resume,
)
from ops.replay.checkpoint import Checkpoint, unfinished
from ops.replay.scope import count_records
from ops.replay.selection import full_type
from shared.errors import Conflict, Invalid
from shared.events import CATALOGUE
from shared.web import path_uuid

_LOOK_SECONDS = 0.5
_RATE_MAX = 1_000_000
_ORDERS_SHOWN_MAX = 50
_EMPTY = {
    "topic": "",
    "partitions": "",
    "since": "",
    "until": "",
    "group": "",
    "types": "",
    "order_ids": "",
    "skus": "",
    "correlation_ids": "",
    "copies": "",
    "reprocess": "",
}


class ReplayPages:
    """The form, and the jobs that come of it."""

    def __init__(self, desk: Desk, live: Live, renderer: Renderer) -> None:
        self._desk = desk
        self._live = live
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [
            web.get("/replay", self.show_form),
            web.post("/replay/plan", self.plan),
            web.get("/replay/{job_id}", self.show),
            web.post("/replay/{job_id}/run", self.run),
            web.post("/replay/{job_id}/pause", self.pause),
            web.post("/replay/resume/{replay_id}", self.resume),
            web.get("/live/replay/{job_id}", self.follow),
        ]

    async def show_form(self, request: web.Request) -> web.Response:
        """`GET /replay`: what could be replayed, what is under way, and what was paused."""
        return frame.page(
            request,
            "replay.html",
            asked={name: request.query.get(name, "") for name in _EMPTY},
            topics=[*CATALOGUE],
            groups=[*SUBSCRIPTIONS],
            jobs=self._desk.jobs.of("plan", "replay"),
            unfinished=unfinished(self._desk.data_dir),
        )

    async def plan(self, request: web.Request) -> web.Response:
        """`POST /replay/plan`: find out what would happen; the handlers are tried and undone."""
        wanted = await self._read(request[frame.FORM], session_of(request))
        readers = readers_of([*wanted.spans], wanted.group) if wanted.spans else []

        async def work(job: Job) -> tuple[Plan, State]:
            async with self._desk.heavy:
                made = await make_plan(
                    self._desk.place, wanted, readers, orders_max=_ORDERS_SHOWN_MAX, progress=job.show
                )
            return made, "done"

        job = Job("plan", wanted.by, about=wanted, total=count_records(wanted.spans))
        return frame.see_other(f"/replay/{self._desk.jobs.start(job, work).id}")

    async def show(self, request: web.Request) -> web.Response:
        """`GET /replay/{job_id}`: a plan, to be run; or a run, to be watched."""
        job = self._job(request)
        return frame.page(
            request, "replay_job.html", job=job, part=self._render(job), words=_words(job.about.filters)
        )

    async def run(self, request: web.Request) -> web.Response:
        """`POST /replay/{job_id}/run`: carry out a plan."""
        planned = self._desk.jobs.find(path_uuid(request, "job_id"), "plan")
        if planned.state != "done":
            raise Conflict("The plan is not ready.")
        if planned.led_to is not None:
            return frame.see_other(f"/replay/{planned.led_to}")
        wanted = replace(planned.about, by=signed_name(request), reason=reason_of(request))
        rate = _number(request[frame.FORM].get("rate", ""))

        async def work(job: Job) -> tuple[Any, State]:
            done = await execute_republish(
                self._desk.place,
                self._desk.data_dir,
                wanted,
                rate=rate,
                stopping=job.stopping,
                progress=lambda reached: job.show(reached.looked_at, reached.published),
            )
            return done, "done" if done.finished else "paused"

        job = Job("replay", session_of(request).name, about=wanted, total=planned.total)
        planned.led_to = self._desk.jobs.start(job, work).id
        return frame.see_other(f"/replay/{job.id}")

    async def pause(self, request: web.Request) -> web.Response:
        """`POST /replay/{job_id}/pause`: stop where it is, so that it can go on later."""
        job = self._desk.jobs.find(path_uuid(request, "job_id"), "replay")
        job.stopping.set()
        return frame.see_other(f"/replay/{job.id}")

    async def resume(self, request: web.Request) -> web.Response:
        """`POST /replay/resume/{replay_id}`: go on with a run that was paused or cut off, here or by the command."""
        replay_id = path_uuid(request, "replay_id")
        run, _ = Checkpoint(self._desk.data_dir, replay_id).load()

        async def work(job: Job) -> tuple[Any, State]:
            done = await resume(
                self._desk.place,
                self._desk.data_dir,
                replay_id,
                stopping=job.stopping,
                progress=lambda reached: job.show(reached.looked_at, reached.published),
            )
            return done, "done" if done.finished else "paused"

        job = Job(
            "replay", session_of(request).name, about=run.request, total=count_records(run.request.spans)
        )
        return frame.see_other(f"/replay/{self._desk.jobs.start(job, work).id}")

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """`GET /live/replay/{job_id}`: how far it is, until it has ended."""
        job = self._job(request)
        return await self._live.send(request, following(job, lambda: self._render(job)))

    def _job(self, request: web.Request) -> Job:
        return self._desk.jobs.find(path_uuid(request, "job_id"), "plan", "replay")

    def _render(self, job: Job) -> str:
        return self._renderer.render("_progress.html", job=job)

    async def _read(self, form: Mapping[str, str], session: Session) -> Request:
        """Read the form, and fix what its words mean now.

        Raises:
            Invalid: a value that means nothing.
            Unavailable: Kafka does not answer.
        """
        asked = {name: form.get(name, "").strip() for name in _EMPTY}
        partitions = f":{asked['partitions']}" if asked["partitions"] else ""
        scope = Scope(
            parse_topics([f"{asked['topic']}{partitions}"]),
            from_time=_moment(asked["since"]),
            to_time=_moment(asked["until"]),
        )
        group, is_again = asked["group"] or None, bool(asked["reprocess"])
        readers_of([*scope.topics], group)
        if is_again and group is None:
            raise Invalid("Say which group is to forget that it has handled these events.")
        filters = Filters(
            order_ids=frozenset(map(_order_id, asked["order_ids"].split())),
            types=frozenset(map(full_type, asked["types"].split())),
            skus=frozenset(asked["skus"].split()),
            correlation_ids=frozenset(asked["correlation_ids"].split()),
            copies=bool(asked["copies"]),
        )
        spans = await resolve_scope(self._desk.place.kafka, scope)
        return Request("republish", spans, filters, group, is_again, f"{session.name} (console)", None)


def following(job: Job, render: Any) -> Any:
    """Return what waits for the next look at a job, and ends with it."""

    async def next_part() -> str | None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await job.ended.wait()
        except TimeoutError:
            text: str = render()
            return text
        return None

    return next_part


def _words(filters: Filters) -> list[tuple[str, str]]:
    """Return what records must be about, in words."""
    named = {
        "orders": filters.order_ids,
        "types": filters.types,
        "SKUs": filters.skus,
        "correlation ids": filters.correlation_ids,
    }
    return [(name, ", ".join(sorted(map(str, values)))) for name, values in named.items() if values]


def _moment(text: str) -> datetime | None:
    try:
        return read_moment(text, datetime.now(UTC)) if text else None
    except ValueError as error:
        raise Invalid(str(error)) from error


def _order_id(text: str) -> UUID:
    found = read_uuid(text)
    if found is None:
        detail = f"{text} is no order's id."
        raise Invalid(detail)
    return found


def _number(text: str) -> float:
    if not text.strip():
        return 0.0
    if not text.strip().isdecimal() or not 0 <= int(text) <= _RATE_MAX:
        raise Invalid("The rate is a whole number of records a second.")
    return float(text)
