"""What do the services write down while they run?

JSON lines on standard error, one an event, with the service and whatever order, event or request is being worked on; never
the number of a card or a secret (`shared.masking`), whoever wrote the text.
"""

import logging
import sys
from contextlib import AbstractContextManager
from typing import Any

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError

from shared.masking import mask_named

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}


def configure(service: str, level: str) -> None:
    """Send our own and the libraries' records to standard error as JSON."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            _mask,
            structlog.processors.JSONRenderer(_dumps),
        ],
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
                _mask,
                structlog.processors.JSONRenderer(_dumps),
            ],
        )
    )
    handler.addFilter(_leave_out_bytes)
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], logging.WARNING), force=True)


def get_logger(**bound: object) -> Any:
    """Return a logger that repeats the given facts in every record."""
    return structlog.get_logger(**bound)


def bound(**facts: object) -> AbstractContextManager[None]:
    """Have every record that is written inside, by whatever part, repeat the given facts."""
    return structlog.contextvars.bound_contextvars(**facts)


def _leave_out_bytes(record: logging.LogRecord) -> bool:
    """Of what is no HTTP, keep only how it is wrong: aiohttp would write down the bytes that somebody sent."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args, record.exc_info = (
            f"a request that is no HTTP: {type(error).__name__}",
            (),
            None,
        )
    return True


def _mask(_logger: object, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Take out of a record what must not be written down, however it came into it."""
    return {name: mask_named(name, value) for name, value in record.items()}


def _dumps(record: object, default: Any, **_: object) -> str:
    return orjson.dumps(record, default=default, option=orjson.OPT_NON_STR_KEYS).decode()
