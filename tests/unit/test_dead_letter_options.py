"""Is a time, a consent and an operator's name understood as it was meant?"""

import io
from datetime import UTC, datetime, timedelta

import pytest

from ops.actions import operator_name
from ops.dead_letters.reading import LetterTopic, topic_named
from ops.options import consent, in_utc, read_moment
from shared.errors import Conflict, Misconfigured

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-02-28T12:00:00Z", NOW - timedelta(days=1)),
        ("2026-02-28T13:00:00+01:00", NOW - timedelta(days=1)),
        ("2026-02-28T12:00:00", NOW - timedelta(days=1)),
        ("2026-03-01", NOW - timedelta(hours=12)),
    ],
)
def test_a_time_is_read_as_a_moment_or_as_how_long_ago(text: str, moment: datetime) -> None:
    """Where no zone is said, it is UTC."""
    assert read_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "15", "2 h", "-3d", "999999999d", "2026-13-01"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    """It is never guessed at."""
    with pytest.raises(ValueError, match="15m"):
        read_moment(text, NOW)


def test_tables_show_times_in_utc() -> None:
    """To the second; an unknown time is empty."""
    assert in_utc(datetime.fromisoformat("2026-03-01T13:00:00.9+01:00")) == "2026-03-01 12:00:00Z"
    assert in_utc(None) == ""


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        """Say that a person sits there."""
        return True


@pytest.mark.parametrize(
    ("answer", "wanted"), [("y\n", True), ("YES\n", True), ("\n", False), ("", False), ("no\n", False)]
)
def test_only_a_clear_yes_is_consent(monkeypatch: pytest.MonkeyPatch, answer: str, wanted: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """Anything else, silence included, is none."""
    monkeypatch.setattr("sys.stdin", Terminal(answer))

    assert consent("Redrive 3 dead letters?", yes=False) is wanted


def test_where_nobody_can_answer_consent_must_be_given_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says how."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))

    assert consent("Redrive?", yes=True)
    with pytest.raises(Conflict, match="--yes"):
        consent("Redrive?", yes=False)


def test_an_operator_is_named_by_the_setting_or_by_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting counts first; an account without a name is told to set it."""
    monkeypatch.setenv("HOLDFAST_OPERATOR_NAME", " Ada ")
    assert operator_name() == "Ada"
    monkeypatch.delenv("HOLDFAST_OPERATOR_NAME")
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    assert operator_name() == "ada"

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(Misconfigured, match="HOLDFAST_OPERATOR_NAME"):
        operator_name()


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        (
            "order.events.inventory-service.dlq",
            LetterTopic(
                "order.events.inventory-service.dlq", "order.events", "inventory-service", "inventory"
            ),
        ),
        ("order.events", None),
        ("order.events.dlq", None),
        ("order.events.somebody-else.dlq", None),
        ("inventory-service.dlq", None),
        (".inventory-service.dlq", None),
    ],
)
def test_a_dead_letter_topic_is_known_by_its_name(name: str, topic: LetterTopic | None) -> None:
    """It says what was refused, and by whom; other topics are none of ours."""
    assert topic_named(name) == topic
