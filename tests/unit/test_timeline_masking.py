"""Does nothing leave that nobody may see?"""

import orjson
import pytest

from ops.timeline.masking import mask, show_body

CARD = "5105105105105100"


def test_a_text_loses_cards_secrets_and_what_steers_a_terminal() -> None:
    """Whoever wrote it."""
    shown = mask(f"card {CARD} with whsec_MfKQ9r8GKYqr and \x1b[2J\nmore")

    assert "510510" not in shown
    assert "MfKQ9r8GKYqr" not in shown
    assert "\x1b" not in shown
    assert shown.endswith(" more")


@pytest.mark.parametrize(
    "text",
    [
        "00000000-0000-0000-0000-000000000000",
        "0198c0de-0000-7000-8000-000000000001 of 500 EUR",
        "2026-03-01 12:00:00",
        "order.events[3] offset 1234567, number 17",
    ],
)
def test_what_is_no_card_stays(text: str) -> None:
    """Our ids, times and places."""
    assert mask(text) == text


def test_only_named_fields_of_a_body_are_shown() -> None:
    """Whatever else a gateway sends: names, signatures, what was paid with, lists."""
    body = {
        "type": "charge.succeeded",
        "client_secret": "c",
        "signature_key": "s",
        "data": {
            "object": {
                "id": "ch_1",
                "amount": 500,
                "source": {"id": "card_1"},
                "card": {"id": "4"},
                "email": "e",
            },
            "items": [{"id": "i"}],
        },
        "customer": {"id": "cus_1"},
    }

    shown = show_body(orjson.dumps(body), 1_000)

    assert shown == "type=charge.succeeded, data.object.id=ch_1, data.object.amount=500"


def test_a_value_is_masked_before_it_is_cut() -> None:
    """The beginning of a card's number is no less its number."""
    body = {"reason": "x " * 35 + CARD}

    assert "5105" not in show_body(orjson.dumps(body), 1_000)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b'"5105105105105100"'])
def test_what_is_no_object_is_only_counted(body: bytes) -> None:
    """Nothing of it is shown."""
    assert show_body(body, 1_000) == f"({len(body)} bytes that are not a JSON object)"


def test_a_long_body_is_shortened() -> None:
    """To the length that was asked for, with a sign that there was more."""
    shown = show_body(orjson.dumps({"type": "t" * 50, "id": "i" * 50}), 40)

    assert len(shown) == 40
    assert shown.endswith("…")
