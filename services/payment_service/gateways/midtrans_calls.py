"""How is Midtrans called, and which answers are its own words?

With Basic authentication by the server key. Midtrans puts a status code into its documents that need not be the one of
HTTP: a payment it does not know is a 404, or a 200 with "404" inside. A refusal counts only if it is in its own words:
what a proxy on the way says about an address says nothing about a payment.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import orjson

from services.payment_service.domain.answers import Unanswered
from services.payment_service.gateways import documents
from services.payment_service.gateways.calls import Answer, Calls
from services.payment_service.gateways.documents import DETAIL_CHARACTERS_MAX, Document
from services.payment_service.gateways.midtrans_notices import hide_numbers, optional_text
from shared.errors import Malformed

#: What the documents of Snap have, which carry no status code.
_SNAP_FIELDS: Final = ("redirect_url", "error_messages", "canceled_at")
_HEADERS: Final = {"Accept": "application/json", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class MidtransAnswer:
    """What Midtrans answered: its own status code, the document, and its messages, fit to be shown."""

    code: int
    document: Document = field(repr=False)
    said: str

    @property
    def is_about_a_payment(self) -> bool:
        """Whether it tells where a payment stands; the code then belongs to the payment, not to the call."""
        return "transaction_status" in self.document


class MidtransCalls:
    """Calls with the first server key; while keys are being changed, with the next where one is not known."""

    def __init__(self, server_keys: Sequence[str], *, timeout_seconds: float, connections_max: int) -> None:
        self._calls = Calls(
            timeout_seconds=timeout_seconds, connections_max=connections_max, headers=_HEADERS
        )
        self._tokens = [base64.b64encode(f"{key}:".encode()).decode() for key in server_keys]
        self._secrets = (*server_keys, *self._tokens)

    async def __aenter__(self) -> Self:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, error, trace)

    async def send(
        self, method: str, url: str, body: Mapping[str, Any] | None = None
    ) -> MidtransAnswer | Unanswered:
        """Send one request, and return what Midtrans itself said, if it said anything."""
        data = None if body is None else orjson.dumps(body)
        answer: MidtransAnswer | Unanswered = Unanswered("there is no server key")
        for token in self._tokens:
            came = await self._calls.send(method, url, data=data, headers={"Authorization": f"Basic {token}"})
            answer = came if isinstance(came, Unanswered) else self._judge(came)
            if isinstance(answer, Unanswered) or answer.code != HTTPStatus.UNAUTHORIZED:
                break
        return answer

    def _judge(self, answer: Answer) -> MidtransAnswer | Unanswered:
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return Unanswered(f"answered with {answer.status}")
        try:
            document = documents.parse(answer.body)
            code = _code(document, answer.status)
        except Malformed as error:
            return Unanswered(f"answered with {answer.status}, but: {error.detail}")
        return MidtransAnswer(code, document, self._shown(code, document))

    def _shown(self, code: int, document: Document) -> str:
        """Return the code and the messages of a document, without keys and numbers of cards."""
        listed = document.get("error_messages")
        messages = [document.get("status_message"), *(listed if isinstance(listed, list) else [])]
        said = " ".join([f"{code}:", *(message for message in messages if isinstance(message, str))])
        for secret in self._secrets:
            said = said.replace(secret, "…")
        printable = "".join(character if character.isprintable() else " " for character in said)
        return hide_numbers(printable)[:DETAIL_CHARACTERS_MAX]


def _code(document: Document, status: int) -> int:
    written = optional_text(document, "status_code")
    if written is None:
        if not any(name in document for name in _SNAP_FIELDS):
            raise Malformed("it is not a document of Midtrans.")
        return status
    if not (written.isascii() and written.isdecimal()):
        raise Malformed("status_code is not a number.")
    return int(written)
