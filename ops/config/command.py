"""What can an operator ask about settings? `holdfast config check`."""

from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table

from deploy.local import ready
from ops import place as places
from ops.bodies import cell
from ops.config.checking import SETTINGS, Checked, Problem, check_services
from ops.config.connecting import connect_all
from ops.options import DataDir, Json, a_console, print_json

config = App(
    name="config",
    help="Look at the services' settings before they have to start with them.",
    help_epilogue=(
        "Exit status: 0 nothing is wrong, 1 something is, 2 wrong options.\n\n"
        "Examples:\n\n"
        "holdfast config check\n\n"
        "holdfast config check --service payment --connect\n\n"
        "holdfast config check --connect --json | jq .problems"
    ),
)


@config.command
async def check(
    *,
    service: Literal["order", "inventory", "payment"] | None = None,
    connect: Annotated[bool, Parameter(negative="")] = False,
    data_dir: DataDir = places.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Say everything that is wrong with the settings in the environment: unknown names, bad values, what is missing.

    They are read as the services read them, HOLDFAST_<SERVICE>_DATABASE_DSN as that service's HOLDFAST_DATABASE_DSN.
    Where a `holdfast up` runs on the data directory, what it has decided stands in for what is not set. No value of a
    secret is ever shown.

    With --connect: whether databases, the issuer of tokens and Kafka answer, migrations are applied, topics are there with their partitions,
    dead letters are kept, and the inbox remembers events for longer than the topics keep them.

    Exit status 1 if anything is wrong.

    Args:
        service: of this service only; without it of all three.
        connect: also look at what the settings lead to; nothing is changed.
        data_dir: folder of a running `holdfast up`.
        json: print one JSON object.
    """
    checked = check_services([service] if service else list(SETTINGS), ready.load(data_dir))
    problems = [problem for item in checked for problem in item.problems]
    if connect:
        problems += await connect_all(checked)
    if json:
        print_json(
            {
                "ok": not problems,
                "connected": connect,
                "settings": {
                    item.service: [given.as_dict() for given in item.given] for item in checked if item.given
                },
                "problems": [problem.as_dict() for problem in problems],
            }
        )
    else:
        _render(checked, problems, connect=connect)
    return 1 if problems else 0


def _render(checked: list[Checked], problems: list[Problem], *, connect: bool) -> None:
    console = a_console()
    for item in checked:
        if item.given:
            table = Table("setting", "value", "from", title=f"{item.service}-service", title_justify="left")
            for given in item.given:
                table.add_row(cell(given.name), cell(given.shown), given.source)
            console.print(table)
    # What several services are told of alike is told once.
    places: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        places.setdefault((problem.what, problem.advice), []).append(problem.where)
    for (what, advice), where in places.items():
        console.print(cell(f"{', '.join(where)}: {what}"), style="bold red", soft_wrap=True)
        if advice:
            console.print(cell(f"  {advice}"), soft_wrap=True)
    if not problems:
        rest = "" if connect else " (--connect also looks at what they lead to)"
        console.print(f"The settings are right{rest}.", style="green", highlight=False)
