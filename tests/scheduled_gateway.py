"""What does a gateway do in a schedule? It takes money when it is told to, and fails its callers when it is told to.

It keeps the truth about the money: what it captured and what it gave back, whatever anybody heard of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

from services.payment_service.domain.answers import Created, Declined, Refunded, RefundPending, Unanswered
from services.payment_service.domain.attempts import Attempt, AttemptStatus, Notice
from services.payment_service.domain.refunds import Refund
from services.payment_service.gateways.sandbox import Sandbox, SandboxOptions
from shared.ids import new_id
from tests.integration.payment_harness import SECRET, webhook_body

Fate = Literal["success", "failure", "expiry", "wrong amount", "wrong currency"]
#: How a call goes: as it should; not done and not answered; done and not answered; refused; or taken on for later.
Conduct = Literal["right", "deaf", "mute", "refusing", "slow"]
Behaviour = Callable[[str, UUID], Conduct]

_BY_HAND = "hand-"
_ENDS: Mapping[Fate, tuple[AttemptStatus, str]] = {
    "success": (AttemptStatus.SUCCEEDED, "succeeded"),
    "wrong amount": (AttemptStatus.SUCCEEDED, "succeeded"),
    "wrong currency": (AttemptStatus.SUCCEEDED, "succeeded"),
    "failure": (AttemptStatus.FAILED, "failed"),
    "expiry": (AttemptStatus.EXPIRED, "expired"),
}


@dataclass
class Taken:
    """One attempt as the gateway has it; `is_final` says that it never leaves a cancellation again, or so it says."""

    attempt: Attempt
    is_final: bool
    status: AttemptStatus = AttemptStatus.PENDING
    amount_minor: int | None = None
    currency: str | None = None
    refunds: dict[UUID, int] = field(default_factory=dict)
    #: Webhooks to be sent, some of them long after.
    told: list[bytes] = field(default_factory=list)

    @property
    def captured_minor(self) -> int:
        """What it took."""
        return self.amount_minor or 0

    @property
    def kept_minor(self) -> int:
        """What it took and did not give back."""
        return self.captured_minor - sum(self.refunds.values())

    def settle(self, fate: Fate) -> None:
        """Let the customer pay, or not, and note the webhook that tells of it."""
        self.status, kind = _ENDS[fate]
        wrong = {"wrong amount": {"amount_minor": self.attempt.amount_minor - 1}}
        changes: dict[str, int | str] = dict(wrong.get(fate, {}))
        if fate == "wrong currency":
            changes["currency"] = "USD"
        if self.status is AttemptStatus.SUCCEEDED:
            self.amount_minor = int(changes.get("amount_minor", self.attempt.amount_minor))
            self.currency = str(changes.get("currency", self.attempt.currency))
        self.told.append(webhook_body(self.attempt, kind, **changes))

    def says(self) -> Notice:
        """Return where it stands."""
        return Notice(
            native_status=self.status.lower(),
            status=self.status,
            attempt_id=self.attempt.attempt_id,
            transaction_id=_transaction_of(self.attempt),
            amount_minor=self.amount_minor,
            currency=self.currency,
            is_final=self.is_final and self.status is AttemptStatus.CANCELLED,
        )

    def give_all_back_by_hand(self) -> None:
        """Have somebody give back on the gateway's own pages what is kept, and note the webhook that tells of it."""
        refund_id, amount_minor = new_id(), self.kept_minor
        self.refunds[refund_id] = amount_minor
        name = f"{_BY_HAND}{refund_id}"
        self.told.append(
            webhook_body(
                self.attempt, "refunded", refund_id=name, amount_minor=amount_minor, currency=self.currency
            )
        )

    def give_back(self, refund: Refund) -> bool:
        """Give money back, once for each refund; False if there is not so much."""
        if refund.refund_id not in self.refunds:
            if refund.currency != self.currency or not 0 < refund.amount_minor <= self.kept_minor:
                return False
            self.refunds[refund.refund_id] = refund.amount_minor
        return True


class ScheduledGateway:
    """A gateway in this process, in the place of the sandbox; `behaviour` decides how each call goes."""

    name: str = "sandbox"
    signature_headers: tuple[str, ...] = ()

    def __init__(self, behaviour: Behaviour, is_final: Callable[[UUID], bool]) -> None:
        self._behaviour = behaviour
        self._is_final = is_final
        self._reader = Sandbox(SandboxOptions("http://127.0.0.1:1", [SECRET]))
        self.taken: dict[UUID, Taken] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def create(self, attempt: Attempt) -> Created | Declined | Unanswered:
        """Have a page ready."""
        conduct = self._behaviour("create", attempt.attempt_id)
        if conduct == "deaf":
            return Unanswered("deaf")
        taken = Taken(attempt, self._is_final(attempt.order_id))
        self.taken.setdefault(attempt.attempt_id, taken)
        return Unanswered("mute") if conduct == "mute" else Created(_transaction_of(attempt), None, "pending")

    async def ask(self, attempt: Attempt) -> Notice | Unanswered | None:
        """Say where an attempt stands."""
        if self._behaviour("ask", attempt.attempt_id) in {"deaf", "mute"}:
            return Unanswered("silent")
        taken = self.taken.get(attempt.attempt_id)
        return None if taken is None else taken.says()

    async def cancel(self, attempt: Attempt) -> Notice | Unanswered:
        """Close the page, if nobody has paid yet."""
        conduct = self._behaviour("cancel", attempt.attempt_id)
        if conduct == "deaf":
            return Unanswered("deaf")
        taken = self.taken.get(attempt.attempt_id)
        if taken is None:
            return Notice("not found", AttemptStatus.CANCELLED)
        if taken.status is AttemptStatus.PENDING:
            taken.status = AttemptStatus.CANCELLED
        return Unanswered("mute") if conduct == "mute" else taken.says()

    async def refund(
        self, refund: Refund, attempt: Attempt
    ) -> Refunded | RefundPending | Declined | Unanswered:
        """Give money back, at once or later."""
        conduct = self._behaviour("refund", attempt.attempt_id)
        if conduct == "deaf":
            return Unanswered("deaf")
        taken = self.taken[attempt.attempt_id]
        if conduct == "refusing" or not taken.give_back(refund):
            return Declined("not now")
        name = f"back-{refund.refund_id}"
        if conduct == "right":
            return Refunded(name)
        body = webhook_body(
            attempt, "refunded", refund_id=name, amount_minor=refund.amount_minor, currency=refund.currency
        )
        taken.told.append(body)
        return Unanswered("mute") if conduct == "mute" else RefundPending(name)

    async def identify(self, notice: Notice) -> Notice | Unanswered | None:
        """Every notice names its payment."""
        return notice

    def verify(self, headers: Mapping[str, str], body: bytes) -> str:
        """Nothing comes by HTTP here."""
        raise NotImplementedError

    def read(self, body: bytes) -> Notice:
        """Read a webhook of the sandbox; of this gateway it is known which refunds are none of ours."""
        notice = self._reader.read(body)
        refund = notice.refund
        if refund is None or not (refund.gateway_refund_id or "").startswith(_BY_HAND):
            return notice
        return replace(notice, refund=replace(refund, is_foreign=True))


def _transaction_of(attempt: Attempt) -> str:
    return attempt.gateway_transaction_id or f"gateway-{attempt.attempt_id}"
