"""What does the audit find?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be: which check says so (A1, …), about what (SKU, order, database), and why."""

    check: str
    subject: str
    detail: str

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands in a report: by check, then by subject."""
        return int(self.check[1:]), self.subject

    def as_dict(self) -> dict[str, str]:
        """Return the finding as `--json` prints it."""
        return {"check": self.check, "subject": self.subject, "detail": self.detail}


class Lost(NamedTuple):
    """Events that a producer has told of a key, by name of its database, and that its topic does not hold."""

    producer: str
    topic: str
    key: str
    last: int
    numbers: tuple[int, ...]


class Suspect(NamedTuple):
    """What one look takes for a finding; a young one has changed so lately that news of it may be on its way."""

    finding: Finding
    young: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same suspect on another look, whose numbers may differ."""
        return self.finding.check, self.finding.subject


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All findings in order, and how much was looked at.

    Attributes:
        ok: nothing was found, and everything was looked at.
        findings: by check, then by subject.
        counted: what was looked at (`orders`, `movements`, …), `dead_letters`, `suspects` of the first look, and
            `unsettled`: suspects that kept changing until the audit's patience was over.
        complete: False if a check had more suspects than the limit, so that it stopped there.
        lost: what A12 found missing from the topics, as numbers.
    """

    ok: bool
    findings: list[Finding]
    counted: Mapping[str, int] = field(default_factory=dict)
    complete: bool = True
    lost: Sequence[Lost] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the report as `--json` prints it."""
        return {
            "ok": self.ok,
            "findings": [finding.as_dict() for finding in self.findings],
            "complete": self.complete,
            "counted": dict(self.counted),
        }
