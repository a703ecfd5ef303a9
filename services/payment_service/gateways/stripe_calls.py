"""What does an answer of Stripe's API mean: something, nothing of the kind, a refusal that is certain, or nothing?"""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

from services.payment_service.domain.answers import Declined, Unanswered
from services.payment_service.gateways import documents
from services.payment_service.gateways.calls import Answer, Calls
from services.payment_service.gateways.documents import Document
from services.payment_service.gateways.stripe_events import word
from shared.errors import Malformed

#: The version that the shapes here were compared with: the one of the package `stripe` 16.1. It goes with every call,
#: so that a change of the account's default version changes nothing.
API_VERSION: Final = "2026-10-28.endive"

_PAGE_ITEMS: Final = 100
_PAGES_MAX: Final = 20

#: Page "API reference, Errors": the request was understood and refused. Nothing else is certain: 401 and 403 are cured
#: by another key, 409 and 429 by time, an idempotency_error says that there is an answer to something else.
_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.PAYMENT_REQUIRED})
_REFUSAL_TYPES: Final = {"invalid_request_error", "card_error"}
#: The name of a parameter, which holds no value that anybody typed.
_PARAMETER: Final = re.compile(r"[a-z][a-z_]{0,39}(?:\[(?:[0-9]{1,2}|[a-z_]{1,40})\]){0,6}")


class StripeCalls:
    """Calls to Stripe's API. The secret key goes into the header Authorization, and nothing repeats it."""

    def __init__(
        self, secret_key: str, base_url: str, *, timeout_seconds: float, connections_max: int
    ) -> None:
        self._url = base_url.rstrip("/")
        self._calls = Calls(
            timeout_seconds=timeout_seconds,
            connections_max=connections_max,
            headers={"Authorization": f"Bearer {secret_key}", "Stripe-Version": API_VERSION},
        )

    async def __aenter__(self) -> Self:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, error, trace)

    async def post(
        self, path: str, form: Mapping[str, str], *, key: str | None = None
    ) -> Document | Declined | Unanswered:
        """Have something done, once for one key."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if key is not None:
            headers["Idempotency-Key"] = key
        answer = await self._calls.send(
            "POST", self._url + path, data=urlencode(form).encode(), headers=headers
        )
        return answer if isinstance(answer, Unanswered) else _judge(answer)

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Document | Unanswered | None:
        """Read one object; None: there is none."""
        url = self._url + path + (f"?{urlencode(query)}" if query else "")
        answer = await self._calls.send("GET", url)
        if isinstance(answer, Unanswered):
            return answer
        document = _judge(answer)
        if isinstance(document, Declined):
            return None if document.not_found else Unanswered(document.detail)
        return document

    async def find(
        self, path: str, query: Mapping[str, str], is_wanted: Callable[[Document], bool]
    ) -> Document | Unanswered | None:
        """Return the first object of a list, newest first, that is wanted."""
        cursor: dict[str, str] = {}
        for _ in range(_PAGES_MAX):
            page = await self.get(path, {**query, "limit": str(_PAGE_ITEMS), **cursor})
            if page is None or isinstance(page, Unanswered):
                return page
            try:
                items = documents.mappings(page, "data")
                found = next(filter(is_wanted, items), None)
                if found is not None or not items or page.get("has_more") is not True:
                    return found
                cursor = {"starting_after": documents.text(items[-1], "id")}
            except Malformed as error:
                return Unanswered(f"not understood: {error.detail}")
        return Unanswered(f"not among the first {_PAGES_MAX * _PAGE_ITEMS} of {path}")


def _judge(answer: Answer) -> Document | Declined | Unanswered:
    try:
        document = documents.parse(answer.body)
    except Malformed as error:
        return Unanswered(f"answered with {answer.status}, but: {error.detail}")
    if answer.status == HTTPStatus.OK:
        return document
    fault = document.get("error")
    detail = f"answered with {answer.status}: {_describe(fault)}"
    if answer.status == HTTPStatus.NOT_FOUND and word(fault, "code") == "resource_missing":
        return Declined(detail, not_found=True)
    if answer.status in _REFUSALS and word(fault, "type") in _REFUSAL_TYPES:
        return Declined(detail)
    return Unanswered(detail)


def _describe(fault: object) -> str:
    """Name what is wrong by Stripe's own words for it. Its message is left out: it may repeat what was sent."""
    said = [said for name in ("type", "code", "decline_code") if (said := word(fault, name))]
    parameter = fault.get("param") if isinstance(fault, dict) else None
    if isinstance(parameter, str) and _PARAMETER.fullmatch(parameter):
        said.append(parameter)
    return ", ".join(said) or "no error that is known"
