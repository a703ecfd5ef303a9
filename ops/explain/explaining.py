"""How is an order explained? Every check is run on it alone, and beside it stands what it looked at."""

from collections.abc import Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from ops.audit.agreement import Case
from ops.audit.auditor import LOOKS
from ops.audit.comparison import list_cases
from ops.audit.findings import AuditReport, Finding, Lost, Suspect
from ops.audit.limits import AuditLimits
from ops.audit.snapshots import Snapshots, connect_all, frozen
from ops.audit.topics import PRODUCERS, Seen, lacking_numbers, list_counters, tell_lost
from ops.explain import facts as words
from ops.place import Place
from ops.repair import store
from ops.repair.planning import Plan, plan_repair
from ops.timeline.conclusion import conclude
from ops.timeline.facts import Facts
from ops.timeline.reading import read_facts
from shared.errors import Unavailable
from shared.kafka import measure_topics, partition_of
from shared.settings import KafkaSettings

_SKU_CHECKS = ("A1", "A2", "A3")

#: What each check proves, as CONTRACT section 6 says it.
TITLES = {
    "A1": "no counter is negative",
    "A2": "each counter is the sum of its movements",
    "A3": "what is reserved is what reservations hold",
    "A4": "the reservation moved only along allowed paths",
    "A5": "the order ends in time",
    "A6": "what is sold is paid, once and in full",
    "A7": "money is matched by goods or by a refund",
    "A8": "an order that has ended holds no stock",
    "A9": "order, reservation and payment agree",
    "A10": "events leave the outboxes",
    "A11": "each event counts once",
    "A12": "no event is missing from the topics",
}


class Verdict(StrEnum):
    """What a check says: right, wrong, or wrong while news may still be on its way."""

    RIGHT = "right"
    WRONG = "wrong"
    YOUNG = "may still be on its way"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the order: what it proves, what it looked at, and what it says; `wrong` has a sentence for each fault."""

    name: str
    title: str
    verdict: Verdict
    facts: Sequence[str]
    wrong: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "check": self.name,
            "title": self.title,
            "verdict": self.verdict,
            "facts": list(self.facts),
            "wrong": list(self.wrong),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an order is, or is not, right.

    Attributes:
        order_id: the order.
        conclusion: one sentence that says why it stands where it stands.
        checks: every check that concerns it, by number.
        plan: what a repair would do about what is wrong.
        notes: what was not looked at, and what did not answer.
    """

    order_id: UUID
    conclusion: str
    checks: Sequence[Check]
    plan: Plan
    notes: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether no check says that something is wrong."""
        return not any(check.verdict is Verdict.WRONG for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as `--json` prints it."""
        return {
            "ok": self.ok,
            "order_id": self.order_id,
            "conclusion": self.conclusion,
            "checks": [check.as_dict() for check in self.checks],
            "repair": self.plan.as_dict(),
            "notes": list(self.notes),
        }


async def explain(place: Place, order_id: UUID, *, limits: AuditLimits) -> Explanation:
    """Look at one order as the audit does, once, in the databases and in the topics; without Kafka A12 is left out.

    Raises:
        NotFound: nothing knows the order.
        Unavailable: a database does not answer.
    """
    facts, notes, problems = await read_facts(place, order_id)
    if facts.order is None or facts.stock is None or facts.payment is None:
        raise Unavailable("\n".join(problems))
    skus = sorted({move.sku for move in facts.stock.movements})
    async with connect_all(place.dsns, application_name="holdfast-explain") as connections:
        async with frozen(connections) as snapshots:
            suspects = await _look(snapshots, limits, order_id, skus)
            ledgers = await store.list_ledgers(snapshots.inventory, skus, [])
            case = await _case_of(snapshots, limits, order_id)
            lost, told = await _compare_topics(snapshots, place.kafka, facts, order_id, limits)
        suspects += [Suspect(Finding("A12", item.key, tell_lost(item))) for item in lost]
        findings = [suspect.finding for suspect in suspects if not suspect.young]
        report = AuditReport(not findings, findings, lost=lost)
        plan = await plan_repair(connections, report, limits)
    looked_at = {
        **_facts_of_skus(ledgers),
        "A4": words.tell_moves(case, facts.stock.movements),
        "A5": words.tell_times(facts),
        "A6": words.tell_settlement(case),
        "A7": words.tell_money(case),
        "A8": words.tell_ended(case),
        "A9": words.tell_agreement(case, facts),
        "A10": words.tell_delivery(facts),
        "A11": words.tell_handled(facts),
        "A12": told,
    }
    checks = [_judge(name, words_of, suspects) for name, words_of in looked_at.items() if words_of]
    return Explanation(order_id, conclude(facts, datetime.now(UTC)), checks, plan, [*notes, *problems])


def _facts_of_skus(ledgers: Sequence[store.LedgerStand]) -> dict[str, list[str]]:
    return {
        "A1": words.tell_counters(ledgers),
        "A2": words.tell_sums(ledgers),
        "A3": words.tell_holds(ledgers),
    }


def _judge(name: str, told: Sequence[str], suspects: Sequence[Suspect]) -> Check:
    mine = [suspect for suspect in suspects if suspect.finding.check == name]
    wrong = [
        f"{suspect.finding.subject}: {suspect.finding.detail}"
        if name in _SKU_CHECKS
        else suspect.finding.detail
        for suspect in mine
    ]
    if not mine:
        verdict = Verdict.RIGHT
    else:
        verdict = Verdict.YOUNG if all(suspect.young for suspect in mine) else Verdict.WRONG
    return Check(name, TITLES[name], verdict, told, wrong)


async def _look(
    snapshots: Snapshots, limits: AuditLimits, order_id: UUID, skus: Collection[str]
) -> list[Suspect]:
    """Run the checks of SKUs on the order's, and those of orders on it; outboxes and inboxes are told as they are."""
    suspects: list[Suspect] = []
    for look, checks in LOOKS.items():
        if set(checks) & {"A10", "A11"}:
            continue
        is_of_skus = bool(set(checks) & set(_SKU_CHECKS))
        among = list(skus) if is_of_skus else [str(order_id)]
        suspects += await look(snapshots, limits, among)
    return suspects


async def _case_of(snapshots: Snapshots, limits: AuditLimits, order_id: UUID) -> Case:
    async with aclosing(list_cases(snapshots, limits, [str(order_id)])) as cases:
        async for _, case in cases:
            return case
    return Case(None, None, None)


async def _compare_topics(
    snapshots: Snapshots, kafka: KafkaSettings, facts: Facts, order_id: UUID, limits: AuditLimits
) -> tuple[list[Lost], list[str]]:
    """Compare what each producer has told of the order with what its topic holds.

    Returns:
        The events that are missing, and both sides in words; nothing if Kafka did not answer.
    """
    if facts.positions is None:
        return [], []
    key = str(order_id)
    spans = await measure_topics(kafka, list(PRODUCERS.values()))
    lost: list[Lost] = []
    told: list[str] = []
    for producer, topic in PRODUCERS.items():
        partition = spans[topic][partition_of(key.encode(), len(spans[topic]))]
        held = sorted({item.sequence for item in facts.positions if item.topic == topic and item.sequence})
        seen = Seen()
        for number in held:
            seen.add(key, number)
        numbers = seen.take(key)
        async with aclosing(list_counters(snapshots, producer, topic, [key], limits)) as counters:
            async for counter in counters:
                there = ", ".join(map(str, held)) or "none"
                told.append(f"{producer} has told {counter.last}; {topic} holds {there}")
                lacking = lacking_numbers(counter, numbers, is_whole=partition.begin == 0)
                if lacking:
                    lost.append(Lost(producer, topic, key, counter.last, tuple(lacking)))
    return lost, told
