"""Do the messages take exactly what the contract allows, and refuse the rest?"""

import json
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from shared.events import (
    CATALOGUE,
    INTEGER_MAX,
    SOURCES,
    CancelOrder,
    OrderAwaitingPayment,
    OrderRejected,
    OrderRequested,
    PlaceOrder,
    StockDepleted,
    StockReserved,
    Wire,
)
from tests.contracts.golden import sample_of

ORDER_ID = "0198c2a0-0000-7000-8000-000000000001"
EVERY_MESSAGE = [model for of_topic in CATALOGUE.values() for model in of_topic.values()]


def read(model: type[Wire], **fields: Any) -> Any:
    """Read a message as it comes over the wire."""
    return model.model_validate_json(json.dumps(fields))


def place(**fields: Any) -> Any:
    """Read a PlaceOrder that is right but for the given fields."""
    return read(
        PlaceOrder,
        **{
            "order_id": ORDER_ID,
            "customer_id": "c-1",
            "lines": [{"sku": "milk", "quantity": 1}],
            "currency": "EUR",
            **fields,
        },
    )


def faults(**fields: Any) -> set[str]:
    """Return the dotted places at which a PlaceOrder with these fields is wrong."""
    with pytest.raises(ValidationError) as raised:
        place(**fields)
    return {".".join(map(str, fault["loc"])) for fault in raised.value.errors()}


def test_the_smallest_command_is_accepted() -> None:
    """What is optional may be left out."""
    command = place()

    assert command.order_id == UUID(ORDER_ID)
    assert (command.cart_id, command.expected_total_minor, command.hold_seconds) == (None, None, None)


@pytest.mark.parametrize("quantity", ["1", 1.0, True, None, 0, -1, 1_000_001, 10**30, [1]])
def test_a_quantity_is_a_whole_number_from_one_to_a_million(quantity: object) -> None:
    """JSON types are strict: a number in quotes, a fraction and a boolean are no quantities."""
    assert "lines.0.quantity" in faults(lines=[{"sku": "milk", "quantity": quantity}])


@pytest.mark.parametrize("amount", ["1", 1.0, True, -1, INTEGER_MAX + 1, 10**30])
def test_an_amount_is_a_whole_number_that_every_json_reader_keeps(amount: object) -> None:
    """Amounts are 0 to 2**53 - 1 minor units; floats never are money."""
    assert faults(expected_total_minor=amount) == {"expected_total_minor"}


@pytest.mark.parametrize("amount", [0, 1, INTEGER_MAX])
def test_the_limits_of_an_amount_are_amounts(amount: int) -> None:
    """Both ends of the range are accepted."""
    assert place(expected_total_minor=amount).expected_total_minor == amount


@pytest.mark.parametrize(
    "identifier", ["", " ", "a b", "a\n", "a" * 65, "é", "a/b", "a\x00", "milk%", 5, None, ["a"]]
)
def test_an_identifier_is_1_to_64_of_a_few_characters(identifier: object) -> None:
    """SKUs and customer ids are refused if they hold anything else, at the end of the text too."""
    assert faults(customer_id=identifier) == {"customer_id"}
    assert "lines.0.sku" in faults(lines=[{"sku": identifier, "quantity": 1}])


@pytest.mark.parametrize("identifier", ["a", "0", "A-Z_a.z:9", "x" * 64])
def test_every_character_of_the_contract_is_an_identifier(identifier: str) -> None:
    """What the contract lists is accepted."""
    assert place(customer_id=identifier).customer_id == identifier


@pytest.mark.parametrize("currency", ["eur", "EURO", "EU", "", "€€€", 978, None])
def test_a_currency_is_three_capital_letters(currency: object) -> None:
    """ISO 4217 codes only, in their own case."""
    assert faults(currency=currency) == {"currency"}


@pytest.mark.parametrize("seconds", [9, 86_401, "60", 60.0])
def test_a_hold_is_ten_seconds_to_a_day(seconds: object) -> None:
    """Shorter, longer and wrongly typed holds are refused."""
    assert faults(hold_seconds=seconds) == {"hold_seconds"}


@pytest.mark.parametrize("order_id", ["", "42", 42, None, ORDER_ID + "0", ORDER_ID.replace("a", "x")])
def test_an_order_id_is_a_uuid(order_id: object) -> None:
    """Anything else is refused."""
    assert faults(order_id=order_id) == {"order_id"}


def test_an_order_has_1_to_500_lines() -> None:
    """None and 501 are refused; 500 are accepted."""
    line = {"sku": "milk", "quantity": 1}

    assert faults(lines=[]) == {"lines"}
    assert faults(lines=[line] * 501) == {"lines"}
    assert len(place(lines=[line] * 500).lines) == 500


def test_the_same_sku_may_stand_on_several_lines() -> None:
    """Adding them up is the order service's work, so the command keeps them."""
    line = {"sku": "milk", "quantity": 1}

    assert len(place(lines=[line, line]).lines) == 2


def test_an_order_names_its_lines_or_its_cart() -> None:
    """Neither and both are refused; a cart alone is accepted."""
    assert faults(lines=None) == {""}
    assert faults(cart_id="cart-1") == {""}
    assert place(lines=None, cart_id="cart-1").cart_id == "cart-1"


@pytest.mark.parametrize("reason", ["a\x00b", "x" * 501, 5])
def test_a_reason_is_text_that_can_be_stored(reason: object) -> None:
    """Text over 500 characters, or with the NUL that Postgres stores in no text, is refused."""
    with pytest.raises(ValidationError):
        read(CancelOrder, order_id=ORDER_ID, reason=reason)


def test_text_may_be_in_any_language() -> None:
    """A reason may hold whatever people write, line breaks included."""
    reason = "Zu spät\n遅い 🐌"

    assert read(CancelOrder, order_id=ORDER_ID, reason=reason).reason == reason


@pytest.mark.parametrize("at", ["2026-03-01T12:00:00", "2026-03-01", 1_772_366_400, "soon"])
def test_a_time_has_a_zone(at: object) -> None:
    """A time without an offset, and a number, are refused."""
    fields = json.loads(sample_of(OrderAwaitingPayment).model_dump_json()) | {"pay_by": at}

    with pytest.raises(ValidationError, match="pay_by"):
        read(OrderAwaitingPayment, **fields)


def test_a_status_or_reason_that_is_not_in_the_contract_is_refused() -> None:
    """Enumerations are closed: a new value is a new version of the event."""
    fields = json.loads(sample_of(OrderRejected).model_dump_json())

    for wrong in ({"order_status": "LOST"}, {"reason": "mood"}):
        with pytest.raises(ValidationError):
            read(OrderRejected, **fields | wrong)


def test_lines_added_up_may_be_more_than_one_line_can_ask_for() -> None:
    """500 lines of a million units of one SKU are one line of 500 million in an event."""
    sample = json.loads(sample_of(StockReserved).model_dump_json())
    fields = sample | {"lines": [{"sku": "milk", "quantity": 500_000_000}]}

    assert read(StockReserved, **fields).lines[0].quantity == 500_000_000


@pytest.mark.parametrize("model", EVERY_MESSAGE, ids=lambda model: model.type)
def test_unknown_fields_are_passed_over_and_not_sent_on(model: type[Wire]) -> None:
    """A consumer of today reads an event of tomorrow as if the new field were not there."""
    sample = sample_of(model)
    fields = json.loads(sample.model_dump_json())

    event = read(model, **fields, new_in_version_1_1={"deep": [1]})

    assert event == sample
    assert event.model_dump_json() == sample.model_dump_json()


@pytest.mark.parametrize("model", EVERY_MESSAGE, ids=lambda model: model.type)
def test_every_field_of_an_event_is_required(model: type[Wire]) -> None:
    """A producer that forgets a field, even one that may be null, is refused; only commands have optional ones."""
    optional = {"lines", "cart_id", "expected_total_minor", "hold_seconds", "payment_method", "reason"}
    fields = json.loads(sample_of(model).model_dump_json())
    required = set(fields) - (optional if model.topic == "order.commands" else set())

    for name in required:
        with pytest.raises(ValidationError, match=name):
            read(model, **{other: value for other, value in fields.items() if other != name})


@pytest.mark.parametrize("model", EVERY_MESSAGE, ids=lambda model: model.type)
def test_a_message_never_changes_once_made(model: type[Wire]) -> None:
    """Messages are shared between orders of a batch, so they are frozen."""
    sample = sample_of(model)
    name = next(iter(type(sample).model_fields))

    with pytest.raises(ValidationError, match="frozen"):
        setattr(sample, name, None)


def test_every_message_is_found_by_its_topic_and_its_name_on_the_wire() -> None:
    """The catalogue has the four topics, and names each message by class and version."""
    assert [*CATALOGUE] == ["order.commands", "order.events", "inventory.events", "payment.events"]
    assert {*SOURCES} == {*CATALOGUE} - {"order.commands"}
    assert all(model.type == f"{model.__name__}.v1" for model in EVERY_MESSAGE)
    assert CATALOGUE["inventory.events"]["StockDepleted.v1"] is StockDepleted


def test_a_null_hold_is_said_and_not_left_out() -> None:
    """`hold_seconds` is null in the event when the command has none, as the contract says."""
    event = sample_of(OrderRequested).model_copy(update={"hold_seconds": None})

    assert json.loads(event.model_dump_json())["hold_seconds"] is None
