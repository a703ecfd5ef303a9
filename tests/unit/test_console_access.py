"""Who is let into the console, for how long, and whose forms count?"""

from pydantic import SecretStr

from ops.console.access import NAME_CHARACTERS_MAX, Attempts, Sessions
from ops.console.pages.entrance import own_path

TOKEN = SecretStr("operator-token-12")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def test_only_the_token_opens_a_session() -> None:
    """The operators' token does, nothing else, whatever characters it is made of."""
    sessions = Sessions(TOKEN, seconds=60)

    assert sessions.is_token("operator-token-12")
    assert sessions.is_token(" operator-token-12\n")
    assert not any(map(sessions.is_token, ["", "operator-token-1", "operator-token-123", "é" * 9, "\udcff"]))


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
