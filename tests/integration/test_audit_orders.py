"""Does the audit see each order that is not where its stock and its money say? (A5 to A9)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from deploy.local.postgres import EmbeddedPostgres
from shared.ids import new_id
from tests.audit_building import LONG_AGO, TOTAL, World, lately, open_world

_WITHOUT_CHECKED_STATUS = "ALTER TABLE payments DROP CONSTRAINT settled_when_paid"


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


async def add_refund(world: World, name: str, amount_minor: int) -> None:
    """Let money of an order's only attempt be due to go back."""
    await world.corrupt(
        world.payment_db,
        """
        INSERT INTO refunds (refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, is_full, status,
                             next_try_at, created_at, updated_at)
        SELECT $2, order_id, attempt_id, gateway, $3, currency, 'operator', false, 'DUE', $4, $4, $4
        FROM attempts WHERE order_id = $1
        """,
        world[name],
        new_id(),
        amount_minor,
        LONG_AGO,
    )


async def found_of(world: World, name: str) -> list[str]:
    """Audit, and return the checks that found something; all of it is about one order."""
    found = await world.found()
    assert {subject for _, subject in found} <= {world[name]}
    return [check for check, _ in found]


# --- A5 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "assignments"),
    [
        ("awaiting", "pay_by = $2"),
        ("awaiting", "pay_by = NULL, created_at = $2"),
        ("requested", "created_at = $2"),
        ("refund due", "updated_at = $2"),
        ("awaiting", "payment = 'SUCCEEDED', updated_at = $2"),
    ],
)
async def test_an_order_that_should_have_ended_is_found(world: World, name: str, assignments: str) -> None:
    """An unpaid order past its hold, and a paid or REFUND_DUE one that has long not changed, are A5."""
    await world.corrupt_saga(name, "orders", assignments, LONG_AGO)

    assert await found_of(world, name) == ["A5"]


async def test_an_order_that_asked_for_a_short_hold_is_found_sooner(world: World) -> None:
    """The hold that counts is the order's own."""
    await world.corrupt_saga("requested", "orders", "hold_seconds = 10")

    assert await found_of(world, "requested") == ["A5"]


async def test_a_paid_order_counts_from_its_last_change(world: World) -> None:
    """Once it is paid, or its money must go back, the end of its hold is no measure any more."""
    await world.corrupt_saga(
        "awaiting", "orders", "payment = 'SUCCEEDED', pay_by = $2, updated_at = $3", LONG_AGO, lately()
    )
    await world.corrupt_saga("refund due", "orders", "pay_by = $2", LONG_AGO)

    assert await found_of(world, "awaiting") == []


async def test_an_order_in_its_grace_is_in_time(world: World) -> None:
    """A hold that ended a moment ago waits for its sweep."""
    await world.corrupt_saga("awaiting", "orders", "pay_by = $2", datetime.now(UTC) - timedelta(seconds=30))

    assert await found_of(world, "awaiting") == []


# --- A6 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "assignments"),
    [
        ("processing", "amount_minor = 499"),
        ("processing", "received_amount_minor = 499"),
        ("processing", "currency = 'USD'"),
        ("processing", "received_currency = 'USD'"),
        ("processing", "status = 'FAILED'"),
        ("accepted", "accepted_amount_minor = 498"),
    ],
)
async def test_a_processing_order_without_its_money_is_found(
    world: World, name: str, assignments: str
) -> None:
    """PROCESSING without a settled attempt of the total, or of what an operator accepted, is A6."""
    await world.corrupt_saga(name, "attempts", assignments)

    assert await found_of(world, name) == ["A6"]


async def test_a_processing_order_whose_money_goes_back_is_found(world: World) -> None:
    """PROCESSING with a full refund is A6, even if the refund is only due."""
    await add_refund(world, "processing", TOTAL)

    assert await found_of(world, "processing") == ["A6"]


async def test_a_free_order_that_was_refunded_is_found(world: World) -> None:
    """A refund of 0 gives an amount of 0 back."""
    await add_refund(world, "free", 0)

    assert await found_of(world, "free") == ["A6"]


async def test_an_order_settled_twice_is_found(world: World) -> None:
    """Two settled attempts are A6, and A7: one confirmed reservation matches one success."""
    await world.corrupt(
        world.payment_db,
        """
        UPDATE attempts SET status = 'SUCCEEDED', received_amount_minor = 500 WHERE order_id = $1 AND status = 'FAILED'
        """,
        world["second attempt"],
    )

    assert await found_of(world, "second attempt") == ["A6", "A7"]


async def test_a_processing_order_without_its_goods_is_found(world: World) -> None:
    """PROCESSING needs a CONFIRMED reservation.

    Its status is also what its movements (A4), its money (A7) and its order (A9) are compared with.
    """
    await world.corrupt_saga("processing", "reservations", "status = 'RETURNED'")

    assert await found_of(world, "processing") == ["A4", "A6", "A7", "A9"]


# --- A7 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("refund due", "DELETE FROM refunds WHERE order_id = $1"),
        ("refund due", "UPDATE refunds SET amount_minor = 499 WHERE order_id = $1"),
        ("refund due", "UPDATE refunds SET currency = 'USD' WHERE order_id = $1"),
        ("refunded", "DELETE FROM refunds WHERE order_id = $1 AND amount_minor = 1"),
    ],
)
async def test_money_without_goods_or_refund_is_found(world: World, name: str, statement: str) -> None:
    """A success for which nothing was confirmed and not all goes back is A7."""
    await world.corrupt(world.payment_db, statement, world[name])

    assert await found_of(world, name) == ["A7"]


async def test_a_success_that_nobody_noticed_is_found(world: World) -> None:
    """A successful attempt of an order that ended unpaid is A7, whatever its payment says."""
    await world.corrupt_saga("declined", "attempts", "status = 'SUCCEEDED', received_amount_minor = 500")

    assert await found_of(world, "declined") == ["A7"]


async def test_an_overpayment_that_is_kept_is_found(world: World) -> None:
    """A second success without its refund is A7, and A6: the order is settled twice."""
    await world.corrupt(world.payment_db, "DELETE FROM refunds WHERE order_id = $1", world["paid twice"])

    assert await found_of(world, "paid twice") == ["A6", "A7"]


async def test_more_refunds_than_money_are_found(world: World) -> None:
    """Giving back more than came in is A7."""
    await add_refund(world, "refund due", 1)

    assert await found_of(world, "refund due") == ["A7"]


async def test_a_refund_of_a_failed_attempt_is_found(world: World) -> None:
    """Giving back what never came in is A7."""
    await add_refund(world, "declined", 1)

    assert await found_of(world, "declined") == ["A7"]


async def test_a_refund_that_the_gateway_refuses_is_found(world: World) -> None:
    """It is asked for again all the same, but somebody's money is not back: A7."""
    await world.corrupt_saga("refund due", "refunds", "status = 'FAILED', error = 'no funds'")

    (finding,) = (await world.audit()).findings
    assert (finding.check, finding.subject) == ("A7", world["refund due"])
    assert finding.detail == "the gateway refuses 1 refunds that are due"


# --- A8: what ended, but holds stock, disagrees with its reservation too (A9) ------------------------------------------


@pytest.mark.parametrize("status", ["REJECTED", "PAYMENT_FAILED", "EXPIRED", "CANCELLED"])
async def test_an_ended_order_that_holds_stock_is_found(world: World, status: str) -> None:
    """An order that ended unpaid with its units still held is A8."""
    await world.corrupt_saga("quarantined", "orders", "status = $2", status)

    assert await found_of(world, "quarantined") == ["A8", "A9"]


async def test_a_refunded_order_that_keeps_its_goods_is_found(world: World) -> None:
    """REFUNDED with a confirmed reservation is A8."""
    await world.corrupt_saga("processing", "orders", "status = 'REFUNDED'")

    assert await found_of(world, "processing") == ["A8", "A9"]


async def test_a_hold_that_inventory_kept_is_found(world: World) -> None:
    """A HELD reservation of an EXPIRED order is A8; its movements (A4) and counters (A3) do not fit either."""
    await world.corrupt_saga("expired", "reservations", "status = 'HELD'")

    order_id = world["expired"]
    assert await world.found() == [
        ("A3", "APPLE"),
        ("A3", "BREAD"),
        ("A4", order_id),
        ("A8", order_id),
        ("A9", order_id),
    ]


# --- A9 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("refunded", "CANCELLED"),
        ("refunded", "REFUND_DUE"),
        ("expired", "PAYMENT_FAILED"),
        ("declined", "EXPIRED"),
        ("cancelled", "EXPIRED"),
        ("rejected", "CANCELLED"),
        ("refused", "CANCELLED"),
        ("refund due", "EXPIRED"),
        ("awaiting", "REQUESTED"),
        ("processing", "REFUND_DUE"),
        ("processing", "AWAITING_PAYMENT"),
    ],
)
async def test_a_status_that_does_not_follow_is_found(world: World, name: str, status: str) -> None:
    """An order whose status is not what reservation, payment and cancellation add up to is A9."""
    await world.corrupt_saga(
        name, "orders", "status = $2, updated_at = $3, pay_by = $4", status, lately(), datetime.now(UTC)
    )

    assert await found_of(world, name) == ["A9"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("processing", "FAILED"),
        ("processing", "REFUNDED"),
        ("refunded", "SUCCEEDED"),
        ("refund due", "REFUNDED"),
        ("expired", "SUCCEEDED"),
        ("expired", "PENDING"),
        ("declined", "REFUNDED"),
        ("awaiting", "FAILED"),
    ],
)
async def test_a_payment_that_does_not_agree_is_found(world: World, name: str, status: str) -> None:
    """A payment whose status its order or its reservation does not follow is A9."""
    await world.unguard(world.payment_db, _WITHOUT_CHECKED_STATUS)

    await world.corrupt_saga(name, "payments", "status = $2", status)

    assert await found_of(world, name) == ["A9"]


async def test_a_reservation_that_gave_up_alone_is_found(world: World) -> None:
    """REFUND_DUE without a cancellation needs a reservation that is unavailable, else A9."""
    await world.corrupt_saga("refund due", "reservations", "unavailable = false")

    assert await found_of(world, "refund due") == ["A9"]


async def test_a_cancellation_that_nobody_followed_is_found(world: World) -> None:
    """A cancelled order that is still PROCESSING with its goods is A9."""
    await world.corrupt_saga("processing", "orders", "cancelled = true, cancel_requested_by = 'operator'")

    assert await found_of(world, "processing") == ["A9"]


@pytest.mark.parametrize("assignments", ["amount_minor = 499", "currency = 'USD'"])
async def test_a_payment_of_another_amount_is_found(world: World, assignments: str) -> None:
    """A payment that is not of its order's total is A9."""
    await world.unguard(world.payment_db, _WITHOUT_CHECKED_STATUS)

    await world.corrupt_saga("awaiting", "payments", assignments)

    assert await found_of(world, "awaiting") == ["A9"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE order_lines SET quantity = 1 WHERE order_id = $1 AND sku = 'APPLE'",
        "UPDATE order_lines SET sku = 'CHERRY' WHERE order_id = $1 AND sku = 'BREAD'",
        "DELETE FROM order_lines WHERE order_id = $1 AND sku = 'BREAD'",
    ],
)
async def test_other_units_than_ordered_are_found(world: World, statement: str) -> None:
    """A reservation of other units than the order's lines is A9."""
    await world.corrupt(world.order_db, statement, world["processing"])

    assert await found_of(world, "processing") == ["A9"]


@pytest.mark.parametrize("name", ["expired", "refused", "rejected"])
async def test_what_belongs_to_no_order_is_found(world: World, name: str) -> None:
    """A reservation or a payment without an order is A9."""
    await world.corrupt(world.order_db, "DELETE FROM orders WHERE order_id = $1", world[name])

    assert await found_of(world, name) == ["A9"]


async def test_a_payment_that_is_gone_is_found(world: World) -> None:
    """An order that was refunded needs a payment that says so, else A9."""
    await world.unguard(
        world.payment_db,
        "ALTER TABLE attempts DROP CONSTRAINT attempts_order_id_fkey; "
        "ALTER TABLE refunds DROP CONSTRAINT refunds_order_id_fkey",
    )

    await world.corrupt(world.payment_db, "DELETE FROM payments WHERE order_id = $1", world["refunded"])

    assert await found_of(world, "refunded") == ["A9"]
