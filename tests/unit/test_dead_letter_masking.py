"""Does an operator's screen show what a message says, but no card number and no secret?"""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.bodies import body_lines, cell, hex_lines, printable, readable_body, shown_header
from ops.masking import is_card_number, mask_named, mask_text

CARD = "4111111111111111"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"paid with {CARD}", "paid with ************1111"),
        ("4111 1111 1111 1111, thanks", "**** **** **** 1111, thanks"),
        ("5500-0055-5555-5559.", "****-****-****-5559."),
        ("378282246310005", "***********0005"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("whsec_c2VjcmV0", "whsec_***"),
        ('{"password": "hunter2", "user": "ada"', '{"password": "***", "user": "ada"'),
    ],
)
def test_card_numbers_and_secrets_are_masked_in_text(text: str, shown: str) -> None:
    """The last four digits of a card stay, so that a person can tell which one was meant."""
    assert mask_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",
        "1772366400000",
        "0197a5d4-6b7e-7000-8000-000000000001",
        "9007199254740991",
        "order 4711 of 2026-03-01T12:00:00.000000Z",
    ],
    ids=["wrong check digit", "milliseconds", "UUID", "largest amount", "time"],
)
def test_what_is_no_card_number_stays(text: str) -> None:
    """Ids, amounts and times are what an operator looks for."""
    assert mask_text(text) == text


@given(st.uuids(version=4) | st.uuids(version=1))
def test_no_uuid_is_taken_for_a_card_number(identity: UUID) -> None:
    """Whatever its digits are."""
    assert mask_text(f'"{identity}"') == f'"{identity}"'


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_one_check_digit_of_ten_makes_a_card_number(digits: str) -> None:
    """As Luhn's formula says."""
    assert sum(is_card_number(digits + check) for check in "0123456789") == 1


def test_json_is_masked_all_the_way_down() -> None:
    """By name and by content, in lists and objects; numbers too."""
    body = {
        "card": {"number": CARD, "cvc": "123", "brand": "visa", "last4": "1111"},
        "tokens": [{"client_secret": "x"}],
        "reference": int(CARD),
        "amount_minor": 1_500,
        "paid": True,
        "nothing": None,
    }

    assert mask_named("", body) == {
        "card": {"number": "************1111", "cvc": "***", "brand": "visa", "last4": "1111"},
        "tokens": "***",
        "reference": "************1111",
        "amount_minor": 1_500,
        "paid": True,
        "nothing": None,
    }


@pytest.mark.parametrize(
    "name", ["webhook-signature", "Authorization", "X-Api-Key", "Cookie", "stripe-signature"]
)
def test_headers_that_open_doors_are_not_shown(name: str) -> None:
    """Whatever they say."""
    assert shown_header(name, b"value") == "***"


def test_other_headers_are_shown_as_text() -> None:
    """What is no text is escaped; a header without a value has none."""
    assert shown_header("ce_id", b"4711\xff") == "4711\\xff"
    assert shown_header("ce_id", None) is None


@pytest.mark.parametrize(
    ("value", "kind", "body"),
    [
        (None, "none", None),
        (b'{"a": 1}', "json", {"a": 1}),
        (b"{not JSON\n", "text", "{not JSON\n"),
        (b"\x00\xff", "hex", "00ff"),
        (b"\x00" + CARD.encode(), "hex", (b"\x00" + b"*" * 12 + b"1111").hex()),
        (b"", "hex", ""),
        (b"[" * 100_000, "text", "[" * 16_384),
    ],
)
def test_a_body_is_shown_as_what_it_is(value: bytes | None, kind: str, body: Any) -> None:
    """JSON, text, or bytes; long rubbish is cut, and none of it makes the command fail."""
    assert readable_body(value) == (kind, body)


def test_bytes_are_shown_with_their_text() -> None:
    """Sixteen a line, with where they stand."""
    lines = hex_lines((b"holdfast\x00\xff" * 2).hex())

    assert lines == [
        "00000000  68 6f 6c 64 66 61 73 74 00 ff 68 6f 6c 64 66 61  holdfast..holdfa",
        "00000010  73 74 00 ff                                      st..",
    ]


def test_nothing_in_a_message_steers_the_terminal() -> None:
    """Control characters are written out, in text, in JSON and in tables."""
    assert printable("a\x1b[2Jb\x9b\x07\r\n") == "a\\x1b[2Jb\\x9b\\x07\\r\n"
    assert body_lines("json", "\x9b") == ['"\\x9b"']
    assert cell("[bold]\x1b").plain == "[bold]\\x1b"


def test_json_is_shown_on_lines_of_its_own() -> None:
    """Indented, and in the letters that it has."""
    assert body_lines("json", {"name": "Müsli"}) == ["{", '  "name": "Müsli"', "}"]
    assert body_lines("none", None) == ["(no body)"]
