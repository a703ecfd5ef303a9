"""Does anything that Holdfast writes down or shows repeat the number of a card, or a secret of the system?

The rule stands in `shared/masking.py`. Planted are a number of its own for every way in, so that one that is found says how it
came there, and secrets that nothing else contains; then every log, error, metric, added header and command is searched.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import orjson
import pytest
import standardwebhooks

from deploy.local.doubles.midtrans import MidtransDouble
from deploy.local.doubles.midtrans import Misbehaviour as MidtransMisbehaviour
from deploy.local.doubles.stripe import Misbehaviour, StripeDouble
from shared.commands import OutgoingCommand, command, send
from shared.events import CancelOrder, OrderedLine, PlaceOrder
from shared.ids import new_id
from shared.kafka import measure_topics, read_spans
from shared.masking import is_card_number
from tests.end_to_end.driver import FINAL, Driver, running
from tests.end_to_end.test_commands import holdfast
from tests.integration.dead_letters import say
from tests.midtrans_building import signed as signed_by_midtrans
from tests.stripe_building import signed as signed_by_stripe
from tests.waiting import eventually

SECRETS = {
    "the storefront's token": "storefront-token-that-is-planted-51c0",
    "the operator's token": "operator-token-that-is-planted-62d1",
    "the sandbox's secret": "whsec_" + base64.b64encode(b"planted-sandbox-secret-73e2").decode(),
    "Stripe's key": "sk_test_planted84f3planted84f3planted84f3",
    "Stripe's secret": "whsec_planted95a4planted95a4planted95a4",
    "Midtrans's key": "SB-Mid-server-planted06b5planted06b5",
}
STOREFRONT = "Bearer " + SECRETS["the storefront's token"]
OPERATOR = "Bearer " + SECRETS["the operator's token"]
STRIPE_KEY, MIDTRANS_KEY = SECRETS["Stripe's key"], SECRETS["Midtrans's key"]
DEAD_LETTERS = "order.commands.order-service.dlq"


@dataclass
class Cards:
    """Numbers that pass for a card's, each known by the place where it was planted."""

    planted: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(7_310_550_120_31))

    def new(self, where: str, *, separator: str = "") -> str:
        """Return a number that was never used before, in groups of four if there is a separator."""
        stem = f"4{next(self._numbers):014d}"
        number = next(f"{stem}{last}" for last in range(10) if is_card_number(f"{stem}{last}"))
        self.planted[where] = number
        return separator.join(number[start : start + 4] for start in range(0, 16, 4))


@dataclass
class Site:
    """A running system with planted secrets, doubles beside it, and everything that it was heard to say."""

    system: Driver
    stripe: StripeDouble
    midtrans: MidtransDouble
    cards: Cards = field(default_factory=Cards)
    said: dict[str, str] = field(default_factory=dict)

    def secrets(self) -> dict[str, str]:
        """Return what was planted, and what the system has made for itself."""
        passwords: dict[str, str] = {}
        for service, dsn in self.system.ready["postgres"].items():
            password = urlsplit(dsn).password or ""
            passwords |= {f"the password of {service}": unquote(password)}
        return {**SECRETS, **passwords}

    async def ask(self, method: str, url: str, *, body: bytes = b"", **headers: str) -> int:
        """Send anything at all, remember the whole answer unless it gives the caller's own back, and return its status."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.system.session.request(method, url, data=body, headers=sent) as answer:
            heard = (await answer.read()).decode(errors="replace")
            if answer.status >= 400 or method == "GET":
                name = f"{len(self.said)} {method} {urlsplit(url).path[:40]}"
                self.said[name] = f"{answer.headers} {heard}"
            return answer.status


@pytest.fixture
async def site(parts_folder: Path) -> AsyncIterator[Site]:
    """A system of its own, since what is planted is given to it at its start."""
    async with AsyncExitStack() as stack:
        stripe = await stack.enter_async_context(
            StripeDouble(SECRETS["Stripe's key"], [SECRETS["Stripe's secret"]])
        )
        midtrans = await stack.enter_async_context(MidtransDouble([SECRETS["Midtrans's key"]]))
        settings = {
            "HOLDFAST_LOG_LEVEL": "DEBUG",
            "HOLDFAST_GATEWAYS": "sandbox,stripe,midtrans",
            "HOLDFAST_STOREFRONT_TOKEN": SECRETS["the storefront's token"],
            "HOLDFAST_OPERATOR_TOKEN": SECRETS["the operator's token"],
            "HOLDFAST_SANDBOX_WEBHOOK_SECRETS": SECRETS["the sandbox's secret"],
            "HOLDFAST_STRIPE_SECRET_KEY": SECRETS["Stripe's key"],
            "HOLDFAST_STRIPE_WEBHOOK_SECRETS": SECRETS["Stripe's secret"],
            "HOLDFAST_STRIPE_BASE_URL": stripe.url,
            "HOLDFAST_STRIPE_RETURN_URL": "https://shop.example/thanks",
            "HOLDFAST_MIDTRANS_SERVER_KEY": SECRETS["Midtrans's key"],
            "HOLDFAST_MIDTRANS_BASE_URL": midtrans.url,
            "HOLDFAST_MIDTRANS_SNAP_BASE_URL": midtrans.url,
        }
        driver = await stack.enter_async_context(running(parts_folder / "secrets", **settings))
        yield Site(driver, stripe, midtrans)


async def test_planted_secrets_and_card_numbers_are_found_nowhere(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes in by HTTP, webhooks, Kafka, gateways and the command line, no output repeats it."""
    monkeypatch.setenv("COLUMNS", "1000")
    order_id = await place_and_cancel(site)
    await refuse_requests(site)
    await send_nonsense(site)
    await deliver_webhooks(site, order_id)
    await be_refused_by_gateways(site)
    letters = await publish_what_is_refused(site)

    await collect_http(site)
    await collect_commands(site, order_id)
    await site.system.up.stop()
    collect_logs(site)
    site.said["added headers"] = repr(letters)

    assert len(site.cards.planted) > 25
    found = [*leaks_of_cards(site), *leaks_of_secrets(site)]
    assert not found, "\n".join(found)


def leaks_of_cards(site: Site) -> Iterator[str]:
    """Yield where a card's number stands, in whatever groups."""
    for where, said in site.said.items():
        digits = re.sub(r"[\s-]", "", said)
        for planted_in, number in site.cards.planted.items():
            if number in digits:
                place = digits.index(number)
                yield f"{where}: the card in {planted_in}: …{digits[max(0, place - 150) : place + 20]}…"


def leaks_of_secrets(site: Site) -> Iterator[str]:
    """Yield where a secret stands."""
    for where, said in site.said.items():
        for name, secret in site.secrets().items():
            bare = secret.removeprefix("whsec_")
            if bare in said:
                place = said.index(bare)
                yield f"{where}: {name}: …{said[max(0, place - 150) : place]}…"


# --- what goes in ---------------------------------------------------------------------------------------------------


async def place_and_cancel(site: Site) -> UUID:
    """An order whose customer, cancellation and refund speak of cards; it is paid, so that money goes back."""
    system, cards = site.system, site.cards
    sku = await system.stock(5)
    order_id = await system.place(sku)
    await system.pay(order_id)
    await system.until(order_id, "PROCESSING")
    await site.ask(
        "POST",
        f"{system.ready['payment_url']}/payments/{order_id}/refunds",
        body=orjson.dumps({"amount_minor": 1, "reason": f"to card {cards.new('a reason of a refund')}"}),
        Authorization=OPERATOR,
        Idempotency_Key="refund-1",
    )
    reason = f"charge {cards.new('a reason of a command', separator=' ')} instead"
    await send(system.kafka, [command(CancelOrder(order_id=order_id, reason=reason))])
    await system.until(order_id, *FINAL - {"PROCESSING"})
    return order_id


async def refuse_requests(site: Site) -> None:
    """Requests that are refused, with a card's number in every part of them."""
    ready, cards = site.system.ready, site.cards
    orders, token = f"{ready['order_url']}/orders", STOREFRONT
    line = {"sku": "tea", "quantity": 1}
    bodies: dict[str, Any] = {
        "the name of a field": {cards.new("the name of a field"): 1, "lines": [line]},
        "a number": {"customer_id": int(cards.new("a number")), "currency": "EUR", "lines": [line]},
        "a currency": {"customer_id": "c", "currency": cards.new("a currency"), "lines": [line]},
        "a SKU": {
            "customer_id": "c",
            "currency": "EUR",
            "lines": [{"sku": cards.new("a SKU"), "quantity": 1}],
        },
        "an order id": {
            "order_id": cards.new("an order id"),
            "customer_id": "c",
            "currency": "EUR",
            "lines": [line],
        },
    }
    for body in bodies.values():
        status = await site.ask(
            "POST", orders, body=orjson.dumps(body), Authorization=token, Idempotency_Key=str(new_id())
        )
        assert 400 <= status < 500
    broken = f'{{"card": "{cards.new("bad JSON")}"'.encode()
    assert (
        await site.ask("POST", orders, body=broken, Authorization=token, Idempotency_Key=str(new_id())) == 400
    )
    key = cards.new("a key", separator="-")
    await site.ask("POST", orders, body=b"{}", Authorization=token, Idempotency_Key=key)
    unknown = f"{orders}/{new_id()}"
    assert await site.ask("GET", unknown, Authorization=f"Bearer {cards.new('a token')}") == 401
    assert await site.ask("GET", unknown, Cookie=f"card={cards.new('a cookie')}") == 401
    request_id = cards.new("an id of a request")
    assert await site.ask("GET", unknown, Authorization=token, X_Request_Id=request_id) == 404
    for path in (
        f"/orders/{cards.new('a path')}",
        f"/{cards.new('an unknown path')}",
        f"/orders?{cards.new('the name of a parameter')}=1",
        f"/orders?limit={cards.new('a parameter')}",
        f"/products/{cards.new('the path of a product')}%20",
    ):
        await site.ask("GET", f"{ready['order_url']}{path}", Authorization=token)


async def send_nonsense(site: Site) -> None:
    """Bytes that are no HTTP, or break off."""
    for url in (site.system.ready["order_url"], site.system.ready["payment_url"]):
        host = urlsplit(url)
        for text in (
            f"GET / HTTP/1.1\r\nHost: x\r\nX Card {site.cards.new(f'a bad header {url}')}: 1\r\n\r\n",
            f"{site.cards.new(f'a bad method {url}')} / HTTP/9.9\r\n\r\n",
            f"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: {site.cards.new(f'a length {url}')}0\r\n\r\n",
            f"POST /webhooks/sandbox HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{site.cards.new(f'a chunk {url}')}z\r\n",
        ):
            reader, writer = await asyncio.open_connection(host.hostname, host.port)
            writer.write(text.encode())
            writer.write_eof()
            async with asyncio.timeout(30):
                site.said[f"nonsense {len(site.said)}"] = (await reader.read()).decode(errors="replace")
            writer.close()


async def deliver_webhooks(site: Site, order_id: UUID) -> None:
    """Deliveries of all three gateways, signed and not, that carry cards wherever a gateway could put one."""
    url, cards = f"{site.system.ready['payment_url']}/webhooks", site.cards
    signer = standardwebhooks.Webhook(SECRETS["the sandbox's secret"])
    now = datetime.now(UTC)
    attempt = (await site.system.payment(order_id))["attempts"][0]
    data = {
        "payment_id": attempt["gateway_transaction_id"],
        "reference": attempt["attempt_id"],
        "amount_minor": attempt["amount_minor"],
        "currency": attempt["currency"],
        "occurred_at": now.isoformat(),
        "card": {"number": cards.new("a sandbox webhook"), "cvc": "737", "holder": "J. Rosen"},
        "note": f"card {cards.new('a note of a sandbox webhook', separator='-')}",
    }
    kinds = ("payment.succeeded", f"payment.{cards.new('a type of a sandbox webhook')}")
    bodies = [orjson.dumps({"type": kind, "data": data}).decode() for kind in kinds]
    bodies.append(f"not JSON: {cards.new('a signed webhook that is no JSON')}")
    for body in bodies:
        identity = f"msg_{cards.new('the id of a webhook')}"
        await site.ask(
            "POST",
            f"{url}/sandbox",
            body=body.encode(),
            webhook_id=identity,
            webhook_timestamp=str(int(now.timestamp())),
            webhook_signature=signer.sign(identity, now, body),
        )
    unsigned = orjson.dumps({"card": cards.new("an unsigned webhook")})
    for gateway in ("sandbox", "stripe", "midtrans", cards.new("the name of a gateway")):
        assert await site.ask("POST", f"{url}/{gateway}", body=unsigned) in {400, 404}

    for kind in ("payment_intent.payment_failed", f"card.{cards.new('a type of a Stripe event')}"):
        event = orjson.dumps(
            {
                "id": f"evt_{new_id().hex}",
                "type": kind,
                "created": int(now.timestamp()),
                "livemode": False,
                "data": {
                    "object": {
                        "id": "pi_1",
                        "metadata": {"holdfast_attempt_id": attempt["attempt_id"]},
                        "last_payment_error": {
                            "decline_code": cards.new(f"a decline code of {kind[:4]}"),
                            "message": f"{cards.new(f'a message of {kind[:4]}', separator=' ')} declined",
                        },
                    }
                },
            }
        )
        await site.ask(
            "POST", f"{url}/stripe", body=event, **signed_by_stripe(event, secret=SECRETS["Stripe's secret"])
        )
    for status in ("capture", cards.new("a status of Midtrans")):
        notification = signed_by_midtrans(
            {
                "order_id": attempt["attempt_id"],
                "status_code": "200",
                "gross_amount": "10000.00",
                "transaction_status": status,
                "transaction_id": cards.new(f"a transaction of Midtrans {status[:3]}"),
                "transaction_time": "2026-03-01 18:27:19",
                "payment_type": "credit_card",
                "card_token": cards.new(f"a card of Midtrans {status[:3]}"),
            },
            SECRETS["Midtrans's key"],
        )
        await site.ask("POST", f"{url}/midtrans", body=notification)


async def be_refused_by_gateways(site: Site) -> None:
    """Gateways that repeat our own keys, and a card, in what they refuse with."""
    system, cards = site.system, site.cards
    await refused_by(
        site,
        "stripe",
        await system.stock(1),
        "EUR",
        lambda: site.stripe.misbehave(
            Misbehaviour(
                400,
                orjson.dumps(
                    {
                        "error": {
                            "type": "invalid_request_error",
                            "message": f"{STRIPE_KEY} may not charge {cards.new('a refusal of Stripe')}",
                        }
                    }
                ),
            ),
            times=50,
        ),
    )
    sku = f"sku-{new_id().hex}"
    product = {"name": sku, "price_minor": 1_000_000, "currency": "IDR"}
    await system.call("PUT", f"{system.ready['order_url']}/products/{sku}", json=product)
    await system.receive(sku, 1)
    await refused_by(
        site,
        "midtrans",
        sku,
        "IDR",
        lambda: site.midtrans.misbehave(
            MidtransMisbehaviour(
                400,
                orjson.dumps(
                    {
                        "error_messages": [
                            f"{MIDTRANS_KEY} may not charge {cards.new('a refusal of Midtrans')}"
                        ]
                    }
                ),
            ),
            times=50,
        ),
    )


async def refused_by(site: Site, gateway: str, sku: str, currency: str, misbehave: Any) -> None:
    """Place an order, and have its attempt to pay refused."""
    system = site.system
    placed = PlaceOrder(
        order_id=new_id(),
        customer_id="customer-1",
        currency=currency,
        lines=(OrderedLine(sku=sku, quantity=1),),
    )
    await send(system.kafka, [command(placed)])
    await system.until(placed.order_id, "AWAITING_PAYMENT")
    misbehave()
    url = f"{system.ready['payment_url']}/payments/{placed.order_id}/attempts"

    async def asked() -> bool:
        status = await site.ask(
            "POST",
            url,
            body=orjson.dumps({"gateway": gateway}),
            Authorization=STOREFRONT,
            Idempotency_Key=f"{gateway}-1",
        )
        return status != 404

    await eventually(asked, what=f"an attempt at {gateway}")
    await site.ask(
        "GET",
        f"{system.ready['payment_url']}/payments/{placed.order_id}",
        Authorization=OPERATOR,
    )


async def publish_what_is_refused(site: Site) -> list[tuple[str, bytes | None]]:
    """Publish commands that become dead letters; return the headers that were added to them, of all of them."""
    cards, kafka = site.cards, site.system.kafka
    good = command(CancelOrder(order_id=new_id(), reason=f"card {cards.new('a reason of a dead letter')}"))
    names = dict(good.headers)
    wrong = [
        good,
        OutgoingCommand(
            good.key, f'{{"card": "{cards.new("a value that is no JSON")}'.encode(), good.headers
        ),
        OutgoingCommand(
            good.key, good.payload, list((names | {"ce_type": cards.new("ce_type").encode()}).items())
        ),
        OutgoingCommand(
            good.key, good.payload, list((names | {"ce_id": cards.new("ce_id").encode()}).items())
        ),
        OutgoingCommand(cards.new("a key of a message").encode(), good.payload, good.headers),
        OutgoingCommand(good.key, good.payload, [("card", cards.new("a header of its own").encode())]),
        OutgoingCommand(
            good.key,
            orjson.dumps({"type": cards.new("a structured type"), "id": str(new_id()), "data": {}}),
            [("content-type", b"application/cloudevents+json")],
        ),
        OutgoingCommand(
            good.key,
            orjson.dumps({"order_id": cards.new("an order id of a command")}),
            good.headers,
        ),
    ]
    # Each must be news to the inbox.
    for position, item in enumerate(wrong):
        wrong[position] = OutgoingCommand(
            item.key,
            item.payload,
            [
                (name, str(new_id()).encode() if name == "ce_id" and len(value or b"") == 36 else value)
                for name, value in item.headers
            ],
        )
    await send(kafka, wrong)

    async def buried() -> list[tuple[str, bytes | None]] | None:
        spans = await measure_topics(kafka, [DEAD_LETTERS])
        found = [record async for record in read_spans(kafka, spans)]
        if len(found) < len(wrong):
            return None
        return [header for record in found for header in record.headers if header[0].startswith("dlq_")]

    letters = await eventually(buried, what="all dead letters", timeout_seconds=30)
    assert letters is not None
    return letters


# --- what comes out -------------------------------------------------------------------------------------------------


async def collect_http(site: Site) -> None:
    """What every service says of itself to anybody."""
    for service in ("order", "inventory", "payment"):
        for path in ("/metrics", "/readyz", "/livez"):
            assert await site.ask("GET", site.system.ready[f"{service}_url"] + path) == 200


async def collect_commands(site: Site, order_id: UUID) -> None:
    """Every command that shows something, as a table and as JSON, and one that fails."""
    place = ("--data-dir", site.system.ready["data_dir"])
    spans = await measure_topics(site.system.kafka, [DEAD_LETTERS])
    partitions = [(number, span) for number, span in spans[DEAD_LETTERS].items() if span.begin < span.end]
    commands: list[tuple[object, ...]] = [
        ("timeline", order_id),
        ("webhooks", "list"),
        ("dlq", "list"),
        ("reconcile",),
        ("audit",),
        ("lag",),
        ("topics",),
        ("replay", "--topic", "order.events"),
    ]
    commands += [("webhooks", "show", number) for number in range(1, 10)]
    for partition, span in partitions:
        commands += [
            ("dlq", "show", DEAD_LETTERS, partition, offset) for offset in range(span.begin, span.end)
        ]
    for arguments in commands:
        for form in ((), ("--json",)):
            name = " ".join(map(str, (*arguments, *form)))
            _, site.said[name] = await say(*arguments, *form, *place)
    bad = orjson.dumps({"type": site.cards.new("a type in a file"), "data": {}}) + b"\n"
    bad += f'{{"type": "CancelOrder.v1", "data": {{"order_id": "{site.cards.new("a field in a file")}"}}}}'.encode()
    _, out, error = await holdfast("send", "-", *place, given=bad)
    site.said["send"] = out + error


def collect_logs(site: Site) -> None:
    """Whatever the system wrote to files while it ran: its own log, and that of each part."""
    files = [site.system.up.log_file, *(Path(site.system.ready["data_dir"]) / "logs").rglob("*")]
    for file in files:
        site.said[file.name] = file.read_text(errors="replace")
    assert "payment_service.log" in site.said
