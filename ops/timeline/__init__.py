"""Why is this order here?

`timeline` joins what the three databases and the topics hold of one order into one chronological list, with one
sentence that says why it stands where it stands. Start reading in `reading`; `store` asks the databases, `positions`
Kafka; `entries` and `conclusion` are pure; `masking` says what of a gateway's words may be shown.
"""

from ops.timeline.entries import Entry
from ops.timeline.limits import TimelineLimits
from ops.timeline.reading import Timeline, read_timeline
from ops.timeline.report import render_timeline

__all__ = ["Entry", "Timeline", "TimelineLimits", "read_timeline", "render_timeline"]
