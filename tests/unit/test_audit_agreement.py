"""Does the audit's table of statuses say what the order service's says? Both are written from docs/protocol.md, on purpose."""

from itertools import product

import pytest

from ops.audit.agreement import RULES, Case, OrderRow, PaymentRow, ReservationRow
from services.order_service.domain.status import PaymentState, Stock, StockState, status_of
from shared.events import OrderStatus, PaymentStatus
from shared.ids import new_id

ID = new_id()
REASONS = ["expired", "payment_failed"]


def reservation(stock: Stock, reason: str) -> ReservationRow | None:
    """Return what inventory says where the order service knows this of it."""
    if stock is Stock.NONE:
        return None
    is_released = stock in {Stock.RELEASED, Stock.UNAVAILABLE}
    return ReservationRow(
        order_id=ID,
        status="RELEASED" if is_released else stock,
        reason=reason if is_released else None,
        unavailable=stock is Stock.UNAVAILABLE,
        lines=None,
        young=False,
    )


def payment(status: PaymentStatus | None) -> PaymentRow | None:
    """Return a payment without attempts."""
    nothing = (None,) * 5
    return None if status is None else PaymentRow(ID, status, None, None, 0, *nothing, 0, 0, 0, young=False)


def wrong_about_status(
    stock: Stock, reason: str, money: PaymentStatus | None, status: OrderStatus, *, cancelled: bool
) -> bool:
    """Tell whether the audit would have given the order another status."""
    order = OrderRow(ID, status, cancelled, 500, "EUR", None, young=False)
    case = Case(order, reservation(stock, reason), payment(money))
    return any("it should be" in sentence for sentence in RULES["A9"](case))


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("money", [None, *PaymentStatus])
@pytest.mark.parametrize("stock", list(Stock))
def test_both_tables_agree(stock: Stock, money: PaymentStatus | None, *, cancelled: bool) -> None:
    """For each combination of facets the audit accepts the service's status, and no other."""
    for reason, status in product(REASONS, OrderStatus):
        due = status_of(StockState(stock, reason), PaymentState(money), cancelled=cancelled)
        # An order that its own service refused is REJECTED, and nobody else hears of it as an order.
        refused = status is OrderStatus.REJECTED and stock is Stock.NONE and due is OrderStatus.REQUESTED

        wrong = wrong_about_status(stock, reason, money, status, cancelled=cancelled)

        assert wrong is (status is not due and not refused)
