"""Do the keys that `holdfast keys` makes open what they say, and does it find what a service would refuse?"""

from pathlib import Path

import orjson
import pytest

from ops.cli import app
from shared.access import ApiKeys, Caller, Scope
from shared.errors import Misconfigured
from shared.health import Health


def holdfast(*words: str) -> int:
    """Run a command; return its exit status."""
    status = app([*words], result_action="return_value")
    assert isinstance(status, int)
    return status


def test_a_key_and_its_line_fit_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line in the file, the key in the header: that is the caller."""
    status = holdfast("keys", "new", "phone", "--scope", "customer", "--customer-id", "c-7", "--json")
    made = orjson.loads(capsys.readouterr().out)
    path = tmp_path / "keys"
    path.write_text(made["line"])

    found = ApiKeys(path, health=Health()).find(made["key"])

    assert status == 0
    assert found == Caller("customer:c-7", Scope.CUSTOMER, "c-7")


def test_a_key_is_printed_for_a_person_to_copy(capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines stand by themselves: the key, and the line for the file with its end."""
    assert holdfast("keys", "new", "web-shop", "--scope", "storefront", "--expires-in-days", "90") == 0

    lines = capsys.readouterr().out.splitlines()
    (key,) = [line for line in lines if line.startswith("hfk_")]
    (line,) = [orjson.loads(line) for line in lines if line.startswith("{")]
    assert line["key_id"] in key
    assert line["expires_at"].endswith("Z")


def test_a_file_is_looked_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, scopes and ends, without the digests; a wrong one is refused with the line of each fault."""
    holdfast("keys", "new", "web-shop", "--scope", "storefront", "--json")
    path = tmp_path / "keys"
    path.write_text(orjson.loads(capsys.readouterr().out)["line"])

    assert holdfast("keys", "check", str(path), "--json") == 0
    (key,) = orjson.loads(capsys.readouterr().out)["keys"]
    assert (key["name"], key["scope"], "sha256" in key) == ("web-shop", "storefront", False)
    assert holdfast("keys", "check", str(path)) == 0
    assert "web-shop" in capsys.readouterr().out
    path.write_text("\n{")
    with pytest.raises(Misconfigured, match="line 2"):
        holdfast("keys", "check", str(path))
    with pytest.raises(Misconfigured, match="cannot be read"):
        holdfast("keys", "check", str(tmp_path / "missing"))


def test_a_customers_key_needs_the_customer() -> None:
    """What could open nothing, or everybody's, is not made."""
    with pytest.raises(Misconfigured, match="customer_id"):
        holdfast("keys", "new", "phone", "--scope", "customer")
    with pytest.raises(Misconfigured, match="customer_id"):
        holdfast("keys", "new", "web-shop", "--scope", "storefront", "--customer-id", "c-7")
