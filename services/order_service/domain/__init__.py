"""What does the order service decide, and by which rules? Plain Python: no I/O, no clock, no randomness.

`status` is the protocol's table; `order` moves one order along it and tells of it; `placing` prices a command; `cart` is
what an order may be placed from; `book` decides a batch, command by command and fact by fact; `refusals` are the answers
that change nothing, `answers` what callers see of an order.
"""
