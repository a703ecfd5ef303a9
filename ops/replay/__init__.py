"""How are events heard again? `holdfast replay`: see `ops.replay.command`; the console uses what stands here.

`make_plan` finds out what would happen, `execute_republish`, `execute_rewind` and `resume` do it.
"""

from ops.replay.execute import Done, execute_republish, execute_rewind, resume
from ops.replay.plan import Plan, make_plan
from ops.replay.readers import readers_of
from ops.replay.request import Request
from ops.replay.rewind import Move, plan_moves, spans_of
from ops.replay.scope import Scope, parse_topics
from ops.replay.scope import resolve as resolve_scope
from ops.replay.selection import Filters

__all__ = [
    "Done",
    "Filters",
    "Move",
    "Plan",
    "Request",
    "Scope",
    "execute_republish",
    "execute_rewind",
    "make_plan",
    "parse_topics",
    "plan_moves",
    "readers_of",
    "resolve_scope",
    "resume",
    "spans_of",
]
