"""What did consumers refuse, and what becomes of it? The plan first, then a confirmation, then the result."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import web

from ops.actions import connected
from ops.bodies import body_lines
from ops.console import frame
from ops.console.desk import Desk, reason_of, signed_name
from ops.console.pages.orders import read_uuid
from ops.console.settings import ROWS
from ops.dead_letters import (
    Filters,
    Plan,
    State,
    discard,
    find_letter,
    find_topics,
    plan_letters,
    redrive,
    summarize,
)
from ops.dead_letters.rendering import letter_as_dict, letter_in_full
from ops.options import read_moment
from shared.errors import Conflict, Invalid, NotFound

_LIMIT = 10_000
_FILTERS = ("topic", "reason_given", "type", "order_id", "event_id", "since")
_VERBS = {"redrive": "Send again", "discard": "Lay aside"}


class DeadLetterPages:
    """The list, one letter, and what can be done about them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """The table of contents."""
        return [
            web.get("/dead-letters", self.show_all),
            web.get("/dead-letters/plan", self.plan),
            web.post("/dead-letters/execute", self.execute),
            web.get("/dead-letters/{topic}/{partition:[0-9]{1,9}}/{offset:[0-9]{1,18}}", self.show),
        ]

    async def show_all(self, request: web.Request) -> web.Response:
        """`GET /dead-letters?topic=&reason_given=&type=&order_id=&event_id=&since=&state=`."""
        asked = _asked(request.query)
        state = request.query.get("state", State.WAITING.value)
        if state not in {"all", *State}:
            raise Invalid("A state is waiting, redriven, discarded or all.")
        filters = _filters(asked)
        everything = await find_topics(self._desk.place.kafka)
        topics = [topic for topic in everything if asked["topic"] in {"", topic.name, topic.origin}]
        async with self._desk.heavy:
            summary = await summarize(
                self._desk.place, topics, filters, state=None if state == "all" else State(state), limit=ROWS
            )
        return frame.page(
            request,
            "dead_letters.html",
            summary=summary,
            letters=[letter_as_dict(letter) for letter in summary.letters],
            topics=everything,
            asked=asked,
            state=state,
            states=[*(each.value for each in State), "all"],
            waiting=summary.count(State.WAITING),
            verbs=_VERBS,
        )

    async def show(self, request: web.Request) -> web.Response:
        """`GET /dead-letters/{topic}/{partition}/{offset}`: one letter, without secrets and card numbers."""
        (topic, *_), place = (
            await find_topics(self._desk.place.kafka, request.match_info["topic"]),
            self._desk.place,
        )
        partition, offset = int(request.match_info["partition"]), int(request.match_info["offset"])
        async with connected(topic.service, place.dsns[topic.service]) as connection:
            letter = await find_letter(connection, place.kafka, topic, partition, offset)
        shown = letter_in_full(letter)
        body = "\n".join(body_lines(shown["body_kind"], shown["body"]))
        return frame.page(request, "letter.html", letter=letter, shown=shown, body=body, verbs=_VERBS)

    async def plan(self, request: web.Request) -> web.Response:
        """`GET /dead-letters/plan?verb=redrive|discard&…`: which letters it would be; nothing is sent or decided."""
        verb = _verb(request.query)
        asked = _asked(request.query)
        plan = await self._plan(asked)
        return frame.page(
            request,
            "letters_plan.html",
            plan=plan,
            letters=[letter_as_dict(letter) for letter in plan.letters[:ROWS]],
            problems=[(letter_as_dict(letter), why) for letter, why in plan.problems],
            asked=asked,
            verb=verb,
            title=_VERBS[verb],
            digest=_digest(plan),
        )

    async def execute(self, request: web.Request) -> web.Response:
        """`POST /dead-letters/execute`: do exactly what the plan said, or nothing if it would be something else by now."""
        form = request[frame.FORM]
        verb, asked = _verb(form), _asked(form)
        reason, who = reason_of(request), signed_name(request)
        plan = await self._plan(asked)
        if _digest(plan) != form.get("digest"):
            raise Conflict(
                "The letters have changed since you saw the plan. Nothing was done: look at it again."
            )
        if not plan.letters:
            raise Conflict("There is nothing to be done.")
        if verb == "redrive":
            results = [
                (result.topic, result.published, result.refused, result.action_id)
                for result in await redrive(self._desk.place, plan, reason=reason, who=who)
            ]
        else:
            results = [
                (result.topic, result.discarded, [], result.action_id)
                for result in await discard(self._desk.place, plan, reason=reason, who=who)
            ]
        return frame.page(
            request, "letters_done.html", verb=verb, title=_VERBS[verb], results=results, reason=reason
        )

    async def _plan(self, asked: Mapping[str, str]) -> Plan:
        topics = await find_topics(self._desk.place.kafka, asked["topic"] or None)
        if not topics:
            raise NotFound
        async with self._desk.heavy:
            return await plan_letters(self._desk.place, topics, _filters(asked), again=False, limit=_LIMIT)


def _asked(values: Mapping[str, str]) -> dict[str, str]:
    return {name: values.get(name, "").strip() for name in _FILTERS}


def _filters(asked: Mapping[str, str]) -> Filters:
    """Read the filters of a form.

    Raises:
        Invalid: an id is none, or a time.
    """
    event_id = read_uuid(asked["event_id"])
    if asked["event_id"] and event_id is None:
        raise Invalid("The id of an event looks like 0198c0de-0000-7000-8000-000000000001.")
    try:
        since = read_moment(asked["since"], datetime.now(UTC)) if asked["since"] else None
    except ValueError as error:
        raise Invalid(str(error)) from error
    return Filters(
        reason=asked["reason_given"] or None,
        type=asked["type"] or None,
        order_id=asked["order_id"] or None,
        event_id=event_id,
        since=since,
    )


def _verb(values: Mapping[str, str]) -> str:
    verb = values.get("verb", "")
    if verb not in _VERBS:
        raise Invalid("What can be done is redrive or discard.")
    return verb


def _digest(plan: Plan) -> str:
    """Return what makes two plans the same: the letters they name."""
    places = "\n".join(
        f"{letter.topic.name} {letter.partition} {letter.offset} {letter.event_id}" for letter in plan.letters
    )
    return hashlib.sha256(places.encode()).hexdigest()
