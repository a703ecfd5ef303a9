"""Where does one attempt to pay stand, and what may a gateway's word change about it?

State is kept per attempt and ranked: a delivery applies only if it lifts the attempt to a higher rank, so that late,
repeated and shuffled deliveries end in the same state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
_CALLED_BACK: Final = frozenset({AttemptStatus.CANCELLED})


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
    """What a gateway says about money it gave back; `refund_id` is ours, where the gateway repeats it.

    `failed` says that the refund did not arrive after all, and must be asked for again or looked at. `is_foreign` says
    that it is certainly none that we asked for: somebody had it made at the gateway.
    """

    amount_minor: int
    currency: str
    gateway_refund_id: str | None = None
    refund_id: UUID | None = None
    failed: bool = False
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """What a gateway says about one of its payments, in our words: read from a webhook, or from an answer.

    `status` is None where it says nothing that concerns us. `amount_minor` and `currency` belong to a success.
    `corrects` names the failed states that this gateway is documented to take back although the rank is not higher.
    `is_confirmed` is False where the signature does not cover the status: the gateway must be asked before it counts.
    `dispute` says why somebody contests money that was taken; it moves nothing, a person decides.
    `is_final` marks a cancellation that the gateway is documented never to leave again.
    `alias` is what the gateway calls the payment where it says neither our reference nor a transaction that we know: only
    the gateway itself can tell whose it is.
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
    is_confirmed: bool = True
    dispute: str | None = None
    is_final: bool = False
    alias: str | None = None

    def is_repeated_by(self, answer: "Notice") -> bool:
        """Tell whether an answer says all that this says: where the attempt stands, what went back, what is contested."""
        return (
            self.status in {None, answer.status}
            and self.refund in {None, answer.refund}
            and self.dispute in {None, answer.dispute}
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a notice, why, and the state that the attempt takes (None: it keeps its own).

    `contested` says why a person must look at an attempt whose state stays as it is.
    """

    verdict: Verdict
    reason: str | None = None
    status: AttemptStatus | None = None
    contested: str | None = None

    @property
    def moves(self) -> bool:
        """Whether the attempt is another one afterwards."""
        return self.status is not None or self.contested is not None


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt to pay; amounts are in minor units.

    `received_…` is what the gateway says to have taken, `refunding_minor` how much of it was given back or is due to be.
    `initiated` says that the gateway is known to have the attempt, `withdrawn` that we no longer want it to be paid,
    `superseded` that a newer attempt took its place. The gateway is asked where it stands at `ask_at`, for the
    `asks`-th time. `shown_status` is the end of which whoever started it was told at once. A person must look at it since `review_at`, for `review_reason`; `dispute` stays, how it is contested.
    `is_marked` says that one of the last, rare columns has changed.
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
    ask_at: datetime | None = None
    asks: int = 0
    superseded: bool = False
    cancelled_for_good: bool = False
    received_transaction_id: str | None = None
    dispute: str | None = None
    review_at: datetime | None = None
    review_reason: str | None = None
    shown_status: AttemptStatus | None = None
    is_new: bool = False
    is_changed: bool = False
    is_marked: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it may still be paid as far as we know."""
        return RANKS[self.status] < _FAILED_RANK

    @property
    def is_failed(self) -> bool:
        """Whether it ended unpaid by itself; one that we called back ourselves did not fail."""
        called_back = {AttemptStatus.CANCELLED, AttemptStatus.EXPIRED} if self.superseded else _CALLED_BACK
        return RANKS[self.status] == _FAILED_RANK and not (self.withdrawn and self.status in called_back)

    @property
    def is_spent(self) -> bool:
        """Whether it used up one of the allowed attempts: it failed, or ended after a newer one took its place."""
        return self.is_failed or (self.superseded and RANKS[self.status] == _FAILED_RANK)

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
            if notice.transaction_id not in {None, self.gateway_transaction_id}:
                self.received_transaction_id, self.is_marked = notice.transaction_id, True
        if status is AttemptStatus.CANCELLED and notice.is_final:
            self.cancelled_for_good = self.is_marked = True
        if not self.is_live:
            self.ask_gateway(None, None)
            self.ask_at = None
        self.is_changed = True

    def have_reviewed(self, reason: str, at: datetime) -> None:
        """Have a person look at it."""
        self.review_at, self.review_reason = self.review_at or at, reason
        self.is_marked = self.is_changed = True

    def note_shown(self) -> None:
        """Remember what whoever started it is told, if that is an end: under the same key it is told again."""
        if not self.is_live and self.status is not AttemptStatus.QUARANTINED and self.shown_status is None:
            self.shown_status = self.status
            self.is_marked = self.is_changed = True

    def contest(self, dispute: str, at: datetime) -> None:
        """Remember how its money is contested, and have a person look at it; nothing else changes."""
        self.dispute = dispute
        self.have_reviewed(dispute, at)

    def end_review(self) -> None:
        """Note that a person has decided."""
        self.review_at = self.review_reason = None
        self.is_marked = self.is_changed = True


def as_first_shown(attempt: Attempt) -> Attempt:
    """Return an attempt as it was shown when it was started, if it had ended then; else as it is."""
    status = attempt.shown_status
    if status is None:
        return attempt
    is_paid = RANKS[status] > _FAILED_RANK
    return replace(
        attempt,
        status=status,
        gateway_transaction_id=attempt.gateway_transaction_id if is_paid or attempt.initiated else None,
        received_amount_minor=attempt.received_amount_minor if is_paid else None,
        received_currency=attempt.received_currency if is_paid else None,
        accepted_amount_minor=None,
        dispute=None,
        review_reason=None,
    )


def judge(attempt: Attempt, notice: Notice) -> Judgement:
    """Decide what a notice about an attempt's status means for it (docs/protocol.md, "Payment"); changes nothing.

    A settled attempt never goes back to an unpaid state: the first success settles for ever, and carried states never go
    down. Where its gateway is documented to take a success back, and where somebody disputes the money, the attempt is
    contested instead: a person decides.

    A success counts after any failure, expiry or cancellation: the money is there, and goods or a refund follow by
    themselves. The one exception is a cancellation that the gateway called final: then one of its two words is wrong,
    and the money is quarantined.
    """
    if notice.dispute is not None:
        return _contest(attempt, notice.dispute)
    if notice.status is None:
        return Judgement(Verdict.IGNORED, f"{notice.native_status} is of no interest")
    if notice.status is AttemptStatus.REFUNDED:
        return Judgement(Verdict.IGNORED, "money that goes back is counted by its refund")
    difference = _difference(attempt, notice)
    if difference is not None:
        return _mismatch(attempt, notice, difference)
    if _takes_money_back(attempt, notice):
        return _contest(attempt, f"{notice.native_status} after {attempt.status}", Verdict.REGRESSIVE)
    return _rank(attempt, notice, notice.status)


def _rank(attempt: Attempt, notice: Notice, status: AttemptStatus) -> Judgement:
    """Judge a notice that contradicts nothing by its rank."""
    if attempt.status is status:
        return Judgement(Verdict.DUPLICATE, f"the attempt is {status} already")
    if attempt.status is AttemptStatus.QUARANTINED:
        return Judgement(Verdict.REGRESSIVE, "the attempt is QUARANTINED: an operator decides")
    if attempt.cancelled_for_good and status is AttemptStatus.SUCCEEDED:
        return _mismatch(attempt, notice, "cancelled")
    if RANKS[status] > RANKS[attempt.status] or _corrects(attempt, notice):
        return Judgement(Verdict.APPLIED, f"{attempt.status} → {status}", status)
    return Judgement(Verdict.REGRESSIVE, f"the attempt is {attempt.status} already")


def _contest(attempt: Attempt, dispute: str, verdict: Verdict = Verdict.APPLIED) -> Judgement:
    """Have a person look at an attempt, once for each way in which its money is contested."""
    if attempt.dispute == dispute:
        return Judgement(Verdict.DUPLICATE, f"the attempt is contested already: {dispute}")
    return Judgement(verdict, f"contested: {dispute}; an operator decides", contested=dispute)


def _mismatch(attempt: Attempt, notice: Notice, difference: str) -> Judgement:
    """Quarantine money that came otherwise than asked for; where other money is counted already, contest that."""
    if notice.status is not AttemptStatus.SUCCEEDED:
        return Judgement(Verdict.MISMATCH, difference)
    if RANKS[attempt.status] < RANKS[AttemptStatus.QUARANTINED]:
        return Judgement(Verdict.MISMATCH, difference, AttemptStatus.QUARANTINED)
    dispute = f"another success, of another {difference}"
    is_news = attempt.dispute != dispute and not _is_counted(attempt, notice)
    return Judgement(Verdict.MISMATCH, difference, contested=dispute if is_news else None)


def _is_counted(attempt: Attempt, notice: Notice) -> bool:
    """Tell whether a success speaks of the very money that the attempt has received already."""
    received = (attempt.received_amount_minor, attempt.received_currency)
    transactions = {None, attempt.received_transaction_id or attempt.gateway_transaction_id}
    return received == (notice.amount_minor, notice.currency) and notice.transaction_id in transactions


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


def _takes_money_back(attempt: Attempt, notice: Notice) -> bool:
    """Tell whether a gateway takes money back that we count, other than by a refund of ours."""
    is_ours = 0 < attempt.refunding_minor == attempt.received_amount_minor
    has_money = attempt.status in {AttemptStatus.SUCCEEDED, AttemptStatus.QUARANTINED}
    corrected = notice.corrects & {attempt.status, AttemptStatus.SUCCEEDED}
    is_end = notice.status is not None and RANKS[notice.status] == _FAILED_RANK
    return has_money and bool(corrected) and is_end and not is_ours


def _corrects(attempt: Attempt, notice: Notice) -> bool:
    return attempt.status in notice.corrects and RANKS[attempt.status] <= _FAILED_RANK
