"""What is known of whoever sends a request?"""

from dataclasses import dataclass

from shared.scopes import Scope

__all__ = ["Caller", "Scope", "name_of"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: its name in logs, records and idempotency keys (never its token), its scope, and its customer id.

    Only a caller of the scope `customer` has a customer id: it is all that such a caller may touch.
    """

    name: str
    scope: Scope
    customer_id: str | None = None

    def __post_init__(self) -> None:
        if (self.scope is Scope.CUSTOMER) != (self.customer_id is not None):
            raise ValueError("a customer has an id, and nobody else has one")

    @property
    def is_anonymous(self) -> bool:
        """Tell whether the caller holds one of the two tokens that many may share: its name is that of its scope."""
        return self.name == self.scope


def name_of(kind: str, who: str) -> str:
    """Return the name of a caller; no two callers have the same, and none that of another kind."""
    return f"{kind}:{who.replace('%', '%25').replace(':', '%3A')}"
