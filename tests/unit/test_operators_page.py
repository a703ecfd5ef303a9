"""Can every command on the operators' page be typed as it stands there?"""

import contextlib
import re
import shlex
from pathlib import Path

import pytest
from cyclopts.exceptions import MissingArgumentError

from ops.cli import app

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    (ROOT / page).read_text(encoding="utf-8")
    for page in ("README.md", "docs/operators.md", "docs/deployment.md")
]
_ID = "0198c0de-0000-7000-8000-000000000001"


def shown() -> list[str]:
    """Return each `holdfast …` of the blocks of shell, without what is said about it."""
    blocks = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)]
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith("holdfast ")})


def spoken() -> list[str]:
    """Return each `holdfast …` of the text."""
    spans = [span for page in PAGES for span in re.findall(r"`(holdfast [^`|…{]+)`", page)]
    return sorted({" ".join(span.split()) for span in spans})


def parse(line: str) -> None:
    """Have a line understood as far as its words go; nothing is run."""
    words = shlex.split(re.sub(r"\b(ORDER|ATTEMPT)_ID\b", _ID, line))[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("line", shown())
def test_a_command_that_is_shown_can_be_typed(line: str) -> None:
    """The page shows no command and no option that is not there, and gives each what it needs."""
    parse(line)


@pytest.mark.parametrize("line", spoken())
def test_a_command_that_is_spoken_of_is_there(line: str) -> None:
    """In the text, what a command needs may be left out; everything else is as it is."""
    with contextlib.suppress(MissingArgumentError):
        parse(line)


def test_the_pages_show_commands() -> None:
    """What is not found could not be wrong."""
    assert len(shown()) > 15
    assert len(spoken()) > 10
