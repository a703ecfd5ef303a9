"""What may a repair do? Each remedy says to what, why, and which findings it is meant to end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from ops.audit.findings import Finding


@dataclass(frozen=True, slots=True)
class Recount:
    """Make the counters of a SKU what its movements add up to, with its row locked."""

    sku: str
    why: str
    findings: Sequence[Finding]

    @property
    def told(self) -> tuple[str, str, str]:
        """What is done, to what, and why."""
        return "recount", self.sku, self.why


@dataclass(frozen=True, slots=True)
class TellAgain:
    """Tell the lost events of a key again, under their numbers and with the state of now."""

    producer: str
    topic: str
    key: str
    numbers: Sequence[int]
    findings: Sequence[Finding]

    @property
    def told(self) -> tuple[str, str, str]:
        """What is done, to what, and why."""
        count = len(self.numbers)
        events = "event" if count == 1 else "events"
        return "tell again", self.key, f"{self.topic} has lost {count} {events}: {self.producer} tells again"


@dataclass(frozen=True, slots=True)
class Settle:
    """Have a stuck order go on: some services tell again where they stand, and its hold is swept if that is due."""

    order_id: UUID
    tellers: frozenset[str]
    is_swept: bool
    why: str
    findings: Sequence[Finding]

    @property
    def told(self) -> tuple[str, str, str]:
        """What is done, to what, and why."""
        return "settle", str(self.order_id), self.why


@dataclass(frozen=True, slots=True)
class Unrepairable:
    """A finding that no safe remedy is known for, and where to look instead."""

    finding: Finding
    advice: str

    def as_dict(self) -> dict[str, str]:
        """Return it as `--json` prints it."""
        return {**self.finding.as_dict(), "advice": self.advice}


Remedy: TypeAlias = Recount | TellAgain | Settle


def remedy_as_dict(remedy: Remedy) -> dict[str, Any]:
    """Return a remedy as `--json` prints it."""
    what, subject, why = remedy.told
    return {
        "remedy": what.replace(" ", "_"),
        "subject": subject,
        "why": why,
        "checks": sorted({finding.check for finding in remedy.findings}, key=lambda check: int(check[1:])),
        **({"numbers": list(remedy.numbers), "topic": remedy.topic} if isinstance(remedy, TellAgain) else {}),
    }
