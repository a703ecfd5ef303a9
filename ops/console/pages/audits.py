"""Is everything right? The audit, run from a page; and what operators did lately."""

import asyncio
from collections.abc import Sequence

from aiohttp import web

from ops.actions import Action, list_actions
from ops.audit import AuditLimits, AuditReport, Topics, audit
from ops.console import frame
from ops.console.desk import Desk, session_of
from ops.console.jobs import Job, State
from ops.console.live import Live
from ops.console.pages.replays import following
from ops.console.rendering import Renderer
from ops.place import hold_times
from shared.errors import HoldfastError
from shared.web import path_uuid

_ACTIONS_MAX = 30
_FINDINGS_SHOWN_MAX = 500


class AuditPages:
    """The audits of this console, and the operators' actions."""

    def __init__(self, desk: Desk, live: Live, renderer: Renderer) -> None:
        self._desk = desk
        self._live = live
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [
            web.get("/audit", self.show_all),
            web.post("/audit", self.run),
            web.get("/audit/{job_id}", self.show),
            web.get("/live/audit/{job_id}", self.follow),
        ]

    async def show_all(self, request: web.Request) -> web.Response:
        """`GET /audit`."""
        found = await asyncio.gather(*(self._actions(service) for service in self._desk.place.dsns))
        actions = [(service, action) for service, actions, _ in found for action in actions]
        return frame.page(
            request,
            "audit.html",
            jobs=self._desk.jobs.of("audit"),
            actions=sorted(actions, key=lambda item: item[1].at, reverse=True)[:_ACTIONS_MAX],
            problems=[problem for *_, problem in found if problem],
        )

    async def run(self, request: web.Request) -> web.Response:
        """`POST /audit`: begin one; it changes nothing, but reads everything."""
        in_topics = bool(request[frame.FORM].get("kafka"))

        async def work(_: Job) -> tuple[AuditReport, State]:
            times = hold_times()
            limits = AuditLimits(hold_seconds=times.hold_seconds, hold_grace_seconds=times.hold_grace_seconds)
            topics = Topics(self._desk.place.kafka) if in_topics else None
            async with self._desk.heavy:
                return await audit(self._desk.place.dsns, topics=topics, limits=limits), "done"

        job = self._desk.jobs.start(Job("audit", session_of(request).name, about=in_topics), work)
        return frame.see_other(f"/audit/{job.id}")

    async def show(self, request: web.Request) -> web.Response:
        """`GET /audit/{job_id}`: what it found."""
        job = self._desk.jobs.find(path_uuid(request, "job_id"), "audit")
        return frame.page(
            request, "audit_job.html", job=job, part=self._render(job), shown_max=_FINDINGS_SHOWN_MAX
        )

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """`GET /live/audit/{job_id}`."""
        job = self._desk.jobs.find(path_uuid(request, "job_id"), "audit")
        return await self._live.send(request, following(job, lambda: self._render(job)))

    def _render(self, job: Job) -> str:
        return self._renderer.render("_progress.html", job=job)

    async def _actions(self, service: str) -> tuple[str, Sequence[Action], str]:
        try:
            async with self._desk.databases.reading(service) as connection:
                return service, await list_actions(connection, limit=_ACTIONS_MAX), ""
        except HoldfastError as error:
            return service, [], error.detail
