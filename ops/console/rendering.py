"""How do values become HTML? Templates in which everything is escaped, and a few words for times, numbers and money."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deploy.local.sandbox.pay_page import money
from ops.bodies import printable
from ops.masking import mask_text
from ops.options import in_utc
from ops.timeline import Entry

_HERE: Final = Path(__file__).parent
STATIC: Final = {
    "console.css": ("text/css", (_HERE / "static" / "console.css").read_bytes()),
    "console.js": ("text/javascript", (_HERE / "static" / "console.js").read_bytes()),
    "icon.svg": ("image/svg+xml", (_HERE / "static" / "icon.svg").read_bytes()),
}
#: The pages that every page leads to: the key behind `g`, the name, the address.
PAGES: Final = (
    ("o", "Overview", "/"),
    ("r", "Orders", "/orders"),
    ("s", "Stock", "/stock"),
    ("p", "Payments", "/payments"),
    ("w", "Webhooks", "/webhooks"),
    ("d", "Dead letters", "/dead-letters"),
    ("e", "Replay", "/replay"),
    ("a", "Audit", "/audit"),
)
_HUNDRED, _MINUTE, _HOUR, _DAY = 100, 60, 3_600, 86_400

#: How a status looks: whether it is well, under way, or wants somebody's attention.
_TONES: Final = {
    **dict.fromkeys(
        ("PROCESSING", "SUCCEEDED", "CONFIRMED", "applied", "done", "redriven", "handled", "clean"), "good"
    ),
    **dict.fromkeys(
        ("REQUESTED", "AWAITING_PAYMENT", "PENDING", "HELD", "AUTHORIZED", "running", "SENT", "DUE"), "busy"
    ),
    **dict.fromkeys(
        (
            *(
                "REFUND_DUE",
                "QUARANTINED",
                "UNKNOWN",
                "mismatch",
                "unmatched",
                "waiting",
                "unjudged",
                "paused",
            ),
            *("out", "not finished"),
        ),
        "warn",
    ),
    **dict.fromkeys(("failed", "refused", "dead", "faults"), "bad"),
}


class Renderer:
    """Fills templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            time=in_utc,
            clock=clock,
            number=number,
            money=amount,
            rate=rate,
            age=age,
            tone=lambda status: _TONES.get(status, "calm"),
            masked=masked,
            signed=signed,
            groupby_day=by_day,
        )
        self._environment.tests["is_id"] = is_id
        self._environment.globals["assets"] = {name: address(name) for name in STATIC}
        self._environment.globals["pages"] = PAGES

    def render(self, template: str, **values: Any) -> str:
        """Return a template's text."""
        return self._environment.get_template(template).render(**values)


def address(name: str) -> str:
    """Return where a static file is; another content has another address, so that it may be kept for ever."""
    _, content = STATIC[name]
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def clock(moment: datetime | None) -> str:
    """Return the time of a day in UTC, with milliseconds."""
    return "" if moment is None else in_utc(moment)[11:19] + f".{moment.microsecond // 1000:03}"


def number(value: float) -> str:
    """Return a number with commas; without what is behind the point."""
    return f"{value:,.0f}"


def signed(value: int) -> str:
    """Return a change of a number; nothing where nothing changes."""
    return f"{value:+,}" if value else ""


def amount(minor: int | None, currency: str | None) -> str:
    """Return an amount as people write it; nothing where there is none."""
    return "" if minor is None or currency is None else money(minor, currency)


def rate(per_second: float) -> str:
    """Return how many a second."""
    return f"{per_second:,.0f}" if per_second >= _HUNDRED or not per_second else f"{per_second:.1f}"


def age(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def by_day(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Yield entries, which are in the order of time, by their day in UTC."""
    for day, found in groupby(entries, key=lambda entry: f"{entry.at.astimezone(UTC):%Y-%m-%d}"):
        yield day, [*found]


def is_id(text: str) -> bool:
    """Tell whether text is the id of an order."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def masked(text: object) -> str:
    """Return somebody else's text without secrets, card numbers, and what cannot be seen."""
    return "" if text is None else printable(mask_text(str(text)))
