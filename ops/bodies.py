"""How is what a message or a delivery says shown to people, without secrets and card numbers?"""

import json
from typing import Any

from rich.text import Text

from ops.masking import mask_named, mask_text

_BODY_BYTES_MAX = 16_384
_HEX_BYTES_A_LINE = 16


def printable(text: str) -> str:
    """Return text in which what would steer a terminal is escaped: a message's author is nobody's friend."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else repr(character)[1:-1]
        for character in text
    )


def cell(text: str) -> Text:
    """Return text of somebody else's for a table: no markup is read in it, and nothing steers the terminal."""
    return Text(printable(text))


def shown_header(name: str, value: bytes | None) -> str | None:
    """Return a header's value as it may be shown."""
    if value is None:
        return None
    return str(mask_named(name, value.decode("utf-8", "backslashreplace")))


def readable_body(value: bytes | None) -> tuple[str, Any]:
    """Return of what kind a body is (`none`, `json`, `text`, `hex`), and what may be shown of it.

    Text and hexadecimal digits are cut after 16 KiB; what is JSON is shown whole.
    """
    if value is None:
        return "none", None
    try:
        return "json", mask_named("", json.loads(value.decode()))
    except (ValueError, RecursionError):
        pass
    kept = value[:_BODY_BYTES_MAX]
    try:
        text = kept.decode() if kept == value else kept.decode("utf-8", "ignore")
    except UnicodeDecodeError:
        text = ""
    if text and all(character.isprintable() or character in "\r\n\t" for character in text):
        return "text", mask_text(text)
    # Latin-1 makes one character of each byte, so that a number can be found and masked before it is written in hex.
    return "hex", mask_text(kept.decode("latin-1")).encode("latin-1").hex()


def hex_lines(digits: str) -> list[str]:
    """Return bytes as a hex dump: offset, bytes, and what of them is ASCII."""
    value = bytes.fromhex(digits)
    lines = []
    for start in range(0, len(value), _HEX_BYTES_A_LINE):
        part = value[start : start + _HEX_BYTES_A_LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)  # noqa: PLR2004 (printable ASCII)
        lines.append(f"{start:08x}  {part.hex(' '):<{_HEX_BYTES_A_LINE * 3}} {text}")
    return lines


def body_lines(kind: str, body: Any) -> list[str]:
    """Return the lines on which a body is shown."""
    match kind:
        case "none":
            return ["(no body)"]
        case "json":
            return printable(json.dumps(body, indent=2, ensure_ascii=False)).splitlines()
        case "hex":
            return hex_lines(body)
        case _:
            return printable(str(body)).splitlines()
