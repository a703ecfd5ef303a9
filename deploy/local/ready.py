"""What does `holdfast up` tell whoever started it, and where do the operators' commands find it again?"""

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from deploy.local import kept

_FILE = "ready.json"


@dataclass(frozen=True, slots=True)
class ReadyLine:
    """The addresses, keys and process ids of a running system (CONTRACT, "The ready line of `up`")."""

    order_url: str
    inventory_url: str
    payment_url: str
    gateway_url: str
    console_url: str | None
    kafka_bootstrap_servers: str
    postgres: dict[str, str]
    tokens: dict[str, str]
    webhook_secrets: dict[str, str]
    data_dir: str
    pids: dict[str, int | None]

    def as_json(self) -> str:
        """Return the one line that is printed."""
        return orjson.dumps(asdict(self)).decode()


def save(line: ReadyLine) -> None:
    """Leave the line in the data directory for as long as the system runs."""
    kept.save(Path(line.data_dir) / _FILE, asdict(line))


def load(data_dir: Path) -> ReadyLine | None:
    """Return the line of the system that runs on a data directory, or none if none runs."""
    content = kept.load(data_dir / _FILE)
    return None if content is None else ReadyLine(**content)


def forget(data_dir: Path) -> None:
    """Remove the line: nothing runs here any more."""
    (data_dir / _FILE).unlink(missing_ok=True)
