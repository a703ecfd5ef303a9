"""How are the golden files made anew? `python -m tests.contracts.golden`, then read the difference with care."""

import json

from shared.events import CATALOGUE
from tests.contracts.golden import sample_file, sample_of, schema_file


def rewrite() -> None:
    """Write each schema as the code has it, and each sample in canonical order; a missing sample is yours to write."""
    for models in CATALOGUE.values():
        for model in models.values():
            schema_file(model).write_text(json.dumps(model.model_json_schema(), indent=2) + "\n")
            if sample_file(model).exists():
                sample_file(model).write_bytes(sample_of(model).model_dump_json().encode() + b"\n")


if __name__ == "__main__":
    rewrite()
