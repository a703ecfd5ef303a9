"""Inventory: how many units there are, who holds them, and who has bought them.

Owns: stock levels, the movements that explain them, and one reservation an order; stock receipts and adjustments.
Hears: `OrderRequested`, `OrderCancelled`, `PaymentSucceeded`, `PaymentFailed`, `PaymentRefunded`; HTTP; the clock.
Tells: `StockReserved`, `StockRejected`, `StockConfirmed`, `StockReleased`, `StockReturned`, `StockUnavailable` about
orders; `StockDepleted` and `StockReplenished` about SKUs.
"""
