"""Does a process start only with settings that are known, fit, and were meant?"""

from pathlib import Path

import pytest
from pydantic import Field

from shared import settings as settings_module
from shared.errors import Misconfigured
from shared.scopes import Scope
from shared.settings import ServiceSettings, load, names_of, of_services

SECRET = "correct-horse-battery-staple"
GOOD = {
    "HOLDFAST_DATABASE_DSN": "postgresql://127.0.0.1/shop",
    "HOLDFAST_HTTP_PORT": "0",
    "HOLDFAST_STOREFRONT_TOKEN": SECRET,
    "HOLDFAST_OPERATOR_TOKEN": SECRET + "-2",
}


class Settings(ServiceSettings):
    """Settings of a service that only these tests have."""

    hold_seconds: int = Field(900, ge=10, le=86_400)


@pytest.fixture(autouse=True)
def neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one neighbour, with one setting of its own."""
    monkeypatch.setattr(
        settings_module, "of_services", lambda: {"neighbour": frozenset({"HOLDFAST_NEIGHBOURS_OWN"})}
    )


def complaint(**environment: str) -> str:
    """Return what is said about these settings beside good ones."""
    with pytest.raises(Misconfigured) as raised:
        load(Settings, environment=GOOD | environment)
    return raised.value.detail


def test_good_settings_are_read_with_their_types_and_defaults() -> None:
    """Text becomes numbers and secrets; what is not given has its default."""
    loaded = load(Settings, environment={**GOOD, "HOLDFAST_HOLD_SECONDS": "60", "PATH": "/bin"})

    assert (loaded.hold_seconds, loaded.http_port, loaded.batch_records_max) == (60, 0, 500)
    assert loaded.storefront_token.get_secret_value() == SECRET


def test_every_missing_setting_is_named_on_a_line_of_its_own() -> None:
    """One start says all that is wrong, and a secret has no default."""
    with pytest.raises(Misconfigured) as raised:
        load(Settings, environment={})

    assert {line.split(":")[0] for line in raised.value.detail.splitlines()} == set(GOOD)


@pytest.mark.parametrize(
    "name",
    ["HOLDFAST_HOLD_SECOND", "HOLDFAST_HOLDSECONDS", "HOLDFAST_", "HOLDFAST_hold_seconds", "HOLDFAST_X_FILE"],
)
def test_a_misspelt_name_stops_the_start(name: str) -> None:
    """A name that no service knows would silently change nothing, so it is refused."""
    assert complaint(**{name: "60"}) == f"{name}: there is no such setting"


ISSUER = {
    "HOLDFAST_OIDC_ISSUER": "https://login.example.com/",
    "HOLDFAST_OIDC_AUDIENCE": "holdfast",
    "HOLDFAST_OIDC_JWKS_URL": "https://login.example.com/keys",
}


def test_an_issuer_is_named_as_a_whole() -> None:
    """Its name, our name and its keys: with one of them missing nobody could come in, or anybody."""
    for name in ISSUER:
        rest = {other: value for other, value in ISSUER.items() if other != name}
        assert "are needed together" in complaint(**rest)
    assert load(Settings, environment=GOOD | ISSUER).oidc_issuer == "https://login.example.com/"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"HOLDFAST_OIDC_JWKS_URL": "http://login.example.com/keys"}, "by https"),
        ({"HOLDFAST_OIDC_ALGORITHMS": "RS256,none"}, "HOLDFAST_OIDC_ALGORITHMS_1"),
        ({"HOLDFAST_OIDC_ALGORITHMS": "HS256"}, "HOLDFAST_OIDC_ALGORITHMS_0"),
        ({"HOLDFAST_OIDC_ALGORITHMS": ""}, "HOLDFAST_OIDC_ALGORITHMS"),
        ({"HOLDFAST_OIDC_SCOPES": "admin"}, "word=scope"),
        ({"HOLDFAST_OIDC_SCOPES": "admin=root"}, "HOLDFAST_OIDC_SCOPES_ADMIN"),
        ({"HOLDFAST_OIDC_SCOPES": ","}, "HOLDFAST_OIDC_SCOPES"),
    ],
)
def test_an_issuer_that_would_let_anybody_in_stops_the_start(given: dict[str, str], problem: str) -> None:
    """Keys that somebody on the way could change, signatures that prove nothing, words that mean nothing."""
    assert problem in complaint(**ISSUER | given)


def test_the_words_of_an_issuer_mean_scopes() -> None:
    """A comma list of word=scope; a word may hold the sign itself."""
    loaded = load(
        Settings,
        environment=GOOD | ISSUER | {"HOLDFAST_OIDC_SCOPES": "shopper=customer, role=admin=operator"},
    )

    assert loaded.oidc_scopes == {"shopper": Scope.CUSTOMER, "role=admin": Scope.OPERATOR}


def test_keys_of_this_machine_may_come_without_tls() -> None:
    """For development and for a proxy beside the service."""
    for host in ("127.0.0.1", "localhost", "[::1]"):
        url = f"http://{host}:8080/keys"
        given = GOOD | ISSUER | {"HOLDFAST_OIDC_JWKS_URL": url}
        assert str(load(Settings, environment=given).oidc_jwks_url) == url


def test_a_name_in_lower_case_means_nothing() -> None:
    """Names are exact: what does not begin with the prefix is not ours, and is not taken either."""
    assert load(Settings, environment={**GOOD, "holdfast_hold_seconds": "60"}).hold_seconds == 900


def test_only_the_given_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own environment is not mixed in, in neither case."""
    monkeypatch.setenv("HOLDFAST_HOLD_SECONDS", "60")
    monkeypatch.setenv("holdfast_batch_records_max", "7")

    loaded = load(Settings, environment=GOOD)

    assert (loaded.hold_seconds, loaded.batch_records_max) == (900, 500)


def test_the_process_own_environment_is_the_usual_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another environment the process's own is read, and lower-case names still mean nothing."""
    for name, value in {**GOOD, "HOLDFAST_HOLD_SECONDS": "60", "holdfast_batch_records_max": "7"}.items():
        monkeypatch.setenv(name, value)

    loaded = load(Settings)

    assert (loaded.hold_seconds, loaded.batch_records_max) == (60, 500)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOLDFAST_HOLD_SECONDS", "soon"),
        ("HOLDFAST_HOLD_SECONDS", "9"),
        ("HOLDFAST_HOLD_SECONDS", ""),
        ("HOLDFAST_HTTP_PORT", "70000"),
        ("HOLDFAST_LOG_LEVEL", "LOUD"),
        ("HOLDFAST_DATABASE_DSN", "mysql://127.0.0.1/shop"),
        ("HOLDFAST_OPERATOR_TOKEN", "short"),
        ("HOLDFAST_KAFKA_SECURITY_PROTOCOL", "plaintext"),
    ],
)
def test_a_value_that_does_not_fit_is_one_clear_line(name: str, value: str) -> None:
    """The line names the setting and what would fit."""
    said = complaint(**{name: value})

    assert said.startswith(f"{name}: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    "environment",
    [
        {"HOLDFAST_OPERATOR_TOKEN": "s3cr3t-short"},
        {"HOLDFAST_DATABASE_DSN": "mysql://user:s3cr3t-short@127.0.0.1/shop"},
        {"HOLDFAST_TYPO": "s3cr3t-short"},
    ],
)
def test_a_value_never_appears_in_a_message(environment: dict[str, str]) -> None:
    """Passwords and tokens are often what is wrong, and messages go to logs."""
    assert "s3cr3t-short" not in complaint(**environment)


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    """Neither token is in the text of the settings."""
    assert SECRET not in repr(load(Settings, environment=GOOD))


def test_the_names_of_neighbours_pass() -> None:
    """Several services may be started from one environment; the operators' names may stand there as well."""
    environment = {
        **GOOD,
        "HOLDFAST_NEIGHBOURS_OWN": "x",
        "HOLDFAST_NEIGHBOURS_OWN_FILE": "/nowhere",
        "HOLDFAST_ORDER_URL": "http://127.0.0.1",
    }

    assert load(Settings, environment=environment).hold_seconds == 900


def test_a_value_may_stand_in_a_file(tmp_path: Path) -> None:
    """`_FILE` names a file whose text, without the line end, is the value."""
    file = tmp_path / "token"
    file.write_text(f"{SECRET}-from-file\n")
    environment = {**GOOD, "HOLDFAST_OPERATOR_TOKEN_FILE": str(file)}
    del environment["HOLDFAST_OPERATOR_TOKEN"]

    assert load(Settings, environment=environment).operator_token.get_secret_value() == f"{SECRET}-from-file"


def test_a_value_and_a_file_at_once_stop_the_start(tmp_path: Path) -> None:
    """Nobody should have to guess which of the two counts."""
    file = tmp_path / "token"
    file.write_text(SECRET)

    said = complaint(HOLDFAST_OPERATOR_TOKEN_FILE=str(file))

    assert said == "HOLDFAST_OPERATOR_TOKEN_FILE: is given twice, as a value and as a file"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    """A missing file and one that is not text are named; their setting is missing then."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    said = complaint(HOLDFAST_KAFKA_SASL_PASSWORD_FILE=str(file))

    assert said.startswith("HOLDFAST_KAFKA_SASL_PASSWORD_FILE: the file cannot be read: ")


def test_every_service_says_its_names_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three services are found as installed, so that each knows the others' names."""
    monkeypatch.undo()

    names = of_services()

    assert {*names} == {"order", "inventory", "payment"}
    assert all(names_of(ServiceSettings) <= own for own in names.values())
    assert "HOLDFAST_HOLD_SECONDS" in names["inventory"]
