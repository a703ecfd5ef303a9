"""How do three databases become one report? Page by page, and what disagrees is looked at a second time."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from ops.audit import AuditLimits, Finding
from ops.audit.auditor import Pause, confirm
from ops.audit.findings import Suspect
from ops.audit.snapshots import Snapshots, connect_all, frozen
from ops.reconcile import store
from ops.reconcile.figures import Figure, Figures
from ops.reconcile.limits import ReconcileLimits
from ops.reconcile.rules import AttemptRow, Case, PaymentRow, RefundRow, judge
from shared.errors import Misconfigured

_DEFAULT_LIMITS = ReconcileLimits()


class Period(NamedTuple):
    """From when, and until when (None: until now), orders were paid."""

    since: datetime
    until: datetime | None = None

    def holds(self, at: datetime | None) -> bool:
        """Tell whether a time lies in the period."""
        return at is not None and self.since <= at and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """The figures of a period, and every disagreement.

    Attributes:
        period: which orders were counted.
        figures: by currency, then by gateway.
        findings: by rule, then by order; those about undecided money also of orders outside the period.
        complete: False if there were more disagreements than the limit lets be listed.
    """

    period: Period
    figures: Sequence[Figure]
    findings: Sequence[Finding]
    complete: bool

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return self.complete and not self.findings

    @property
    def orders(self) -> int:
        """How many orders were compared."""
        return sum(figure.orders for figure in self.figures)

    @property
    def agreed(self) -> int:
        """About how many of them all three agree."""
        return sum(figure.agreed for figure in self.figures)

    @property
    def open(self) -> int:
        """How many are on their way."""
        return sum(figure.open for figure in self.figures)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as `--json` prints it."""
        return {
            "ok": self.ok,
            "since": self.period.since,
            "until": self.period.until,
            "orders": self.orders,
            "agreed": self.agreed,
            "open": self.open,
            "figures": [figure.as_dict() for figure in self.figures],
            "findings": [finding.as_dict() for finding in self.findings],
            "complete": self.complete,
        }


async def reconcile(
    dsns: Mapping[str, str],
    period: Period,
    *,
    limits: ReconcileLimits = _DEFAULT_LIMITS,
    pause: Pause = asyncio.sleep,
) -> ReconcileReport:
    """Compare what gateways settled, what the order service heard, and what goods were confirmed; nothing is changed.

    Args:
        dsns: where the databases `order`, `inventory` and `payment` are; they may be at work meanwhile.
        period: which orders are counted.
        limits: what is allowed to a system at work.
        pause: waits so many seconds between two looks.

    Raises:
        Misconfigured: the period ends before it begins, or a database is not named.
        Unavailable: a database does not answer.
    """
    if period.until is not None and period.until <= period.since:
        raise Misconfigured("The period ends before it begins.")
    comparison = Comparison(period, limits)
    async with connect_all(dsns, application_name="holdfast-reconcile") as connections:
        async with frozen(connections) as snapshots:
            suspects = await comparison.look(snapshots, limits.for_looks(), None)
        findings, _ = await confirm(connections, limits.for_looks(), pause, {comparison.look: suspects})
    return comparison.report(findings)


class Comparison:
    """Compares page by page, and counts at the first look, which is at every order of the period."""

    def __init__(self, period: Period, limits: ReconcileLimits) -> None:
        self._period = period
        self._limits = limits
        self._figures = Figures()
        self._complete = True
        # The orders of the period that were suspected at the first look, and what is still changing.
        self._suspected: dict[str, Figure] = {}
        self._young: set[str] = set()

    async def look(
        self, snapshots: Snapshots, _: AuditLimits, among: Collection[str] | None
    ) -> list[Suspect]:
        """Return the disagreements about every order, or about some."""
        suspects: list[Suspect] = []
        pages = self._list_pages(snapshots) if among is None else self._split(among)
        async with aclosing(pages):
            async for page in pages:
                for case in await self._load(snapshots, page):
                    found = judge(case, self._limits)
                    if among is None and self._period.holds(case.at):
                        self._count(case, found, is_listed=len(suspects) < self._limits.findings_max)
                    suspects += found
                self._complete &= len(suspects) <= self._limits.findings_max
                del suspects[self._limits.findings_max :]
        self._young = {suspect.finding.subject for suspect in suspects if suspect.young}
        return suspects

    def _count(self, case: Case, found: list[Suspect], *, is_listed: bool) -> None:
        figure = self._figures.add(case)
        if found and is_listed:
            self._suspected[str(case.order_id)] = figure
        elif not found and all(refund.is_done for refund in case.refunds):
            figure.agreed += 1
        elif not found:
            figure.open += 1

    def report(self, findings: Sequence[Finding]) -> ReconcileReport:
        """Return what was found, when what was suspected has proved wrong, right, or neither."""
        wrong = {finding.subject for finding in findings}
        for order_id, figure in self._suspected.items():
            if order_id in wrong:
                continue
            if order_id in self._young:
                figure.open += 1
            else:
                figure.agreed += 1
        return ReconcileReport(self._period, list(self._figures), findings, self._complete)

    async def _list_pages(self, snapshots: Snapshots) -> AsyncGenerator[list[UUID], None]:
        """Yield the orders that any of the three databases names, by id, in pages."""
        since, until = self._period
        prefetch = self._limits.orders_at_once
        async with AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(aclosing(stream))
                for stream in (
                    store.list_paid(snapshots.payment, since, until, prefetch),
                    store.list_heard(snapshots.order, since, until, prefetch),
                    store.list_confirmed(snapshots.inventory, since, until, prefetch),
                )
            ]
            page: list[UUID] = []
            async for order_id in merge(streams):
                page.append(order_id)
                if len(page) >= prefetch:
                    yield page
                    page = []
            if page:
                yield page

    async def _split(self, among: Collection[str]) -> AsyncGenerator[list[UUID], None]:
        order_ids = [UUID(order_id) for order_id in sorted(among)]
        for start in range(0, len(order_ids), self._limits.orders_at_once):
            yield order_ids[start : start + self._limits.orders_at_once]

    async def _load(self, snapshots: Snapshots, order_ids: list[UUID]) -> list[Case]:
        """Return what the three databases say of some orders."""
        settle = self._limits.settle_seconds
        orders, reservations, (payments, attempts, refunds) = await asyncio.gather(
            store.list_orders(snapshots.order, order_ids, settle),
            store.list_reservations(snapshots.inventory, order_ids, settle),
            _load_money(snapshots, order_ids, settle),
        )
        attempts_of: dict[UUID, list[AttemptRow]] = defaultdict(list)
        refunds_of: dict[UUID, list[RefundRow]] = defaultdict(list)
        for attempt in attempts:
            attempts_of[attempt.order_id].append(attempt)
        for refund in refunds:
            refunds_of[refund.order_id].append(refund)
        return [
            Case(
                order_id,
                orders.get(order_id),
                reservations.get(order_id),
                payments.get(order_id),
                attempts_of[order_id],
                refunds_of[order_id],
            )
            for order_id in order_ids
        ]


async def _load_money(
    snapshots: Snapshots, order_ids: list[UUID], settle_seconds: float
) -> tuple[dict[UUID, PaymentRow], list[AttemptRow], list[RefundRow]]:
    """One connection takes one question at a time."""
    return (
        await store.list_payments(snapshots.payment, order_ids, settle_seconds),
        await store.list_attempts(snapshots.payment, order_ids, settle_seconds),
        await store.list_refunds(snapshots.payment, order_ids),
    )


async def merge(streams: Sequence[AsyncGenerator[UUID, None]]) -> AsyncGenerator[UUID, None]:
    """Yield each id of some sorted streams once, in order."""
    heads = [await anext(stream, None) for stream in streams]
    while ahead := [head for head in heads if head is not None]:
        order_id = min(ahead)
        for place, head in enumerate(heads):
            if head == order_id:
                heads[place] = await anext(streams[place], None)
        yield order_id
