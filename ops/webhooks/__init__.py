"""What did the gateways deliver, how was it judged, and which of it should be judged again? `holdfast webhooks`."""

from ops.webhooks.command import webhooks
from ops.webhooks.retrying import Retried, RetryPlan, plan_retry, retry, wait_for_verdicts
from ops.webhooks.store import Delivery, DeliveryFilters, find_delivery, list_deliveries

__all__ = [
    "Delivery",
    "DeliveryFilters",
    "Retried",
    "RetryPlan",
    "find_delivery",
    "list_deliveries",
    "plan_retry",
    "retry",
    "wait_for_verdicts",
    "webhooks",
]
