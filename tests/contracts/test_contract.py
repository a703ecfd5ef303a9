"""Do commands and events keep the shape of the contract?

The tables below are copied from the contract by hand, and the golden files were read by a person: what the code says is
compared with them, never the other way round. After a change on purpose (a new version, or a field that is added):
`python -m tests.contracts.golden` writes the files anew, and the difference is read with care.
"""

import json
from typing import Any

import pytest

from shared.events import (
    CATALOGUE,
    OrderStatus,
    PaymentReason,
    PaymentStatus,
    RefundReason,
    RejectionReason,
    ReleaseReason,
    ReservationStatus,
    ReturnReason,
    UnavailableReason,
    Wire,
)
from tests.contracts.golden import FOLDER, sample_file, sample_of, schema_file

ORDER_STATE = "order_id order_status cancelled"
STOCK_STATE = "order_id reservation_status reservation_reason unavailable"
PAYMENT_STATE = (
    "order_id payment_status payment_reason settled_attempt_id settled_amount_minor settled_currency refunded_minor"
    " paid_at"
)

#: Contract, section 3: what each message carries, the state that goes with it first.
FIELDS = {
    "order.commands": {
        "PlaceOrder.v1": "order_id customer_id lines cart_id currency expected_total_minor hold_seconds"
        " payment_method",
        "CancelOrder.v1": "order_id reason",
    },
    "order.events": {
        "OrderRequested.v1": f"{ORDER_STATE} customer_id lines total_minor currency hold_seconds",
        "OrderAwaitingPayment.v1": f"{ORDER_STATE} customer_id total_minor currency pay_by",
        "OrderConfirmed.v1": f"{ORDER_STATE} customer_id lines total_minor currency paid_at",
        "OrderRejected.v1": f"{ORDER_STATE} reason details",
        "OrderPaymentFailed.v1": f"{ORDER_STATE} reason",
        "OrderExpired.v1": f"{ORDER_STATE} reason",
        "OrderCancelled.v1": f"{ORDER_STATE} reason requested_by",
        "OrderRefundRequested.v1": f"{ORDER_STATE} amount_minor currency reason",
        "OrderRefunded.v1": f"{ORDER_STATE} amount_minor currency",
    },
    "inventory.events": {
        "StockReserved.v1": f"{STOCK_STATE} lines expires_at",
        "StockRejected.v1": f"{STOCK_STATE} shortages",
        "StockConfirmed.v1": f"{STOCK_STATE} lines late",
        "StockReleased.v1": f"{STOCK_STATE} lines reason",
        "StockReturned.v1": f"{STOCK_STATE} lines reason",
        "StockUnavailable.v1": f"{STOCK_STATE} reason",
        "StockDepleted.v1": "sku",
        "StockReplenished.v1": "sku",
    },
    "payment.events": {
        "PaymentInitiated.v1": f"{PAYMENT_STATE} attempt_id gateway gateway_transaction_id payment_url amount_minor"
        " currency expires_at",
        "PaymentAttemptFailed.v1": f"{PAYMENT_STATE} attempt_id gateway reason attempts_left",
        "PaymentSucceeded.v1": f"{PAYMENT_STATE} attempt_id gateway gateway_transaction_id amount_minor currency",
        "PaymentFailed.v1": f"{PAYMENT_STATE} reason attempts",
        "PaymentRefunded.v1": f"{PAYMENT_STATE} attempt_id amount_minor currency reason",
        "PaymentRefundFailed.v1": f"{PAYMENT_STATE} attempt_id amount_minor currency reason",
        "PaymentQuarantined.v1": f"{PAYMENT_STATE} attempt_id reason expected_amount_minor expected_currency"
        " received_amount_minor received_currency",
    },
}

#: Contract, section 3: the fields of what stands inside.
INSIDE = {
    ("PlaceOrder.v1", "lines"): "sku quantity",
    ("OrderRequested.v1", "lines"): "sku quantity unit_price_minor",
    ("OrderConfirmed.v1", "lines"): "sku quantity unit_price_minor",
    ("StockReserved.v1", "lines"): "sku quantity",
    ("StockConfirmed.v1", "lines"): "sku quantity",
    ("StockReleased.v1", "lines"): "sku quantity",
    ("StockReturned.v1", "lines"): "sku quantity",
    ("StockRejected.v1", "shortages"): "sku requested available",
}

#: Contract, section 3: the words that may be said.
WORDS = {
    OrderStatus: "REQUESTED AWAITING_PAYMENT PROCESSING REJECTED PAYMENT_FAILED EXPIRED CANCELLED REFUND_DUE REFUNDED",
    ReservationStatus: "HELD REJECTED CONFIRMED RELEASED RETURNED",
    PaymentStatus: "PENDING SUCCEEDED FAILED CANCELLED REFUNDED QUARANTINED",
    RejectionReason: "insufficient_stock unknown_sku inactive_product currency total_changed empty_cart",
    ReleaseReason: "payment_failed expired cancelled refunded",
    ReturnReason: "cancelled refunded",
    UnavailableReason: "sold_since cancelled rejected",
    PaymentReason: "declined expired cancelled",
    RefundReason: "unavailable cancelled overpayment operator",
}

MODELS = [model for models in CATALOGUE.values() for model in models.values()]
each_message = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.type)


def test_the_catalogue_is_the_contract_table() -> None:
    """Every message of the contract exists, on its topic, and there is no other."""
    assert {topic: set(models) for topic, models in CATALOGUE.items()} == {
        topic: set(types) for topic, types in FIELDS.items()
    }


@each_message
def test_a_message_carries_what_the_contract_says(model: type[Wire]) -> None:
    """Its fields, with the state of its producer, are exactly those of the table."""
    assert set(model.model_fields) == set(FIELDS[model.topic][model.type].split())


@each_message
def test_every_event_carries_the_state_of_its_producer_on_the_wire(model: type[Wire]) -> None:
    """The sample of each event about an order has the state fields of its topic; commands and SKU events have none."""
    states = {"order.events": ORDER_STATE, "inventory.events": STOCK_STATE, "payment.events": PAYMENT_STATE}
    about_a_sku = model.type in {"StockDepleted.v1", "StockReplenished.v1"}
    required = set() if about_a_sku else set(states.get(model.topic, "order_id").split())

    assert required <= set(json.loads(sample_file(model).read_text()))


@pytest.mark.parametrize(("kind", "field"), INSIDE)
def test_lines_and_shortages_have_the_fields_of_the_contract(kind: str, field: str) -> None:
    """What stands inside an event has exactly the fields of the table."""
    model = next(model for model in MODELS if model.type == kind)
    inside = json.loads(sample_file(model).read_text())[field]

    assert [set(item) for item in inside] == [set(INSIDE[kind, field].split())] * len(inside)
    assert inside


@pytest.mark.parametrize("vocabulary", WORDS)
def test_statuses_and_reasons_are_the_words_of_the_contract(vocabulary: Any) -> None:
    """No word is missing and none is new."""
    said = vocabulary.__args__ if hasattr(vocabulary, "__args__") else [*vocabulary]

    assert sorted(map(str, said)) == sorted(WORDS[vocabulary].split())


@each_message
def test_the_schema_of_a_message_is_the_golden_one(model: type[Wire]) -> None:
    """Any change of a shape shows here, and has to be made on purpose."""
    golden = json.loads(schema_file(model).read_text())

    assert model.model_json_schema() == golden


@each_message
def test_a_sample_comes_back_byte_for_byte(model: type[Wire]) -> None:
    """What is read and written again is the very same text, fields in the same order."""
    text = sample_file(model).read_bytes()

    assert sample_of(model).model_dump_json().encode() + b"\n" == text


def test_there_is_no_golden_file_without_its_message() -> None:
    """A file that nothing compares would only seem to guard something."""
    wanted = {file for model in MODELS for file in (schema_file(model), sample_file(model))}

    assert set(FOLDER.glob("*.json")) == wanted
