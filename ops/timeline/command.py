"""What can an operator ask about one order? `holdfast timeline ORDER_ID`."""

from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter

from ops import place
from ops.options import DataDir, Json, a_console, print_json
from ops.timeline.limits import TimelineLimits
from ops.timeline.reading import read_timeline
from ops.timeline.report import render_timeline

_LIMITS = TimelineLimits()

command = App(
    name="timeline",
    help_epilogue=(
        "Examples:\n\n"
        "holdfast timeline 0198c0de-0000-7000-8000-000000000001\n\n"
        "holdfast timeline 0198c0de-0000-7000-8000-000000000001 --no-kafka\n\n"
        "holdfast timeline 0198c0de-0000-7000-8000-000000000001 --json | jq -r .conclusion"
    ),
)


@command.default
async def timeline(
    order_id: UUID,
    *,
    kafka: Annotated[bool, Parameter(negative="--no-kafka")] = True,
    limits: Annotated[TimelineLimits, Parameter(name="*")] = _LIMITS,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Say why an order is where it is, and what happened to it, one line after the other.

    Its history, reservation, movements of stock, payment, attempts, deliveries of gateways with their verdicts, refunds
    and operators' decisions; which messages about it wait, were handled or refused, and where in Kafka they are.

    Exit status 1 if nothing knows the order, or if a part of the system does not answer: what the others say is told.

    Args:
        order_id: the order.
        kafka: look into the topics, too.
        limits: how much is read at most.
        data_dir: folder of a running `holdfast up`.
        json: print the timeline as one JSON object.
    """
    found = await read_timeline(place.find(data_dir), order_id, kafka=kafka, limits=limits)
    if json:
        print_json(found.as_dict())
    else:
        render_timeline(found, a_console())
    return 0 if found.ok else 1
