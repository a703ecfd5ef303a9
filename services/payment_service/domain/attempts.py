"""Where does one attempt to pay stand, and what may a gateway's word change about it?

State is kept per attempt and ranked: a delivery applies only if it lifts the attempt to a higher rank, so that late,
repeated and shuffled deliveries end in the same state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

#: The gateway of an order whose total is 0: nobody is asked for money.
NO_GATEWAY: Final = "none"


class AttemptStatus(StrEnum):
    """What is known of one attempt."""

    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    AUTHORIZED = "AUTHORIZED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"
    QUARANTINED = "QUARANTINED"
    SUCCEEDED = "SUCCEEDED"
    REFUNDED = "REFUNDED"


RANKS: Final[Mapping[AttemptStatus, int]] = {
    AttemptStatus.PENDING: 10,
    AttemptStatus.UNKNOWN: 10,
    AttemptStatus.AUTHORIZED: 20,
    AttemptStatus.FAILED: 30,
    AttemptStatus.EXPIRED: 30,
    AttemptStatus.CANCELLED: 30,
    AttemptStatus.QUARANTINED: 35,
    AttemptStatus.SUCCEEDED: 40,
    AttemptStatus.REFUNDED: 50,
}
_FAILED_RANK: Final = RANKS[AttemptStatus.FAILED]


class Verdict(StrEnum):
    """What became of one delivery."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REGRESSIVE = "regressive"
    MISMATCH = "mismatch"
    UNMATCHED = "unmatched"
    IGNORED = "ignored"


class Task(StrEnum):
    """What the gateway is still to be asked about an attempt."""

    CREATE = "CREATE"
    CANCEL = "CANCEL"


@dataclass(frozen=True, slots=True)
class RefundNotice:
    """What a gateway says about money it gave back; `refund_id` is ours, where the gateway repeats it."""

    amount_minor: int
    currency: str
    gateway_refund_id: str | None = None
    refund_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What a gateway says about one of its payments, in our words: read from a webhook, or from an answer.

    `status` is None where it says nothing that concerns us. `amount_minor` and `currency` belong to a success.
    `corrects` names the failed states that this gateway is documented to take back although the rank is not higher.
    """

    native_status: str
    status: AttemptStatus | None = None
    attempt_id: UUID | None = None
    transaction_id: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    occurred_at: datetime | None = None
    refund: RefundNotice | None = None
    corrects: frozenset[AttemptStatus] = frozenset()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a notice, why, and the state that the attempt takes (None: it keeps its own)."""

    verdict: Verdict
    reason: str | None = None
    status: AttemptStatus | None = None


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt to pay; amounts are in minor units.

    `received_…` is what the gateway says to have taken, `refunding_minor` how much of it was given back or is due to be.
    `initiated` says that the gateway is known to have the attempt, `withdrawn` that we no longer want it to be paid.
    """

    attempt_id: UUID
    order_id: UUID
    gateway: str
    amount_minor: int
    currency: str
    created_at: datetime
    status: AttemptStatus = AttemptStatus.PENDING
    gateway_transaction_id: str | None = None
    payment_url: str | None = None
    native_status: str | None = None
    expires_at: datetime | None = None
    accepted_amount_minor: int | None = None
    received_amount_minor: int | None = None
    received_currency: str | None = None
    refunding_minor: int = 0
    idempotency_key: str | None = None
    requested_gateway: str | None = None
    return_url: str | None = None
    initiated: bool = False
    withdrawn: bool = False
    task: Task | None = None
    task_at: datetime | None = None
    tries: int = 0
    is_new: bool = False
    is_changed: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it may still be paid as far as we know."""
        return RANKS[self.status] < _FAILED_RANK

    @property
    def is_failed(self) -> bool:
        """Whether it used up one of the allowed attempts; one that we called back ourselves did not fail."""
        return RANKS[self.status] == _FAILED_RANK and not (
            self.withdrawn and self.status is AttemptStatus.CANCELLED
        )

    def ask_gateway(self, task: Task | None, at: datetime | None) -> None:
        """Note what the gateway must be asked next, and when; None: nothing."""
        self.task, self.task_at, self.tries = task, at if task else None, 0
        self.is_changed = True

    def receive(self, notice: Notice, status: AttemptStatus) -> None:
        """Take over what a notice says, with the state that it was judged to lead to."""
        self.status = status
        self.native_status = notice.native_status
        self.gateway_transaction_id = self.gateway_transaction_id or notice.transaction_id
        if status in {AttemptStatus.SUCCEEDED, AttemptStatus.QUARANTINED}:
            self.received_amount_minor = notice.amount_minor
            self.received_currency = notice.currency
        if not self.is_live:
            self.ask_gateway(None, None)
        self.is_changed = True


def judge(attempt: Attempt, notice: Notice) -> Judgement:
    """Decide what a notice about an attempt's status means for it (DESIGN, section 5); changes nothing."""
    if notice.status is None:
        return Judgement(Verdict.IGNORED, f"{notice.native_status} is of no interest")
    difference = _difference(attempt, notice)
    if difference is not None:
        return Judgement(Verdict.MISMATCH, difference, _quarantine(attempt, notice.status))
    if attempt.status is notice.status:
        return Judgement(Verdict.DUPLICATE, f"the attempt is {attempt.status} already")
    if attempt.status is AttemptStatus.QUARANTINED:
        return Judgement(Verdict.REGRESSIVE, "the attempt is QUARANTINED: an operator decides")
    if RANKS[notice.status] > RANKS[attempt.status] or _corrects(attempt, notice):
        return Judgement(Verdict.APPLIED, None, notice.status)
    return Judgement(Verdict.REGRESSIVE, f"the attempt is {attempt.status} already")


def _difference(attempt: Attempt, notice: Notice) -> str | None:
    """Name what a notice and our attempt disagree about: the transaction, or the money of a success."""
    ours = attempt.gateway_transaction_id
    if None not in {ours, notice.transaction_id} and ours != notice.transaction_id:
        return "transaction"
    if notice.status is AttemptStatus.SUCCEEDED:
        if notice.currency != attempt.currency:
            return "currency"
        if notice.amount_minor != attempt.amount_minor:
            return "amount"
    return None


def _quarantine(attempt: Attempt, status: AttemptStatus) -> AttemptStatus | None:
    """Return QUARANTINED for money that came otherwise than asked for, unless the attempt is settled already."""
    is_money = status is AttemptStatus.SUCCEEDED
    is_open = RANKS[attempt.status] < RANKS[AttemptStatus.QUARANTINED]
    return AttemptStatus.QUARANTINED if is_money and is_open else None


def _corrects(attempt: Attempt, notice: Notice) -> bool:
    return attempt.status in notice.corrects and RANKS[attempt.status] <= _FAILED_RANK
