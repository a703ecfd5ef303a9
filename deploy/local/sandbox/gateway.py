"""What does each request to the sandbox do? Every answer is decided here, for the JSON routes and for the pay page alike."""

import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated
from uuid import uuid4

from pydantic import AfterValidator, AnyHttpUrl, AwareDatetime, BaseModel, ConfigDict, Field

from deploy.local.sandbox.deliveries import Deliveries
from deploy.local.sandbox.payments import Outcome, Payment, Refund, Webhook, webhook_body
from deploy.local.sandbox.problems import Problem
from deploy.local.sandbox.store import Store

AMOUNT_MINOR_MAX = 2**53 - 1
RETURN_URL_CHARACTERS_MAX = 2_000
_MILLISECONDS_PER_SECOND = 1_000


def _short(url: AnyHttpUrl) -> AnyHttpUrl:
    if len(str(url)) > RETURN_URL_CHARACTERS_MAX:
        raise ValueError(f"has more than {RETURN_URL_CHARACTERS_MAX} characters")
    return url


def _utc(time_given: datetime) -> datetime:
    try:
        return time_given.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from error


Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
PositiveAmount = Annotated[int, Field(ge=1, le=AMOUNT_MINOR_MAX)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NewPayment(_Body):
    """`POST /payments`; amounts are in minor units."""

    reference: Reference
    amount_minor: PositiveAmount
    currency: Currency
    return_url: Annotated[AnyHttpUrl, AfterValidator(_short)] | None = None
    expires_at: Annotated[AwareDatetime, AfterValidator(_utc)] | None = None


class Settlement(_Body):
    """`POST /payments/{id}/settle`; amount and currency are those of the payment unless told otherwise.

    `times` 0 loses the webhook: only whoever asks learns what became of the payment.
    """

    outcome: Outcome
    times: int = Field(default=1, ge=0, le=1_000)
    delay_ms: int = Field(default=0, ge=0, le=3_600_000)
    amount_minor: Annotated[int, Field(ge=0, le=AMOUNT_MINOR_MAX)] | None = None
    currency: Currency | None = None


class NewRefund(_Body):
    """`POST /payments/{id}/refunds`; without an amount, whatever is left."""

    amount_minor: PositiveAmount | None = None
    currency: Currency | None = None


class Gateway:
    """The sandbox's business: payments in the store, webhooks to the deliveries. Nothing here waits for anything."""

    def __init__(self, store: Store, deliveries: Deliveries) -> None:
        self._store = store
        self._deliveries = deliveries

    def create(self, new: NewPayment) -> tuple[Payment, bool]:
        """The payment of this reference, and whether it is new; raises Problem 409 if it is for other money."""
        known = self._store.payment_by_reference(new.reference)
        if known is None:
            payment = Payment(
                payment_id=str(uuid4()),
                reference=new.reference,
                amount_minor=new.amount_minor,
                currency=new.currency,
                created_at=rfc3339(datetime.now(UTC)),
                return_url=None if new.return_url is None else str(new.return_url),
                expires_at=None if new.expires_at is None else rfc3339(new.expires_at),
            )
            self._store.commit(payment)
            return payment, True
        if (known.amount_minor, known.currency) != (new.amount_minor, new.currency):
            detail = f"Reference {new.reference} is known with {known.amount_minor} {known.currency}."
            raise Problem(HTTPStatus.CONFLICT, detail)
        return known, False

    def payment(self, payment_id: str) -> Payment:
        """The payment; raises Problem 404."""
        payment = self._store.payment(payment_id)
        if payment is None:
            raise Problem(HTTPStatus.NOT_FOUND, "There is no such payment.")
        return payment

    def by_reference(self, reference: str) -> list[Payment]:
        """The payment that the merchant knows by this reference, or nothing."""
        payment = self._store.payment_by_reference(reference)
        return [] if payment is None else [payment]

    def settle(self, payment_id: str, settlement: Settlement) -> tuple[Payment, str]:
        """Settle as told and send the webhook; the payment as it stands then, and the webhook's id."""
        payment = self.payment(payment_id)
        amount_minor = payment.amount_minor if settlement.amount_minor is None else settlement.amount_minor
        currency = settlement.currency or payment.currency
        payment = payment.settled(settlement.outcome, amount_minor=amount_minor, currency=currency)
        body = webhook_body(
            settlement.outcome,
            payment,
            amount_minor=amount_minor,
            currency=currency,
            occurred_at=rfc3339(datetime.now(UTC)),
        )
        webhook = _webhook(body, times=settlement.times, delay_ms=settlement.delay_ms)
        if settlement.times:
            self._store.commit(payment, webhook)
            self._deliveries.send(webhook)
        else:
            self._store.commit(payment)
        return payment, webhook.webhook_id

    def cancel(self, payment_id: str) -> Payment:
        """Cancel what is not settled; raises Problem 409 if it is."""
        payment = self.payment(payment_id)
        if payment.status == "pending":
            payment = payment.cancelled()
            self._store.commit(payment)
        if payment.status != "cancelled":
            raise Problem(HTTPStatus.CONFLICT, f"The payment has {payment.status} already.")
        return payment

    def refund(self, payment_id: str, idempotency_key: str, new: NewRefund) -> tuple[Refund, bool]:
        """The refund of this key, and whether it is new; raises Problem 409 if there is not so much to give back."""
        payment = self.payment(payment_id)
        known = self._store.refunds(payment_id).get(idempotency_key)
        if known is not None:
            if (known.requested_amount_minor, known.requested_currency) != (new.amount_minor, new.currency):
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "This Idempotency-Key came with another body.")
            return known, False
        refund = _refund(payment, idempotency_key, new)
        body = webhook_body(
            "refunded",
            payment,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            occurred_at=refund.created_at,
            refund_id=refund.refund_id,
        )
        webhook = _webhook(body)
        self._store.commit(payment.refunded(refund.amount_minor), refund, webhook)
        self._deliveries.send(webhook)
        return refund, True

    def refunds(self, payment_id: str) -> list[Refund]:
        """All refunds of the payment, oldest first; raises Problem 404."""
        return list(self._store.refunds(self.payment(payment_id).payment_id).values())

    def counts(self) -> dict[str, int]:
        """How much of everything there is."""
        return self._store.counts()


def rfc3339(moment: datetime) -> str:
    """The text of a UTC time."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refund(payment: Payment, idempotency_key: str, new: NewRefund) -> Refund:
    """The refund asked for; raises Problem 409 if the payment has not so much, or other money."""
    amount_minor = payment.refundable_minor if new.amount_minor is None else new.amount_minor
    if payment.captured_currency is None or not 0 < amount_minor <= payment.refundable_minor:
        detail = f"Of {payment.captured_minor} captured, {payment.refundable_minor} can be refunded."
        raise Problem(HTTPStatus.CONFLICT, detail)
    if new.currency not in {None, payment.captured_currency}:
        raise Problem(HTTPStatus.CONFLICT, f"The payment was captured in {payment.captured_currency}.")
    return Refund(
        refund_id=str(uuid4()),
        payment_id=payment.payment_id,
        idempotency_key=idempotency_key,
        amount_minor=amount_minor,
        currency=payment.captured_currency,
        created_at=rfc3339(datetime.now(UTC)),
        requested_amount_minor=new.amount_minor,
        requested_currency=new.currency,
    )


def _webhook(body: str, *, times: int = 1, delay_ms: int = 0) -> Webhook:
    return Webhook(
        webhook_id=f"msg_{uuid4().hex}",
        body=body,
        deliveries_left=times,
        due_at=time.time() + delay_ms / _MILLISECONDS_PER_SECOND,
    )
