"""About which money must a person decide, and what was decided? `holdfast quarantine`."""

from ops.quarantine.command import quarantine
from ops.quarantine.resolving import Outcome, decide, try_out

__all__ = ["Outcome", "decide", "quarantine", "try_out"]
