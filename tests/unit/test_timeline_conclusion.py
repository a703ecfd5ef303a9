"""Does one sentence say why an order is where it is?"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ops.timeline.conclusion import conclude
from ops.timeline.entries import event_ids, list_entries
from ops.timeline.facts import (
    AttemptRow,
    Facts,
    HistoryRow,
    InboxRow,
    Letter,
    MovementRow,
    OrderFacts,
    OrderRow,
    PaymentFacts,
    PaymentRow,
    Position,
    RefundRow,
    ReservationRow,
    StockFacts,
    WaitingRow,
)
from ops.timeline.positions import read_position
from shared.commands import command
from shared.events import CancelOrder, OrderStatus
from shared.ids import new_id

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)


def order(status: str, **changes: Any) -> OrderFacts:
    """Return what the order service says."""
    row = OrderRow(
        status=status,
        reason=None,
        version=2,
        customer_id="c-1",
        total_minor=500,
        currency="EUR",
        pay_by=LATER,
        stock="HELD",
        payment="PENDING",
        cancelled=False,
        cancel_reason=None,
        cancel_requested_by=None,
        created_at=NOW,
        updated_at=NOW,
    )
    return OrderFacts(row._replace(**changes))


def stock(status: str | None, **changes: Any) -> StockFacts:
    """Return what inventory says."""
    row = ReservationRow(
        status, None, LATER, unavailable=False, cancelled=False, payment_status="PENDING", updated_at=NOW
    )
    return StockFacts(row._replace(**changes))


def payment(
    status: str = "PENDING", *attempts: AttemptRow, refund: str | None = None, **changes: Any
) -> PaymentFacts:
    """Return what the payment service says; settled by the first attempt if it is paid."""
    settled = attempts[0].attempt_id if attempts and status in {"SUCCEEDED", "REFUNDED"} else None
    row = PaymentRow(
        status,
        None,
        500,
        "EUR",
        LATER,
        2,
        settled,
        500 if settled else None,
        "EUR" if settled else None,
        0,
        None,
        NOW,
    )
    refunds = [a_refund(attempts[0], refund)] if refund else []
    return PaymentFacts(row._replace(**changes), attempts, refunds=refunds)


def attempt(status: str, **changes: Any) -> AttemptRow:
    """Return an attempt with the sandbox."""
    row = AttemptRow(
        new_id(),
        "sandbox",
        None,
        status,
        500,
        "EUR",
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        NOW,
        NOW,
    )
    return row._replace(**changes)


def a_refund(of: AttemptRow, status: str, reason: str = "unavailable") -> RefundRow:
    """Return the refund of an attempt."""
    again = None if status == "SUCCEEDED" else LATER
    error = "no funds" if status == "FAILED" else None
    return RefundRow(
        new_id(), of.attempt_id, "sandbox", 500, "EUR", reason, status, None, error, 2, again, NOW, NOW
    )


def letter(group: str = "payment-service") -> Position:
    """Return a dead letter."""
    why = Letter(group, "conflict", "another amount", "order.events[3] offset 7")
    return Position(
        "order.events.payment-service.dlq",
        0,
        1,
        "OrderAwaitingPayment.v1",
        str(new_id()),
        2,
        NOW,
        None,
        None,
        why,
    )


PAID = attempt("SUCCEEDED", received_amount_minor=500, received_currency="EUR")
AWAITING, REFUND_DUE = order("AWAITING_PAYMENT"), order("REFUND_DUE")
HELD, RELEASED = stock("HELD"), stock("RELEASED")

CASES = [
    (Facts(order("REQUESTED"), StockFacts(), PaymentFacts()), "inventory has not answered yet"),
    (Facts(order("REQUESTED"), HELD, PaymentFacts()), "inventory has answered (HELD)"),
    (Facts(order("REQUESTED"), None, None), "what inventory says is not known"),
    (Facts(AWAITING, HELD, PaymentFacts()), "the payment service has not heard"),
    (
        Facts(AWAITING, HELD, None),
        "what the payment service says is not known; the hold ends at 2026-03-01 12:10:00",
    ),
    (Facts(AWAITING, HELD, payment()), "none was attempted; the hold ends at 2026-03-01 12:10:00"),
    (Facts(AWAITING, stock("HELD", expires_at=NOW - timedelta(1)), payment()), "and was not swept yet"),
    (Facts(AWAITING, RELEASED, payment()), "the hold was given back, but the order service has not heard"),
    (
        Facts(AWAITING, HELD, payment("PENDING", attempt("PENDING"))),
        "sandbox has not said how the attempt of 2026-03-01",
    ),
    (Facts(AWAITING, HELD, payment("PENDING", attempt("UNKNOWN"))), "sandbox did not answer about attempt"),
    (Facts(AWAITING, HELD, payment("PENDING", attempt("AUTHORIZED"))), "authorized, but not captured"),
    (Facts(AWAITING, HELD, payment("PENDING", attempt("FAILED"))), "1 of 2 attempts failed"),
    (
        Facts(AWAITING, HELD, payment("FAILED", attempt("FAILED"))),
        "inventory has still to give the goods back",
    ),
    (
        Facts(
            AWAITING,
            HELD,
            payment("QUARANTINED", attempt("QUARANTINED", received_amount_minor=1, received_currency="EUR")),
        ),
        "sandbox took 1 EUR instead of 500 EUR: an operator has to accept or to refund it",
    ),
    (Facts(AWAITING, HELD, payment("SUCCEEDED", PAID)), "inventory has still to turn the hold into a sale"),
    (Facts(AWAITING, RELEASED, payment("SUCCEEDED", PAID)), "has still to try to hold the goods again"),
    (Facts(AWAITING, stock("RELEASED", unavailable=True), payment("SUCCEEDED", PAID)), "the goods are gone"),
    (Facts(AWAITING, stock("CONFIRMED"), payment("SUCCEEDED", PAID)), "has not heard of both yet"),
    (Facts(order("PROCESSING"), stock("CONFIRMED"), payment("SUCCEEDED", PAID)), "so it may be shipped."),
    (
        Facts(order("PROCESSING"), stock("CONFIRMED"), payment("SUCCEEDED", PAID, refunded_minor=100)),
        "shipped; 100 EUR went back",
    ),
    (
        Facts(
            order("PROCESSING"),
            stock("CONFIRMED"),
            payment(
                "SUCCEEDED", PAID._replace(dispute="chargeback", review_at=NOW, review_reason="chargeback")
            ),
        ),
        "contested (chargeback): an operator has to decide",
    ),
    (
        Facts(order("REJECTED", reason="insufficient_stock"), stock("REJECTED"), None),
        "there are not enough units",
    ),
    (
        Facts(order("PAYMENT_FAILED"), RELEASED, payment("FAILED", attempt("FAILED"), reason="declined")),
        "its payment failed (declined) after 1 attempt",
    ),
    (Facts(order("EXPIRED"), RELEASED, payment("CANCELLED")), "when its hold ended at 2026-03-01 12:10:00"),
    (
        Facts(
            order("CANCELLED", cancelled=True, cancel_requested_by="c-1", cancel_reason="too late"),
            RELEASED,
            None,
        ),
        "c-1 cancelled it (too late)",
    ),
    (
        Facts(REFUND_DUE, RELEASED, payment("SUCCEEDED", PAID)),
        "the payment service has not begun to refund it",
    ),
    (
        Facts(REFUND_DUE, RELEASED, payment("SUCCEEDED", PAID, refund="DUE")),
        "sandbox is to be asked to give 500 EUR back",
    ),
    (Facts(REFUND_DUE, RELEASED, payment("SUCCEEDED", PAID, refund="SENT")), "has not done it yet"),
    (
        Facts(REFUND_DUE, RELEASED, payment("SUCCEEDED", PAID, refund="UNKNOWN")),
        "sandbox did not answer when",
    ),
    (
        Facts(REFUND_DUE, RELEASED, payment("SUCCEEDED", PAID, refund="FAILED")),
        "refuses to give 500 EUR back (no funds)",
    ),
    (Facts(REFUND_DUE, RELEASED, payment("REFUNDED", PAID, refund="SUCCEEDED")), "the money is back"),
    (
        Facts(
            order("REFUND_DUE", cancelled=True), stock("RETURNED"), payment("SUCCEEDED", PAID, refund="DUE")
        ),
        "it was cancelled after it was paid",
    ),
    (
        Facts(order("REFUNDED"), RELEASED, payment("REFUNDED", PAID, refund="SUCCEEDED")),
        "there were no goods for it",
    ),
    (Facts(OrderFacts(), HELD, PaymentFacts()), "The order service does not know this order"),
    (Facts(None, HELD, PaymentFacts()), "its database does not answer"),
]


@pytest.mark.parametrize(("facts", "sentence"), CASES, ids=[sentence for _, sentence in CASES])
def test_every_standing_has_its_sentence(facts: Facts, sentence: str) -> None:
    """It begins with the status, says why, and ends like a sentence."""
    concluded = conclude(facts, NOW)

    assert sentence in concluded
    assert concluded.endswith(".")
    if facts.order is not None and facts.order.order is not None:
        assert concluded.startswith(f"{facts.order.order.status}: ")


@pytest.mark.parametrize("status", list(OrderStatus))
def test_no_status_is_without_an_answer(status: OrderStatus) -> None:
    """Also where nothing else is known."""
    assert conclude(Facts(order(status), None, None), NOW).startswith(f"{status}: ")


def test_a_refused_message_is_named_until_it_was_handled_after_all() -> None:
    """A dead letter may be the news that is missing; once it was redriven it no longer is."""
    dead = letter()
    facts = Facts(AWAITING, HELD, PaymentFacts(), [dead], {"payment": []})
    handled = replace(facts, inboxes={"payment": [InboxRow(_id(dead), "handled", NOW)]})

    assert "payment-service refused OrderAwaitingPayment.v1 (conflict: another amount)" in conclude(
        facts, NOW
    )
    assert "refused" not in conclude(handled, NOW)


def _id(position: Position) -> Any:
    (found,) = event_ids(Facts(None, None, None, [position]))
    return found


def test_a_secret_in_somebodys_words_does_not_reach_the_conclusion() -> None:
    """What customers and gateways write is masked."""
    facts = Facts(
        order("CANCELLED", cancelled=True, cancel_requested_by="c-1", cancel_reason="5105105105105100"),
        None,
        None,
    )

    assert "(************5100)" in conclude(facts, NOW)


# --- the list -------------------------------------------------------------------------------------------------------


def test_entries_are_in_the_order_of_time_and_of_the_saga() -> None:
    """At one moment the order comes first, then stock, payment, and what is told of it."""
    history = [HistoryRow(1, "REQUESTED", None, "http:1", NOW)]
    moves = [MovementRow(sku, "RESERVED", 1, 2, "cause", NOW) for sku in ("APPLE", "BREAD")]
    waiting = [WaitingRow(new_id(), "order.events", "OrderRequested.v1", 1, {}, NOW)]
    facts = Facts(
        replace(order("REQUESTED"), history=history, waiting=waiting),
        replace(stock("HELD", updated_at=NOW + timedelta(seconds=1)), movements=moves),
        PaymentFacts(),
    )

    entries = list_entries(facts, body_characters_max=100)

    assert [(entry.where, entry.what) for entry in entries] == [
        ("order", "placed"),
        ("order", "REQUESTED"),
        ("inventory", "RESERVED"),
        ("order", "waits in the outbox"),
        ("inventory", "reservation HELD"),
    ]
    assert entries[2].detail == "2 APPLE, 2 BREAD (round 1)"


def test_many_lines_are_told_by_their_number() -> None:
    """An order may have five hundred."""
    moves = [MovementRow(f"S{number}", "RESERVED", 1, 1, "cause", NOW) for number in range(12)]

    (entry, _) = list_entries(Facts(None, replace(HELD, movements=moves), None), body_characters_max=100)

    assert entry.detail.endswith("1 S9 and 2 more (round 1)")


class _Written:
    """A record as Kafka gives it."""

    def __init__(self, headers: Any, **fields: Any) -> None:
        self.topic, self.partition, self.offset, self.key, self.value = "order.commands", 1, 2, b"k", b"{}"
        self.headers = headers
        self.timestamp = round(NOW.timestamp() * 1000)
        self.__dict__.update(fields)


def test_a_structured_command_is_told_by_what_is_inside() -> None:
    """Its type and its id stand in its value, and its time is when it was written."""
    value = b'{"type": "CancelOrder.v1", "id": "0198c0de-0000-7000-8000-000000000001", "data": {}}'

    position = read_position(_Written([("content-type", b"application/cloudevents+json")], value=value))

    assert (position.type, position.at) == ("CancelOrder.v1", NOW)
    assert position.event_id == "0198c0de-0000-7000-8000-000000000001"


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"type": 1}', None])
def test_what_is_spoilt_has_a_place_all_the_same(value: bytes | None) -> None:
    """Nothing that stands in a topic stops the timeline."""
    headers = [
        ("content-type", b"application/cloudevents+json"),
        ("ce_time", b"\xff"),
        ("ce_sequence", "٣".encode()),
    ]

    position = read_position(_Written(headers, value=value))

    assert (position.type, position.sequence, position.at) == ("(no type)", None, NOW)
    assert position.place == "order.commands[1] offset 2"


def test_a_binary_command_is_told_by_its_headers() -> None:
    """Type, id, time, and to whom it was redriven."""
    sent = command(CancelOrder(order_id=new_id()), at=NOW - timedelta(hours=1))
    headers = [*sent.headers, ("dlq_redrive", b"1"), ("dlq_group", b"order-service")]

    position = read_position(_Written(headers))

    assert (position.type, position.at) == ("CancelOrder.v1", NOW - timedelta(hours=1))
    assert position.redriven_to == "order-service"
