"""What may a caller do?"""

from enum import StrEnum


class Scope(StrEnum):
    """The scopes, each of which includes the ones before it: a customer's own things, everybody's, everything."""

    CUSTOMER = "customer"
    STOREFRONT = "storefront"
    OPERATOR = "operator"

    def includes(self, other: "Scope") -> bool:
        """Tell whether this scope opens what the other one opens."""
        return _RANKS[self] >= _RANKS[other]


_RANKS = {scope: rank for rank, scope in enumerate(Scope)}
