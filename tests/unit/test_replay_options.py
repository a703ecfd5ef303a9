"""Is what an operator says of a replay understood, or refused before anything is touched?"""

from datetime import timedelta
from pathlib import Path

import pytest

from ops.replay.checkpoint import Checkpoint
from ops.replay.command import command as replay
from ops.replay.scope import parse_duration, parse_topics, read_listed
from ops.replay.selection import full_type
from shared.errors import Invalid, Misconfigured, NotFound
from shared.ids import new_id


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--topic", "order.event"], Invalid),
        (["--topic", "order.events.inventory-service.dlq"], Invalid),
        (["--topic", "order.events:x"], Invalid),
        (["--topic", "order.events:"], Invalid),
        (["--topic", "order.events", "--by-duration", "1h"], Invalid),
        (["--topic", "order.events", "--by-duration", "PT1H", "--from-offset", "1"], Misconfigured),
        (["--topic", "order.events", "--to-datetime", "1h", "--from-offset", "1"], Misconfigured),
        (["--topic", "order.events", "--type", "OrderVanished"], Invalid),
        (["--topic", "order.events", "--group", "nobody"], Invalid),
        (["--topic", "order.commands", "--group", "payment-service"], Invalid),
        (["--topic", "order.events", "--rewind"], Misconfigured),
        (["--topic", "order.events", "--rewind", "--group", "payment-service", "--sku", "A"], Misconfigured),
        (
            ["--topic", "order.events", "--rewind", "--group", "payment-service", "--to-offset", "9"],
            Misconfigured,
        ),
        (["--topic", "order.events", "--reprocess", "--group", "payment-service"], Misconfigured),
        (["--topic", "order.events", "--reprocess", "--reason", "a bug"], Misconfigured),
        (["--topic", "order.events", "--rate", "-1"], Misconfigured),
        (["--resume", "0198c0de-0000-7000-8000-000000000001", "--topic", "order.events"], Misconfigured),
        (["--from-file", "no such file"], Invalid),
        (["--topic", "order.events"], Misconfigured),
        ([], Misconfigured),
    ],
)
async def test_what_does_not_go_together_is_refused(
    tmp_path: Path, words: list[str], error: type[Exception]
) -> None:
    """With a sentence that says what is wrong, and without any system to ask."""
    with pytest.raises(error) as raised:
        await replay.run_async(
            [*words, "--data-dir", str(tmp_path)], exit_on_error=False, result_action="return_value"
        )

    assert str(raised.value).count(" ") > 3


def test_topics_are_named_with_their_partitions() -> None:
    """As for the Kafka tools; a topic that is named twice means both, and without numbers all."""
    assert parse_topics(["order.events:0,3", "payment.events"]) == {
        "order.events": frozenset({0, 3}),
        "payment.events": None,
    }
    assert parse_topics(["order.events:0", "order.events:7"]) == {"order.events": frozenset({0, 7})}
    assert parse_topics(["order.events", "order.events:7"]) == {"order.events": None}


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("PT1H30M", timedelta(hours=1, minutes=30)),
        ("P7D", timedelta(days=7)),
        ("PT0.5S", timedelta(seconds=0.5)),
    ],
)
def test_a_duration_is_iso_8601(text: str, duration: timedelta) -> None:
    """As `--by-duration` of the Kafka tools."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "7", "7 days", "1:00:00", "-P1D", "PT0S", "P"])
def test_anything_else_is_no_duration(text: str) -> None:
    """A bare number has no unit, and a duration leads back in time."""
    with pytest.raises(Invalid):
        parse_duration(text)


def test_a_type_may_be_named_without_its_version() -> None:
    """Both mean the same; a misspelt one is told what there is."""
    assert full_type("OrderRequested") == full_type("OrderRequested.v1") == "OrderRequested.v1"
    with pytest.raises(Invalid, match=r"OrderRequested\.v1"):
        full_type("OrderRequestd")


def test_a_file_lists_records(tmp_path: Path) -> None:
    """One a line, in any order, with empty lines passed over."""
    file = tmp_path / "records.csv"
    file.write_text('order.events,0,7\n\n"order.events",1,3\norder.events,0,2\n')

    assert read_listed(file) == {"order.events": {0: frozenset({2, 7}), 1: frozenset({3})}}


@pytest.mark.parametrize(
    "line", ["order.events,0", "order.events,0,x", "nothing,0,1", "order.events,-1,1", ""]
)
def test_a_file_that_lists_something_else_is_refused(tmp_path: Path, line: str) -> None:
    """With the number of the line, if it has any."""
    file = tmp_path / "records.csv"
    file.write_text(f"{line}\n")

    with pytest.raises(Invalid, match=r"line 1|lists nothing"):
        read_listed(file)


def test_an_unfinished_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With those that are."""
    with pytest.raises(NotFound, match="Unfinished: none"):
        Checkpoint(tmp_path, new_id()).load()
