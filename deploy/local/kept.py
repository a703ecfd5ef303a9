"""What does a data directory remember from run to run?"""

import base64
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_TOKEN_BYTES = 24
_WEBHOOK_SECRET_BYTES = 32


def new_token() -> str:
    """Make a password or a bearer token, of characters that need no quoting in a URI."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def new_webhook_secret() -> str:
    """Make a secret as Standard Webhooks writes it."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(_WEBHOOK_SECRET_BYTES)).decode()}"


def kept_secrets(file: Path, wanted: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """Return the secrets of a file; those that it lacks are made and added, for our eyes only."""
    kept: dict[str, str] = load(file) or {}
    made = {name: make() for name, make in wanted.items() if name not in kept}
    if made:
        save(file, {**kept, **made})
    return {**kept, **made}


def load(file: Path) -> Any:
    """Return what was saved, or none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def save(file: Path, content: Any) -> None:
    """Replace a file in one step, readable by its owner alone."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as output:
        json.dump(content, output, indent=2)
    fresh.replace(file)
