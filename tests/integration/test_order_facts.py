"""Do orders and products follow what inventory and the payment service say, on a real Postgres?"""

import pytest

from services.order_service import handlers, store
from services.order_service.store import Product
from shared.database import Database
from shared.events import Shortage, StockDepleted, StockReplenished
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.order_building import (
    PAY_BY,
    confirmed,
    initiated,
    place_order,
    refunded,
    released,
    reserved,
    stock_rejected,
    succeeded,
    unavailable,
)
from tests.order_database import place, reasons, rows, status_of, stock_catalog


@pytest.fixture
async def db(order_db: Database) -> Database:
    """A database of the order service with a small catalog."""
    await stock_catalog(order_db)
    return order_db


async def test_an_order_is_followed_from_request_to_confirmation(db: Database) -> None:
    """Each fact moves it on; the confirmation tells the lines that were stored when it was placed."""
    command = place_order(None, ("BREAD", 1), ("APPLE", 2))
    order_id = command.order_id
    await place(db, command)

    for number, fact in enumerate([reserved(order_id), initiated(order_id), succeeded(order_id, 450)], 1):
        await feed(db, handlers, [message(fact, sequence=number)])
    await feed(db, handlers, [message(confirmed(order_id), sequence=2)])

    told = await outbox_events(db)
    assert [(item.type, item.sequence) for item in told] == [
        ("OrderRequested", 1),
        ("OrderAwaitingPayment", 2),
        ("OrderConfirmed", 3),
    ]
    assert told[2].event.lines == told[0].event.lines
    assert await rows(db, "SELECT version, status FROM order_history ORDER BY version") == [
        (1, "REQUESTED"),
        (2, "AWAITING_PAYMENT"),
        (3, "PROCESSING"),
    ]
    assert await rows(db, "SELECT payment, payment_url, pay_by FROM orders") == [
        ("SUCCEEDED", "https://pay.example/1", PAY_BY)
    ]


async def test_a_payment_that_comes_after_the_confirmation_confirms_the_order(db: Database) -> None:
    """The lines are also loaded where the stock was CONFIRMED before the money was heard of."""
    command = place_order()
    await place(db, command)
    await feed(db, handlers, [message(confirmed(command.order_id))])

    await feed(db, handlers, [message(succeeded(command.order_id))])

    [told] = await outbox_events(db, types=["OrderConfirmed"])
    assert [(line.sku, line.quantity) for line in told.event.lines] == [("APPLE", 2)]


async def test_shortages_are_kept_with_the_order(db: Database) -> None:
    """The details of a rejection by stock name each SKU, what was asked for and what was there."""
    command = place_order()
    await place(db, command)
    short = Shortage(sku="APPLE", requested=2, available=0)

    await feed(db, handlers, [message(stock_rejected(command.order_id, short))])

    async with db.connection() as connection:
        order = await store.find_order(connection, command.order_id)
    assert order is not None
    assert order.details == {"shortages": [{"sku": "APPLE", "requested": 2, "available": 0}]}


async def test_a_late_payment_without_units_is_refunded(db: Database) -> None:
    """EXPIRED, paid, unavailable, refunded: the status follows and the money is asked back once."""
    command = place_order()
    order_id = command.order_id
    await place(db, command)

    await feed(
        db,
        handlers,
        [
            message(reserved(order_id), sequence=1),
            message(released(order_id), sequence=2),
            message(succeeded(order_id), sequence=1),
            message(unavailable(order_id), sequence=3),
            message(refunded(order_id), sequence=2),
        ],
    )

    told = [(item.type, item.sequence) for item in await outbox_events(db)]
    assert told == [
        ("OrderRequested", 1),
        ("OrderAwaitingPayment", 2),
        ("OrderExpired", 3),
        ("OrderRefundRequested", 4),
        ("OrderRefunded", 5),
    ]
    assert await rows(db, "SELECT version, status FROM order_history ORDER BY version") == [
        (1, "REQUESTED"),
        (2, "AWAITING_PAYMENT"),
        (3, "EXPIRED"),
        (4, "AWAITING_PAYMENT"),
        (5, "REFUND_DUE"),
        (6, "REFUNDED"),
    ]


async def test_a_fact_about_an_unknown_order_is_a_dead_letter(db: Database) -> None:
    """Facts follow an order; without it they are refused, and their neighbours go on."""
    command = place_order()
    await place(db, command)

    refusals = await feed(
        db,
        handlers,
        [message(reserved(new_id())), message(succeeded(new_id())), message(reserved(command.order_id))],
    )

    assert reasons(refusals) == ["unknown_order", "unknown_order"]
    assert await status_of(db, command.order_id) == ("AWAITING_PAYMENT", None)


async def product_status(database: Database, sku: str) -> str | None:
    """Return a product's status."""
    async with database.connection() as connection:
        product = await store.find_product(connection, sku)
    return None if product is None else product.status


async def test_a_product_is_out_of_stock_while_its_sku_is_depleted(db: Database) -> None:
    """StockDepleted and StockReplenished switch it; an inactive product stays INACTIVE."""
    await feed(db, handlers, [message(StockDepleted(sku=sku), sequence=1) for sku in ("APPLE", "GONE")])
    depleted = [await product_status(db, sku) for sku in ("APPLE", "BREAD", "GONE")]

    await feed(db, handlers, [message(StockReplenished(sku="APPLE"), sequence=2)])

    assert depleted == ["OUT_OF_STOCK", "ACTIVE", "INACTIVE"]
    assert await product_status(db, "APPLE") == "ACTIVE"


async def test_an_older_fact_about_a_sku_does_not_undo_a_newer_one(db: Database) -> None:
    """The highest sequence holds, within a batch and across batches."""
    await feed(
        db,
        handlers,
        [
            message(StockReplenished(sku="APPLE"), sequence=4),
            message(StockDepleted(sku="APPLE"), sequence=3),
        ],
    )
    within = await product_status(db, "APPLE")

    await feed(db, handlers, [message(StockDepleted(sku="APPLE"), sequence=2)])

    assert within == "ACTIVE"
    assert await product_status(db, "APPLE") == "ACTIVE"


async def test_a_fact_about_a_sku_that_the_catalog_does_not_know_is_remembered(db: Database) -> None:
    """It is no error, and a product that is stored later shows it."""
    refusals = await feed(db, handlers, [message(StockDepleted(sku="CHEESE"), sequence=1)])

    async with db.connection() as connection:
        await store.insert_products(connection, [Product("CHEESE", "Cheese", 5, "EUR", active=True)])
    assert refusals == []
    assert await product_status(db, "CHEESE") == "OUT_OF_STOCK"


async def test_a_product_that_is_out_of_stock_can_be_ordered(db: Database) -> None:
    """Inventory decides, not the catalog's last word."""
    await feed(db, handlers, [message(StockDepleted(sku="APPLE"), sequence=1)])
    command = place_order()

    await place(db, command)

    assert await status_of(db, command.order_id) == ("REQUESTED", None)
