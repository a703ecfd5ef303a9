"""What does an operator look at? The console: pages over the three databases, Kafka and the payment service.

A process of its own, `python -m ops.console`; `holdfast up` starts it with the rest. Start reading in `main`. Reading
needs no JavaScript; what changes something shows its plan first, is confirmed by a form, and is recorded as the
commands record it: `pages` only put forms around them. `access` says who is let in, `frame` what holds for every
answer, `gathering` what the overview shows, `store` has all SQL.
"""
