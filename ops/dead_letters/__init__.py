"""What did consumers refuse, and what becomes of it? `holdfast dlq`.

A dead letter is never deleted: it stands in `<topic>.<group>.dlq` for good. Whether it still waits for somebody follows
from two things in the database of its group's service: the inbox, which says whether the event was handled since, and
the operators' actions, which say who sent it again or laid it aside.
"""

from ops.dead_letters.command import dlq
from ops.dead_letters.discarding import discard
from ops.dead_letters.reading import Letter, LetterTopic, State, find_letter, find_topics, survey
from ops.dead_letters.redriving import Redriven, redrive
from ops.dead_letters.selecting import Filters, Plan, Summary, plan_letters, summarize

__all__ = [
    "Filters",
    "Letter",
    "LetterTopic",
    "Plan",
    "Redriven",
    "State",
    "Summary",
    "discard",
    "dlq",
    "find_letter",
    "find_topics",
    "plan_letters",
    "redrive",
    "summarize",
    "survey",
]
