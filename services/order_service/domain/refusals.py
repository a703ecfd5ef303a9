"""Which commands are refused, and in which words?

Values that decisions return, not exceptions that they raise: by HTTP each becomes a problem with its status, on Kafka
its `reason` is the dead letter's.
"""

from shared.errors import Conflict, HoldfastError, Invalid, NotFound


class UnknownOrder(NotFound):
    """There is no order with this id."""

    reason = "unknown_order"


class KeyMismatch(Invalid):
    """The message key is not the order id."""

    reason = "key_mismatch"


class ContentConflict(Conflict):
    """An order with this id was placed with another content."""


class NotCancellable(Conflict):
    """The order can no longer be cancelled."""

    reason = "not_cancellable"


class TotalTooLarge(Invalid):
    """The total of the order is larger than 2^53 - 1 minor units."""


class UnknownSku(Invalid):
    """A SKU of the order is not in the catalog."""

    reason = "unknown_sku"


class InactiveProduct(Invalid):
    """A product of the order is not sold any more."""

    reason = "inactive_product"


class OtherCurrency(Invalid):
    """A product of the order is sold in another currency."""

    reason = "currency"


class TotalChanged(Invalid):
    """The total of the order is not the expected one."""

    reason = "total_changed"


class EmptyCart(Invalid):
    """The cart holds nothing to order."""

    reason = "empty_cart"


class UnknownCart(NotFound):
    """This customer has no cart with this id."""

    reason = "unknown_cart"


class CartOfAnother(Conflict):
    """The cart is another customer's, and stays so."""


class CartCheckedOut(Conflict):
    """An order was placed from this cart: until its stock is decided the cart takes no changes and no second order."""


class CartFull(Invalid):
    """The cart holds as many different SKUs as an order can."""

    reason = "cart_full"


class TooManyHolds(HoldfastError):
    """The customer has as many open orders as one may have at once; pay or cancel one of them first."""

    status = 429
    reason = "too_many_holds"


class OtherRequest(Invalid):
    """This Idempotency-Key came with another body before."""

    reason = "idempotency_key_reused"
