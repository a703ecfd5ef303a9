"""What does each message look like on the wire? One JSON schema and one sample file for each."""

from pathlib import Path
from typing import TypeVar

from shared.events import Wire

M = TypeVar("M", bound=Wire)

FOLDER = Path(__file__).parent


def schema_file(model: type[Wire]) -> Path:
    """Return where the schema of a message is kept."""
    return FOLDER / f"{model.type}.schema.json"


def sample_file(model: type[Wire]) -> Path:
    """Return where the sample of a message is kept: the very bytes of a record's value, and a line feed."""
    return FOLDER / f"{model.type}.sample.json"


def sample_of(model: type[M]) -> M:
    """Return the sample of a message."""
    return model.model_validate_json(sample_file(model).read_bytes())
