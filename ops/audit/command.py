"""What can an operator say about the audit? `holdfast audit`, with `--explain` for one order and `--repair`."""

from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter

from ops import place as places
from ops.audit.auditor import audit
from ops.audit.findings import AuditReport
from ops.audit.limits import AuditLimits
from ops.audit.report import render
from ops.audit.snapshots import connect_all
from ops.audit.topics import Topics
from ops.explain import explain as explain_order
from ops.explain import render_explanation
from ops.options import DataDir, Execute, Json, Yes, a_console, consent, print_json
from ops.place import Place
from ops.repair import Outcome, Plan, plan_repair
from ops.repair import execute as carry_out
from ops.repair.report import render_outcome, render_plan
from shared.errors import Misconfigured

command = App(
    name="audit",
    help_epilogue=(
        "Exit status: 0 all is right, 1 something is not (or was not agreed to), 2 wrong options or settings.\n\n"
        "Examples:\n\n"
        "holdfast audit\n\n"
        "holdfast audit --kafka --json | jq .findings\n\n"
        "holdfast audit --explain 0198c0de-0000-7000-8000-000000000001\n\n"
        "holdfast audit --repair\n\n"
        "holdfast audit --kafka --repair --execute --reason 'order.events was lost with a disk, see #381'"
    ),
)


@command.default
async def audit_system(
    *,
    kafka: Annotated[bool, Parameter(negative="")] = False,
    explain: UUID | None = None,
    repair: Annotated[bool, Parameter(negative="")] = False,
    reason: str | None = None,
    wait_seconds: float = 30,
    execute: Execute = False,
    yes: Yes = False,
    data_dir: DataDir = places.DEFAULT_DATA_DIR,
    json: Json = False,
) -> int:
    """Prove from the three databases that nothing was sold twice, lost or left hanging. Exit status 1 on findings.

    With --explain: each check of one order, with the facts it looked at. With --repair: what can be put right safely. A
    counter is made what its ledger adds up to; an event that a topic has lost is told again; a stuck order goes on,
    because those who were not heard tell again where they stand, or because its hold is swept. What is right stays.

    HOLDFAST_HOLD_SECONDS and HOLDFAST_HOLD_GRACE_SECONDS, where they are not the defaults, have to be those of the
    inventory service.

    Args:
        kafka: also read the topics from beginning to end, and prove that no event is missing (A12).
        explain: look at this order alone, also in the topics, and say of each check what it looked at.
        repair: plan what can be repaired; nothing is changed without --execute.
        reason: why; kept with who did it, when, and how much.
        wait_seconds: how long to wait for the services to make right what they were told again.
        execute: carry the plan out.
        yes: do not ask; needed together with --execute where nobody can answer.
        data_dir: folder of a running `holdfast up`.
        json: print the report as one JSON object.
    """
    _check_options(explain, repair=repair, execute=execute, reason=reason, wait_seconds=wait_seconds)
    found = places.find(data_dir)
    times = places.hold_times()
    limits = AuditLimits(hold_seconds=times.hold_seconds, hold_grace_seconds=times.hold_grace_seconds)
    if explain is not None:
        return await _explain(found, explain, limits, json=json)
    report = await audit(found.dsns, topics=Topics(found.kafka) if kafka else None, limits=limits)
    plan = await _plan(found, report, limits) if repair else None
    if not json:
        render(report, a_console())
        if plan is not None and not report.ok:
            render_plan(plan, a_console())
    outcome = None
    if plan is not None and plan.remedies and execute:
        if not consent(f"Carry out {len(plan.remedies):,} repairs?", yes=yes):
            return 1
        outcome = await carry_out(found, plan, reason=reason or "", limits=limits, wait_seconds=wait_seconds)
    return _tell(report, plan, outcome, execute=execute, json=json)


def _check_options(
    explain: UUID | None, *, repair: bool, execute: bool, reason: str | None, wait_seconds: float
) -> None:
    if explain is not None and repair:
        raise Misconfigured("--explain says what --repair would do to that order: give one of the two.")
    if execute and not repair:
        raise Misconfigured("An audit changes nothing: --execute goes with --repair.")
    if execute and not (reason or "").strip():
        raise Misconfigured("Say why with --reason: it is kept with who repaired what.")
    if wait_seconds < 0:
        raise Misconfigured("--wait-seconds is not below zero.")


async def _explain(found: Place, order_id: UUID, limits: AuditLimits, *, json: bool) -> int:
    explanation = await explain_order(found, order_id, limits=limits)
    if json:
        print_json(explanation.as_dict())
    else:
        render_explanation(explanation, a_console())
    return 0 if explanation.ok else 1


async def _plan(found: Place, report: AuditReport, limits: AuditLimits) -> Plan:
    async with connect_all(found.dsns, application_name="holdfast-repair") as connections:
        return await plan_repair(connections, report, limits)


def _tell(
    report: AuditReport, plan: Plan | None, outcome: Outcome | None, *, execute: bool, json: bool
) -> int:
    """Tell what was found and done, and return the exit status: 0 if all is right now."""
    if json:
        told = {} if plan is None else {"repair": {"executed": outcome is not None, **plan.as_dict()}}
        if outcome is not None:
            told["repair"]["outcome"] = outcome.as_dict()
        print_json({**report.as_dict(), **told})
    elif plan is not None:
        _tell_repair(plan, outcome, execute=execute)
    if outcome is not None and plan is not None:
        return 0 if outcome.ok and not plan.unrepairable and report.complete else 1
    return 0 if report.ok else 1


def _tell_repair(plan: Plan, outcome: Outcome | None, *, execute: bool) -> None:
    console = a_console()
    if outcome is not None:
        render_outcome(outcome, console)
    elif not plan.remedies:
        console.print("There is nothing to repair.")
    elif not execute:
        console.print("Nothing was changed. Give --execute --reason '…' to do this.")
