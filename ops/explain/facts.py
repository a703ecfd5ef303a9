"""What did each check look at? The facts about one order in words, without any judgement."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ops.audit.agreement import Case, PaymentRow
from ops.repair.store import LedgerStand
from ops.timeline.facts import Facts, MovementRow
from shared.events import OrderStatus

_COUNTERS = ("available", "reserved", "sold")


def tell_counters(ledgers: Sequence[LedgerStand]) -> list[str]:
    """A1: the counters of the order's SKUs."""
    return [f"{ledger.sku}: {_counted(ledger.counters)}" for ledger in ledgers]


def tell_sums(ledgers: Sequence[LedgerStand]) -> list[str]:
    """A2: the same by the ledger."""
    return [
        f"{ledger.sku}: counters {_counted(ledger.counters)}; movements {_counted(ledger.sums)}; "
        f"{ledger.booked} units came in"
        for ledger in ledgers
    ]


def tell_holds(ledgers: Sequence[LedgerStand]) -> list[str]:
    """A3: what is reserved, and who holds it."""
    return [
        f"{ledger.sku}: reserved {ledger.counters[1]}, reservations hold {ledger.held}" for ledger in ledgers
    ]


def tell_moves(case: Case, movements: Sequence[MovementRow]) -> list[str]:
    """A4: the path of the reservation."""
    paths: dict[str, list[str]] = defaultdict(list)
    for move in movements:
        paths[move.sku].append(f"{move.kind} {move.quantity} (round {move.round})")
    return [_reservation(case), *(f"{sku}: {', '.join(steps)}" for sku, steps in sorted(paths.items()))]


def tell_times(facts: Facts) -> list[str]:
    """A5: since when the order is open, and until when it may be."""
    order = facts.order.order if facts.order is not None else None
    if order is None:
        return ["the order service does not know the order"]
    pay_by = "no time to pay by is set" if order.pay_by is None else f"to be paid by {order.pay_by:%F %T}"
    return [
        f"{order.status} since {order.updated_at:%F %T}, placed {order.created_at:%F %T}; {pay_by} (UTC)",
    ]


def tell_settlement(case: Case) -> list[str]:
    """A6: what a sold order was paid with."""
    order = case.order
    if order is None or order.status != OrderStatus.PROCESSING:
        return [f"{_order(case)}: only a PROCESSING order has to be paid and sold"]
    return [_order(case), _payment(case.payment), _reservation(case)]


def tell_money(case: Case) -> list[str]:
    """A7: what came in, and what is there for it."""
    payment = case.payment
    if payment is None:
        return ["there is no payment"]
    return [f"{payment.unreturned} successes are not given back", _reservation(case)]


def tell_ended(case: Case) -> list[str]:
    """A8: whether the order has ended, and whether it holds stock."""
    return [_order(case), _reservation(case)]


def tell_agreement(case: Case, facts: Facts) -> list[str]:
    """A9: what each says of itself, and what the order has heard of the others."""
    told = [_order(case), _reservation(case), _payment(case.payment)]
    order = facts.order.order if facts.order is not None else None
    if order is not None:
        told.append(f"the order has heard: stock {order.stock}, payment {order.payment or 'nothing'}")
    reservation = facts.stock.reservation if facts.stock is not None else None
    if reservation is not None:
        cancelled = "cancelled" if reservation.cancelled else "not cancelled"
        told.append(f"inventory has heard: {cancelled}, payment {reservation.payment_status}")
    return told


def tell_delivery(facts: Facts) -> list[str]:
    """A10: what waits in the outboxes, and what was refused."""
    waiting = [
        f"{row.type} (number {row.sequence}) waits in an outbox since {row.created_at:%F %T} UTC"
        for row in facts.waiting
    ]
    letters = [
        f"{position.letter.group} refused {position.type}: {position.letter.reason}, {position.letter.detail}"
        for position in facts.letters
        if position.letter is not None
    ]
    return [*(waiting or ["nothing waits in an outbox"]), *letters]


def tell_handled(facts: Facts) -> list[str]:
    """A11: how many of its messages each service has handled, and how many it refused."""
    if facts.inboxes is None:
        return []
    return [
        f"{service}: {_count(rows, 'handled')} handled, {_count(rows, 'dead')} refused"
        for service, rows in facts.inboxes.items()
    ]


def _count(rows: Iterable[object], outcome: str) -> int:
    return sum(getattr(row, "outcome", None) == outcome for row in rows)


def _counted(counters: Sequence[int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in zip(_COUNTERS, counters, strict=True))


def _order(case: Case) -> str:
    order = case.order
    if order is None:
        return "the order service does not know the order"
    cancelled = ", cancelled" if order.cancelled else ""
    return f"order {order.status}{cancelled}, total {order.total_minor} {order.currency}"


def _reservation(case: Case) -> str:
    row = case.reservation
    if row is None or row.status is None:
        return "there is no reservation"
    about = [*([row.reason] if row.reason else []), *(["unavailable"] if row.unavailable else [])]
    return f"reservation {row.status}" + (f" ({', '.join(about)})" if about else "")


def _payment(row: PaymentRow | None) -> str:
    if row is None:
        return "there is no payment"
    told = [
        f"payment {row.status} of {row.amount_minor} {row.currency}" if row.currency else "no payment yet"
    ]
    if row.settled:
        told.append(f"{row.settled} settled attempts, {row.received_minor} {row.received_currency} received")
    if row.accepted_minor is not None:
        told.append(f"{row.accepted_minor} accepted by an operator")
    return ", ".join(told)
