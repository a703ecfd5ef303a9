"""The payment service: what is to be paid, what was paid, and what goes back?

Owns: payments, attempts, raw webhooks, refunds, operators' resolutions.
Hears: `OrderAwaitingPayment`, `OrderCancelled`, `OrderRejected`, `OrderExpired`, `OrderPaymentFailed` and
`OrderRefundRequested` on order.events; the gateways' webhooks; new attempts, operators' refunds and decisions by HTTP.
Tells: payment.events (`PaymentInitiated`, `PaymentAttemptFailed`, `PaymentSucceeded`, `PaymentFailed`,
`PaymentRefunded`, `PaymentRefundFailed`, `PaymentQuarantined`).
"""
