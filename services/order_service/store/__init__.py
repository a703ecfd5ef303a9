"""Which SQL does the order service run?

One function a statement, the literal inside it. Whole batches travel as arrays, so a batch costs one statement a table.
Locks are taken in one order everywhere: orders by id, then carts by id, then customers.
"""

from services.order_service.store.carts import (
    delete_abandoned_carts,
    find_cart,
    load_items,
    lock_carts,
    save_carts,
)
from services.order_service.store.catalog import (
    Product,
    find_product,
    get_prices,
    insert_availability,
    insert_products,
    list_products,
)
from services.order_service.store.keys import (
    KeptAnswer,
    ScopedKey,
    delete_old_answers,
    find_answers,
    insert_answers,
    update_answers,
)
from services.order_service.store.orders import (
    count_open_orders,
    find_order,
    find_orders,
    get_time,
    insert_history,
    insert_lines,
    insert_orders,
    list_history,
    list_lines,
    list_orders,
    lock_customers,
    lock_orders,
    update_orders,
)

__all__ = [
    "KeptAnswer",
    "Product",
    "ScopedKey",
    "count_open_orders",
    "delete_abandoned_carts",
    "delete_old_answers",
    "find_answers",
    "find_cart",
    "find_order",
    "find_orders",
    "find_product",
    "get_prices",
    "get_time",
    "insert_answers",
    "insert_availability",
    "insert_history",
    "insert_lines",
    "insert_orders",
    "insert_products",
    "list_history",
    "list_lines",
    "list_orders",
    "list_products",
    "load_items",
    "lock_carts",
    "lock_customers",
    "lock_orders",
    "save_carts",
    "update_answers",
    "update_orders",
]
