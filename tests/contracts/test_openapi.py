"""Does each service's OpenAPI document say what the service has: these routes, these scopes, and no others?"""

import re
from typing import Any

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared.access import Scope
from shared.web import OPENAPI, reach_of
from tests.services import SERVICES, wired

METHODS = frozenset({"get", "put", "post", "delete", "patch"})
#: What every service has, for whoever asks.
COMMON = {("get", "/livez"), ("get", "/readyz"), ("get", "/metrics"), ("get", "/openapi.json")}
CUSTOMER: list[dict[str, list[str]]] = [{"customer": []}, {"storefront": []}, {"operator": []}]
STOREFRONT: list[dict[str, list[str]]] = [{"storefront": []}, {"operator": []}]
OPERATOR: list[dict[str, list[str]]] = [{"operator": []}]
NOBODY_ASKED: list[dict[str, list[str]]] = []
SECURITY = {
    Scope.CUSTOMER: CUSTOMER,
    Scope.STOREFRONT: STOREFRONT,
    Scope.OPERATOR: OPERATOR,
    None: NOBODY_ASKED,
}


async def document_of(service: str) -> dict[str, Any]:
    """Return the document that a service tells."""
    async with wired(service) as made:
        assert made.app is not None
        document: dict[str, Any] = orjson.loads(made.app[OPENAPI])
    return document


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the operations of a document by method and path."""
    return {
        (method, path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


@pytest.mark.parametrize("service", SERVICES)
async def test_the_document_is_valid(service: str) -> None:
    """OpenAPI 3.1, as openapi-spec-validator reads it."""
    document = await document_of(service)

    faults = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]

    assert faults == []
    assert document["openapi"].startswith("3.1")


@pytest.mark.parametrize("service", SERVICES)
async def test_the_document_lists_the_routes_of_the_service(service: str) -> None:
    """Every route is documented, and nothing is documented that is not there."""
    async with wired(service) as made:
        assert made.app is not None
        routes = {
            (route.method.lower(), route.resource.canonical)
            for route in made.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }

    documented = operations(await document_of(service))

    assert routes == {*documented}
    assert routes > COMMON


@pytest.mark.parametrize("service", SERVICES)
async def test_every_operation_says_who_may_use_it(service: str) -> None:
    """The scope that its route needs, and those that include it, or anybody; webhooks know their caller otherwise."""
    async with wired(service) as made:
        assert made.app is not None
        reaches = {
            (route.method.lower(), route.resource.canonical): reach_of(route.handler)
            for route in made.app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }

    documented = operations(await document_of(service))

    assert {place: operation["security"] for place, operation in documented.items()} == {
        place: SECURITY[reach] for place, reach in reaches.items()
    }
    public = {place for place, operation in documented.items() if operation["security"] == NOBODY_ASKED}
    assert public - {("post", "/webhooks/{gateway}")} == COMMON


@pytest.mark.parametrize("service", SERVICES)
async def test_every_operation_documents_what_can_refuse_it(service: str) -> None:
    """401 and 403 follow from asking who calls, 404 or 422 from names in the path, 408 and 413 from a body."""
    documented = operations(await document_of(service))

    for (method, path), operation in documented.items():
        answers = {*operation["responses"]}
        place = f"{method} {path}"
        assert ("401" in answers) is bool(operation["security"]), place
        assert ("403" in answers) is bool(operation["security"]), place
        assert {"408", "413"} <= answers or "requestBody" not in operation, place
        assert answers & {"404", "422"} or "{" not in path, place


@pytest.mark.parametrize("service", SERVICES)
async def test_the_names_in_a_path_are_its_parameters(service: str) -> None:
    """Each `{name}` is described, once, and nothing else is called a path parameter."""
    document = await document_of(service)

    for path, item in document["paths"].items():
        for method in METHODS & {*item}:
            given = [*item.get("parameters", []), *item[method].get("parameters", [])]
            described = [_resolved(document, parameter) for parameter in given]
            names = [parameter["name"] for parameter in described if parameter["in"] == "path"]
            assert sorted(names) == sorted(re.findall(r"{(\w+)}", path)), f"{method} {path}"


def _resolved(document: dict[str, Any], parameter: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter, or what its reference leads to."""
    found: Any = document
    if "$ref" not in parameter:
        return parameter
    for name in parameter["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    assert isinstance(found, dict)
    return found
