"""Does nothing that is written down repeat what must not be written down?"""

import io
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
import pytest
import structlog
from aiohttp.http_exceptions import BadHttpMessage

from services.payment_service.settings import Settings
from shared.access import Scope, new_key
from shared.envelope import Headers
from shared.errors import Fault, Invalid
from shared.ids import new_id
from shared.logging import configure, get_logger
from shared.masking import keep_secret, mask_text, password_of, secrets_of
from shared.outbox import DeadLetter
from shared.settings import load
from shared.web import problem
from tests.issuer_building import claims_of, ec_key, sign

CARD = "4111111111111111"
SECRET = "planted-secret-of-this-process"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a service writes to standard error."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stderr", text)
    handlers, configuration = logging.getLogger().handlers[:], structlog.get_config()
    configure("a-service", "DEBUG")
    yield text
    logging.getLogger().handlers[:] = handlers
    structlog.configure(**configuration)
    structlog.contextvars.clear_contextvars()


def test_what_a_process_keeps_secret_is_hidden_whatever_it_looks_like() -> None:
    """A value that no pattern would find is masked once it is known, the longer one first."""
    keep_secret([SECRET, f"{SECRET}-and-more", "tea"])

    assert mask_text(f"got {SECRET}-and-more, {SECRET} and tea") == "got ***, *** and tea"


def test_what_callers_show_at_the_door_is_hidden() -> None:
    """API keys and JWTs are known by how they begin, wherever they stand."""
    key = new_key("web-shop", Scope.STOREFRONT).key
    token = sign(claims_of("c-7"), ec_key("key-1"))

    for text in (f"got {key}!", f"got {token}!", f"/orders?token={token}", f"['{key}']"):
        shown = mask_text(text)
        assert key.removeprefix("hfk_") not in shown
        assert not any(part in shown for part in token.split("."))
    assert mask_text("keyJ is a word, and so is hfk_") == "keyJ is a word, and so is hfk_"


def test_every_secret_of_the_settings_is_kept() -> None:
    """Single ones, lists, and the password inside a URI, as it is written and as it is meant."""
    settings = load(
        Settings,
        environment={
            "HOLDFAST_DATABASE_DSN": "postgresql://payment:p%40ssword-1@127.0.0.1/payment",
            "HOLDFAST_HTTP_PORT": "1",
            "HOLDFAST_STOREFRONT_TOKEN": "storefront-token-1",
            "HOLDFAST_OPERATOR_TOKEN": "operator-token-01",
            "HOLDFAST_GATEWAYS": "stripe",
            "HOLDFAST_DEFAULT_GATEWAY": "stripe",
            "HOLDFAST_STRIPE_SECRET_KEY": "sk_test_1",
            "HOLDFAST_STRIPE_WEBHOOK_SECRETS": "whsec_1,whsec_2",
        },
    )

    assert secrets_of(settings) == {
        *("p%40ssword-1", "p@ssword-1", "storefront-token-1", "operator-token-01"),
        *("sk_test_1", "whsec_1", "whsec_2"),
    }


@pytest.mark.parametrize("text", ["tea", "http://127.0.0.1:8001", "://", "http://[::1"])
def test_what_is_no_uri_with_a_password_has_none(text: str) -> None:
    """Text of any kind is looked at, and nothing is made up."""
    assert password_of(text) == set()


@pytest.mark.parametrize("text", [f"b'{CARD}'", f"x:{CARD}.", f"\\n{CARD}\\r", "4111-1111 1111-1111"])
def test_a_card_is_found_where_it_stands_alone(text: str) -> None:
    """Also in the `repr` of what somebody sent, where a line break is a letter."""
    assert "1111111" not in re.sub(r"[\s-]", "", mask_text(text))


@pytest.mark.parametrize(
    "text", ["01a21f03-d47f-7613-b58a-aa149010a793", "4111111111111112", "2026-11-27T21:00:00.123456Z"]
)
def test_what_is_no_card_is_left_alone(text: str) -> None:
    """Ids, numbers without the check digit and times are what logs are read for."""
    assert mask_text(text) == text


def test_logs_say_neither_cards_nor_secrets(written: io.StringIO) -> None:
    """Not in fields, in what is nested in them, in an exception's text, nor in what a library writes."""
    keep_secret([SECRET])
    error = ValueError(f"{CARD} {SECRET}")
    get_logger().error("failed", detail=f"card {CARD}", nested={"note": [SECRET]}, count=3, exc_info=error)
    logging.getLogger("a.library").error("refused %s", f"{SECRET} {CARD}")

    first, second = (orjson.loads(line) for line in written.getvalue().splitlines())
    assert (first["detail"], first["nested"], first["count"]) == (
        "card ************1111",
        {"note": ["***"]},
        3,
    )
    assert "ValueError: ************1111 ***" in first["exception"]
    assert second["event"] == "refused *** ************1111"


def test_bytes_that_are_no_http_are_not_written_down(written: io.StringIO) -> None:
    """Of a request that cannot be read only the kind of its fault is kept, whatever it held."""
    error = BadHttpMessage(f"Invalid header: {CARD}x")
    logging.getLogger("aiohttp.server").error("Error handling request", exc_info=error)

    assert orjson.loads(written.getvalue())["event"] == "a request that is no HTTP: BadHttpMessage"
    assert "4111" not in written.getvalue()


def test_an_error_repeats_neither_what_was_sent_nor_the_names_of_its_fields() -> None:
    """The text of a problem is masked, and so is each pointer and detail."""
    error = Invalid(f"no {CARD}", faults=[Fault(f"/{CARD}", f"{CARD} is not permitted")])

    body = orjson.loads(bytes(problem(error, "request-1").body))  # type: ignore[arg-type] # bytes, as it was made

    assert body["detail"] == "no ************1111"
    assert body["errors"] == [{"pointer": "/************1111", "detail": "************1111 is not permitted"}]


class _Record:
    """A record that is refused."""

    topic, partition, offset = "order.commands", 0, 7
    key: bytes | None = CARD.encode()
    value: bytes | None = CARD.encode()

    @property
    def headers(self) -> Headers:
        """Its own headers."""
        return [("ce_type", CARD.encode())]


def test_a_dead_letter_adds_no_card_and_keeps_what_it_had() -> None:
    """Its own key, value and headers stay byte for byte; the reason that is added repeats none of them."""
    letter = DeadLetter(_Record(), new_id(), "undecodable", f"unknown type b'{CARD}'")

    row = letter.row("order-service", datetime.now(UTC))

    added = dict(row.headers)
    assert (row.key, row.payload, added["ce_type"]) == (CARD.encode(), CARD.encode(), CARD.encode())
    assert added["dlq_error"] == b"unknown type b'************1111'"
