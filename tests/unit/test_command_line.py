"""Does every command of `holdfast` help: an example, --json, and an answer to what is written wrongly?"""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App
from rich.console import Console

from ops.cli import app
from shared.errors import Misconfigured

#: What has no table that could be JSON instead: `up` always prints one line of JSON, a completion is a script.
WITHOUT_JSON = {"up", "completion"}


def commands(of: App, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield every command that does something, as the words that call it."""
    below = [name for name in of if not name.startswith("-")]
    if of.default_command is not None:
        yield path
    for name in below:
        yield from commands(of[name], *path, name)


ALL = [*commands(app)]


def help_of(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what `--help` prints."""
    app([*words, "--help"], console=Console(width=200), result_action="return_value")
    return capsys.readouterr().out


def test_the_commands_of_the_contract_are_there() -> None:
    """Whatever operators are promised can be called."""
    names = {" ".join(words) for words in ALL}

    assert names >= {
        *("up", "demo", "migrate", "topics", "send", "lag", "replay", "audit", "timeline", "reconcile"),
        *("dlq list", "dlq show", "dlq redrive", "dlq discard"),
        *("webhooks list", "webhooks show", "webhooks retry", "config check", "completion"),
    }


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_shows_an_example_of_itself(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--help` ends with lines that can be copied."""
    shown = help_of(words, capsys)

    assert "Examples:" in shown
    assert f"holdfast {' '.join(words)}" in shown.partition("Examples:")[2]


@pytest.mark.parametrize("words", [words for words in ALL if words[0] not in WITHOUT_JSON], ids=" ".join)
def test_every_command_can_answer_in_json(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts read one JSON object, whatever they ask."""
    assert "--json" in help_of(words, capsys)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    """No option stands in the help by its name alone."""
    command = app
    for word in words:
        command = command[word]

    silent = [
        argument.name
        for argument in command.assemble_argument_collection(parse_docstring=True)
        if argument.show and not argument.parameter.help
    ]

    assert silent == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audti"], "audit"),
        (["lag", "--jsno"], "--json"),
        (["dlq"], "redrive"),
        (["config", "check", "--service", "orders"], "inventory"),
        (["timeline", "not-an-id"], "UUID"),
    ],
)
def test_what_is_written_wrongly_is_answered_with_what_there_is(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word that is no command or option leads to those that are, and changes nothing."""
    with contextlib.suppress(SystemExit):
        app(words, console=Console(width=200), error_console=Console(width=200), result_action="return_value")

    assert said in "".join(capsys.readouterr())


_ID = "0198c0de-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    "words",
    [
        ["lag"],
        ["topics"],
        ["migrate"],
        ["audit"],
        ["audit", "--explain", _ID],
        ["timeline", _ID],
        ["reconcile"],
        ["replay", "--topic", "order.events"],
        ["dlq", "list"],
        ["dlq", "show", "order.events", "0", "0"],
        ["dlq", "redrive", "order.events"],
        ["dlq", "discard", "order.events", "--reason", "a test"],
        ["webhooks", "list"],
        ["webhooks", "show", "1"],
        ["webhooks", "retry", "1"],
    ],
    ids=" ".join,
)
def test_where_no_system_is_found_the_way_on_is_said(words: list[str], tmp_path: Path) -> None:
    """Whatever an operator asks, the error names `holdfast up`, --data-dir and the settings."""
    with pytest.raises(Misconfigured) as told:
        app([*words, "--data-dir", str(tmp_path)], exit_on_error=False, result_action="return_value")

    for way in (
        "holdfast up",
        "--data-dir",
        "HOLDFAST_ORDER_DATABASE_DSN",
        "HOLDFAST_KAFKA_BOOTSTRAP_SERVERS",
    ):
        assert way in told.value.detail


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script knows commands, those below them, and their options."""
    app(["completion", shell], result_action="return_value")

    script = capsys.readouterr().out
    assert all(word in script for word in ("holdfast", "redrive", "reprocess", "data-dir"))


def test_bash_understands_its_completion(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed for bash is a script that bash reads without an error."""
    app(["completion", "bash"], result_action="return_value")

    done = subprocess.run(
        ["bash", "-n"],  # noqa: S607 (the shell that a user has)
        input=capsys.readouterr().out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
