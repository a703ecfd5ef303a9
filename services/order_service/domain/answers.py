"""What does a caller see of an order?"""

from typing import Any

from services.order_service.domain.order import Order


def show_order(order: Order) -> dict[str, Any]:
    """Return an order, its lines loaded, in the shape of the contract."""
    return {
        "order_id": order.order_id,
        "customer_id": order.customer_id,
        "status": order.status,
        "reason": order.reason,
        "details": order.details,
        "version": order.version,
        "currency": order.currency,
        "total_minor": order.total_minor,
        "lines": order.lines,
        "pay_by": order.pay_by,
        "payment": {"status": order.payment.status, "payment_url": order.payment_url},
        "created_at": order.created_at,
        "updated_at": order.updated_at,
    }
