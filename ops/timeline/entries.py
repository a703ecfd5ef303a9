"""What happened to an order, one line after the other? The facts of every source as one chronological list."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain, groupby
from typing import Any, NamedTuple
from uuid import UUID

from ops.timeline.facts import (
    Facts,
    InboxRow,
    MovementRow,
    OrderFacts,
    PaymentFacts,
    Position,
    RefundRow,
    ResolutionRow,
    StockFacts,
    WaitingRow,
    WebhookRow,
)
from ops.timeline.masking import mask, show_body

_LINES_TOLD_MAX = 10


class Entry(NamedTuple):
    """One thing that happened: when, where (order, inventory, payment, gateway, kafka), what, and because of what.

    `cause_type` is the type of the message that was the cause, where it is known.
    """

    at: datetime
    where: str
    what: str
    detail: str
    cause: str | None = None
    cause_type: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return self._asdict()


def list_entries(facts: Facts, *, body_characters_max: int) -> list[Entry]:
    """Return everything in the order of time; what happened at the same moment stays in the order of the saga."""
    types = dict(_types(facts))
    entries = chain(
        _of_order(facts.order or OrderFacts()),
        _of_stock(facts.stock or StockFacts()),
        _of_payment(facts.payment or PaymentFacts(), body_characters_max),
        _of_outboxes(facts),
        map(_of_position, facts.positions or ()),
        _of_inboxes(facts.inboxes or {}, types),
    )
    return sorted(
        (_finish(entry, types) for entry in entries),
        key=lambda entry: entry.at,
    )


def _finish(entry: Entry, types: Mapping[str, str]) -> Entry:
    """Name the type of the cause, and let nothing out that nobody may see."""
    cause = None if entry.cause is None else mask(entry.cause)
    return entry._replace(
        what=mask(entry.what), detail=mask(entry.detail), cause=cause, cause_type=types.get(entry.cause or "")
    )


def _types(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield the id and the type of each message that is known."""
    for waiting in facts.waiting:
        yield str(waiting.event_id), waiting.type
    for position in facts.positions or ():
        if position.event_id is not None:
            yield position.event_id, position.type


def event_ids(facts: Facts) -> set[UUID]:
    """Return the ids of all messages that the facts name, as themselves or as a cause."""
    order, stock = facts.order or OrderFacts(), facts.stock or StockFacts()
    named = chain(
        (step.cause for step in order.history),
        (move.cause for move in stock.movements),
        (position.event_id for position in facts.positions or ()),
        (position.cause for position in facts.positions or ()),
        (row.headers.get("ce_causationid") for row in facts.waiting),
        (str(row.event_id) for row in facts.waiting),
    )
    return {found for found in map(_read_id, named) if found is not None}


def _read_id(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None


# --- order ----------------------------------------------------------------------------------------------------------


def _of_order(facts: OrderFacts) -> Iterator[Entry]:
    order = facts.order
    if order is not None:
        detail = f"by {order.customer_id}, {_money(order.total_minor, order.currency)}"
        yield Entry(order.created_at, "order", "placed", detail)
    for step in facts.history:
        reason = f": {step.reason}" if step.reason else ""
        yield Entry(step.at, "order", step.status, f"version {step.version}{reason}", step.cause)


# --- inventory ------------------------------------------------------------------------------------------------------


def _of_stock(facts: StockFacts) -> Iterator[Entry]:
    for (kind, turn, at, cause), moves in groupby(
        facts.movements, key=lambda move: (move.kind, move.round, move.at, move.cause)
    ):
        yield Entry(at, "inventory", kind, f"{_units(moves)} (round {turn})", cause)
    reservation = facts.reservation
    if reservation is None:
        return
    if reservation.status is None:
        heard = "a cancellation" if reservation.cancelled else f"payment {reservation.payment_status}"
        yield Entry(reservation.updated_at, "inventory", "remembered", f"{heard}, before the order came")
        return
    details = [
        reservation.reason,
        f"the hold ends at {_time(reservation.expires_at)}" if reservation.status == "HELD" else None,
        "unavailable" if reservation.unavailable else None,
    ]
    yield Entry(
        reservation.updated_at,
        "inventory",
        f"reservation {reservation.status}",
        "; ".join(detail for detail in details if detail),
    )


def _units(moves: Iterable[MovementRow]) -> str:
    told = [f"{move.quantity} {move.sku}" for move in moves]
    more = f" and {len(told) - _LINES_TOLD_MAX} more" if len(told) > _LINES_TOLD_MAX else ""
    return ", ".join(told[:_LINES_TOLD_MAX]) + more


# --- payment and gateway --------------------------------------------------------------------------------------------


def _of_payment(facts: PaymentFacts, body_characters_max: int) -> Iterator[Entry]:
    yield from _of_payment_itself(facts)
    yield from _of_attempts(facts)
    for webhook in facts.webhooks:
        yield _of_webhook(webhook, body_characters_max)
    for refund in facts.refunds:
        yield from _of_refund(refund)
    for resolution in facts.resolutions:
        yield _of_resolution(resolution)


def _of_payment_itself(facts: PaymentFacts) -> Iterator[Entry]:
    payment = facts.payment
    if payment is None:
        return
    if payment.amount_minor is None:
        yield Entry(payment.created_at, "payment", "closed", "before there was anything to pay")
    else:
        detail = f"{_money(payment.amount_minor, payment.currency)}, to be paid by {_time(payment.pay_by)}"
        yield Entry(payment.created_at, "payment", "opened", detail)
    if payment.paid_at is not None:
        settled = _money(payment.settled_amount_minor, payment.settled_currency)
        detail = f"{settled} by attempt {payment.settled_attempt_id}, at the time that the gateway names"
        yield Entry(payment.paid_at, "gateway", "paid", detail)


def _of_attempts(facts: PaymentFacts) -> Iterator[Entry]:
    for attempt in facts.attempts:
        asked = _money(attempt.amount_minor, attempt.currency)
        detail = f"{attempt.attempt_id} with {attempt.gateway}, {asked}"
        yield Entry(attempt.created_at, "payment", "attempt started", detail)
        if attempt.review_at is not None:
            why = f"{attempt.attempt_id}: {attempt.review_reason}"
            yield Entry(attempt.review_at, "payment", "waits for a decision", why)
        if attempt.updated_at == attempt.created_at and attempt.status == "PENDING":
            continue
        details = [
            str(attempt.attempt_id),
            f"the gateway says {attempt.native_status}" if attempt.native_status else None,
            f"received {_money(attempt.received_amount_minor, attempt.received_currency)}"
            if attempt.received_amount_minor is not None
            else None,
            f"accepted {_money(attempt.accepted_amount_minor, attempt.currency)}"
            if attempt.accepted_amount_minor is not None
            else None,
            f"contested: {attempt.dispute}" if attempt.dispute else None,
        ]
        yield Entry(
            attempt.updated_at,
            "payment",
            f"attempt {attempt.status}",
            "; ".join(detail for detail in details if detail),
        )


def _of_webhook(webhook: WebhookRow, body_characters_max: int) -> Entry:
    details = [
        f"{webhook.gateway} event {webhook.event_id}",
        webhook.reason,
        f"judged again at {_time(webhook.judge_at)}" if webhook.verdict and webhook.judge_at else None,
        show_body(webhook.body, body_characters_max),
    ]
    what = f"webhook {webhook.webhook_id} {webhook.verdict or 'not yet judged'}"
    return Entry(webhook.received_at, "gateway", what, "; ".join(detail for detail in details if detail))


def _of_refund(refund: RefundRow) -> Iterator[Entry]:
    money = f"{_money(refund.amount_minor, refund.currency)} of attempt {refund.attempt_id}"
    note = f" ({refund.note})" if refund.note else ""
    yield Entry(refund.created_at, "payment", "refund due", f"{money}: {refund.reason}{note}")
    if refund.status == "DUE":
        return
    details = [
        money,
        refund.error,
        f"asked {refund.tries} times" if refund.tries > 1 else None,
        f"asked again at {_time(refund.next_try_at)}" if refund.next_try_at else None,
    ]
    yield Entry(
        refund.updated_at,
        "gateway",
        f"refund {refund.status}",
        "; ".join(detail for detail in details if detail),
    )


def _of_resolution(resolution: ResolutionRow) -> Entry:
    detail = (
        f"{resolution.action} attempt {resolution.attempt_id} ({resolution.review_reason}): {resolution.reason} "
        f"({resolution.decided_by})"
    )
    return Entry(resolution.created_at, "payment", "operator decided", detail)


# --- messages -------------------------------------------------------------------------------------------------------


def _of_outboxes(facts: Facts) -> Iterator[Entry]:
    for where, service in (("order", facts.order), ("inventory", facts.stock), ("payment", facts.payment)):
        for row in service.waiting if service is not None else ():
            yield _of_waiting(where, row)


def _of_waiting(where: str, row: WaitingRow) -> Entry:
    number = f", number {row.sequence}" if row.sequence else ""
    detail = f"{row.type} for {row.topic}{number}: it has not reached Kafka"
    return Entry(row.created_at, where, "waits in the outbox", detail, row.headers.get("ce_causationid"))


def _of_position(position: Position) -> Entry:
    number = f", number {position.sequence}" if position.sequence is not None else ""
    redriven = f", redriven to {position.redriven_to}" if position.redriven_to else ""
    detail = f"{position.place}{number}{redriven}"
    what = position.type
    if position.letter is not None:
        letter = position.letter
        what = f"dead letter {position.type}"
        detail = (
            f"{detail}: refused by {letter.group}, {letter.reason}: {letter.detail} (from {letter.read_at})"
        )
    return Entry(position.at, "kafka", what, detail, position.cause)


def _of_inboxes(inboxes: Mapping[str, Iterable[InboxRow]], types: Mapping[str, str]) -> Iterator[Entry]:
    for where, rows in inboxes.items():
        for row in rows:
            what = "handled" if row.outcome == "handled" else "refused"
            detail = f"{types.get(str(row.event_id), 'message')} {row.event_id}"
            yield Entry(row.handled_at, where, what, detail)


def _money(minor: int | None, currency: str | None) -> str:
    return f"{minor:,} {currency}" if minor is not None else "an unknown amount"


def _time(at: datetime | None) -> str:
    return "an unknown time" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
