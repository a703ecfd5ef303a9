"""What does the payment service do with what it hears: orders, requests, deliveries, and gateways' answers?

Load, decide, save, for a batch, in the caller's transaction. A gateway cannot be reached from here: whoever asks one
does so outside, and hands in what it answered.
"""

from services.payment_service.handlers.attempts import (
    AttemptAnswered,
    StartAttempt,
    Started,
    save_attempt_answers,
    start_attempts,
)
from services.payment_service.handlers.orders import CONSUMED, CONSUMER, Consumed, Policy, handle, tell_again
from services.payment_service.handlers.quarantine import Resolve, Resolved, resolve
from services.payment_service.handlers.reconciling import Asked, reconcile
from services.payment_service.handlers.refunds import (
    RefundAnswered,
    Requested,
    RequestRefund,
    request_refunds,
    save_refund_answers,
)
from services.payment_service.handlers.webhooks import Delivery, Judged, Question, judge, keep_webhooks

__all__ = [
    "CONSUMED",
    "CONSUMER",
    "Asked",
    "AttemptAnswered",
    "Consumed",
    "Delivery",
    "Judged",
    "Policy",
    "Question",
    "RefundAnswered",
    "RequestRefund",
    "Requested",
    "Resolve",
    "Resolved",
    "StartAttempt",
    "Started",
    "handle",
    "judge",
    "keep_webhooks",
    "reconcile",
    "request_refunds",
    "resolve",
    "save_attempt_answers",
    "save_refund_answers",
    "start_attempts",
    "tell_again",
]
