"""Does the sandbox gateway's pay page let a person pay, decline and walk away, without any script?"""

import shutil
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import async_playwright

from deploy.local.sandbox.pay_page import money
from tests.integration.sandbox_harness import Client, receiving, sandbox

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A sandbox with its receiver."""
    async with receiving() as receiver, sandbox(tmp_path, receiver) as client:
        yield client


async def _click(client: Client, payment: dict[str, Any], choice: str) -> aiohttp.ClientResponse:
    return await client.session.post(payment["payment_url"], data={"choice": choice}, allow_redirects=False)


async def _page(client: Client, payment: dict[str, Any]) -> str:
    async with client.session.get(payment["payment_url"]) as response:
        assert response.status == HTTPStatus.OK
        return await response.text()


async def test_the_page_offers_three_choices_and_no_script(client: Client) -> None:
    """The page of an open payment shows the amount and three buttons, and forbids every script."""
    payment = await client.create(expires_at="2099-01-31T10:00:00+01:00")

    async with client.session.get(payment["payment_url"]) as response:
        page = await response.text()

    assert page.count("<button") == 3
    assert "EUR 12.50" in page
    assert "31 January 2099, 09:00 UTC" in page
    assert "<script" not in page
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(("choice", "told"), [("pay", "succeeded"), ("decline", "failed")])
async def test_a_click_settles_once(client: Client, choice: str, told: str) -> None:
    """A double click on Pay or Decline sends one webhook, and both clicks lead back to the shop."""
    payment = await client.create(return_url="https://shop.example/thanks?order=1")

    clicks = [await _click(client, payment, choice) for _ in range(2)]

    await client.receiver.received(1)
    await client.everything_delivered()
    assert [delivery["type"] for delivery in client.receiver.deliveries] == [f"payment.{told}"]
    assert [(click.status, click.headers["Location"]) for click in clicks] == [
        (303, "https://shop.example/thanks?order=1")
    ] * 2
    assert "<button" not in await _page(client, payment)


async def test_walking_away_tells_nobody(client: Client) -> None:
    """Walking away leaves the payment open, owes no webhook, and without a shop's address shows the page again."""
    payment = await client.create()

    click = await _click(client, payment, "leave")

    assert (click.status, click.headers["Location"]) == (303, f"/pay/{payment['payment_id']}?left")
    assert (await client.control())["deliveries_pending"] == 0
    assert (await client.get(payment))["status"] == "pending"
    assert client.receiver.deliveries == []


async def test_a_late_click_settles_nothing(client: Client) -> None:
    """Past `expires_at` the page says so, and a click on a page opened earlier does nothing."""
    payment = await client.create(expires_at="2020-01-01T00:00:00Z")

    await _click(client, payment, "pay")

    page = await _page(client, payment)
    assert "Expired" in page
    assert "<button" not in page
    assert (await client.get(payment))["status"] == "pending"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"choice=steal", "application/x-www-form-urlencoded"),
        (b"\xff%ff", "application/x-www-form-urlencoded; charset=nonsense"),
        (b"--", "multipart/form-data"),
        (b"", "text/plain"),
    ],
)
async def test_a_form_that_is_none_is_refused(client: Client, body: bytes, kind: str) -> None:
    """Whatever is posted that is not one of the three choices answers 422 and settles nothing."""
    payment = await client.create()

    path = f"/pay/{payment['payment_id']}"
    status, _ = await client.call("POST", path, body, **{"Content-Type": kind})

    assert status == 422
    assert (await client.get(payment))["status"] == "pending"


async def test_the_page_of_an_unknown_payment_is_for_people(client: Client) -> None:
    """An address that leads nowhere answers 404 with a page, not with JSON."""
    async with client.session.get(f"{client.url}/pay/<b>") as response:
        page = await response.text()

    assert response.status == HTTPStatus.NOT_FOUND
    assert "There is no such payment" in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (5, "EUR", "EUR 0.05"),
        (123456789, "USD", "USD 1,234,567.89"),
        (1234567, "JPY", "JPY 1,234,567"),
        (1005, "KWD", "KWD 1.005"),
    ],
)
def test_an_amount_has_the_digits_of_its_currency(amount_minor: int, currency: str, text: str) -> None:
    """Minor units are shown as ISO 4217 divides the currency, in integers all the way."""
    assert money(amount_minor, currency) == text


@pytest.mark.browser
@pytest.mark.parametrize(("button", "told"), [("Pay", "payment.succeeded"), ("Decline", "payment.failed")])
async def test_a_person_comes_back_to_the_shop(client: Client, button: str, told: str) -> None:
    """In a browser without JavaScript a click settles the payment and leads to the shop, on another origin."""
    shop = web.AppRunner(_shop())
    await shop.setup()
    await web.TCPSite(shop, "127.0.0.1", 0).start()
    shop_url = f"http://127.0.0.1:{shop.addresses[0][1]}/thanks"
    payment = await client.create(return_url=shop_url)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = await browser.new_page(java_script_enabled=False)
        await page.goto(payment["payment_url"])
        await page.get_by_role("button", name=button, exact=True).click()
        await page.wait_for_url(shop_url)
        await browser.close()
    await shop.cleanup()

    (delivery,) = await client.receiver.received(1)
    assert delivery["type"] == told


def _shop() -> web.Application:
    async def thanks(_request: web.Request) -> web.Response:
        return web.Response(text="Thank you.")

    app = web.Application()
    app.router.add_get("/thanks", thanks)
    return app
