"""Is every line of a service's log one JSON object that says where it comes from and what it is about?"""

import json
import subprocess
import sys
from typing import Any

_SCRIPT = """
import logging, sys
from structlog.contextvars import bound_contextvars
from shared.logging import configure, get_logger

configure("order-service", sys.argv[1])
log = get_logger(group="orders")
with bound_contextvars(order_id="o-1", event_id="e-1"):
    log.info("weighed", kilograms=3)
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.exception("not weighed")
logging.getLogger("aiokafka").warning("a library's %s", "word")
logging.getLogger("aiokafka").info("a library's whisper")
"""


def logged(level: str) -> list[dict[str, Any]]:
    """Return what a process of its own logs at a level: logging is set for a whole process."""
    done = subprocess.run(  # noqa: S603 (our own interpreter and script)
        [sys.executable, "-c", _SCRIPT, level], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_is_json_with_the_service_and_what_is_bound() -> None:
    """Service, level and time stand on every line, and while something is worked on its ids; a traceback is no line more."""
    weighed, failed, foreign = logged("INFO")

    assert (weighed["event"], weighed["level"], weighed["kilograms"]) == ("weighed", "info", 3)
    assert (weighed["order_id"], weighed["event_id"], weighed["group"]) == ("o-1", "e-1", "orders")
    assert "order_id" not in failed
    assert failed["exception"].endswith("ValueError: two\nlines")
    assert (foreign["event"], foreign["logger"], foreign["level"]) == (
        "a library's word",
        "aiokafka",
        "warning",
    )
    assert {line["service"] for line in (weighed, failed, foreign)} == {"order-service"}
    assert all(line["timestamp"].endswith("Z") for line in (weighed, failed, foreign))


def test_what_is_below_the_level_is_not_logged() -> None:
    """`HOLDFAST_LOG_LEVEL` holds for our own lines and for the libraries'."""
    assert [line["event"] for line in logged("ERROR")] == ["not weighed"]
