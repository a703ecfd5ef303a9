"""Which API keys are taken, and what becomes of them when their file changes?"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.access import ApiKeys, Caller, NewKey, Scope, new_key, read_keys
from shared.errors import Misconfigured
from shared.health import Health

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def write(path: Path, *keys: NewKey, more: str = "") -> None:
    """Write a file of keys, as a tool does that puts a new one in the place of the old one."""
    new = path.with_suffix(".new")
    new.write_text("\n".join([*(key.text() for key in keys), more]))
    new.replace(path)


def rewrite_in_secret(path: Path, key: NewKey) -> None:
    """Write another key into a file of one, so that neither its length nor its times tell."""
    before = path.stat()
    path.write_text(f"{key.text()}\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def opened(path: Path, *keys: NewKey, health: Health | None = None, at: datetime = NOW) -> ApiKeys:
    """Return the keys of a file with these."""
    write(path, *keys)
    return ApiKeys(path, health=health or Health(), clock=at.timestamp)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "keys.jsonl"


# --- whose key ------------------------------------------------------------------------------------------------------


def test_a_key_opens_what_its_line_says(path: Path) -> None:
    """Its caller has the name and the scope of the line; a customer is that customer, whichever key it holds."""
    shop, admin = new_key("web-shop", Scope.STOREFRONT), new_key("alice", Scope.OPERATOR)
    phone = new_key("phone", Scope.CUSTOMER, customer_id="c:7")
    keys = opened(path, shop, admin, phone)

    assert keys.find(shop.key) == Caller("key:web-shop", Scope.STOREFRONT)
    assert keys.find(admin.key) == Caller("key:alice", Scope.OPERATOR)
    assert keys.find(phone.key) == Caller("customer:c%3A7", Scope.CUSTOMER, "c:7")


def test_the_file_holds_no_key(path: Path) -> None:
    """Neither the key nor its secret part stands in its line."""
    made = new_key("web-shop", Scope.STOREFRONT)

    assert made.key not in made.text()
    assert made.key.rsplit("_", 1)[1] not in made.text()


def test_what_is_not_the_key_opens_nothing(path: Path) -> None:
    """A changed character, another secret under the same id, what stands in the file, and hostile text."""
    made = new_key("web-shop", Scope.STOREFRONT)
    keys = opened(path, made)
    start, secret = made.key.rsplit("_", 1)
    line = made.line

    for wrong in (
        made.key[:-1] + ("0" if made.key[-1] != "0" else "1"),
        f"{start}_{new_key('x', Scope.OPERATOR).key.rsplit('_', 1)[1]}",
        f"{start}_{line.sha256}",
        f"hfk_{secret}",
        made.key.upper(),
        made.key + "\n",
        made.key + "0",
        start,
        "hfk_",
        "",
        new_key("web-shop", Scope.STOREFRONT).key,
    ):
        assert keys.find(wrong) is None, wrong


def test_a_key_ends_when_its_line_says(path: Path) -> None:
    """A second before it is good, from that second on it is not."""
    made = new_key("web-shop", Scope.STOREFRONT, expires_at=NOW)

    assert opened(path, made, at=NOW - timedelta(seconds=1)).find(made.key) is not None
    assert opened(path, made, at=NOW).find(made.key) is None


def test_a_caller_may_have_two_keys_while_it_changes_them(path: Path) -> None:
    """Both lines have its name, and it is one caller: its idempotency keys stay its own."""
    old, new = new_key("web-shop", Scope.STOREFRONT), new_key("web-shop", Scope.STOREFRONT)
    keys = opened(path, old, new)

    assert keys.find(old.key) == keys.find(new.key) == Caller("key:web-shop", Scope.STOREFRONT)


# --- what stands in the file ----------------------------------------------------------------------------------------


def test_comments_and_empty_lines_are_passed_over() -> None:
    """A file is for people, too."""
    made = new_key("web-shop", Scope.STOREFRONT)

    assert [*read_keys(f"# ours\n\n  # more\n{made.text()}\r\n".encode())] == [made.line.key_id]


SAMPLE = new_key("web-shop", Scope.STOREFRONT)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: "),
        ("[]", "line 2: "),
        ('"text"', "line 2: "),
        (SAMPLE.text().replace('"storefront"', '"root"'), "line 2: /scope: "),
        (SAMPLE.text().replace("web-shop", "web shop"), "line 2: /name: "),
        (SAMPLE.text().replace('"scope"', '"scop"'), "line 2: /scope: "),
        (SAMPLE.text().replace(SAMPLE.line.sha256, "abc"), "line 2: /sha256: "),
        (SAMPLE.text().replace("}", ',"expires_at":"2026-03-01T12:00:00"}'), "line 2: /expires_at: "),
        (SAMPLE.text().replace("}", ',"customer_id":"c-1"}'), "line 2: customer_id is for"),
        (SAMPLE.text().replace('"storefront"', '"customer"'), "line 2: customer_id is for"),
        (SAMPLE.text(), "line 2: the key"),
        (new_key("web-shop", Scope.OPERATOR).text(), "line 2: web-shop has another scope"),
    ],
    ids=[
        "no JSON",
        "no object",
        "text",
        "scope",
        "name",
        "no scope",
        "sum",
        "no zone",
        "customer_id",
        "no customer_id",
        "known",
        "another scope",
    ],
)
def test_a_wrong_line_is_named_without_what_stands_in_it(line: str, problem: str) -> None:
    """Its number, where in it, and what; nothing of a hash, which may be in the wrong place."""
    with pytest.raises(Misconfigured) as raised:
        read_keys(f"{SAMPLE.text()}\n{line}".encode())

    assert raised.value.detail.startswith(problem)
    assert SAMPLE.line.sha256 not in raised.value.detail


def test_every_wrong_line_is_named() -> None:
    """One look says all that is wrong."""
    with pytest.raises(Misconfigured) as raised:
        read_keys(b"{\n\n[]\n7")

    assert [line.split(":")[0] for line in raised.value.detail.splitlines()] == ["line 1", "line 3", "line 4"]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"# " + b"x" * (4 * 1024 * 1024)], ids=["no text", "too long"]
)
def test_a_file_that_is_none_of_ours_is_refused(content: bytes) -> None:
    """Bytes that are no text, and more of them than any file of keys has."""
    with pytest.raises(Misconfigured):
        read_keys(content)


def test_a_new_key_must_have_a_name_that_can_be_one() -> None:
    """What would be refused in the file is not made."""
    with pytest.raises(Misconfigured):
        new_key("web shop", Scope.STOREFRONT)
    with pytest.raises(Misconfigured):
        new_key("phone", Scope.CUSTOMER)


# --- when the file changes ------------------------------------------------------------------------------------------


def test_a_wrong_file_stops_the_start(path: Path) -> None:
    """With one clear line that names the setting."""
    path.write_text("{")
    with pytest.raises(Misconfigured, match=r"^HOLDFAST_API_KEYS_FILE: line 1: "):
        ApiKeys(path, health=Health())
    with pytest.raises(Misconfigured, match=r"^HOLDFAST_API_KEYS_FILE: the file cannot be read"):
        ApiKeys(path.with_name("missing"), health=Health())


async def test_keys_come_and_go_with_the_file(path: Path) -> None:
    """The next look gives out the new key and takes the old one back."""
    old, new = new_key("web-shop", Scope.STOREFRONT), new_key("web-shop", Scope.STOREFRONT)
    keys = opened(path, old)
    write(path, new)

    await keys.tick()

    assert keys.find(old.key) is None
    assert keys.find(new.key) is not None


async def test_a_change_is_seen_whatever_the_clock_of_the_file_says(path: Path) -> None:
    """Same length, same time of change: what stands in it counts."""
    old, new = new_key("web-shop", Scope.STOREFRONT), new_key("web-shop", Scope.STOREFRONT)
    keys = opened(path, old)
    rewrite_in_secret(path, new)

    await keys.tick()

    assert keys.find(new.key) is not None


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_file_that_becomes_wrong_leaves_the_keys_as_they_were(path: Path, is_gone: bool) -> None:  # noqa: FBT001
    """All or nothing: no line of it counts, the process says so, and is well again with the next right one."""
    health = Health()
    old, new = new_key("web-shop", Scope.STOREFRONT), new_key("alice", Scope.OPERATOR)
    keys = opened(path, old, health=health)
    if is_gone:
        remove(path)
    else:
        write(path, new, more="{")

    await keys.tick()
    assert keys.find(old.key) is not None
    assert keys.find(new.key) is None
    assert "kept" in health.away["keys_file"]

    write(path, new)
    await keys.tick()
    assert keys.find(old.key) is None
    assert keys.find(new.key) is not None
    assert health.away == {}
