"""What do the services write down while they run?

JSON lines on standard error, one an event, with the service and whatever order, event or request is being worked on.
"""

import logging
import sys
from contextlib import AbstractContextManager
from typing import Any

import orjson
import structlog

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}


def configure(service: str, level: str) -> None:
    """Send our own and the libraries' records to standard error as JSON."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(_dumps),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)


def get_logger(**bound: object) -> Any:
    """Return a logger that repeats the given facts in every record."""
    return structlog.get_logger(**bound)


def bound(**facts: object) -> AbstractContextManager[None]:
    """Have every record that is written inside, by whatever part, repeat the given facts."""
    return structlog.contextvars.bound_contextvars(**facts)


def _dumps(record: object, default: Any, **_: object) -> str:
    return orjson.dumps(record, default=default, option=orjson.OPT_NON_STR_KEYS).decode()
