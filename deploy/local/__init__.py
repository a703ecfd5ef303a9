"""How does the whole system run on one machine, without Docker?

`system.run_up` is what `holdfast up` does; `EmbeddedPostgres` and `EmbeddedKafka` are the real servers, which tests use
too; `sandbox` is a payment gateway that settles when it is told to. Never in production.
"""
