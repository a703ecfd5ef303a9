"""Do the gateways' money, the order service's news of it, and the goods agree?

`reconcile` compares, for each order of a period, what its gateway settled, whether the order service heard of it, and
whether inventory confirmed the goods: counts and sums, and one line for each disagreement. Start reading in
`reconciler`; `rules` are pure, `figures` adds up, `store` asks the databases. The snapshots, and the second look at what
is suspected, are the audit's.

R1 the order service has not heard what became of the money. R2 money without goods and without a refund. R3 goods
without money. R4 a refund that is refused, or not made in time. R5 money that waits for a person's decision. R6 an
attempt whose end the gateway has not told. R7 the order service believes in a payment that there is not.
"""

from ops.reconcile.figures import Figure
from ops.reconcile.limits import ReconcileLimits
from ops.reconcile.reconciler import Period, ReconcileReport, reconcile
from ops.reconcile.report import render_reconciliation

__all__ = ["Figure", "Period", "ReconcileLimits", "ReconcileReport", "reconcile", "render_reconciliation"]
