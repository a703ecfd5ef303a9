"""What happens to stock, and to the holds on it, when something is heard?

Plain decisions on what `store` has loaded: no database, no clock, no chance. `ledger` decides, on the levels of `stock`
and the reservations of `reservation`.
"""
