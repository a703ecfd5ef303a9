"""Who is let into the console, for how long, and whose forms count?"""

from pathlib import Path

from pydantic import SecretStr

from ops.console.access import NAME_CHARACTERS_MAX, Admitted, Attempts, Sessions, admit
from ops.console.pages.entrance import own_path
from shared.access import Access, ApiKeys, Scope, new_key
from shared.health import Health

TOKEN = SecretStr("operator-token-12")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


async def test_only_operators_are_let_in() -> None:
    """With the operators' token or an operator's key; with nothing else, whatever characters it is made of."""
    access = Access(storefront=SecretStr("storefront-token"), operator=TOKEN)
    bad = [
        "",
        "storefront-token",
        "operator-token-1",
        "operator-token-123",
        "é" * 9,
        "hfk_00_00",
        "x" * 9_999,
    ]

    assert await admit(access, " operator-token-12\n") == Admitted()
    assert [await admit(access, each) for each in bad] == [None] * len(bad)


async def test_an_api_key_proves_a_name(tmp_path: Path) -> None:
    """An operator's opens the console under its own name, a storefront's does not open it."""
    operator, storefront = new_key("ada", Scope.OPERATOR), new_key("shop", Scope.STOREFRONT)
    file = tmp_path / "keys"
    file.write_text(f"{operator.text()}\n{storefront.text()}\n")
    keys = ApiKeys(file, health=Health())
    access = Access(storefront=TOKEN, operator=TOKEN, api_keys=keys)

    admitted = await admit(access, operator.key)
    refused = await admit(access, storefront.key)

    assert admitted is not None
    assert (admitted.name, refused) == ("key:ada", None)


async def test_a_session_ends_with_its_api_key(tmp_path: Path) -> None:
    """Its name is the key's, whatever was said; without the key, and after a restart, its cookie opens nothing."""
    key, file = new_key("ada", Scope.OPERATOR), tmp_path / "keys"
    file.write_text(key.text())
    keys = ApiKeys(file, health=Health())
    sessions = Sessions(TOKEN, seconds=60)
    admitted = await admit(Access(storefront=TOKEN, operator=TOKEN, api_keys=keys), key.key)
    assert admitted is not None

    session, cookie = sessions.begin("Somebody Else", admitted)
    known, elsewhere = sessions.read(cookie), Sessions(TOKEN, seconds=60).read(cookie)
    file.write_text("")
    await keys.tick()

    assert (session.name, known, elsewhere) == ("key:ada", session, None)
    assert sessions.read(cookie) is None


def test_a_session_is_known_again_until_it_is_over() -> None:
    """Its cookie says who and until when."""
    clock = Clock()
    sessions = Sessions(TOKEN, seconds=60, clock=clock)
    session, cookie = sessions.begin("Ada Lovelace")

    clock.now += 59
    known = sessions.read(cookie)
    clock.now += 1
    later = sessions.read(cookie)

    assert known == session
    assert (session.name, later) == ("Ada Lovelace", None)


def test_an_ended_session_stays_ended() -> None:
    """Who has kept its cookie is not let in; other sessions go on."""
    sessions = Sessions(TOKEN, seconds=60)
    ended, kept = sessions.begin("Ada"), sessions.begin("Bob")

    sessions.end(ended[0])

    assert sessions.read(ended[1]) is None
    assert sessions.read(kept[1]) == kept[0]


def test_a_cookie_that_we_did_not_make_is_none() -> None:
    """Changed, cut, made with another token, or not a cookie at all."""
    sessions = Sessions(TOKEN, seconds=60)
    _, cookie = sessions.begin("Ada")
    _, foreign = Sessions(SecretStr("another-token-123"), seconds=60).begin("Ada")
    body, _, signature = cookie.partition(".")
    changed = f"{body[:-2]}AA.{signature}"

    bad = ["", ".", body, f"{body}.", changed, f"{cookie}0", foreign, "é.é", "\udcff.00", "x" * 100_000]
    assert [sessions.read(each) for each in bad] == [None] * len(bad)


def test_a_name_is_short_and_can_be_seen() -> None:
    """What would steer a terminal is left out, and nobody is nameless."""
    sessions = Sessions(TOKEN, seconds=60)

    assert sessions.begin("A\x1b[31mda\n")[0].name == "A[31mda"
    assert len(sessions.begin("x" * 1_000)[0].name) == NAME_CHARACTERS_MAX
    assert sessions.begin(" \t ")[0].name


def test_a_form_belongs_to_its_session() -> None:
    """The key of one session's forms is not that of another's."""
    sessions = Sessions(TOKEN, seconds=60)
    mine, _ = sessions.begin("Ada")
    other, _ = sessions.begin("Ada")

    assert sessions.is_form_key(mine, sessions.form_key(mine))
    assert not any(sessions.is_form_key(mine, each) for each in ["", sessions.form_key(other), "é"])


def test_nobody_guesses_for_long() -> None:
    """So many attempts a minute from one address; another address, and a later minute, may try."""
    clock = Clock()
    attempts = Attempts(attempts_max=3, seconds=60, clock=clock)

    first = [attempts.take("one") for _ in range(4)]
    other = attempts.take("two")
    clock.now += 61
    later = attempts.take("one")

    assert (first, other, later) == ([True, True, True, False], True, True)


def test_who_was_let_in_begins_anew() -> None:
    """A success forgets the attempts before it."""
    attempts = Attempts(attempts_max=1)

    assert attempts.take("one")
    attempts.forget("one")
    assert attempts.take("one")


def test_only_so_many_addresses_are_remembered() -> None:
    """Who comes from many addresses does not fill the memory."""
    attempts = Attempts(addresses_max=2)

    for address in ("one", "two", "three"):
        attempts.take(address)

    assert len(attempts._tried) == 2


def test_a_login_leads_to_our_own_pages_only() -> None:
    """An address of somebody else's, and what is no page, lead to the overview."""
    assert own_path("/orders?q=a%20b") == "/orders?q=a%20b"
    foreign = [
        "",
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/login?next=/",
        "/live/x",
        "/\r\nX: y",
    ]
    assert {own_path(each) for each in foreign} == {"/"}
