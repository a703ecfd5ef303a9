"""What does the sandbox know? All payments, refunds and owed webhooks: in memory, and in the journal to come back to."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, assert_never

import orjson

from deploy.local.sandbox.journal import Journal, JournalError
from deploy.local.sandbox.payments import Delivered, Payment, Refund, Webhook

Record = Payment | Refund | Webhook | Delivered

_KINDS: Final[dict[str, type[Record]]] = {
    "payment": Payment,
    "refund": Refund,
    "webhook": Webhook,
    "delivered": Delivered,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


class Store:
    """The sandbox's records. A record of the same id takes the place of the one before."""

    def __init__(self, directory: Path) -> None:
        """Read what an earlier process left, and write it down anew without what is no longer needed."""
        self._payments: dict[str, Payment] = {}
        self._payment_ids: dict[str, str] = {}  # by reference
        self._refunds: dict[str, dict[str, Refund]] = {}  # by payment id, then by idempotency key
        self._webhooks: dict[str, Webhook] = {}  # those with deliveries left
        self._journal = Journal(directory)
        try:
            self._load()
        except BaseException:
            self._journal.close()
            raise

    def _load(self) -> None:
        for number, line in enumerate(self._journal.lines(), start=1):
            try:
                records = [_decoded(name, fields) for name, fields in orjson.loads(line)]
            except (ValueError, TypeError, KeyError) as error:
                raise JournalError(f"journal.jsonl, line {number}: cannot be read") from error
            self._apply(records)
        self._journal.replace(_encoded([record]) for record in self._records())

    def commit(self, *records: Record) -> None:
        """Make all of these durable in one step, or none; raises OSError if the disk takes no more."""
        self._journal.append(_encoded(records))
        self._apply(records)

    def payment(self, payment_id: str) -> Payment | None:
        """The payment, if there is one."""
        return self._payments.get(payment_id)

    def payment_by_reference(self, reference: str) -> Payment | None:
        """The one payment that the merchant knows by this reference, if there is one."""
        payment_id = self._payment_ids.get(reference)
        return None if payment_id is None else self._payments[payment_id]

    def refunds(self, payment_id: str) -> dict[str, Refund]:
        """The refunds of a payment by idempotency key, oldest first."""
        return self._refunds.get(payment_id, {})

    def webhooks(self) -> list[Webhook]:
        """What is still to be delivered."""
        return list(self._webhooks.values())

    def counts(self) -> dict[str, int]:
        """How much of everything there is."""
        return {
            "payments": len(self._payments),
            "refunds": sum(map(len, self._refunds.values())),
            "deliveries_pending": sum(webhook.deliveries_left for webhook in self._webhooks.values()),
        }

    def close(self) -> None:
        """Bring everything to the disk."""
        self._journal.close()

    def _apply(self, records: Iterable[Record]) -> None:
        for record in records:
            match record:
                case Payment():
                    self._payments[record.payment_id] = record
                    self._payment_ids[record.reference] = record.payment_id
                case Refund():
                    self._refunds.setdefault(record.payment_id, {})[record.idempotency_key] = record
                case Webhook():
                    self._webhooks[record.webhook_id] = record
                case Delivered():
                    self._delivered(record.webhook_id)
                case unreachable:
                    assert_never(unreachable)

    def _delivered(self, webhook_id: str) -> None:
        webhook = self._webhooks.pop(webhook_id, None)
        if webhook is not None and webhook.deliveries_left > 1:
            self._webhooks[webhook_id] = replace(webhook, deliveries_left=webhook.deliveries_left - 1)

    def _records(self) -> Iterator[Record]:
        yield from self._payments.values()
        for refunds in self._refunds.values():
            yield from refunds.values()
        yield from self._webhooks.values()


def _encoded(records: Iterable[Record]) -> bytes:
    return orjson.dumps([[_NAMES[type(record)], record] for record in records])


def _decoded(name: str, fields: dict[str, Any]) -> Record:
    return _KINDS[name](**fields)
