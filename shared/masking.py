"""What may be written down or shown of what others say? Not card numbers, and nothing that opens a door.

The rule: what comes in is kept as it came, byte for byte (events, raw deliveries, dead letters with their own headers), and
is given back to those who may see it. What Holdfast writes of its own about it (logs, errors, the headers that it adds to
a dead letter, metrics, operators' screens) never repeats the number of a card, nor a secret of this process.
"""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

MASK = "***"

#: What this process knows and must never say, the longest first; filled at the start.
_known: list[str] = []
#: Shorter values are words that anything may contain.
_SECRET_CHARACTERS_MIN = 6

#: Names whose values are never shown, in headers and in JSON.
_SECRET_NAME = re.compile(
    r"secret|password|passwd|token|authorization|signature|api[-_]?key|server[-_]?key|private[-_]?key|credential"
    r"|^cookie$|^set-cookie$|^cv[cv]\d?$|security[-_]?code|^pin$",
    re.IGNORECASE,
)
_CARD_NAME = re.compile(r"card[-_]?(number|no|pan)$|^pan$|^number$|account[-_]?number|^iban$", re.IGNORECASE)
#: 13 to 19 digits, perhaps in groups, that stand alone; the numbers of cards begin with 2 to 6. No UUID fits.
#: An escaped line break before it, as in the `repr` of what somebody sent, is no letter.
_DIGITS = re.compile(r"(?:(?<![0-9A-Za-z])|(?<=\\[nrt]))[2-6](?:[ -]?[0-9]){12,18}(?!-?[0-9A-Za-z])")
#: Secrets that are known by how they begin: webhook secrets, gateways' keys, our API keys, JWTs, and whole headers.
_SECRET_TEXT = re.compile(
    r"\b(whsec_|sk_live_|sk_test_|rk_live_|rk_test_|hfk_|eyJ|Bearer |Basic )[A-Za-z0-9+/=_.~-]{4,}"
)
#: `"password": "…"` in what is nearly JSON.
_PAIR = re.compile(r"""(["'](?P<name>[\w-]{1,64})["']\s*:\s*)(["'])(?P<value>.*?)(?<!\\)\3""")
_DIGITS_SHOWN = 4


def keep_secret(values: Iterable[str]) -> None:
    """Have every text that is masked from now on hide these values, whatever they look like."""
    _known[:] = sorted(
        {*_known, *(v for v in values if len(v) >= _SECRET_CHARACTERS_MIN)}, key=len, reverse=True
    )


def secrets_of(settings: BaseModel) -> set[str]:
    """Return every secret among some settings: what is typed as one, and the password of a URI."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, SecretStr):
                found.add(item.get_secret_value())
            elif isinstance(item, str):
                found |= password_of(item)
    return found


def password_of(uri: str) -> set[str]:
    """Return the password that a URI carries, as it is written there and as it is meant; nothing for other text."""
    try:
        password = urlsplit(uri).password if "://" in uri else None
    except ValueError:
        password = None
    return set() if not password else {password, unquote(password)}


def mask_named(name: str, value: Any) -> Any:
    """Return a value as it may be shown under its name; JSON is masked all the way down."""
    if _SECRET_NAME.search(name) and value is not None:
        return MASK
    if isinstance(value, dict):
        return {str(key): mask_named(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [mask_named(name, item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    return _mask_scalar(name, value)


def _mask_scalar(name: str, value: Any) -> Any:
    text = str(value)
    if _CARD_NAME.search(name) and sum(character.isdigit() for character in text) > _DIGITS_SHOWN:
        return _mask_number(text)
    if isinstance(value, str):
        return mask_text(value)
    masked = mask_text(text)
    return value if masked == text else masked


def mask_text(text: str) -> str:
    """Return text without card numbers, without what looks like a secret and without what this process keeps secret."""
    for secret in _known:
        text = text.replace(secret, MASK)
    text = _PAIR.sub(_mask_pair, text)
    text = _SECRET_TEXT.sub(lambda found: found[1] + MASK, text)
    return _DIGITS.sub(lambda found: _mask_number(found[0]) if is_card_number(found[0]) else found[0], text)


def _mask_pair(found: re.Match[str]) -> str:
    return f"{found[1]}{found[3]}{MASK}{found[3]}" if _SECRET_NAME.search(found["name"]) else found[0]


def _mask_number(text: str) -> str:
    """Keep the last four digits; what is between digits stays, so that the form can be seen."""
    hidden = sum(character.isdigit() for character in text) - _DIGITS_SHOWN
    shown = []
    for character in text:
        is_hidden = character.isdigit() and hidden > 0
        hidden -= is_hidden
        shown.append("*" if is_hidden else character)
    return "".join(shown)


def is_card_number(text: str) -> bool:
    """Tell whether digits have the check digit of a card number (Luhn, ISO/IEC 7812)."""
    digits = [int(character) for character in reversed(text) if character.isdigit()]
    doubled = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2])  # noqa: PLR2004 (two digits)
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
