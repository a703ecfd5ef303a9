"""What can an operator ask about the money of a period? `holdfast reconcile`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import App, Parameter

from ops import place
from ops.options import DataDir, Json, Moment, a_console, print_json
from ops.reconcile.limits import ReconcileLimits
from ops.reconcile.reconciler import Period
from ops.reconcile.reconciler import reconcile as run
from ops.reconcile.report import render_reconciliation

_LIMITS = ReconcileLimits()
_DAY = timedelta(days=1)

command = App(
    name="reconcile",
    help_epilogue=(
        "Examples:\n\n"
        "holdfast reconcile\n\n"
        "holdfast reconcile --since 7d --unknown-seconds-max 300\n\n"
        "holdfast reconcile --since 2026-03-01T00:00:00Z --until 2026-04-01T00:00:00Z --json"
    ),
)


@command.default
async def reconcile(
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    limits: Annotated[ReconcileLimits, Parameter(name="*")] = _LIMITS,
    data_dir: DataDir = place.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Compare, order by order, what gateways settled, what the order service heard, and which goods were confirmed.

    Counts and sums by currency and gateway for the orders that were paid in a period, and one line for each
    disagreement: R1 a payment event is missing, R2 money without goods and without a refund, R3 goods without money, R4
    refunds refused or overdue, R5 quarantined or contested money, R6 attempts whose end the gateway has not told, R7 a
    payment event without a payment. Undecided money (R4 to R6) is told however old it is.

    What disagrees is looked at again, so that traffic under way is no disagreement. Exit status 1 if there is any.

    Args:
        since: how long ago (90s 15m 2h 3d) or when (RFC 3339) the period begins; without it 24 hours ago.
        until: the same for its end; without it there is none.
        limits: what is allowed to a system at work.
        data_dir: folder of a running `holdfast up`.
        json: print the report as one JSON object.
    """
    begin = since if since is not None else datetime.now(UTC) - _DAY
    report = await run(place.find(data_dir).dsns, Period(begin, until), limits=limits)
    if json:
        print_json(report.as_dict())
    else:
        render_reconciliation(report, a_console())
    return 0 if report.ok else 1
