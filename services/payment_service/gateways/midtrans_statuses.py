"""What does each status of Midtrans mean to us, and where does Midtrans say so?

One table. A line's source is the page of Midtrans's documentation it was read from. What no line names means nothing
that we know: it is stored and passed over, never guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.payment_service.domain.attempts import AttemptStatus

_CYCLE: Final = "Transaction Status Cycle, table Transaction Status"
_REVERSAL: Final = "Transaction Status Cycle, section Reversal Case"
_FRAUD: Final = "Get Transaction Status, attribute fraud_status"

#: What a payment is called that the customer may still take back: bank transfers, e-channel (Mandiri bill) and stores.
REVERSED: Final = frozenset({"bank_transfer", "echannel", "cstore"})
#: Payments that are captured first and settled a day later; only in between can they be cancelled after a success.
CAPTURED: Final = frozenset({"credit_card"})


@dataclass(frozen=True, slots=True)
class StatusLine:
    """What one `transaction_status` means, where `fraud_status` is one of `fraud` (None: whatever it is).

    `takes_back` names the payment types for which this status is documented to undo a success. `has_refunds` says that
    the document lists what went back, `dispute` that somebody contests the money, and in which words. `is_final` marks
    the cancellation, out of which the table of Midtrans leads nowhere.
    """

    native: str
    status: AttemptStatus | None
    source: str
    fraud: frozenset[str | None] | None = None
    takes_back: frozenset[str] = frozenset()
    has_refunds: bool = False
    dispute: str | None = None
    is_final: bool = False


STATUSES: Final[Sequence[StatusLine]] = (
    # The money of a card is taken, unless it waits for the merchant's review or was found to be fraud.
    StatusLine("capture", AttemptStatus.SUCCEEDED, f"{_CYCLE}; {_FRAUD}", fraud=frozenset({None, "accept"})),
    StatusLine("capture", AttemptStatus.AUTHORIZED, f"{_CYCLE}; {_FRAUD}", fraud=frozenset({"challenge"})),
    StatusLine("capture", AttemptStatus.FAILED, f"{_CYCLE}; {_FRAUD}", fraud=frozenset({"deny"})),
    StatusLine("settlement", AttemptStatus.SUCCEEDED, _CYCLE),
    StatusLine("pending", AttemptStatus.PENDING, _CYCLE),
    StatusLine("authorize", AttemptStatus.AUTHORIZED, _CYCLE),
    StatusLine("deny", AttemptStatus.FAILED, f"{_CYCLE}; {_REVERSAL}", takes_back=REVERSED),
    StatusLine(
        "cancel", AttemptStatus.CANCELLED, f"{_CYCLE}; Cancel Transaction", takes_back=CAPTURED, is_final=True
    ),
    StatusLine("expire", AttemptStatus.EXPIRED, f"{_CYCLE}; Expire Transaction"),
    StatusLine("failure", AttemptStatus.FAILED, _CYCLE),
    # All of it went back: whoever has not heard of the success before need not hear of it now.
    StatusLine("refund", None, f"{_CYCLE}; Refund Transactions", has_refunds=True),
    # What did not go back was taken: it is a success as well.
    StatusLine("partial_refund", AttemptStatus.SUCCEEDED, f"{_CYCLE}; Refund Transactions", has_refunds=True),
    StatusLine("chargeback", None, _CYCLE, dispute="chargeback"),
    StatusLine("partial_chargeback", None, _CYCLE, dispute="partial chargeback"),
)


def find_line(native: str, fraud: str | None) -> StatusLine | None:
    """Return the line of a status in small letters, or None where the table has none."""
    for line in STATUSES:
        if line.native == native and (line.fraud is None or fraud in line.fraud):
            return line
    return None
