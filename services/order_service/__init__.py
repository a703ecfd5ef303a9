"""The order service: which orders are there, and where does each stand?

Owns: catalog prices, carts, orders, order lines, order history.
Hears: `PlaceOrder` and `CancelOrder` on order.commands and by HTTP; everything on inventory.events and payment.events.
Tells: order.events (`OrderRequested`, `OrderAwaitingPayment`, `OrderConfirmed`, `OrderRejected`, `OrderPaymentFailed`,
`OrderExpired`, `OrderCancelled`, `OrderRefundRequested`, `OrderRefunded`).
"""
