"""Does the console keep strangers out, other sites' forms away, and what it must not show to itself?"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from deploy.local.postgres import EmbeddedPostgres
from ops.actions import record_action
from ops.console.frame import HEADERS, PUBLIC
from shared.database import Database
from shared.ids import new_id
from tests.audit_building import CONFIRMED, Paid, Saga, World, open_world
from tests.integration.console_harness import TOKEN, Browser, Page, browsing, console, every_route
from tests.integration.test_console_pages import add_delivery, execute

HOSTILE = "<script>alert('it')</script>\"'"
CARD, SECRET = "4111 1111 1111 1111", "whsec_c2VjcmV0c2VjcmV0"
#: Values that fit each place of a path.
_PLACES = {
    "name": "console.css",
    "webhook_id": "1",
    "topic": "order.events.inventory-service.dlq",
    "partition": "0",
    "offset": "0",
    "sku": "APPLE",
}


@pytest.fixture(scope="module")
async def world(postgres: EmbeddedPostgres, templates: Mapping[str, str]) -> AsyncIterator[World]:
    """Three databases with an order of every kind."""
    async with open_world(postgres, templates) as made:
        yield made


@pytest.fixture(scope="module")
async def url(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Where the console is."""
    async with console(world.dsns, tmp_path_factory.mktemp("console")) as opened:
        yield opened.url


@pytest.fixture
async def stranger(url: str) -> AsyncIterator[Browser]:
    """A browser that has not logged in."""
    async with browsing(url) as opened:
        yield opened


@pytest.fixture
async def browser(stranger: Browser) -> Browser:
    """A browser that has."""
    await stranger.log_in()
    return stranger


def path_of(route: web.RouteDef) -> str:
    """Return an address that leads to a route."""
    return re.sub(
        r"\{(\w+)[^{}]*(\{[^}]*\})?\}", lambda found: _PLACES.get(found[1], str(new_id())), route.path
    )


def id_of(route: web.RouteDef) -> str:
    """Name a route."""
    return f"{route.method} {route.path}"


CLOSED = [route for route in every_route() if route.path not in PUBLIC]
CHANGING = [route for route in every_route() if route.method == "POST"]


# --- who is let in --------------------------------------------------------------------------------------------------


def test_only_the_way_in_is_open() -> None:
    """The login, its looks, and what probes ask; every other route needs a session."""
    assert {"/login", "/static/{name}", "/livez", "/readyz", "/metrics", "/openapi.json"} == PUBLIC
    assert {route.method for route in every_route()} == {"GET", "POST"}
    assert len(CLOSED) > 20


@pytest.mark.parametrize("route", CLOSED, ids=id_of)
async def test_nothing_is_shown_or_done_without_a_session(stranger: Browser, route: web.RouteDef) -> None:
    """A person is led to the login, a program gets 401; neither gets the page."""
    session, path = stranger.session, f"{stranger.url}{path_of(route)}"
    sent: dict[str, Any] = {
        "allow_redirects": False,
        "data": {"form_key": "x"} if route.method == "POST" else None,
    }

    async with session.request(route.method, path, headers={"Accept": "text/html"}, **sent) as person:
        assert person.status == (303 if route.method == "GET" else 401)
        assert route.method == "POST" or person.headers["Location"].startswith("/login?next=")
    async with session.request(route.method, path, **sent) as program:
        assert program.status == 401
        assert (await program.json(content_type=None))["title"] == "Unauthorized"


async def test_a_page_that_does_not_exist_is_not_told_from_one_that_does(stranger: Browser) -> None:
    """Strangers learn nothing of what there is."""
    assert (await stranger.get("/nothing")).path == "/login?next=/nothing"


async def test_the_cookie_cannot_be_read_or_sent_from_elsewhere(stranger: Browser) -> None:
    """HttpOnly, SameSite=Strict, and Secure as soon as the way to it is."""
    form = {"name": "Ada", "token": TOKEN}
    cookies = []
    for forwarded in ("http", "https"):
        async with stranger.session.post(
            f"{stranger.url}/login",
            data=form,
            headers={"X-Forwarded-Proto": forwarded},
            allow_redirects=False,
        ) as answer:
            cookies.append(SimpleCookie(answer.headers["Set-Cookie"])["holdfast_console"])

    assert all(cookie["httponly"] and cookie["samesite"] == "Strict" for cookie in cookies)
    assert [bool(cookie["secure"]) for cookie in cookies] == [False, True]


async def test_a_stolen_cookie_ends_with_the_session(browser: Browser) -> None:
    """After the logout it opens nothing any more, wherever it is kept."""
    (cookie,) = browser.session.cookie_jar
    page = await browser.get("/orders")
    await browser.submit(page, "/logout")

    async with aiohttp.ClientSession() as thief:
        headers = {"Cookie": f"{cookie.key}={cookie.value}"}
        async with thief.get(f"{browser.url}/orders", headers=headers) as answer:
            assert answer.status == 401


async def test_guessing_is_slowed_and_stopped(world: World, tmp_path: Path) -> None:
    """After ten wrong tokens in a minute even the right one is refused, until the minute is over."""
    async with console(world.dsns, tmp_path) as stranger:
        wrong = [stranger.post("/login", {"token": "wrong"}) for _ in range(10)]
        assert {page.status for page in await asyncio.gather(*wrong)} == {401}
        refused = await stranger.log_in()

    assert refused.status == 429
    assert "Too many attempts" in refused.words


# --- forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", CHANGING, ids=id_of)
async def test_a_form_of_another_site_is_refused(browser: Browser, route: web.RouteDef) -> None:
    """Whatever else it carries, said by either header; the session goes on."""
    form = {"form_key": (await browser.get("/orders")).form_key, "token": TOKEN}
    signs: list[Mapping[str, str]] = [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": browser.url},
    ]

    for sign in signs:
        async with browser.session.post(
            f"{browser.url}{path_of(route)}", data=form, headers=sign, allow_redirects=False
        ) as answer:
            assert answer.status == 403
    assert (await browser.get("/orders")).path == "/orders"


@pytest.mark.parametrize("route", [each for each in CHANGING if each.path != "/login"], ids=id_of)
async def test_a_form_without_the_key_of_its_session_is_refused(
    browser: Browser, route: web.RouteDef
) -> None:
    """Missing, foreign, or in the address instead."""
    async with browsing(browser.url) as other:
        await other.log_in()
        foreign = (await other.get("/orders")).form_key
    own = (await browser.get("/orders")).form_key
    path = path_of(route)

    refused = [
        await browser.post(path, {}),
        await browser.post(path, {"form_key": foreign}),
        await browser.post(f"{path}?form_key={own}", {"form_key": ""}),
    ]

    assert [page.status for page in refused] == [403] * 3
    assert "not made for your session" in refused[0].words


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"form_key=x", "text/plain", 400),
        (b'{"form_key": "x"}', "application/json", 400),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"form_key=%00", "application/x-www-form-urlencoded", 400),
        (b"a=1&" * 200, "application/x-www-form-urlencoded", 400),
        (b"a" * 70_000, "application/x-www-form-urlencoded", 413),
    ],
)
async def test_what_is_no_form_is_refused(browser: Browser, body: bytes, kind: str, status: int) -> None:
    """Other kinds of bodies, bytes that are no text, and more than there is room for."""
    async with browser.session.post(
        f"{browser.url}/audit", data=body, headers={"Content-Type": kind}
    ) as answer:
        assert answer.status == status


async def test_other_methods_do_nothing(browser: Browser) -> None:
    """What no page uses is refused, and a HEAD is answered like its GET."""
    for method, status in (("PUT", 403), ("DELETE", 403), ("PATCH", 403), ("HEAD", 200)):
        async with browser.session.request(
            method,
            f"{browser.url}/orders",
            headers={"Sec-Fetch-Site": "same-origin"},
            data={"a": "b"} if status == 403 else None,
        ) as answer:
            assert answer.status == status


# --- what a page may do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/login", "/orders", "/nothing", "/orders/x", "/static/console.js", "/livez", "/live/overview"],
)
async def test_every_answer_carries_the_strict_policy(browser: Browser, path: str) -> None:
    """Pages, errors, files and streams: no inline script or style, nothing from elsewhere, in no frame."""
    async with browser.session.get(f"{browser.url}{path}", headers={"Accept": "text/html"}) as answer:
        found = {name: answer.headers.get(name) for name in HEADERS}

    assert found == dict(HEADERS)
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy


async def test_pages_are_not_kept_and_files_are(browser: Browser) -> None:
    """What was shown to one is not in a cache for the next."""
    assert (await browser.get("/orders")).headers["Cache-Control"] == "no-store"
    assert "immutable" in (await browser.get("/static/console.css")).headers["Cache-Control"]
    assert (await browser.get("/static/..%2Frendering.py")).status == 404


# --- what others wrote ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def hostile(world: World) -> Mapping[str, Any]:
    """An order whose every text is hostile, with a card number and a secret wherever people may have written one."""
    words = f"{HOSTILE} {CARD} {SECRET}"
    attempt = Paid("QUARANTINED", received=1, refunds=())
    saga = Saga(
        status="AWAITING_PAYMENT", stock="HELD", path=CONFIRMED[:1], money="QUARANTINED", paid=[attempt]
    )
    await world.add("hostile", saga)
    order, payment = world.order_db, world.payment_db
    await execute(
        order,
        "INSERT INTO products (sku, name, price_minor, currency, active) VALUES ($1, $2, 1, 'EUR', true)",
        HOSTILE,
        words,
    )
    await execute(
        world.inventory_db,
        "INSERT INTO stock_levels (sku, available, reserved, sold, sequence) VALUES ($1, 1, 0, 0, 1)",
        HOSTILE,
    )
    await execute(
        world.inventory_db,
        "INSERT INTO stock_movements (sku, kind, available_delta, reserved_delta, sold_delta, cause) VALUES ($1, 'RECEIVED', 1, 0, 0, $2)",
        HOSTILE,
        words,
    )
    await execute(
        order,
        "INSERT INTO order_lines (order_id, sku, quantity, unit_price_minor) VALUES ($1, $2, 1, 1)",
        saga.order_id,
        HOSTILE,
    )
    await execute(
        order,
        "INSERT INTO order_history (order_id, version, status, reason, cause, at) VALUES ($1, 1, 'REQUESTED', $2, $2, now())",
        saga.order_id,
        words,
    )
    await execute(
        order,
        "UPDATE orders SET customer_id = $2, reason = $3, cancelled = true, cancel_reason = $3, cancel_requested_by = 'storefront' WHERE order_id = $1",
        saga.order_id,
        HOSTILE,
        words,
    )
    await execute(
        payment,
        """
        UPDATE attempts SET review_at = now(), review_reason = $2, dispute = $2, native_status = $2,
                            gateway_transaction_id = $2, gateway = $3
        WHERE order_id = $1
        """,
        saga.order_id,
        words,
        HOSTILE,
    )
    await execute(
        payment,
        """
        INSERT INTO refunds (refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, is_full, status,
                             note, error, next_try_at, created_at, updated_at)
        VALUES ($1, $2, $3, $4, 1, 'EUR', 'operator', false, 'FAILED', $5, $5, now(), now(), now())
        """,
        new_id(),
        saga.order_id,
        attempt.attempt_id,
        HOSTILE,
        words,
    )
    await execute(
        payment,
        """
        INSERT INTO resolutions (resolution_id, order_id, attempt_id, action, reason, review_reason, decided_by, created_at)
        VALUES ($1, $2, $3, 'accept', $4, $4, $4, now())
        """,
        new_id(),
        saga.order_id,
        attempt.attempt_id,
        words,
    )
    await add_delivery(
        payment, "mismatch", saga.order_id, {HOSTILE: words, "card_number": CARD, "password": "hunter22"}
    )
    await execute(
        payment,
        "UPDATE webhooks SET reason = $1, event_id = $1, gateway = $2, transaction_id = $1",
        words,
        HOSTILE,
    )
    await _record(payment, words)
    return {"order_id": saga.order_id, "attempt_id": attempt.attempt_id}


async def _record(database: Database, words: str) -> None:
    async with database.connection() as connection:
        await record_action(
            connection,
            command=HOSTILE,
            details={"topic": HOSTILE, HOSTILE: words},
            counts={HOSTILE: 1},
            reason=words,
            who=words,
        )


@pytest.mark.parametrize(
    "path",
    [
        "/orders",
        "/orders/{order_id}",
        "/stock",
        "/stock/%3Cscript%3Ealert('it')%3C%2Fscript%3E%22'",
        "/payments",
        "/payments/{order_id}",
        "/payments/quarantine",
        "/payments/refunds",
        "/payments/{order_id}/attempts/{attempt_id}/resolve?action=accept",
        "/payments/{order_id}/attempts/{attempt_id}/resolve?action=refund",
        "/webhooks",
        "/webhooks/1",
        "/audit",
    ],
)
async def test_hostile_text_is_shown_as_text_and_secrets_are_not(
    browser: Browser, hostile: Mapping[str, Any], path: str
) -> None:
    """In every field of every page: no markup comes through, and no card number or secret."""
    page = await browser.get(path.format(**hostile))

    assert page.status == 200
    assert "&lt;script&gt;alert(" in page.text
    assert_harmless(page)


@pytest.mark.parametrize(
    "path",
    [
        "/orders?q={}&status={}",
        "/stock?q={}",
        "/stock/{}",
        "/webhooks?gateway={}",
        "/payments?status={}&gateway={}",
        "/replay?order_ids={}&types={}&since={}&partitions={}",
        "/login?next={}",
        "/{}",
    ],
)
async def test_what_stands_in_an_address_is_shown_as_text(browser: Browser, path: str) -> None:
    """An address that somebody sends an operator is no way in."""
    page = await browser.get(path.replace("{}", "%22%3E%3Cscript%3Ealert('it')%3C%2Fscript%3E%22'"))

    assert page.status < 500
    assert_harmless(page)


async def test_a_hostile_name_is_a_name(stranger: Browser) -> None:
    """Who calls himself a script is shown as one who does."""
    page = await stranger.log_in(HOSTILE)

    assert "&lt;script&gt;alert(" in page.text
    assert_harmless(page)


def assert_harmless(page: Page) -> None:
    """Tell that nothing of the hostile texts is markup, and nothing of what is secret is there."""
    assert "<script>alert" not in page.text
    assert page.text.count("<script") == 1
    assert not [
        secret
        for secret in (CARD, CARD.replace(" ", ""), "c2VjcmV0c2VjcmV0", "hunter22", TOKEN)
        if secret in page.text
    ]
