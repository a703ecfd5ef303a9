"""How do the real gateways behave? Doubles of their HTTP, for tests and the demo; never in production."""
