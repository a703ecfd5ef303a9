"""Does a group leave out, before it decodes anything, exactly what it would leave out afterwards?"""

import itertools
from dataclasses import replace

import pytest

from shared.consumer import Sorter
from shared.events import CATALOGUE, COMMANDS_TOPIC, OrderCancelled, OrderRequested, PaymentSucceeded
from shared.ids import new_id
from tests.contracts.golden import sample_of
from tests.feeding import FakeRecord

GROUP = "inventory-service"
SORTER = Sorter(GROUP, [OrderRequested, OrderCancelled, PaymentSucceeded])

KINDS = [None, b"", b"\xff", b"OrderGiftWrapped.v1", *(name.encode() for name in CATALOGUE["order.events"])]
MARKS: list[dict[str, bytes]] = [
    {},
    {"x-replay-group": GROUP.encode()},
    {"x-replay-group": b"payment-service"},
    {"dlq_redrive": b"1", "dlq_group": GROUP.encode()},
    {"dlq_redrive": b"1", "dlq_group": b"payment-service"},
    {"dlq_group": b"payment-service"},
]


def record(kind: bytes | None, marks: dict[str, bytes]) -> FakeRecord:
    """Return a record of a type, marked by operators."""
    event = sample_of(OrderRequested)
    headers = {"ce_id": str(new_id()).encode(), "ce_sequence": b"1", "ce_type": kind, **marks}
    return FakeRecord(
        topic="order.events",
        key=b"key",
        value=event.model_dump_json().encode(),
        headers=[(name, value) for name, value in headers.items() if value is not None],
    )


@pytest.mark.parametrize(("kind", "marks"), [*itertools.product(KINDS, MARKS)])
def test_picking_leaves_out_nothing_that_would_be_taken(kind: bytes | None, marks: dict[str, bytes]) -> None:
    """Handled or refused: what comes of a record does not depend on whether it was picked first."""
    one = record(kind, marks)

    assert SORTER.sort([record for record, _ in SORTER.pick([one])]) == SORTER.sort([one])


def test_picking_leaves_out_what_others_handle_and_what_is_for_others() -> None:
    """By headers alone."""
    for_others = record(b"OrderRequested.v1", {"x-replay-group": b"payment-service"})
    of_others = record(b"OrderConfirmed.v1", {})
    ours = record(b"OrderRequested.v1", {})

    assert [record for record, _ in SORTER.pick([for_others, of_others, ours])] == [ours]


def test_of_a_repeated_header_the_first_counts() -> None:
    """As it does when the record is decoded: or a new event could be taken for a known one."""
    one = record(b"OrderRequested.v1", {})
    twice = replace(one, headers=[*one.headers, ("ce_id", b"another"), ("ce_type", b"OrderConfirmed.v1")])

    ((_, headers),) = SORTER.pick([twice])

    assert headers["ce_id"] == dict(one.headers)["ce_id"]


def test_a_command_without_headers_is_picked() -> None:
    """It may be in structured mode, with its type inside."""
    structured = FakeRecord(topic=COMMANDS_TOPIC, headers=[("content-type", b"application/cloudevents+json")])

    ((picked, _),) = Sorter("order-service", [*CATALOGUE[COMMANDS_TOPIC].values()]).pick([structured])

    assert picked is structured
