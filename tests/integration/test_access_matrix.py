"""Does every route of every service open to those it is for, and to nobody else: role by route by method by owner?

The matrix says what each route is; who may do what follows from it. It is compared with the routes that the
applications have, so that a new one without an entry fails. Everything is asked over real HTTP, on real Postgres.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.access import Scope
from shared.ids import new_id
from shared.web import reach_of
from tests.conftest import MakeDatabase
from tests.integration.access_harness import CART, OTHER, OWNER, SKU, Answer, Role, Town, a_town, roles
from tests.services import SERVICES, wired

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Entry:
    """One route: which scope it needs (None: nobody is asked), and what the request of the tests is answered.

    `may` are the statuses for those who may, depending on who was first; `other` is the status for a customer to whom
    the thing does not belong, where that is another one.
    """

    reach: Scope | None
    may: frozenset[int]
    other: int | None = None
    body: Any = None


def for_all(*may: int) -> Entry:
    """Return a route that asks nobody who he is."""
    return Entry(None, frozenset(may))


def for_customers(*may: int, other: int | None = None, body: Any = None) -> Entry:
    """Return a route for customers, storefronts and operators."""
    return Entry(Scope.CUSTOMER, frozenset(may), other, body)


def for_storefronts(*may: int) -> Entry:
    """Return a route for storefronts and operators."""
    return Entry(Scope.STOREFRONT, frozenset(may))


def for_operators(*may: int, body: Any = None) -> Entry:
    """Return a route for operators."""
    return Entry(Scope.OPERATOR, frozenset(may), body=body)


PRODUCT = {"name": "Tea", "price_minor": 450, "currency": "EUR"}
LINES = [{"sku": SKU, "quantity": 1}]
EVERYWHERE = {
    ("GET", "/livez"): for_all(200),
    ("GET", "/readyz"): for_all(200),
    ("GET", "/metrics"): for_all(200),
    ("GET", "/openapi.json"): for_all(200),
}
MATRIX: dict[str, dict[tuple[str, str], Entry]] = {
    "order": {
        ("PUT", "/products/{sku}"): for_operators(200, body=PRODUCT),
        ("GET", "/products/{sku}"): for_customers(200),
        ("GET", "/products"): for_customers(200),
        ("POST", "/products/import"): for_operators(200, body=PRODUCT | {"sku": SKU}),
        ("GET", "/carts/{cart_id}"): for_customers(200, other=404),
        ("PUT", "/carts/{cart_id}/items/{sku}"): for_customers(200, 201, other=404, body={"quantity": 2}),
        ("DELETE", "/carts/{cart_id}/items/{sku}"): for_customers(200, other=404),
        ("POST", "/orders"): for_customers(
            202, other=403, body={"customer_id": OWNER, "currency": "EUR", "lines": LINES}
        ),
        ("GET", "/orders"): for_customers(200),
        ("GET", "/orders/{order_id}"): for_customers(200, other=404),
        ("GET", "/orders/{order_id}/history"): for_customers(200, other=404),
        ("POST", "/orders/{order_id}/cancel"): for_customers(200, 202, other=404),
    },
    "inventory": {
        ("POST", "/stock/receipts"): for_operators(200, 201, body={"receipt_id": "r-1", "lines": LINES}),
        ("POST", "/stock/adjustments"): for_operators(
            *(200, 201),
            body={"adjustment_id": "a-1", "sku": SKU, "quantity_delta": 1, "reason": "found"},
        ),
        ("GET", "/stock/{sku}"): for_storefronts(200),
        ("GET", "/stock"): for_storefronts(200),
        ("GET", "/stock/{sku}/movements"): for_storefronts(200),
        ("GET", "/reservations/{order_id}"): for_storefronts(200),
    },
    "payment": {
        ("POST", "/webhooks/{gateway}"): for_all(400),
        ("GET", "/webhooks"): for_operators(200),
        ("GET", "/payments/{order_id}"): for_customers(200, other=404),
        ("POST", "/payments/{order_id}/attempts"): for_customers(201, other=404, body={}),
        # Nothing was paid that could go back, and no attempt has this id: who may ask is told so.
        ("POST", "/payments/{order_id}/refunds"): for_operators(409, body={"reason": "test"}),
        ("GET", "/quarantine"): for_operators(200),
        ("POST", "/payments/{order_id}/attempts/{attempt_id}/resolve"): for_operators(
            404, body={"action": "refund", "reason": "test"}
        ),
    },
}


def entries() -> Iterator[tuple[str, str, str, Entry]]:
    """Return every entry: service, method, path."""
    for service, routes in MATRIX.items():
        for (method, path), entry in (routes | EVERYWHERE).items():
            yield service, method, path, entry


def is_refused(role: Role, entry: Entry) -> int | None:
    """Return the status with which a role is refused, whatever it asks for; None if it is let in."""
    if entry.reach is None:
        return None
    if not role.is_known:
        return 401
    if role.scope is None or not role.scope.includes(entry.reach):
        return 403
    return entry.other if role.customer_id == OTHER else None


@pytest.fixture
async def town(make_database: MakeDatabase, tmp_path: Path) -> AsyncIterator[Town]:
    """The three services, with what belongs to one customer."""
    async with opened(make_database, tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(make_database: MakeDatabase, folder: Path, **given: Any) -> AsyncIterator[Town]:
    """Run the three services on databases of their own."""
    dsns = {service: await make_database(service) for service in SERVICES}
    async with a_town(dsns, folder, **given) as made:
        yield made


async def ask(town: Town, place: tuple[str, str, str], entry: Entry, role: Role) -> Answer:
    """Send the request of an entry as somebody."""
    return await town.call(*place, entry.body, token=role.token, headers={"Idempotency-Key": str(new_id())})


# --- the matrix itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
async def test_every_route_has_its_entry(service: str) -> None:
    """The routes that there are, each with the scope that it says it needs, and no others."""
    async with wired(service) as made:
        assert made.app is not None
        routes = {
            (route.method, route.resource.canonical): reach_of(route.handler)
            for route in made.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }

    assert routes == {place: entry.reach for place, entry in (MATRIX[service] | EVERYWHERE).items()}


# --- who may ask, and who may not -----------------------------------------------------------------------------------


async def test_who_may_not_is_refused_and_changes_nothing(town: Town) -> None:
    """401 to nobody we know, 403 to who has too little, 404 for what is another's; and not a row is different."""
    before = await town.contents()
    wrong, asked = {}, 0
    for service, method, path, entry in entries():
        for name, role in roles(town.keys).items():
            expected = is_refused(role, entry)
            if expected is None:
                continue
            asked += 1
            answer = await ask(town, (service, method, path), entry, role)
            if answer.status != expected or not is_a_problem(answer):
                wrong[service, method, path, name] = answer.status, expected

    assert wrong == {}
    assert asked > 200
    assert await town.contents() == before


async def test_who_may_is_let_in(town: Town) -> None:
    """Each of them gets the answer that the route has for it, by whatever kind of token."""
    wrong, asked = {}, 0
    for service, method, path, entry in entries():
        for name, role in roles(town.keys).items():
            if is_refused(role, entry) is None:
                asked += 1
                answer = await ask(town, (service, method, path), entry, role)
                if answer.status not in entry.may:
                    wrong[service, method, path, name] = answer.status, answer.raw

    assert wrong == {}
    assert asked > 300


def is_a_problem(answer: Answer) -> bool:
    """Tell whether a refusal is as each one has to be."""
    challenge = answer.headers.get("WWW-Authenticate")
    return (
        answer.headers["Content-Type"] == "application/problem+json"
        and answer.body["status"] == answer.status
        and challenge == ("Bearer" if answer.status == 401 else None)
    )


async def test_another_customers_things_look_as_if_they_were_not_there(town: Town) -> None:
    """The answer is to the letter that for something that does not exist, but for the id of the request."""
    there, nowhere = {}, {}
    role = roles(town.keys)["another customer's JWT"]
    missing = {town.order_id: str(new_id()), CART: "cart-that-nobody-has"}
    for service, method, path, entry in entries():
        if entry.other != 404 or (method, path) == ("PUT", "/carts/{cart_id}/items/{sku}"):
            continue  # a cart that nobody has is there as soon as something is put into it
        answer = await ask(town, (service, method, path), entry, role)
        there[method, path] = told(answer)
        elsewhere = path.format_map(town.names)
        for known, unknown in missing.items():
            elsewhere = elsewhere.replace(known, unknown)
        nowhere[method, path] = told(await ask(town, (service, method, elsewhere), entry, role))

    assert there == nowhere
    assert len(there) == 7


def told(answer: Answer) -> dict[str, Any]:
    """Return what an answer tells, without what is new in each."""
    headers = {
        name: value for name, value in answer.headers.items() if name.lower() not in {"x-request-id", "date"}
    }
    return {**answer.body, "request_id": "", "headers": headers}


# --- methods --------------------------------------------------------------------------------------------------------


async def test_every_other_method_is_refused_to_everybody(town: Town) -> None:
    """405 for what no route of the path has, whoever asks; HEAD asks the same of its caller as GET."""
    everybody = roles(town.keys)
    some = ("nobody", "the operators' token", "the owner's JWT", "another customer's JWT")
    wrong, asked = {}, 0
    for service, routes in MATRIX.items():
        known = routes | EVERYWHERE
        for path in {path for _, path in known}:
            there = {method for method, other in known if is_like(path.format_map(town.names), other)}
            for method in set(METHODS) - there:
                for name in some:
                    role, expected = everybody[name], 405
                    if method == "HEAD" and ("GET", path) in known:
                        entry = known["GET", path]
                        expected = is_refused(role, entry) or min(entry.may)
                    elif method == "HEAD" and "GET" in there:
                        continue  # a path that is also another's
                    asked += 1
                    answer = await town.call(service, method, path, token=role.token)
                    if answer.status != expected:
                        wrong[service, method, path, name] = answer.status, expected

    assert wrong == {}
    assert asked > 300


def is_like(path: str, template: str) -> bool:
    """Tell whether a path is one of those that a template describes."""
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) is not None


# --- two doors ------------------------------------------------------------------------------------------------------


async def test_operators_have_a_port_of_their_own(make_database: MakeDatabase, tmp_path: Path) -> None:
    """What they alone may do is found there alone, everything else on the public port alone, probes on both."""
    wrong = {}
    async with opened(make_database, tmp_path, operator_http_port=0) as town:
        operator = roles(town.keys)["an operator's key"]
        for service, method, path, entry in entries():
            is_common = (method, path) in EVERYWHERE
            for at_operators in (False, True):
                is_there = is_common or at_operators == (entry.reach is Scope.OPERATOR)
                # Without a token: 401 where it is, 404 where it is not, so that a port scan finds nothing.
                for token in (operator.token, None):
                    answer = await town.call(
                        service,
                        method,
                        path,
                        entry.body,
                        token=token,
                        headers={"Idempotency-Key": str(new_id())},
                        at_operators=at_operators,
                    )
                    may = entry.may if token is not None or entry.reach is None else {401}
                    if answer.status not in (may if is_there else {404}):
                        wrong[service, method, path, at_operators, token] = answer.status

    assert wrong == {}
