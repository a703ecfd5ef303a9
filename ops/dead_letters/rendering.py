"""How are dead letters shown: to people as tables, to scripts as JSON, and never with a secret or a card number?"""

import hashlib
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ops.bodies import body_lines, cell, printable, readable_body, shown_header
from ops.dead_letters.discarding import Discarded
from ops.dead_letters.reading import Letter, State
from ops.dead_letters.redriving import Redriven
from ops.dead_letters.selecting import Group, Plan, Summary
from ops.masking import mask_text
from ops.options import in_utc

_ERROR_CHARACTERS_MAX = 80
_KEY_CHARACTERS_MAX = 40
_PLANNED_SHOWN_MAX = 20
_REASON_COLUMNS_MIN = 14


# --- JSON -----------------------------------------------------------------------------------------------------------


def letter_as_dict(letter: Letter) -> dict[str, Any]:
    """Return one row of a list as `--json` prints it."""
    return {
        "topic": letter.topic.name,
        "partition": letter.partition,
        "offset": letter.offset,
        "event_id": letter.event_id,
        "type": mask_text(letter.type),
        "key": mask_text(letter.key_text),
        "reason": mask_text(letter.reason),
        "error": mask_text(letter.text("dlq_error") or ""),
        "refused_at": letter.refused_at,
        "redrives": letter.redrives,
        "state": letter.state.value,
        "handled": letter.is_handled,
    }


def letter_in_full(letter: Letter, refusals: Sequence[Letter] = ()) -> dict[str, Any]:
    """Return all that may be shown of one letter as `--json` prints it; `refusals` are all of its event, as far as known."""
    kind, body = readable_body(letter.value)
    return {
        **letter_as_dict(letter),
        **_told_of_refusals(refusals or [letter]),
        "headers": [[name, shown_header(name, value)] for name, value in letter.headers],
        "body_bytes": len(letter.value or b""),
        "body_sha256": hashlib.sha256(letter.value or b"").hexdigest(),
        "body_kind": kind,
        "body": body,
    }


def _told_of_refusals(refusals: Sequence[Letter]) -> dict[str, Any]:
    """Return how often an event was refused, when first and when last, and by which release."""
    times = sorted(at for letter in refusals if (at := letter.refused_at) is not None)
    return {
        "refusals": len(refusals),
        "first_refused_at": times[0] if times else None,
        "last_refused_at": times[-1] if times else None,
        "refused_by": mask_text(refusals[-1].text("dlq_version") or ""),
    }


def summary_as_dict(summary: Summary) -> dict[str, Any]:
    """Return a list as `--json` prints it."""
    return {
        "summary": [group.as_dict() for group in summary.groups],
        "letters": [letter_as_dict(letter) for letter in summary.letters],
        "not_listed": summary.not_listed,
    }


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as `--json` prints it."""
    return {
        "topics": [topic.name for topic in plan.topics],
        "filters": plan.filters.as_dict(),
        "again": plan.again,
        "letters": [
            {"to": letter.topic.origin, "group": letter.topic.group, **letter_as_dict(letter)}
            for letter in plan.letters
        ],
        "left_out": dict(plan.left_out),
        "problems": [{**letter_as_dict(letter), "why": why} for letter, why in plan.problems],
        "more": plan.more,
    }


# --- tables ---------------------------------------------------------------------------------------------------------


def render_summary(summary: Summary, console: Console, *, state: State | None) -> None:
    """Print how many letters there are of each kind, and those that were asked for."""
    if not summary.groups:
        console.print("No dead letters.", style="green")
        return
    for name in dict.fromkeys(group.topic.name for group in summary.groups):
        _say(console, name, style="bold")
        console.print(_counts_table([group for group in summary.groups if group.topic.name == name]))
        letters = [letter for letter in summary.letters if letter.topic.name == name]
        if letters:
            console.print(_letters_table(letters))
    if summary.not_listed:
        _say(console, f"{summary.not_listed:,} more are not listed: narrow it down, or raise --limit.")
    hidden = sum(summary.count(each) for each in State if state not in {None, each})
    if hidden and state is not None:
        _say(
            console,
            f"{hidden:,} letters that are not {state.value} are counted only: --state all lists them.",
        )


def _counts_table(groups: Sequence[Group]) -> Table:
    table = Table("reason", "letters", *(state.value for state in State), "first", "last", box=SIMPLE)
    for column in table.columns:
        column.overflow = "fold"
    for column in table.columns[1 : 2 + len(State)]:
        column.justify = "right"
    table.columns[0].min_width = _REASON_COLUMNS_MIN
    for group in groups:
        states = (f"{group.states[state]:,}" for state in State)
        count = f"{group.states.total():,}"
        table.add_row(cell(mask_text(group.reason)), count, *states, in_utc(group.first), in_utc(group.last))
    return table


def _letters_table(letters: Sequence[Letter]) -> Table:
    table = Table("place", "refused at", "type", "key", "reason", "state", box=SIMPLE)
    for column in table.columns:
        column.overflow = "fold"
    for letter in letters:
        row = letter_as_dict(letter)
        why = f"{row['reason']}: {_short(row['error'], _ERROR_CHARACTERS_MAX)}"
        state = row["state"] + (" (handled)" if letter.is_handled else "")
        table.add_row(
            letter.place,
            in_utc(letter.refused_at),
            cell(_short(row["type"], _KEY_CHARACTERS_MAX)),
            cell(_short(row["key"], _KEY_CHARACTERS_MAX)),
            cell(why),
            state,
        )
    return table


def render_letter(letter: Letter, refusals: Sequence[Letter], console: Console) -> None:
    """Print all that may be shown of one letter; `refusals` are all of its event."""
    shown = letter_in_full(letter, refusals)
    facts = Table("", "", show_header=False, box=None)
    facts.columns[1].overflow = "fold"
    for name in ("topic", "partition", "offset", "event_id", "type", "key", "reason", "error", "redrives"):
        facts.add_row(name, cell(str(shown[name])))
    facts.add_row("refused at", in_utc(letter.refused_at))
    if len(refusals) > 1:
        first, last = in_utc(shown["first_refused_at"]), in_utc(shown["last_refused_at"])
        facts.add_row("refusals", f"{len(refusals)}: first {first}, last {last}")
    facts.add_row("state", letter.state.value + (" (handled since)" if letter.is_handled else ""))
    facts.add_row("body", f"{shown['body_bytes']:,} bytes, SHA-256 {shown['body_sha256']}")
    console.print(facts)
    headers = Table("header", "value", box=SIMPLE)
    headers.columns[1].overflow = "fold"
    for name, value in shown["headers"]:
        headers.add_row(cell(name), cell("(none)" if value is None else value))
    console.print(headers)
    for line in body_lines(shown["body_kind"], shown["body"]):
        _say(console, line)


def render_plan(plan: Plan, console: Console, *, verb: str) -> None:
    """Print what would happen: how many of which kind, where to, what is left out and why."""
    for topic, letters in plan.by_topic().items():
        where = f" to {topic.origin}, for {topic.group} alone" if verb == "redrive" else ""
        _say(console, f"Would {verb} {_count(len(letters))} of {topic.name}{where}:")
        console.print(_letters_table(letters[:_PLANNED_SHOWN_MAX]))
        if len(letters) > _PLANNED_SHOWN_MAX:
            _say(console, f"… and {len(letters) - _PLANNED_SHOWN_MAX:,} more like these.")
    if not plan.letters:
        _say(console, f"There is nothing to {verb}.")
    for state, count in sorted(plan.left_out.items()):
        _say(console, f"Left out: {_count(count)} already {state}{_again(verb)}.")
    for letter, why in plan.problems:
        _say(console, f"Cannot be taken: {letter.topic.name} {letter.place}: {why}.", style="bold red")
    if plan.more:
        _say(console, f"{_count(plan.more)} more match: do the same again afterwards, or raise --limit.")


def render_redriven(results: Sequence[Redriven], console: Console) -> None:
    """Print what was sent, and what Kafka would not take."""
    for result in results:
        topic = result.topic
        _say(
            console,
            f"Sent {_count(result.published)} to {topic.origin} for {topic.group} (action {result.action_id}). "
            f"What became of them: holdfast dlq list {topic.name} --state all",
        )
        for letter, why in result.refused:
            _say(console, f"Kafka refused {topic.name} {letter.place}: {why}.", style="bold red")


def render_discarded(results: Sequence[Discarded], console: Console) -> None:
    """Print what was laid aside."""
    for result in results:
        _say(
            console,
            f"Laid {_count(result.discarded)} of {result.topic.name} aside (action {result.action_id}). "
            f"They stay in the topic: holdfast dlq list {result.topic.name} --state discarded",
        )


def _again(verb: str) -> str:
    return " (--again takes them, too)" if verb == "redrive" else ""


def _count(letters: int) -> str:
    return f"{letters:,} letter{'' if letters == 1 else 's'}"


def _short(text: str, characters_max: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= characters_max else f"{line[: characters_max - 1]}…"


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
