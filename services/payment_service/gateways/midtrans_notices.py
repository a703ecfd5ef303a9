"""What does a document of Midtrans say, is it signed, and which event is it?

Notifications and status answers are the same documents (Midtrans's pages "HTTP(S) Notification" and "Get Transaction
Status"). The signature covers order id, status code and amount, but neither the status nor any time: who saw one
signed document can make others of it. What a notification says is therefore not confirmed as soon as it moves anything.

Amounts are texts with decimals, in rupiah; ISO 4217 gives the rupiah two decimals, so 1 rupiah is 100 of our minor
units. Times have no zone: they are Western Indonesian Time, GMT+7.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Final
from uuid import UUID

import orjson

from services.payment_service.domain.attempts import AttemptStatus, Notice, RefundNotice
from services.payment_service.gateways.documents import Document, currency, mappings, text
from services.payment_service.gateways.midtrans_statuses import StatusLine, find_line
from shared.errors import Malformed
from shared.events import INTEGER_MAX

RUPIAH: Final = "IDR"
MINOR_UNITS_PER_RUPIAH: Final = 100
WESTERN_INDONESIA: Final = timezone(timedelta(hours=7))

_AMOUNT: Final = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,4})?")
_CODE: Final = re.compile(r"[0-9]{3}")
#: What these say may be believed unasked: they end nothing and move nothing.
_HARMLESS: Final = frozenset({None, AttemptStatus.PENDING, AttemptStatus.AUTHORIZED})
_OF_NO_NOTE: Final = frozenset({None, "accept"})
#: As many digits as a card's number has, in groups or not.
_CARD_NUMBER: Final = re.compile(r"[0-9](?:[ -]?[0-9]){11,}")


def is_signed(document: Document, server_keys: Sequence[str]) -> bool:
    """Tell whether a document is signed with one of the keys, over its texts exactly as they came.

    Raises:
        Malformed: a part that is signed, or the signature, is missing or is not what Midtrans writes.
    """
    order_id, code, amount = text(document, "order_id"), text(document, "status_code"), _amount_text(document)
    if not _CODE.fullmatch(code):
        # The parts are signed without a separator: only if each has its form do the texts say where it ends.
        raise Malformed("status_code is not three digits.")
    given = text(document, "signature_key").encode()
    # Every key takes its time, whichever fits.
    fits = [hmac.compare_digest(given, _sign(order_id, code, amount, key)) for key in server_keys]
    return True in fits


def event_id(document: Document) -> str:
    """Return what repeated deliveries of one event share: Midtrans gives no id, so it is a hash of what is said.

    The bank's confirmation is part of it: a refund is notified twice, without and with it.
    """
    names = ("transaction_id", "transaction_status", "status_code", "gross_amount", "fraud_status")
    refunds = [
        [optional_text(entry, "refund_key"), optional_text(entry, "bank_confirmed_at")]
        for entry in list_refunds(document)
    ]
    said = [optional_text(document, name) for name in names]
    return hashlib.sha256(orjson.dumps([*said, refunds])).hexdigest()


def read_notice(document: Document, *, is_confirmed: bool) -> Notice:
    """Return what a document says; `is_confirmed` if Midtrans itself answered with it. Raises `Malformed`."""
    native = text(document, "transaction_status").lower()
    fraud = (optional_text(document, "fraud_status") or "").lower() or None
    name = hide_numbers(native if fraud in _OF_NO_NOTE else f"{native} ({fraud})")
    order_id = text(document, "order_id")
    attempt_id = own_id(order_id)
    transaction_id = order_id if attempt_id else hide_numbers(order_id)
    line = find_line(native, fraud)
    if line is None:
        return Notice(name, attempt_id=attempt_id, transaction_id=transaction_id)
    is_paid = line.status is AttemptStatus.SUCCEEDED
    refund = _last_refund(document) if line.has_refunds else None
    is_harmless = line.status in _HARMLESS and refund is None and line.dispute is None
    return Notice(
        native_status=name,
        status=line.status,
        attempt_id=attempt_id,
        transaction_id=transaction_id,
        amount_minor=amount_minor(document, "gross_amount") if is_paid else None,
        currency=_currency(document) if is_paid else None,
        occurred_at=_paid_at(document) if is_paid else None,
        refund=refund,
        corrects=_corrects(line, document),
        is_confirmed=is_confirmed or is_harmless,
        dispute=line.dispute,
        is_final=line.is_final,
    )


def find_refund(document: Document, refund_id: UUID) -> Document | None:
    """Return the entry of one of our refunds in a status answer, or None if Midtrans has none under this key."""
    for entry in list_refunds(document):
        if optional_text(entry, "refund_key") == str(refund_id):
            return entry
    return None


def list_refunds(document: Document) -> Sequence[Document]:
    """Return what a document lists under `refunds`, or raise `Malformed`."""
    return mappings(document, "refunds") if document.get("refunds") is not None else ()


def refund_name(entry: Document) -> str | None:
    """Return Midtrans's own id of a refund, which it writes as a number."""
    name = entry.get("refund_chargeback_id")
    is_number = isinstance(name, int) and not isinstance(name, bool)
    return str(name) if is_number else optional_text(entry, "refund_chargeback_id")


def amount_minor(document: Document, name: str) -> int:
    """Return an amount of rupiah in minor units, exactly, or raise `Malformed`."""
    minor = Decimal(_amount_text(document, name)) * MINOR_UNITS_PER_RUPIAH
    if minor != minor.to_integral_value() or minor > INTEGER_MAX:
        raise Malformed(f"{name} is not a whole number of minor units that we can count.")
    return int(minor)


def read_time(document: Document, name: str) -> datetime | None:
    """Return a time in UTC, None where there is none; one without a zone is GMT+7. Raises `Malformed`."""
    written = optional_text(document, name)
    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=WESTERN_INDONESIA)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{name} is not a time.") from error


def own_id(written: str) -> UUID | None:
    """Return an id that we gave, or None: anything not written exactly as we write ids is none of ours."""
    try:
        read = UUID(written)
    except ValueError:
        return None
    return read if str(read) == written else None


def hide_numbers(said: str) -> str:
    """Return a text without what may be the number of a card."""
    return _CARD_NUMBER.sub("…", said)


def optional_text(document: Document, name: str) -> str | None:
    """Return a text, or None where there is none; anything else is `Malformed`."""
    return None if document.get(name) is None else text(document, name)


def _sign(order_id: str, code: str, amount: str, server_key: str) -> bytes:
    return hashlib.sha512(f"{order_id}{code}{amount}{server_key}".encode()).hexdigest().encode()


def _amount_text(document: Document, name: str = "gross_amount") -> str:
    written = text(document, name)
    if not _AMOUNT.fullmatch(written):
        raise Malformed(f"{name} is not an amount in decimals.")
    return written


def _currency(document: Document) -> str:
    """Return the currency; where none is named it is the only one that Midtrans takes."""
    return currency(document, "currency") if document.get("currency") is not None else RUPIAH


def _paid_at(document: Document) -> datetime | None:
    return read_time(document, "settlement_time") or read_time(document, "transaction_time")


def _corrects(line: StatusLine, document: Document) -> frozenset[AttemptStatus]:
    is_taken_back = optional_text(document, "payment_type") in line.takes_back
    return frozenset({AttemptStatus.SUCCEEDED}) if is_taken_back else frozenset()


def _last_refund(document: Document) -> RefundNotice | None:
    """Return the refund that the bank confirmed last, None as long as it has confirmed none.

    Midtrans tells of a refund when it has taken it on, and again when the bank has confirmed it; its page "Refund
    Transactions" asks to wait for the second. It has no notification for a refund that fails.
    """
    confirmed = [(read_time(entry, "bank_confirmed_at"), entry) for entry in list_refunds(document)]
    known = [(moment, place, entry) for place, (moment, entry) in enumerate(confirmed) if moment is not None]
    if not known:
        return None
    _, _, last = max(known, key=lambda item: item[:2])
    key = optional_text(last, "refund_key")
    return RefundNotice(
        amount_minor=amount_minor(last, "refund_amount"),
        currency=_currency(document),
        gateway_refund_id=refund_name(last),
        refund_id=None if key is None else own_id(key),
        is_foreign=key is not None and own_id(key) is None,
    )
