"""The payment service: what is to be paid, what was paid, and what goes back?

Owns: payments, attempts, raw webhooks, refunds.
Hears: `OrderAwaitingPayment`, `OrderCancelled`, `OrderRejected`, `OrderExpired`, `OrderPaymentFailed` and
`OrderRefundRequested` on order.events; the gateways' webhooks; new attempts and operators' refunds by HTTP.
Tells: payment.events (`PaymentInitiated`, `PaymentAttemptFailed`, `PaymentSucceeded`, `PaymentFailed`,
`PaymentRefunded`, `PaymentRefundFailed`, `PaymentQuarantined`).
"""
