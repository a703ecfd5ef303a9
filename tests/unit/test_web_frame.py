"""Does the HTTP frame answer every mistake with a problem that helps, and never with a 5xx for bad input?"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from shared.health import Health
from shared.web import respond
from tests.unit.small_app import ERRORS, OPERATOR, ORDER_ID, STOREFRONT, Client, problem_of, small_app


@pytest.fixture
def health() -> Health:
    """A service that has started."""
    return Health(started=True)


@pytest.fixture
async def client(health: Health) -> AsyncIterator[Client]:
    """A small application."""
    async with small_app(health) as opened:
        yield opened


# --- paths and queries ----------------------------------------------------------------------------------------------


async def test_names_in_a_path_are_read(client: Client) -> None:
    """A UUID and an identifier come through, percent-encoded or not."""
    response = await client.get(f"/named/{ORDER_ID}/milk%3A1-l.x_y")

    assert await response.json() == {"order_id": str(ORDER_ID), "sku": "milk:1-l.x_y"}


@pytest.mark.parametrize("order_id", ["42", "x" * 36, "%00", "%FF", "0198c2a0"])
async def test_nothing_has_a_name_that_is_no_uuid(client: Client, order_id: str) -> None:
    """404: there can be no such order."""
    await problem_of(await client.get(f"/named/{order_id}/milk"), 404)


@pytest.mark.parametrize("sku", ["a%20b", "a%00", "%FF%FE", "%F0%9F%90%8C", "x" * 65, "a%2Fb"])
async def test_an_identifier_that_cannot_be_one_is_invalid(client: Client, sku: str) -> None:
    """422 with the rule, whatever bytes are in the path."""
    problem = await problem_of(await client.get(f"/named/{ORDER_ID}/{sku}"), 422)

    assert "64" in problem["detail"]


async def test_a_query_is_read_with_its_defaults(client: Client) -> None:
    """Text becomes numbers, and the page is as the contract says."""
    response = await client.get("/listed", params={"after": "a:1"})

    assert await response.json() == {"items": [{"after": "a:1", "limit": 100}], "next": "next-key"}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=1001", "/limit"),
        ("limit=ten", "/limit"),
        ("after=a%00b", "/after"),
        ("after=" + "x" * 201, "/after"),
        ("offset=5", "/offset"),
    ],
)
async def test_a_query_that_does_not_fit_says_where(client: Client, query: str, pointer: str) -> None:
    """422 with the name of the parameter; an unknown one is refused too."""
    problem = await problem_of(await client.get(f"/listed?{query}"), 422)

    assert [error["pointer"] for error in problem["errors"]] == [pointer]


# --- routes and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status"), [("forbidden", 403), ("not-found", 404), ("conflict", 409), ("overloaded", 503)]
)
async def test_an_error_becomes_the_problem_that_its_class_says(
    client: Client, name: str, status: int
) -> None:
    """Status, type and detail are those of the error raised."""
    problem = await problem_of(await client.get(f"/fail/{name}"), status)

    assert problem["detail"] == str(ERRORS[name])


async def test_an_unknown_route_is_a_problem(client: Client) -> None:
    """404 is problem+json even when no handler was reached."""
    await problem_of(await client.get("/nowhere"), 404)


async def test_another_method_is_a_problem_that_lists_the_right_ones(client: Client) -> None:
    """405 keeps the Allow header."""
    response = await client.delete("/echo")

    await problem_of(response, 405)
    assert response.headers["Allow"] == "POST"


async def test_what_aiohttp_itself_refuses_is_a_problem(client: Client) -> None:
    """Its own HTTP errors get the same form as ours."""
    await problem_of(await client.get("/fail/media"), 415)


@pytest.mark.parametrize("name", ["overloaded", "unavailable", "away"])
async def test_what_passes_by_itself_says_when_to_come_back(client: Client, name: str) -> None:
    """503 with Retry-After, for our own errors and for lost connections."""
    response = await client.get(f"/fail/{name}")

    await problem_of(response, 503)
    assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("name", ["bug", "ledger", "away"])
async def test_a_fault_of_ours_tells_nothing_of_the_inside(client: Client, name: str) -> None:
    """The text of an unexpected error stays in the log."""
    response = await client.get(f"/fail/{name}")

    assert response.status >= 500
    assert "secret detail" not in await response.text()


# --- request ids ----------------------------------------------------------------------------------------------------


async def test_a_usable_request_id_is_kept(client: Client) -> None:
    """The caller's id comes back, and is the cause of what follows."""
    response = await client.get("/caused", headers={"X-Request-Id": "shop-17:a.b_c"})

    assert response.headers["X-Request-Id"] == "shop-17:a.b_c"
    assert await response.json() == {"cause": "http:shop-17:a.b_c"}


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "ä", 'a"b'])
async def test_a_request_without_a_usable_id_gets_a_new_one(client: Client, given: str | None) -> None:
    """What could break a log or a header is replaced by a UUID."""
    response = await client.get("/caused", headers={} if given is None else {"X-Request-Id": given})

    UUID(response.headers["X-Request-Id"])
    assert await response.json() == {"cause": f"http:{response.headers['X-Request-Id']}"}


# --- scopes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "authorization", "status"),
    [
        ("/storefront", f"Bearer {STOREFRONT}", 200),
        ("/storefront", f"bearer  {STOREFRONT} ", 200),
        ("/storefront", f"Bearer {OPERATOR}", 200),
        ("/operator", f"Bearer {OPERATOR}", 200),
        ("/operator", f"Bearer {STOREFRONT}", 403),
        ("/storefront", None, 401),
        ("/storefront", "", 401),
        ("/storefront", "Bearer", 401),
        ("/storefront", "Bearer wrong-token", 401),
        ("/storefront", f"Basic {STOREFRONT}", 401),
        ("/storefront", STOREFRONT, 401),
        ("/storefront", "Bearer tökén", 401),
        ("/operator", f"Bearer {OPERATOR}x", 401),
        ("/caused", None, 200),
    ],
)
async def test_a_token_opens_its_scope_and_what_it_includes(
    client: Client, route: str, authorization: str | None, status: int
) -> None:
    """An operator may do what a storefront may; nobody else gets in; public routes ask nobody."""
    headers = {} if authorization is None else {"Authorization": authorization}

    response = await client.get(route, headers=headers)

    assert response.status == status
    if status != 200:
        await problem_of(response, status)
    assert ("WWW-Authenticate" in response.headers) == (status == 401)


async def test_a_body_is_not_read_before_the_token(client: Client) -> None:
    """Who may not come in is told so, whatever else is wrong."""
    await problem_of(await client.get("/operator", data=b"{" * 100), 401)


# --- what every service has -----------------------------------------------------------------------------------------


async def test_every_service_tells_its_openapi_document_and_metrics(client: Client) -> None:
    """Both are public; requests are counted by route template, not by path."""
    await client.get(f"/named/{ORDER_ID}/milk")

    document, metrics = await client.get("/openapi.json"), await client.get("/metrics")

    assert await document.json() == {"openapi": "3.1.0"}
    assert 'route="/named/{order_id}/{sku}"' in (text := await metrics.text())
    assert str(ORDER_ID) not in text


async def test_methods_and_paths_that_are_made_up_do_not_make_up_labels(client: Client) -> None:
    """A scanner cannot fill the memory with metrics."""
    await client.request("PROPFIND", "/coffee-pot-1")

    text = await (await client.get("/metrics")).text()

    assert 'method="OTHER",route="unmatched"' in text
    assert "coffee" not in text


async def test_a_live_process_says_so_without_its_database(client: Client) -> None:
    """Liveness asks nothing of others: a restart would not bring Postgres back."""
    assert (await client.get("/livez")).status == 200


async def test_a_service_without_its_database_is_not_ready(client: Client) -> None:
    """503: work sent here could not be stored."""
    await problem_of(await client.get("/readyz"), 503)


async def test_a_service_that_is_stopping_is_not_ready(client: Client, health: Health) -> None:
    """503, so that a load balancer looks elsewhere while the last requests finish."""
    health.stopping = True

    problem = await problem_of(await client.get("/readyz"), 503)

    assert "stopping" in problem["detail"]


async def test_json_keeps_times_and_ids_as_the_contract_writes_them(client: Client) -> None:
    """UUIDs are text, times RFC 3339 with Z."""
    response = respond({"id": ORDER_ID, "at": datetime(2026, 3, 1, 12, tzinfo=UTC)})

    assert response.body == b'{"id":"0198c2a0-0000-7000-8000-000000000001","at":"2026-03-01T12:00:00Z"}'
