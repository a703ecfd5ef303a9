"""Do the three real services answer as their OpenAPI documents say, whatever they are sent?

schemathesis makes requests from the documents, ones that fit and ones that do not, the same ones each time. The
services run whole: an order with its reservation and its payment is there to be found, changed and refused.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deploy.local.topics import ensure_topics
from shared.ids import new_id
from shared.settings import KafkaSettings
from tests.conftest import MakeDatabase
from tests.contracts.test_openapi import OPERATOR as OPERATOR_ONLY
from tests.contracts.test_openapi import document_of, operations
from tests.integration.payment_harness import fake_gateway
from tests.services import (
    OPERATOR,
    SERVICES,
    STOREFRONT,
    pass_over_what_is_there,
    running_services,
)
from tests.waiting import eventually

#: Of each operation: requests that fit its document, and requests that do not.
EXAMPLES = {GenerationMode.POSITIVE: 20, GenerationMode.NEGATIVE: 10}
WAIT_SECONDS_MAX = 1
#: Bodies that are accepted, which chance alone does not find: it knows no product.
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/orders"): {"customer_id": "c-1", "currency": "EUR", "lines": [{"sku": "TEA", "quantity": 1}]},
    ("post", "/products/import"): '{"sku": "TEA", "name": "Tea", "price_minor": 450, "currency": "EUR"}',
}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@schemathesis.serializer("application/jsonl")
def json_lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Write a body of JSON lines: text as it is, a list one item a line."""
    if isinstance(value, str):
        return value.encode(errors="replace")
    return b"\n".join(orjson.dumps(item) for item in (value if isinstance(value, list) else [value]))


def authorization(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True)
class Shop:
    """Three services at work, and what there is in them: values for the names in paths."""

    urls: dict[str, str]
    known: dict[str, str]


@pytest.fixture
async def shop(make_database: MakeDatabase, kafka_settings: KafkaSettings) -> AsyncIterator[Shop]:
    """The services on real Kafka and Postgres, with one order that waits for its payment."""
    await ensure_topics(kafka_settings)
    await pass_over_what_is_there(kafka_settings)
    dsns = {service: await make_database(service) for service in SERVICES}
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(fake_gateway())
        urls = await stack.enter_async_context(
            running_services(
                dsns, kafka_bootstrap_servers=kafka_settings.bootstrap_servers, sandbox_url=gateway.url
            )
        )
        session = await stack.enter_async_context(
            aiohttp.ClientSession(headers=authorization(OPERATOR), raise_for_status=True)
        )
        yield Shop(urls, await _fill(session, urls))


async def _fill(session: aiohttp.ClientSession, urls: dict[str, str]) -> dict[str, str]:
    """Have a product, stock of it and an order; wait until its payment is open."""
    order_id, sku = str(new_id()), "TEA"
    product = {"name": "Tea", "price_minor": 450, "currency": "EUR"}
    receipt = {"receipt_id": "r-1", "lines": [{"sku": sku, "quantity": 100}]}
    order = {"order_id": order_id, "customer_id": "c-1", "currency": "EUR"}
    lines = [{"sku": sku, "quantity": 2}]
    await session.put(f"{urls['order']}/products/{sku}", json=product)
    await session.post(f"{urls['inventory']}/stock/receipts", json=receipt)
    await session.post(
        f"{urls['order']}/orders", json={**order, "lines": lines}, headers={"Idempotency-Key": order_id}
    )

    async def has_payment() -> bool:
        async with session.get(f"{urls['payment']}/payments/{order_id}", raise_for_status=False) as response:
            return response.status == 200

    await eventually(has_payment, timeout_seconds=90, what="the payment to be open")
    known = {"order_id": order_id, "sku": sku, "cart_id": "cart-1", "gateway": "sandbox"}
    return {**known, "attempt_id": str(new_id())}


# --- whatever is sent -----------------------------------------------------------------------------------------------


# The services draw random numbers in their own thread, and hypothesis takes that for a strategy's doing.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", SERVICES)
async def test_answers_are_what_the_document_says(shop: Shop, service: str) -> None:
    """No 5xx, documented statuses, answers that fit their schemas; what does not fit the document is refused."""
    document = await document_of(service)

    faults = await asyncio.to_thread(lambda: [*_fuzz(document, shop.urls[service], shop.known)])

    assert not faults, "\n\n".join(faults)


def _fuzz(document: dict[str, Any], url: str, known: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with the answers to each operation."""
    with requests.Session() as session:
        for found in schemathesis.openapi.from_dict(document).get_all_operations():
            operation = found.ok()  # type: ignore[union-attr] # the document is valid: another test says so
            there = {name: known[name] for name in re.findall(r"{(\w+)}", operation.path)}
            for mode, count in EXAMPLES.items():
                strategies = [operation.as_strategy(generation_mode=mode)]
                if there:
                    strategies.append(operation.as_strategy(generation_mode=mode, path_parameters=there))
                body = BODIES.get((operation.method, operation.path))
                if body is not None and mode is GenerationMode.POSITIVE:
                    (kind,) = document["paths"][operation.path][operation.method]["requestBody"]["content"]
                    strategies.append(operation.as_strategy(body=body, media_type=kind))
                # An operation that takes nothing can be given nothing wrong.
                with suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else nullcontext():
                    yield from _try_all(st.one_of(strategies), count, url, session)


def _try_all(cases: st.SearchStrategy[Any], count: int, url: str, session: requests.Session) -> Iterator[str]:
    """Yield what is wrong with the answers to some cases, always the same ones."""
    faults: dict[str, str] = {}

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(cases)
    def each(case: Any) -> None:
        # Kept and not raised: what was sent has changed the services, so that it would not fail a second time.
        for fault in _check(case, url, session):
            faults.setdefault(type(fault).__name__, f"{case.as_curl_command()}\n{fault}")

    each()
    yield from faults.values()


def _check(case: Any, url: str, session: requests.Session) -> Sequence[BaseException]:
    """Return what is wrong with the answer to one request."""
    checks = CHECKS
    if isinstance(case.query.get("wait"), int):
        case.query["wait"] = min(case.query["wait"], WAIT_SECONDS_MAX)
    if case.meta.generation.mode is GenerationMode.NEGATIVE:
        checks = [*CHECKS, negative_data_rejection]
    try:
        case.call_and_validate(
            base_url=url, session=session, headers=authorization(OPERATOR), checks=checks, timeout=60
        )
    except FailureGroup as error:
        return error.exceptions
    return ()


# --- who may, and how -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "status"),
    [(None, 401), ("no-such-token-at-all", 401), (STOREFRONT, 403)],
    ids=["nobody", "a stranger", "a storefront"],
)
async def test_every_operation_is_for_those_it_says(shop: Shop, token: str | None, status: int) -> None:
    """Without a valid token 401, with the storefront's 403 where only operators may; the body is not even read."""
    headers = {} if token is None else authorization(token)
    answers = {}
    async with aiohttp.ClientSession(headers=headers) as session:
        for service in SERVICES:
            for (method, path), operation in operations(await document_of(service)).items():
                if operation["security"] and (status == 401 or operation["security"] == OPERATOR_ONLY):
                    url = shop.urls[service] + path.format_map(shop.known)
                    async with session.request(method, url, data=b"{") as response:
                        answers[method, path] = response.status, response.content_type

    assert {*answers.values()} == {(status, "application/problem+json")}


async def test_a_method_that_a_path_does_not_have_is_refused(shop: Shop) -> None:
    """405 with the methods that there are, for every path."""
    wrong = {}
    async with aiohttp.ClientSession(headers=authorization(OPERATOR)) as session:
        for service in SERVICES:
            documented = [*operations(await document_of(service))]
            for path in {path for _, path in documented}:
                # `/products/import` is also a `/products/{sku}`.
                there = {method for method, other in documented if _is_like(path, other)}
                for method in {"get", "put", "post", "delete", "patch", "trace"} - there:
                    url = shop.urls[service] + path.format_map(shop.known)
                    async with session.request(method, url, data=b"{}") as response:
                        allowed = {*response.headers.get("Allow", "").lower().split(",")}
                        problem = orjson.loads(await response.read())
                        if response.status != 405 or problem["status"] != 405 or not allowed & there:
                            wrong[method, path] = response.status, allowed

    assert wrong == {}


def _is_like(path: str, template: str) -> bool:
    """Tell whether a path with names is one of those that another one stands for."""
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) is not None
