"""Does the audit see each unit that is not where the ledger says? (A1 to A4)."""

from collections.abc import AsyncIterator

import pytest

from deploy.local.postgres import EmbeddedPostgres
from tests.audit_building import World, open_world

_WITHOUT_UNIQUE_MOVES = (
    "ALTER TABLE stock_movements DROP CONSTRAINT stock_movements_order_id_sku_kind_round_key"
)
# Both CHECKs of the table: on the deltas of each kind, and on which kinds belong to an order.
_WITHOUT_CHECKED_MOVES = """
ALTER TABLE stock_movements DROP CONSTRAINT stock_movements_check, DROP CONSTRAINT stock_movements_check1
"""


@pytest.fixture(scope="module")
async def kept_world(postgres: EmbeddedPostgres, templates: dict[str, str]) -> AsyncIterator[World]:
    """An order of every kind, nothing wrong."""
    async with open_world(postgres, templates) as world:
        yield world


@pytest.fixture
async def world(kept_world: World) -> AsyncIterator[World]:
    """The same, to be corrupted; put back afterwards."""
    yield kept_world
    await kept_world.put_back()


async def test_a_world_in_order_is_clean(world: World) -> None:
    """Orders in every state that the protocol allows give no finding, and were looked at."""
    report = await world.audit()

    assert report.findings == []
    assert report.ok
    assert report.counted["orders"] == len(world.orders)
    assert report.counted["suspects"] == 0


# --- A1 -------------------------------------------------------------------------------------------------------------


async def test_a_negative_counter_is_found(world: World) -> None:
    """A counter below zero is A1, also where the ledger itself leads there."""
    await world.unguard(world.inventory_db, "ALTER TABLE stock_levels DROP CONSTRAINT stock_levels_check")
    await world.corrupt(
        world.inventory_db,
        """
        INSERT INTO stock_movements (sku, kind, available_delta, reserved_delta, sold_delta, cause)
        VALUES ('BREAD', 'ADJUSTED', -5000, 0, 0, 'test')
        """,
    )

    await world.corrupt(
        world.inventory_db, "UPDATE stock_levels SET available = available - 5000 WHERE sku = 'BREAD'"
    )

    assert await world.found() == [("A1", "BREAD")]


# --- A2 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [1, -1])
async def test_a_counter_that_is_not_its_sum_is_found(world: World, change: int) -> None:
    """A counter that no movement explains is A2."""
    await world.corrupt(
        world.inventory_db, "UPDATE stock_levels SET sold = sold + $1 WHERE sku = 'APPLE'", change
    )

    assert await world.found() == [("A2", "APPLE")]


async def test_reserved_units_that_nobody_reserved_are_found(world: World) -> None:
    """A wrong `reserved` is A2, and A3 as well: both compare this one number."""
    await world.corrupt(
        world.inventory_db, "UPDATE stock_levels SET reserved = reserved + 1 WHERE sku = 'APPLE'"
    )

    assert await world.found() == [("A2", "APPLE"), ("A3", "APPLE")]


async def test_a_lost_movement_is_found(world: World) -> None:
    """A receipt whose row is gone is A2."""
    await world.corrupt(
        world.inventory_db, "DELETE FROM stock_movements WHERE sku = 'BREAD' AND kind = 'RECEIVED'"
    )

    assert await world.found() == [("A2", "BREAD")]


async def test_a_lost_level_is_found(world: World) -> None:
    """A SKU with movements but without counters is A2."""
    await world.receive("CHERRY", 5)

    await world.corrupt(world.inventory_db, "DELETE FROM stock_levels WHERE sku = 'CHERRY'")

    assert await world.found() == [("A2", "CHERRY")]


async def test_units_that_came_from_nowhere_are_found(world: World) -> None:
    """Counters that equal their sums, but are more than what was received and adjusted, are A2."""
    await world.receive("CHERRY", 5)
    await world.unguard(world.inventory_db, _WITHOUT_CHECKED_MOVES)

    await world.corrupt(world.inventory_db, "UPDATE stock_movements SET kind = 'FOUND' WHERE sku = 'CHERRY'")

    report = await world.audit()
    assert [(finding.check, finding.detail) for finding in report.findings] == [
        ("A2", "0 units came in, 5 are there")
    ]


# --- A3 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reservation_lines SET quantity = quantity + 1 WHERE order_id = $1 AND sku = 'APPLE'",
        "DELETE FROM reservation_lines WHERE order_id = $1 AND sku = 'APPLE'",
    ],
)
async def test_a_hold_that_reserved_does_not_count_is_found(world: World, statement: str) -> None:
    """A held reservation whose lines are not what is reserved is A3."""
    await world.corrupt(world.inventory_db, statement, world["awaiting"])

    assert await world.found() == [("A3", "APPLE")]


# --- A4 -------------------------------------------------------------------------------------------------------------


async def test_a_release_without_movements_is_found_unless_cancelled(world: World) -> None:
    """RELEASED without movements for another reason than a cancellation is A4."""
    await world.corrupt(
        world.inventory_db,
        "UPDATE reservations SET reason = 'expired' WHERE order_id = $1",
        world["never held"],
    )

    assert await world.found() == [("A4", world["never held"])]


async def test_a_path_that_is_not_allowed_is_found(world: World) -> None:
    """A confirmation of a round that was never reserved is A4."""
    await world.corrupt(
        world.inventory_db,
        "UPDATE stock_movements SET round = 2 WHERE order_id = $1 AND kind = 'CONFIRMED'",
        world["one apple"],
    )

    assert await world.found() == [("A4", world["one apple"])]


async def test_skus_that_moved_differently_are_found(world: World) -> None:
    """An order of which one SKU went another way than the other is A4."""
    await world.corrupt(
        world.inventory_db,
        "UPDATE stock_movements SET round = 2 WHERE order_id = $1 AND kind = 'CONFIRMED' AND sku = 'APPLE'",
        world["processing"],
    )

    assert await world.found() == [("A4", world["processing"])]


async def test_a_move_made_twice_is_found(world: World) -> None:
    """A second release of one round, which the UNIQUE refuses, is A4."""
    await world.unguard(world.inventory_db, _WITHOUT_UNIQUE_MOVES)
    await world.unguard(world.inventory_db, _WITHOUT_CHECKED_MOVES)

    await world.corrupt(
        world.inventory_db,
        """
        UPDATE stock_movements SET kind = 'RELEASED', round = 1
        WHERE order_id = $1 AND sku = 'APPLE' AND kind = 'RESERVED' AND round = 2
        """,
        world["paid late"],
    )

    assert await world.found() == [("A4", world["paid late"])]


async def test_steps_of_different_size_are_found(world: World) -> None:
    """Confirming more than was reserved is A4, and A2 for the SKU: a changed movement changes the sums."""
    await world.corrupt(
        world.inventory_db,
        """
        UPDATE stock_movements SET reserved_delta = -3, sold_delta = 3 WHERE order_id = $1 AND kind = 'CONFIRMED'
        """,
        world["one apple"],
    )

    assert await world.found() == [("A2", "APPLE"), ("A4", world["one apple"])]


async def test_movements_without_a_reservation_are_found(world: World) -> None:
    """Units that moved for an order without a reservation are A4, and A9: EXPIRED needs a reservation that expired."""
    await world.corrupt(world.inventory_db, "DELETE FROM reservations WHERE order_id = $1", world["expired"])

    assert await world.found() == [("A4", world["expired"]), ("A9", world["expired"])]
