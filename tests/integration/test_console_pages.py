"""Do the console's pages answer an operator's questions, from what the three databases hold?"""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from deploy.local.postgres import EmbeddedPostgres
from shared.database import Database
from shared.events import OrderStatus
from shared.ids import new_id
from tests.audit_building import World, open_world
from tests.integration.console_harness import Browser, browsing, console


@pytest.fixture(scope="module")
async def world(postgres: EmbeddedPostgres, templates: Mapping[str, str]) -> AsyncIterator[World]:
    """Three databases with an order of every kind, and what gateways delivered about some."""
    async with open_world(postgres, templates) as made:
        await execute(
            made.order_db,
            "INSERT INTO products (sku, name, price_minor, currency, active) VALUES ('APPLE', 'Apple, red', 250, 'EUR', true)",
        )
        await execute(
            made.payment_db,
            "UPDATE attempts SET review_at = now(), review_reason = 'amount' WHERE status = 'QUARANTINED'",
        )
        for verdict in ("applied", "duplicate", "unmatched", None):
            await add_delivery(made.payment_db, verdict, made.orders["processing"])
        yield made


@pytest.fixture(scope="module")
async def browser(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """A browser that has logged in; Kafka and the payment service are away."""
    async with console(world.dsns, tmp_path_factory.mktemp("console")) as opened:
        await opened.log_in()
        yield opened


async def execute(database: Database, statement: str, *values: Any) -> None:
    """Write by hand."""
    async with database.connection() as connection:
        await connection.execute(statement, *values)


async def add_delivery(database: Database, verdict: str | None, order_id: Any, body: object = None) -> None:
    """Add a delivery of the sandbox."""
    await execute(
        database,
        """
        INSERT INTO webhooks (gateway, event_id, verdict, reason, headers, body, order_id, received_at, judge_at)
        VALUES ('sandbox', $1, $2, 'because', $3, $4, $5, $6, NULL)
        """,
        f"event-{new_id()}",
        verdict,
        orjson.dumps({"webhook-signature": "v1,c2lnbmF0dXJl"}).decode(),
        orjson.dumps(body or {"type": "payment.succeeded"}),
        order_id,
        datetime.now(UTC),
    )


# --- the way in -----------------------------------------------------------------------------------------------------


async def test_a_login_leads_to_the_page_that_was_wanted(browser: Browser) -> None:
    """Who is not in is asked for the token first, and then sees the page; who logs out is out."""
    async with browsing(browser.url) as stranger:
        asked = await stranger.get("/stock?q=APPLE")
        wanted = asked.field("next")
        inside = await stranger.post("/login", {"name": "Bob", "token": "operator-token-12", "next": wanted})
        outside = await stranger.submit(inside, "/logout")
        again = await stranger.get("/stock")

    assert (asked.status, wanted) == (200, "/stock?q=APPLE")
    assert (inside.status, inside.path) == (200, "/stock?q=APPLE")
    assert "Bob" in inside.words
    assert outside.path == "/login"
    assert again.path.startswith("/login?next=")


async def test_a_wrong_token_opens_nothing(browser: Browser) -> None:
    """It answers 401 with the form again, which keeps the name and not the token."""
    async with browsing(browser.url) as stranger:
        refused = await stranger.post("/login", {"name": "Bob", "token": "operator-token-13"})
        after = await stranger.get("/orders")

    assert refused.status == 401
    assert 'value="Bob"' in refused.text
    assert "operator-token-13" not in refused.text
    assert after.path.startswith("/login")


# --- overview -------------------------------------------------------------------------------------------------------


async def test_the_overview_says_what_wants_attention(browser: Browser, world: World) -> None:
    """Orders by status, what waits and what is silent; Kafka is away, and the rest is told all the same."""
    page = await browser.get("/")

    assert page.status == 200
    for status in OrderStatus:
        assert f'href="/orders?status={status}"' in page.text
    assert "attempts to pay that wait for a decision: 1" in page.words
    assert "Is Kafka running?" in page.words
    assert "oldest open order" in page.words


async def test_the_overview_is_sent_again_when_it_has_changed(browser: Browser, world: World) -> None:
    """The stream begins at once, and its parts are the page's own."""
    headers = {"Accept": "text/event-stream"}
    async with browser.session.get(f"{browser.url}/live/overview", headers=headers) as stream:
        lines = [(await stream.content.readline()).decode().rstrip() for _ in range(40)]

    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert "default-src 'none'" in stream.headers["Content-Security-Policy"]
    assert lines[0] == "event: hello"
    assert "event: part" in lines
    assert any("Picture of the flow" in line for line in lines)


# --- orders ---------------------------------------------------------------------------------------------------------


async def test_orders_are_listed_and_found(browser: Browser, world: World) -> None:
    """By status and by customer; an order's id leads to the order; what is nowhere is said to be so."""
    everything = await browser.get("/orders")
    refunded = await browser.get("/orders?status=REFUNDED")
    nobody = await browser.get("/orders?q=customer-2")
    found = await browser.get(f"/orders?q=%20{world['processing']}%20")

    assert all(str(order_id) in everything.text for order_id in world.orders.values())
    assert world["refunded"] in refunded.text
    assert world["processing"] not in refunded.text
    assert "No orders match." in nobody.words
    assert found.path == f"/orders/{world['processing']}"


async def test_an_order_tells_its_story(browser: Browser, world: World) -> None:
    """Where the three stand, why, what was ordered, and what happened."""
    page = await browser.get(f"/orders/{world['processing']}")

    assert page.status == 200
    assert "PROCESSING: it is paid and its goods are sold" in page.words
    assert "CONFIRMED" in page.words
    assert "Apple, red" in page.words
    assert "EUR 5.00" in page.words
    for what in ("placed", "RESERVED", "payment.succeeded"):
        assert what in page.words


async def test_an_order_is_shown_without_what_is_away(browser: Browser, world: World) -> None:
    """Asked for its messages while Kafka is away, the page says so and tells the rest."""
    page = await browser.get(f"/orders/{world['awaiting']}?kafka=1")

    assert page.status == 200
    assert "does not answer" in page.words
    assert "AWAITING_PAYMENT: no payment has been received" in page.words


async def test_lists_are_paged_by_key(browser: Browser, world: World) -> None:
    """The older ones begin where the newer ones ended; each order is listed once."""
    ids = [new_id() for _ in range(120)]
    async with world.order_db.transaction() as tx:
        await tx.executemany(
            """
            INSERT INTO orders (order_id, customer_id, status, total_minor, currency, version, fingerprint, stock,
                                created_at, updated_at)
            VALUES ($1, 'paged', 'REQUESTED', 1, 'EUR', 1, '', 'NONE', now(), now())
            """,
            [(each,) for each in ids],
        )

    seen, path = [], "/orders?q=paged"
    while path:
        page = await browser.get(path)
        seen += [each for each in reversed(ids) if f'href="/orders/{each}"' in page.text]
        following = page.text.partition('rel="next" href="')[2].partition('"')[0]
        path = following.replace("&amp;", "&")

    assert seen == ids[::-1]


# --- stock ----------------------------------------------------------------------------------------------------------


async def test_stock_is_found_by_how_a_sku_begins(browser: Browser, world: World) -> None:
    """Levels, and those that have run out."""
    both = await browser.get("/stock")
    one = await browser.get("/stock?q=APP")
    out = await browser.get("/stock?empty=1")

    assert "APPLE" in both.words
    assert "BREAD" in both.words
    assert "BREAD" not in one.words
    assert "No SKU matches." in out.words


async def test_a_sku_has_its_ledger(browser: Browser, world: World) -> None:
    """Every movement with its order and its cause, the newest first; the level is their sum."""
    page = await browser.get("/stock/APPLE")

    assert "Apple, red" in page.words
    assert "+1,000" in page.words
    assert world["processing"] in page.text
    assert page.words.index("RETURNED") < page.words.index("RECEIVED")


async def test_a_sku_that_nobody_knows_is_not_found(browser: Browser) -> None:
    """Neither the stock nor the catalog: 404, on a page."""
    page = await browser.get("/stock/PEAR")

    assert page.status == 404
    assert "Neither the stock nor the catalog knows PEAR." in page.words


# --- payments -------------------------------------------------------------------------------------------------------


async def test_attempts_are_listed_by_status_and_gateway(browser: Browser, world: World) -> None:
    """An order's id leads to its payment."""
    pending = await browser.get("/payments?status=PENDING&gateway=sandbox")
    stripe = await browser.get("/payments?gateway=stripe")
    found = await browser.get(f"/payments?q={world['processing']}")

    assert world["awaiting"] in pending.text
    assert world["processing"] not in pending.text
    assert "No attempts match." in stripe.words
    assert found.path == f"/payments/{world['processing']}"


async def test_a_payment_has_its_attempts_refunds_and_decisions(browser: Browser, world: World) -> None:
    """What was asked, what came, and what went back."""
    page = await browser.get(f"/payments/{world['partly refunded']}")
    unknown = await browser.get(f"/payments/{new_id()}")

    assert "EUR 5.00" in page.words
    assert "EUR 4.99" in page.words
    assert "operator" in page.words
    assert unknown.status == 404


async def test_the_quarantine_says_what_came_instead(browser: Browser, world: World) -> None:
    """With both decisions to choose from; neither is made by looking at its plan."""
    listed = await browser.get("/payments/quarantine")
    address = listed.text.partition('class="button" href="')[2].partition('"')[0].replace("&amp;", "&")
    plan = await browser.get(address)
    none = await browser.get(address.replace("accept", "keep"))

    assert "EUR 0.01" in listed.words
    assert world["quarantined"] in listed.text
    assert "EUR 0.01 counts as the payment of this order, instead of EUR 5.00" in plan.words
    assert none.status == 422


async def test_refunds_that_are_due_are_listed(browser: Browser, world: World) -> None:
    """Those that the gateways have not made yet, and no others."""
    page = await browser.get("/payments/refunds")

    assert world["refund due"] in page.text
    assert world["partly refunded"] not in page.text


# --- webhooks -------------------------------------------------------------------------------------------------------


async def test_deliveries_are_listed_with_their_verdicts(browser: Browser, world: World) -> None:
    """By verdict, gateway and order."""
    everything = await browser.get("/webhooks")
    unjudged = await browser.get("/webhooks?verdict=unjudged")
    other = await browser.get(f"/webhooks?order_id={world['awaiting']}")
    wrong = await browser.get("/webhooks?verdict=guilty")

    assert all(verdict in everything.words for verdict in ("applied", "duplicate", "unmatched", "unjudged"))
    assert unjudged.text.count('data-label="Verdict"') == 1
    assert "No deliveries match." in other.words
    assert wrong.status == 422


async def test_a_delivery_shows_its_body_and_not_its_signature(browser: Browser) -> None:
    """What was applied is not judged again."""
    page = await browser.get("/webhooks/1")
    unknown = await browser.get("/webhooks/999999")

    assert '"type": "payment.succeeded"' in page.words
    assert "c2lnbmF0dXJl" not in page.text
    assert "its verdict stays: applied" in page.words
    assert "<form" not in page.text.partition("<main")[2]
    assert unknown.status == 404


# --- what is asked for wrongly --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/orders/x", 404),
        ("/orders?before=x", 422),
        ("/stock/APPLE?before=9999999999999999999", 422),
        ("/webhooks?before=-1", 422),
        ("/webhooks?order_id=x", 422),
        ("/payments?q=x", 422),
        ("/orders?q=%00", 400),
        ("/live/replay/x", 404),
        ("/audit/0190f5a0-0000-7000-8000-00000000000a", 404),
    ],
)
async def test_a_wrong_address_gets_a_clear_page(browser: Browser, path: str, status: int) -> None:
    """Never a 5xx, and always a page with a way on."""
    page = await browser.get(path)

    assert page.status == status
    assert "To the overview" in page.words


async def test_pages_that_need_kafka_say_that_it_is_away(browser: Browser) -> None:
    """503, with what does not answer."""
    page = await browser.get("/dead-letters")

    assert page.status == 503
    assert "Kafka" in page.words


async def test_a_database_that_is_away_is_said_to_be_so(world: World, tmp_path: Path) -> None:
    """The console runs without it: its pages say which one is missing, the others go on."""
    dsns = {**world.dsns, "payment": "postgresql://nobody:nothing@127.0.0.1:1/payment"}
    async with console(dsns, tmp_path) as browser:
        orders = await browser.log_in()
        payments = await browser.get("/payments")
        order = await browser.get(f"/orders/{world['processing']}")

    assert (orders.status, payments.status, order.status) == (200, 503, 200)
    assert "payment: the database does not answer" in payments.words
    assert "payment: the database does not answer" in order.words
    assert "Apple, red" in order.words
