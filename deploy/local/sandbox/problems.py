"""How does the sandbox say no? As `application/problem+json` (RFC 9457), and never with a 5xx for what a caller sent."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web
from pydantic import ValidationError

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(Exception):
    """A request that is not carried out; `status` and `detail` are what the caller is told."""

    def __init__(self, status: HTTPStatus, detail: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors or []


def invalid(error: ValidationError) -> Problem:
    """The problem for a body or query that pydantic refused: 400 if it is no JSON at all, else 422 with pointers."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        return Problem(HTTPStatus.BAD_REQUEST, "The body is not JSON.")
    errors = [{"pointer": _pointer(detail["loc"]), "detail": detail["msg"]} for detail in details]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The request does not have the expected form.", errors)


def _pointer(location: tuple[int | str, ...]) -> str:
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in location)
    return "#" + "".join(f"/{step}" for step in steps)


def answer(problem: Problem) -> web.Response:
    """The response that tells a problem."""
    document = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        **({"errors": problem.errors} if problem.errors else {}),
    }
    return web.Response(
        status=problem.status, body=orjson.dumps(document), content_type="application/problem+json"
    )


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into an answer."""
    try:
        return await handler(request)
    except Problem as problem:
        return answer(problem)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        response = answer(Problem(HTTPStatus(error.status), error.reason))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return answer(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The sandbox itself failed; see its log."))
