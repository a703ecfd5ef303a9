"""Does the order service forget what nobody asks for any more, and nothing else?"""

from services.order_service import handlers
from services.order_service.handlers import CartChange
from services.order_service.main import wire
from services.order_service.worker import Housekeeper
from shared.database import Database
from shared.runtime import start
from tests.conftest import MakeDatabase
from tests.feeding import feed, message
from tests.order_building import place_order
from tests.order_database import rows, stock_catalog
from tests.services import settings_of
from tests.waiting import eventually


async def fill(database: Database, *cart_ids: str) -> None:
    """Put two items in each cart."""
    changes = [CartChange(cart_id, sku, 1) for cart_id in cart_ids for sku in ("APPLE", "BREAD")]
    async with database.transaction() as tx:
        await handlers.change_carts(tx, changes)


async def age(database: Database, hours: int, *cart_ids: str) -> None:
    """Have carts be untouched for so long."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE carts SET updated_at = now() - make_interval(hours => $1) WHERE cart_id = ANY($2)",
            hours,
            cart_ids,
        )


async def tick(database: Database, *, rows_max: int = 100) -> bool:
    """Run one tick of the housekeeper, which keeps answers for a day and carts for two."""
    return await Housekeeper(database, answer_hours=24, cart_hours=48, rows_max=rows_max).tick()


async def test_carts_left_behind_are_forgotten_with_their_items(order_db: Database) -> None:
    """Old and open ones go; what was touched lately, and what an order has checked out, stays."""
    await stock_catalog(order_db)
    await fill(order_db, "old", "young", "taken")
    await feed(order_db, handlers, [message(place_order(lines=None, cart_id="taken"))])
    await age(order_db, 49, "old", "taken")
    await age(order_db, 47, "young")

    more = await tick(order_db)

    assert more is False
    assert await rows(order_db, "SELECT cart_id FROM carts ORDER BY 1") == [("taken",), ("young",)]
    assert await rows(order_db, "SELECT cart_id, count(*) FROM cart_items GROUP BY 1 ORDER BY 1") == [
        ("taken", 2),
        ("young", 2),
    ]


async def test_the_running_service_keeps_answers_and_carts_as_long_as_its_settings_say(
    make_database: MakeDatabase,
) -> None:
    """Nobody tells it to: what is older than `idempotency_retention_hours` and `cart_retention_hours` goes by itself."""
    settings = settings_of(
        "order",
        await make_database("order"),
        idempotency_retention_hours=2,
        cart_retention_hours=5,
        housekeeping_interval_seconds=0.05,
    )
    async with start("order-service", settings, wire) as service:
        database = service.database
        await fill(database, "young", "old")
        await age(database, 4, "young")
        await keep_answer(database, "young", hours=1)
        await age(database, 6, "old")
        await keep_answer(database, "old", hours=3)

        async def kept() -> bool:
            keys = await rows(database, "SELECT key FROM idempotency_keys")
            return (keys, await rows(database, "SELECT cart_id FROM carts")) == ([("young",)], [("young",)])

        await eventually(kept, what="only what is young is kept")


async def keep_answer(database: Database, key: str, *, hours: int) -> None:
    """Have an answer that was given so long ago."""
    async with database.connection() as connection:
        await connection.execute(
            """
            INSERT INTO idempotency_keys (scope, key, fingerprint, order_id, status, body, created_at)
            VALUES ('storefront', $1, '', gen_random_uuid(), 202, '', now() - make_interval(hours => $2))
            """,
            key,
            hours,
        )


async def test_a_tick_forgets_so_many_and_says_that_there_are_more(order_db: Database) -> None:
    """The oldest go first, and no tick takes long."""
    await fill(order_db, "cart-1", "cart-2", "cart-3")
    for hours, cart_id in [(60, "cart-1"), (70, "cart-2"), (50, "cart-3")]:
        await age(order_db, hours, cart_id)

    first = await tick(order_db, rows_max=2)
    left = await rows(order_db, "SELECT cart_id FROM carts")
    second = await tick(order_db, rows_max=2)

    assert (first, left, second) == (True, [("cart-3",)], False)


async def test_a_cart_that_is_being_changed_is_passed_over(order_db: Database) -> None:
    """The housekeeper waits for nobody, and takes no cart from under a change."""
    await fill(order_db, "cart-1")
    await age(order_db, 100, "cart-1")

    async with order_db.transaction() as tx:
        await handlers.change_carts(tx, [CartChange("cart-1", "APPLE", 5)])
        await tick(order_db)

    assert await rows(order_db, "SELECT sku, quantity FROM cart_items ORDER BY 1") == [
        ("APPLE", 5),
        ("BREAD", 1),
    ]
