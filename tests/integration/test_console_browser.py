"""Does the console work in a real browser: with and without a script, by keys alone, on a phone, under its own policy?"""

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from deploy.local.postgres import EmbeddedPostgres
from tests.audit_building import Saga, World, open_world
from tests.integration.console_harness import TOKEN, console
from tests.integration.test_console_pages import add_delivery, execute

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
Scheme = Literal["light", "dark"]
WIDE, NARROW = (1280, 900), (390, 844)
#: Every page that can be looked at without Kafka.
PAGES = (
    "/",
    "/orders",
    "/orders/{order_id}",
    "/stock",
    "/stock/APPLE",
    "/payments",
    "/payments/{order_id}",
    "/payments/quarantine",
    "/payments/refunds",
    "/webhooks",
    "/webhooks/1",
    "/replay",
    "/audit",
    "/nothing",
)


@pytest.fixture(scope="module")
async def world(postgres: EmbeddedPostgres, templates: Mapping[str, str]) -> AsyncIterator[World]:
    """Three databases with an order of every kind."""
    async with open_world(postgres, templates) as made:
        await execute(
            made.payment_db,
            "UPDATE attempts SET review_at = now(), review_reason = 'amount' WHERE status = 'QUARANTINED'",
        )
        await add_delivery(made.payment_db, "applied", made.orders["processing"], {"text": "a" * 400})
        yield made


@pytest.fixture(scope="module")
async def url(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Where the console is."""
    async with console(world.dsns, tmp_path_factory.mktemp("console")) as opened:
        yield opened.url


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """A real browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--headless", "--disable-background-networking"]
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(
    chromium: Browser,
    url: str,
    *,
    size: tuple[int, int] = WIDE,
    script: bool = True,
    scheme: Scheme = "light",
) -> AsyncIterator[Page]:
    """Log in as a person does, and lend the page; whatever the browser complains of fails the test."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        # That a page is not there is what a test asked for.
        if message.type in {"error", "warning"} and "404" not in message.text:
            complaints.append(message.text)

    context = await chromium.new_context(
        viewport={"width": size[0], "height": size[1]}, java_script_enabled=script, color_scheme=scheme
    )
    page = await context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(f"{url}/login?next=/orders")
    await page.get_by_label("Your name").fill("Ada")
    await page.get_by_label("Operators' token, or your API key").fill(TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url(f"{url}/orders")
    yield page
    await context.close()
    assert complaints == []


async def add_order(world: World) -> None:
    """Have one more order expire."""
    await world.add("new", Saga(status="EXPIRED"))


async def test_the_overview_follows_by_itself(chromium: Browser, url: str, world: World) -> None:
    """A number that changes in the database changes on the page, which is not loaded again; paused, it stands still."""
    async with opened(chromium, url) as page:
        await page.goto(url)
        await page.evaluate("window.loadedOnce = true")
        row = page.get_by_role("row").filter(has_text="EXPIRED")
        before = int((await row.get_by_role("cell").first.inner_text()).strip())

        await add_order(world)

        await expect(row.get_by_role("cell").first).to_have_text(str(before + 1), timeout=30_000)
        assert await page.evaluate("window.loadedOnce")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")


async def test_who_reads_with_the_keyboard_is_not_disturbed(chromium: Browser, url: str) -> None:
    """A link in a part that is renewed keeps the focus."""
    async with opened(chromium, url) as page:
        await page.goto(url)
        link = page.locator('a[href="/orders?status=PROCESSING"]')
        await link.focus()
        await page.evaluate("document.activeElement.dataset.old = 'yes'")

        await expect(page.locator("a[data-old]")).to_have_count(0, timeout=30_000)

        assert (
            await page.evaluate("document.activeElement.getAttribute('href')") == "/orders?status=PROCESSING"
        )


async def test_everything_is_reached_by_keys(chromium: Browser, url: str, world: World) -> None:
    """The first stop skips to the content; `/` searches, `g` and a letter goes to a page, but not while one types."""
    async with opened(chromium, url) as page:
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"

        await page.keyboard.press("/")
        await page.keyboard.type("gp/")
        assert await page.get_by_label("Order or customer").input_value() == "gp/"
        assert page.url == f"{url}/orders#main"
        await page.get_by_label("Order or customer").fill(world["processing"])
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{url}/orders/{world['processing']}")

        await page.keyboard.press("g")
        await page.keyboard.press("p")
        await page.wait_for_url(f"{url}/payments")


async def test_money_is_decided_about_without_a_script(chromium: Browser, url: str) -> None:
    """From the quarantine to the plan and back, by plain links and forms."""
    async with opened(chromium, url, script=False) as page:
        await page.get_by_role("link", name="Payments").click()
        await page.get_by_role("link", name="Quarantine").click()
        await page.get_by_role("link", name="Give the money back").first.click()
        await expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
        await expect(page.get_by_label("Why")).to_have_attribute("required", "")
        await page.get_by_role("link", name="Leave it").click()
        await expect(page.get_by_text("Money that is not as it should be")).to_be_visible()
        assert not await page.get_by_text("search").is_visible()
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url(f"{url}/login")


async def test_an_audit_is_watched_until_it_is_done(chromium: Browser, url: str) -> None:
    """Begun by one click, its page shows the result by itself."""
    async with opened(chromium, url) as page:
        await page.goto(f"{url}/audit")
        await page.get_by_role("button", name="Audit now").click()
        await expect(page.get_by_text("Looked at:")).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
async def test_every_page_can_be_read(
    chromium: Browser, url: str, world: World, size: tuple[int, int], scheme: Scheme
) -> None:
    """On a laptop and on a phone, light and dark: nothing is wider than the window, all text has a contrast of 4.5 to 1 or more, every field a label, every picture a name, every page one heading and a title, and the policy is never broken."""
    async with opened(chromium, url, size=size, scheme=scheme) as page:
        found = []
        for path in PAGES:
            await page.goto(url + path.format(order_id=world["quarantined"]))
            found += [f"{path}: {fault}" for fault in await page.evaluate(FAULTS)]

    assert found == []


#: What is wrong with a page, as far as a program can see it: WCAG 2.2, 1.4.3, 1.4.10, 1.3.1, 4.1.2.
FAULTS = """() => {
  const faults = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) faults.push(`${root.scrollWidth - root.clientWidth} pixels too wide`);
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one heading");
  if (!document.title.endsWith(" · Holdfast") || document.title.startsWith(" ")) faults.push("no title");
  if (!root.lang) faults.push("no language");
  for (const field of document.querySelectorAll("input:not([type=hidden]), select")) {
    if (!field.labels.length || !field.labels[0].innerText.trim()) faults.push(`no label: ${field.name}`);
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption) faults.push("a table without a caption");
  }
  for (const thing of document.querySelectorAll("a, button")) {
    if (!(thing.textContent.trim() || thing.getAttribute("aria-label"))) faults.push(`no name: ${thing.outerHTML}`);
  }
  for (const picture of document.querySelectorAll("img, svg[role]")) {
    if (!picture.hasAttribute("alt") && !picture.getAttribute("aria-label")) faults.push("a picture without a name");
  }
  const parse = (text) => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    if (text.startsWith("color(")) return [numbers[0] * 255, numbers[1] * 255, numbers[2] * 255, numbers[3] ?? 1];
    return [numbers[0], numbers[1], numbers[2], numbers[3] ?? 1];
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const seen = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest("svg, noscript, option, .hidden, .skip, datalist")) continue;
    if (!element.getClientRects().length || seen.has(element)) continue;
    seen.add(element);
    const below = ground(element);
    const [a, b] = [light(over(parse(getComputedStyle(element).color), below)), light(below)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(1)}: ${element.className} ${element.textContent.slice(0, 40)}`);
  }
  return faults;
}"""
