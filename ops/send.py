"""How does an operator publish order commands from a file?"""

from typing import IO

import orjson
from pydantic import ValidationError

from shared.commands import OutgoingCommand, command
from shared.envelope import faults_of
from shared.errors import Invalid
from shared.events import CATALOGUE, COMMANDS_TOPIC, Command


def read_commands(lines: IO[bytes]) -> list[OutgoingCommand]:
    """Read one command a line: `{"type": "PlaceOrder.v1", "data": {…}}`; empty lines are passed over.

    Raises:
        Invalid: a line that is no command, with its number; nothing is sent then.
    """
    return [_read(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _read(number: int, line: bytes) -> OutgoingCommand:
    try:
        document = orjson.loads(line)
        model = CATALOGUE[COMMANDS_TOPIC][document["type"]]
        parsed = model.model_validate_json(orjson.dumps(document["data"]))
    except ValidationError as error:
        faults = "; ".join(f"{fault.pointer or '/'}: {fault.detail}" for fault in faults_of(error))
        detail = f"line {number}: {faults}"
        raise Invalid(detail) from error
    except (ValueError, TypeError, KeyError) as error:
        known = ", ".join(CATALOGUE[COMMANDS_TOPIC])
        detail = f'line {number}: not {{"type": …, "data": {{…}}}} with a type of {known}'
        raise Invalid(detail) from error
    assert isinstance(parsed, Command)  # noqa: S101 (the catalogue of this topic holds nothing else)
    return command(parsed)
