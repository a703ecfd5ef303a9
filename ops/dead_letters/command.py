"""What can an operator say about dead letters? `holdfast dlq list|show|redrive|discard`."""

import sys
from typing import Annotated, Literal
from uuid import UUID

from cyclopts import App, Parameter

from ops import place
from ops.actions import connected
from ops.dead_letters import rendering
from ops.dead_letters.discarding import discard
from ops.dead_letters.reading import Letter, LetterTopic, State, find_letter, find_topics
from ops.dead_letters.redriving import redrive
from ops.dead_letters.selecting import DiscardFilters, Filters, Plan, plan_letters, summarize
from ops.options import DataDir, Execute, Json, Limit, Yes, a_console, consent, print_json
from ops.place import Place
from shared.errors import Misconfigured, NotFound

Topic = Annotated[
    str,
    Parameter(help="A dead-letter topic, or the topic whose dead letters are meant (then of every group)."),
]
Selected = Annotated[Filters, Parameter(name="*")]
DiscardSelected = Annotated[DiscardFilters, Parameter(name="*")]

_EVERY = Filters()
_EVERY_TO_DISCARD = DiscardFilters()
_LIST_LIMIT = 50
_ACTION_LIMIT = 10_000

dlq = App(
    name="dlq",
    help="Look after dead letters: the messages that a consumer refused. None is ever deleted.",
    help_epilogue=(
        "Examples:\n\n"
        "holdfast dlq list\n\n"
        "holdfast dlq show order.events.inventory-service.dlq 0 17\n\n"
        "holdfast dlq redrive order.events --reason handler_failed --since 2h\n\n"
        "holdfast dlq redrive order.events --reason handler_failed --since 2h --execute --yes\n\n"
        "holdfast dlq discard order.commands --dlq-reason conflict --reason 'a test shop sent these' --execute"
    ),
)


@dlq.command(name="list")
async def list_letters(
    topic: Topic | None = None,
    *,
    filters: Selected = _EVERY,
    state: Literal["waiting", "redriven", "discarded", "all"] = "waiting",
    limit: Limit = _LIST_LIMIT,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """List dead letters: how many of each kind, and each one that waits for somebody.

    Exit status 1 if any that matches is waiting.

    Args:
        topic: of one topic only; without it of all.
        filters: which letters.
        state: which ones to list; all of them are counted.
        limit: how many to list.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of tables.
    """
    wanted = None if state == "all" else State(state)
    found = place.find(data_dir)
    topics = await find_topics(found.kafka, topic, group=filters.group)
    summary = await summarize(found, topics, filters, state=wanted, limit=limit)
    if json:
        print_json(rendering.summary_as_dict(summary))
    else:
        rendering.render_summary(summary, a_console(), state=wanted)
    return 1 if summary.count(State.WAITING) else 0


@dlq.command
async def show(
    topic: Topic,
    partition: int | None = None,
    offset: int | None = None,
    *,
    event_id: UUID | None = None,
    group: str | None = None,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Show one dead letter: headers, why it was refused, and its body, without secrets and card numbers.

    Args:
        topic: its dead-letter topic, or the topic from which it was refused.
        partition: where it stands, as `dlq list` says under place (partition/offset).
        offset: the same.
        event_id: instead of its place, the id of its event; of several letters the last one is shown.
        group: the group that refused it, where a topic has several.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of tables.
    """
    if (event_id is None) == (partition is None) or (partition is None) != (offset is None):
        raise Misconfigured("Say which letter: either PARTITION and OFFSET, or --event-id.")
    found = place.find(data_dir)
    topics = await find_topics(found.kafka, topic, group=group)
    if event_id is not None:
        refusals = await _all_about(found, topics, event_id)
        letter = refusals[-1]
    else:
        letter = await _letter_at(found, topics, partition or 0, offset or 0)
        refusals = await _all_about(found, [letter.topic], letter.event_id)
    if json:
        print_json(rendering.letter_in_full(letter, refusals))
    else:
        rendering.render_letter(letter, refusals, a_console())
    return 0


async def _all_about(found: Place, topics: list[LetterTopic], event_id: UUID) -> list[Letter]:
    filters = Filters(event_id=event_id)
    summary = await summarize(found, topics, filters, state=None, limit=_ACTION_LIMIT)
    if not summary.letters:
        names = ", ".join(topic.name for topic in topics)
        detail = (
            f"No letter of {names} is about the event {event_id}. `holdfast dlq list` tells what there is."
        )
        raise NotFound(detail)
    return summary.letters


async def _letter_at(found: Place, topics: list[LetterTopic], partition: int, offset: int) -> Letter:
    if len(topics) > 1:
        names = ", ".join(topic.name for topic in topics)
        detail = f"Several topics are meant: {names}. Name one of them, or its --group."
        raise Misconfigured(detail)
    (topic,) = topics
    async with connected(topic.service, found.dsns[topic.service]) as connection:
        return await find_letter(connection, found.kafka, topic, partition, offset)


@dlq.command(name="redrive")
async def redrive_letters(
    topic: Topic,
    *,
    filters: Selected = _EVERY,
    again: Annotated[bool, Parameter(negative="")] = False,
    because: str | None = None,
    limit: Limit = _ACTION_LIMIT,
    execute: Execute = False,
    yes: Yes = False,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Send dead letters again, each to the topic it came from and for the group that refused it alone.

    Without --execute nothing is sent: what would be is shown. Key, value and headers stay as they were, so the same
    letter sent twice is handled once. Letters that were handled, redriven or discarded before are left out.

    Exit status 1 if a letter cannot be sent, or if it was not agreed to.

    Args:
        topic: a dead-letter topic, or the topic whose dead letters are meant (then of every group).
        filters: which letters.
        again: also those that were handled, redriven or discarded before.
        because: why; it is kept with who did it, when, and to which letters.
        limit: how many at most.
        execute: do it; without this only the plan is shown and nothing changes.
        yes: do not ask; needed together with --execute where nobody can answer.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of tables.
    """
    found = place.find(data_dir)
    topics = await find_topics(found.kafka, topic, group=filters.group)
    plan = await plan_letters(found, topics, filters, again=again, limit=limit)
    if not _decide(plan, "redrive", execute=execute, yes=yes, json=json):
        return 1 if plan.problems or execute else 0
    results = await redrive(found, plan, reason=because) if plan.letters else []
    if json:
        print_json({**_executed(plan), "results": [result.as_dict() for result in results]})
    else:
        rendering.render_redriven(results, a_console())
    return 1 if plan.problems or any(result.refused for result in results) else 0


@dlq.command(name="discard")
async def discard_letters(
    topic: Topic,
    *,
    reason: str,
    filters: DiscardSelected = _EVERY_TO_DISCARD,
    limit: Limit = _ACTION_LIMIT,
    execute: Execute = False,
    yes: Yes = False,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Lay dead letters aside that nobody wants handled any more. They stay in their topic; the decision is kept.

    Without --execute nothing is decided: what would be is shown. `dlq redrive --again` takes such a letter back.

    Exit status 1 if it was not agreed to.

    Args:
        topic: a dead-letter topic, or the topic whose dead letters are meant (then of every group).
        reason: why; it is kept with who did it, when, and to which letters.
        filters: which letters.
        limit: how many at most.
        execute: do it; without this only the plan is shown and nothing changes.
        yes: do not ask; needed together with --execute where nobody can answer.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object instead of tables.
    """
    if not reason.strip():
        raise Misconfigured("--reason is empty: say why these letters are laid aside.")
    found = place.find(data_dir)
    topics = await find_topics(found.kafka, topic, group=filters.group)
    plan = await plan_letters(found, topics, filters, again=False, limit=limit)
    if any(letter.reason == reason for letter in plan.letters):
        detail = (
            f"--reason says here why you discard. To discard what was refused as {reason}: "
            f"--dlq-reason {reason} --reason '…'."
        )
        raise Misconfigured(detail)
    if not _decide(plan, "discard", execute=execute, yes=yes, json=json):
        return 1 if execute else 0
    results = await discard(found, plan, reason=reason) if plan.letters else []
    if json:
        print_json({**_executed(plan), "results": [result.as_dict() for result in results]})
    else:
        rendering.render_discarded(results, a_console())
    return 0


def _decide(plan: Plan, verb: str, *, execute: bool, yes: bool, json: bool) -> bool:
    """Show a plan, and return whether it is to be carried out; as JSON it is shown only if it is not."""
    if not json:
        rendering.render_plan(plan, a_console(), verb=verb)
        if not execute and plan.letters:
            print("Nothing was changed. Give --execute to do this.")
    elif not execute:
        print_json({"executed": False, **rendering.plan_as_dict(plan)})
    if not execute:
        return False
    count = len(plan.letters)
    if not count or consent(f"{verb.capitalize()} {count:,} dead letters?", yes=yes):
        return True
    print("Nothing was changed.", file=sys.stderr)
    return False


def _executed(plan: Plan) -> dict[str, object]:
    shown = rendering.plan_as_dict(plan)
    return {"executed": True, **{name: shown[name] for name in ("left_out", "problems", "more")}}
