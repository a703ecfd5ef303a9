"""Who calls in the tests of access, and what is there for them to find?"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import orjson
from joserfc.jwk import ECKey

from services.inventory_service import handlers as inventory_handlers
from services.payment_service import handlers as payment_handlers
from services.payment_service.handlers import Policy
from shared.access import NewKey, Scope, new_key
from shared.events import OrderRequested, OrderStatus, PricedLine
from shared.ids import new_id
from shared.runtime import Service
from tests.feeding import feed, message
from tests.integration.payment_harness import fake_gateway
from tests.issuer_building import AUDIENCE, ISSUER, LocalIssuer, claims_of, ec_key, local_issuer, sign
from tests.payment_building import awaiting_payment
from tests.services import OPERATOR, STOREFRONT, started_services

OWNER, OTHER = "c-owner", "c-other"
SKU, CART = "TEA", "cart-1"
SIGNING, FOREIGN = ec_key("key-1"), ec_key("key-1")


@dataclass(frozen=True, slots=True)
class Role:
    """Somebody who calls: with which token, and who that is; without a scope nobody that is known."""

    token: str | None
    scope: Scope | None = None
    customer_id: str | None = None
    is_known: bool = True


def jwt_of(subject: str, scope: str | None = "holdfast:customer", key: ECKey = SIGNING, **claims: Any) -> str:
    """Return a token of the issuer."""
    return sign(claims_of(subject, scope, **claims), key)


@dataclass(frozen=True, slots=True)
class Keys:
    """The API keys that there are."""

    storefront: NewKey = field(default_factory=lambda: new_key("web-shop", Scope.STOREFRONT))
    operator: NewKey = field(default_factory=lambda: new_key("alice", Scope.OPERATOR))
    owner: NewKey = field(default_factory=lambda: new_key("phone", Scope.CUSTOMER, customer_id=OWNER))
    other: NewKey = field(default_factory=lambda: new_key("tablet", Scope.CUSTOMER, customer_id=OTHER))
    over: NewKey = field(
        default_factory=lambda: new_key(
            "old-shop", Scope.OPERATOR, expires_at=datetime.now(UTC) - timedelta(hours=1)
        )
    )

    def write(self, path: Path) -> None:
        """Write the file."""
        lines = (self.storefront, self.operator, self.owner, self.other, self.over)
        path.write_text("\n".join(key.text() for key in lines))


def roles(keys: Keys) -> dict[str, Role]:
    """Return everybody who calls."""
    past, unsigned = int(time.time()) - 3_600, jwt_of(OWNER).rsplit(".", 1)[0] + "."
    return {
        "nobody": Role(None, is_known=False),
        "a wrong token": Role("no-such-token-at-all", is_known=False),
        "an unknown key": Role(new_key("web-shop", Scope.OPERATOR).key, is_known=False),
        "a key that is over": Role(keys.over.key, is_known=False),
        "a JWT that is over": Role(jwt_of(OWNER, exp=past), is_known=False),
        "a JWT for another audience": Role(jwt_of(OWNER, aud="another"), is_known=False),
        "a JWT of another issuer": Role(jwt_of(OWNER, iss="https://evil.example/"), is_known=False),
        "a JWT signed by another": Role(jwt_of(OWNER, "holdfast:operator", FOREIGN), is_known=False),
        "a JWT signed by nobody": Role(unsigned, is_known=False),
        "a JWT without a scope": Role(jwt_of(OWNER, "openid")),
        "the storefront's token": Role(STOREFRONT, Scope.STOREFRONT),
        "a storefront's key": Role(keys.storefront.key, Scope.STOREFRONT),
        "a storefront's JWT": Role(jwt_of("shop", "holdfast:storefront"), Scope.STOREFRONT),
        "the operators' token": Role(OPERATOR, Scope.OPERATOR),
        "an operator's key": Role(keys.operator.key, Scope.OPERATOR),
        "an operator's JWT": Role(jwt_of("bob", "holdfast:operator"), Scope.OPERATOR),
        "the owner's JWT": Role(jwt_of(OWNER), Scope.CUSTOMER, OWNER),
        "the owner's key": Role(keys.owner.key, Scope.CUSTOMER, OWNER),
        "another customer's JWT": Role(jwt_of(OTHER), Scope.CUSTOMER, OTHER),
        "another customer's key": Role(keys.other.key, Scope.CUSTOMER, OTHER),
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON of the answer."""
        return orjson.loads(self.raw)


@dataclass(frozen=True, slots=True)
class Town:
    """The three services at work, who may call them, and one customer's order, cart, reservation and payment."""

    services: Mapping[str, Service[Any]]
    session: aiohttp.ClientSession
    issuer: LocalIssuer
    keys: Keys
    keys_path: Path
    order_id: str

    def url(self, service: str, path: str, *, at_operators: bool = False) -> str:
        """Return an address, with the names of what is there."""
        running = self.services[service]
        port = running.operator_http_port if at_operators else running.http_port
        return f"http://127.0.0.1:{port}{path.format_map(self.names)}"

    @property
    def names(self) -> dict[str, str]:
        """Values for the names in paths."""
        known = {"order_id": self.order_id, "sku": SKU, "cart_id": CART, "gateway": "sandbox"}
        return {**known, "attempt_id": "01900000-0000-7000-8000-000000000001"}

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = STOREFRONT,
        headers: Mapping[str, str] | None = None,
        at_operators: bool = False,
    ) -> Answer:
        """Send a request."""
        authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        async with self.session.request(
            method,
            self.url(service, path, at_operators=at_operators),
            data=data,
            headers={**authorization, **(headers or {})},
        ) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def place(self, token: str, customer_id: str, **fields: Any) -> Answer:
        """Place an order of one unit, under a new key."""
        body = {
            "customer_id": customer_id,
            "currency": "EUR",
            "lines": [{"sku": SKU, "quantity": 1}],
            **fields,
        }
        return await self.call(
            "order", "POST", "/orders", body, token=token, headers={"Idempotency-Key": str(new_id())}
        )

    async def contents(self) -> dict[str, dict[str, str]]:
        """Return a digest of every table of every service."""
        return {name: await _contents(service) for name, service in self.services.items()}


async def _contents(service: Service[Any]) -> dict[str, str]:
    async with service.database.connection() as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {
            table: await connection.fetchval(
                # The name of a table is no parameter; it comes from the catalog of Postgres.
                f"SELECT md5(coalesce(string_agg(row::text, '|' ORDER BY row::text), '')) FROM {table} AS row"  # noqa: S608
            )
            for (table,) in tables
        }


@asynccontextmanager
async def a_town(dsns: Mapping[str, str], folder: Path, **given: Any) -> AsyncIterator[Town]:
    """Run the three services, without Kafka: what they would have heard is fed to them."""
    keys, keys_path = Keys(), folder / "keys.jsonl"
    keys.write(keys_path)
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(local_issuer(SIGNING))
        gateway = await stack.enter_async_context(fake_gateway())
        access = {
            "api_keys_file": keys_path,
            "api_keys_interval_seconds": 0.1,
            "oidc_issuer": ISSUER,
            "oidc_audience": AUDIENCE,
            "oidc_jwks_url": issuer.url,
        }
        services = await stack.enter_async_context(
            started_services(dsns, sandbox_url=gateway.url, **(access | given))
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        town = Town(services, session, issuer, keys, keys_path, str(new_id()))
        await _fill(town)
        yield town


async def _fill(town: Town) -> None:
    """Have a product and stock of it; an order of the owner with its reservation and its payment; and a cart."""
    order_id, at_operators = UUID(town.order_id), town.services["order"].operator_app is not None
    product = {"name": "Tea", "price_minor": 450, "currency": "EUR"}
    receipt = {"receipt_id": "r-0", "lines": [{"sku": SKU, "quantity": 100}]}
    answers = [
        await town.call(
            "order", "PUT", f"/products/{SKU}", product, token=OPERATOR, at_operators=at_operators
        ),
        await town.call(
            "inventory", "POST", "/stock/receipts", receipt, token=OPERATOR, at_operators=at_operators
        ),
        await town.place(STOREFRONT, OWNER, order_id=town.order_id),
        await town.call("order", "PUT", "/carts/{cart_id}/items/{sku}", {"quantity": 1}, token=jwt_of(OWNER)),
    ]
    assert [answer.status for answer in answers] == [201, 201, 202, 201]
    line = PricedLine(sku=SKU, quantity=1, unit_price_minor=450)
    requested = OrderRequested(
        order_id=order_id,
        order_status=OrderStatus.REQUESTED,
        cancelled=False,
        customer_id=OWNER,
        lines=(line,),
        total_minor=450,
        currency="EUR",
        hold_seconds=900,
    )
    await feed(town.services["inventory"].database, inventory_handlers, [message(requested)])
    awaiting = awaiting_payment(order_id, total_minor=450).model_copy(update={"customer_id": OWNER})
    async with town.services["payment"].database.transaction() as tx:
        await payment_handlers.handle(tx, [message(awaiting)], policy=Policy(attempts_max=50))
