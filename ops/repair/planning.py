"""Which findings can be repaired, and by what? A plan changes nothing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

from ops.audit.findings import AuditReport, Finding
from ops.audit.limits import AuditLimits
from ops.audit.snapshots import Snapshots, frozen
from ops.repair import store
from ops.repair.remedies import Recount, Remedy, Settle, TellAgain, Unrepairable, remedy_as_dict
from ops.repair.standing import Stands, find_unheard, is_to_be_swept

_OF_SKUS = frozenset({"A1", "A2", "A3"})
_OF_ORDERS = frozenset({"A5", "A6", "A7", "A8", "A9"})

_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "A1": "The ledger does not say what the counter should be: compare it with the movements of the SKU.",
        "A2": "The ledger itself is wrong, and no counter can be made from it: find the movement that is missing or "
        "was changed (GET /stock/SKU/movements), and correct the stock by an adjustment.",
        "A3": "The ledger and the reservations differ: find the order whose movements are wrong with "
        "`holdfast audit --explain`.",
        "A4": "Movements were changed by hand: `holdfast audit --explain ORDER_ID` shows them.",
        "A10": "Is Kafka up, and does the service run? `holdfast lag` says what waits; it leaves by itself.",
        "A11": "The primary key of processed_events is gone: make it again, then look at what the event did twice.",
        "A12": "The topic is ahead of the database, which may have been restored from an older backup: restore a newer "
        "one, or replay the other services' topics to this one.",
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, in which order, and what cannot be repaired."""

    remedies: Sequence[Remedy]
    unrepairable: Sequence[Unrepairable]

    @property
    def findings(self) -> list[Finding]:
        """Return the findings that the remedies are meant to end, each once."""
        found = [finding for remedy in self.remedies for finding in remedy.findings]
        return list(dict.fromkeys(found))

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as `--json` prints it."""
        return {
            "remedies": [remedy_as_dict(remedy) for remedy in self.remedies],
            "unrepairable": [item.as_dict() for item in self.unrepairable],
        }


async def plan_repair(connections: Snapshots, report: AuditReport, limits: AuditLimits) -> Plan:
    """Find a remedy for each finding, or say why there is none; nothing is changed."""
    findings = list(report.findings)
    told = _tell_again(report)
    async with frozen(connections) as snapshots:
        recounts = await _recount(snapshots, findings)
        settled = await _settle(snapshots, findings, limits, told)
    remedies: list[Remedy] = [*recounts, *told, *settled]
    covered = {finding for remedy in remedies for finding in remedy.findings}
    left = [finding for finding in findings if finding not in covered]
    return Plan(remedies, [Unrepairable(finding, _advice(finding)) for finding in left])


def _advice(finding: Finding) -> str:
    known = _ADVICE.get(finding.check)
    if known is not None:
        return known
    return f"No news is missing that explains it: `holdfast timeline {finding.subject}` tells what happened."


def _tell_again(report: AuditReport) -> list[TellAgain]:
    by_key = _by_subject(report.findings, {"A12"})
    return [
        TellAgain(lost.producer, lost.topic, lost.key, lost.numbers, by_key[lost.key]) for lost in report.lost
    ]


async def _recount(snapshots: Snapshots, findings: Sequence[Finding]) -> list[Recount]:
    """Recount the SKUs whose ledger is right in itself and agrees with the reservations."""
    wrong = _by_subject(findings, _OF_SKUS)
    broken = [UUID(finding.subject) for finding in findings if finding.check == "A4"]
    ledgers = await store.list_ledgers(snapshots.inventory, sorted(wrong), broken)
    return [
        Recount(ledger.sku, _counted(ledger), wrong[ledger.sku]) for ledger in ledgers if _is_sound(ledger)
    ]


def _is_sound(ledger: store.LedgerStand) -> bool:
    _, reserved, sold = ledger.sums
    return (
        not ledger.is_broken
        and ledger.counters != ledger.sums
        and min(ledger.sums) >= 0
        and ledger.booked == sum(ledger.sums)
        and (reserved, sold) == (ledger.held, ledger.sold)
    )


def _counted(ledger: store.LedgerStand) -> str:
    names = ("available", "reserved", "sold")
    return "; ".join(
        f"{name} {counter} becomes {added_up}"
        for name, counter, added_up in zip(names, ledger.counters, ledger.sums, strict=True)
        if counter != added_up
    )


async def _settle(
    snapshots: Snapshots, findings: Sequence[Finding], limits: AuditLimits, told: Iterable[TellAgain]
) -> list[Settle]:
    """Settle the orders that somebody has not heard of; who tells lost events again anyhow need not tell twice."""
    wrong = _by_subject(findings, _OF_ORDERS)
    telling = {(remedy.producer, remedy.key) for remedy in told}
    settled = []
    for order_id, stands in (await read_stands(snapshots, [UUID(key) for key in wrong], limits)).items():
        news, is_swept = find_unheard(stands), is_to_be_swept(stands)
        if not news and not is_swept:
            continue
        tellers = {item.teller for item in news if (item.teller, str(order_id)) not in telling}
        why = [item.what for item in news] + (["its hold is over and was not swept"] if is_swept else [])
        settled.append(Settle(order_id, frozenset(tellers), is_swept, "; ".join(why), wrong[str(order_id)]))
    return settled


async def read_stands(
    snapshots: Snapshots, order_ids: Sequence[UUID], limits: AuditLimits
) -> dict[UUID, Stands]:
    """Return where order, reservation and payment of orders stand."""
    orders = await store.list_orders(snapshots.order, order_ids)
    reservations = await store.list_reservations(
        snapshots.inventory, order_ids, grace_seconds=limits.hold_grace_seconds
    )
    payments = await store.list_payments(snapshots.payment, order_ids)
    return {
        order_id: Stands(orders.get(order_id), reservations.get(order_id), payments.get(order_id))
        for order_id in order_ids
    }


def _by_subject(findings: Iterable[Finding], checks: Iterable[str]) -> dict[str, list[Finding]]:
    wanted = frozenset(checks)
    found: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.check in wanted:
            found[finding.subject].append(finding)
    return dict(found)
