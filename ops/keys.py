"""What can an operator say about API keys? `holdfast keys new|check`."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.table import Table

from ops.options import Json, a_console, in_utc, print_json
from shared.access import KeyLine, Scope, new_key, read_keys_file

keys = App(
    name="keys",
    help="Make API keys, and look through the file of them (HOLDFAST_API_KEYS_FILE).",
    help_epilogue=(
        "Examples:\n\n"
        "holdfast keys new web-shop --scope storefront\n\n"
        "holdfast keys new app-of-c-7 --scope customer --customer-id c-7 --expires-in-days 90\n\n"
        "holdfast keys check keys.jsonl"
    ),
)


@keys.command
async def new(
    name: str,
    /,
    *,
    scope: Scope,
    customer_id: str | None = None,
    expires_in_days: Annotated[int | None, Parameter(validator=Number(gte=1, lte=3_650))] = None,
    json: Json = False,
) -> int:
    """Make a key and print it, this once: it is kept nowhere. Only its line is for the file, and holds no secret.

    A caller that changes its key has two lines with its name for a while.

    Args:
        name: whose key it is; stands in logs and records.
        scope: what it opens: a customer's own, everything of a storefront, or everything.
        customer_id: which customer it is; for the scope customer.
        expires_in_days: until when it opens anything; for ever unless given.
        json: print one JSON object instead of text.
    """
    expires_at = None
    if expires_in_days is not None:
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=expires_in_days)
    made = new_key(name, scope, customer_id=customer_id, expires_at=expires_at)
    if json:
        print_json({"key": made.key, "line": made.text()})
    else:
        print(f"The key, which is not shown again:\n\n{made.key}\n\nThe line for the file:\n\n{made.text()}")
    return 0


@keys.command
async def check(file: Path, /, *, json: Json = False) -> int:
    """Show which keys a file holds. Exit status 2, and one line for each that is wrong, if a service would refuse it.

    Args:
        file: the file of HOLDFAST_API_KEYS_FILE.
        json: print one JSON object instead of a table.
    """
    lines = [*(await asyncio.to_thread(read_keys_file, file)).values()]
    if json:
        print_json({"keys": [line.model_dump(mode="json", exclude={"sha256"}) for line in lines]})
    else:
        a_console().print(_table(lines))
    return 0


def _table(lines: list[KeyLine]) -> Table:
    table = Table("name", "scope", "customer", "key id", "expires")
    now = datetime.now(UTC)
    for line in lines:
        is_over = line.expires_at is not None and line.expires_at <= now
        expires = in_utc(line.expires_at) + (" (over)" if is_over else "")
        table.add_row(line.name, line.scope, line.customer_id or "", line.key_id, expires)
    return table
