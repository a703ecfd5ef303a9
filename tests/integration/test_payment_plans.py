"""Do the hot statements of the payment service use their indexes, also on tables that were never analysed?

An empty table is read whole, whatever its indexes: that costs nothing, and every statement is planned anew each time.
"""

from typing import Any
from uuid import UUID

import pytest

from services.payment_service import store
from shared.database import Connection, Database

LARGE = 20_000
BATCH = 50


class Explaining:
    """A connection that explains each statement before it runs it, and keeps the plans."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[str] = []

    def __getattr__(self, name: str) -> Any:
        run = getattr(self._connection, name)

        async def explained(statement: str, *arguments: Any) -> Any:
            rows = await self._connection.fetch(f"EXPLAIN {statement}", *arguments)
            self.plans.append("\n".join(row[0] for row in rows))
            return await run(statement, *arguments)

        return explained

    def scans(self) -> list[str]:
        """Return the plans that read a whole table."""
        return [plan for plan in self.plans if "Seq Scan" in plan]


@pytest.fixture(params=["never analysed", "analysed"])
async def db(request: pytest.FixtureRequest, payment_db: Database) -> Database:
    """A database of the payment service with many payments, attempts, deliveries and refunds."""
    async with payment_db.connection() as connection:
        await fill(connection)
        if request.param == "analysed":
            await connection.execute("ANALYZE")
    return payment_db


async def fill(connection: Connection) -> None:
    """Store settled payments with an attempt, a judged delivery and, for every tenth, a refund; few are open."""
    await connection.execute(
        """
        INSERT INTO payments (order_id, status, amount_minor, currency, pay_by, attempts_max, closed,
                              settled_attempt_id, settled_amount_minor, settled_currency, paid_at, sequence,
                              created_at, updated_at)
        SELECT gen_random_uuid(), 'SUCCEEDED', 100, 'EUR', now(), 1, false, gen_random_uuid(), 100, 'EUR', now(), 2,
               now(), now()
        FROM generate_series(1, $1::int)
        """,
        LARGE,
    )
    await connection.execute(
        """
        INSERT INTO attempts (attempt_id, order_id, gateway, gateway_transaction_id, status, amount_minor, currency,
                              received_amount_minor, received_currency, initiated, withdrawn, task, task_at, ask_at,
                              review_at, review_reason, created_at, updated_at)
        SELECT settled_attempt_id, order_id, 'sandbox', order_id::text, 'SUCCEEDED', 100, 'EUR', 100, 'EUR', true,
               false, CASE WHEN number <= 100 THEN 'CREATE' END, CASE WHEN number <= 100 THEN now() END,
               CASE WHEN number <= 300 THEN now() END, CASE WHEN number <= 100 THEN now() END,
               CASE WHEN number <= 100 THEN 'fraud' END, now(), now()
        FROM (SELECT *, row_number() OVER () AS number FROM payments) AS numbered
        """
    )
    await connection.execute(
        """
        INSERT INTO webhooks (gateway, event_id, verdict, attempt_id, headers, body, judged_at, judge_at)
        SELECT 'sandbox', order_id::text, CASE WHEN number % 500 = 0 THEN 'unmatched' ELSE 'applied' END, attempt_id,
               '{}', decode(repeat('00', 300), 'hex'), now(), CASE WHEN number % 500 = 0 THEN now() END
        FROM (SELECT *, row_number() OVER () AS number FROM attempts) AS numbered
        """
    )
    await connection.execute(
        """
        INSERT INTO refunds (refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, is_full, status,
                             next_try_at, created_at, updated_at)
        SELECT gen_random_uuid(), order_id, attempt_id, 'sandbox', 100, 'EUR', 'unavailable', true,
               CASE WHEN number % 100 = 0 THEN 'DUE' ELSE 'SUCCEEDED' END,
               CASE WHEN number % 100 = 0 THEN now() END, now(), now()
        FROM (SELECT *, row_number() OVER () AS number FROM attempts) AS numbered WHERE number % 2 = 0
        """
    )


async def some_orders(connection: Connection) -> list[UUID]:
    """Return ids as a batch has them."""
    rows = await connection.fetch("SELECT order_id FROM refunds ORDER BY order_id LIMIT $1", BATCH)
    return [row["order_id"] for row in rows]


async def load_and_save_a_batch(db: Database) -> list[str]:
    """Payments, attempts and refunds are found, updated and inserted by their keys."""
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)
        order_ids = await some_orders(tx)

        payments = await store.lock(explaining, order_ids)
        attempts = [attempt for payment in payments.values() for attempt in payment.attempts.values()]
        refunds = [refund for payment in payments.values() for refund in payment.refunds.values()]
        now = await store.get_now(tx)
        await store.update_payments(explaining, list(payments.values()), now)
        await store.update_attempts(explaining, attempts, now)
        await store.update_refunds(explaining, refunds, now)
        await store.list_attempts(explaining, [attempt.attempt_id for attempt in attempts])
        await store.get_payments(explaining, order_ids[:1])

        assert (len(attempts), len(refunds)) == (BATCH, BATCH)
        assert len(explaining.plans) == 8
        scans: list[str] = explaining.scans()
        return scans


async def judge_deliveries(db: Database) -> list[str]:
    """Open deliveries, their attempts, events judged before, and deliveries that wait are found by their keys."""
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)
        order_ids = await some_orders(tx)
        names = [str(order_id) for order_id in order_ids]

        due = await store.list_webhooks_to_judge(explaining, BATCH)
        await store.lock_webhooks(explaining, due)
        await store.find_orders_of_attempts(explaining, order_ids)
        await store.find_orders_of_transactions(explaining, ["sandbox"], names)
        await store.find_judged_events(explaining, names)
        judged = [store.JudgedWebhook(webhook_id, None, None) for webhook_id in due]
        await store.update_webhooks(explaining, judged)
        await store.release_webhooks(explaining, order_ids, [])
        await store.release_webhooks(explaining, [], names)

        assert len(due) == LARGE // 500
        assert len(explaining.plans) == 8
        scans: list[str] = explaining.scans()
        return scans


async def take_due_work(db: Database) -> list[str]:
    """Attempts and refunds that are due are found by their time, whatever else there is."""
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)

        attempts = await store.take_attempts(explaining, "sandbox", BATCH, 60)
        refunds = await store.take_refunds(explaining, "sandbox", BATCH, 60)
        asked = await store.take_attempts_to_ask_about(explaining, "sandbox", BATCH, 60)

        assert (len(attempts), len(refunds), len(asked)) == (BATCH, BATCH, BATCH)
        scans: list[str] = explaining.scans()
        return scans


async def look_at_what_waits(db: Database) -> list[str]:
    """What waits for a gateway or a person is listed, counted and marked without a look at anything else."""
    async with db.transaction() as tx:
        explaining: Any = Explaining(tx)

        first = await store.list_attempts_to_review(explaining, None, BATCH)
        rest = await store.list_attempts_to_review(explaining, first[-1]["attempt_id"], LARGE)
        counted = await store.count_attempts_to_review(explaining, LARGE)
        refunds = await store.count_open_refunds(explaining, LARGE)
        attempts = await store.list_attempts(explaining, [row["attempt_id"] for row in first])
        await store.mark_attempts(explaining, attempts)

        assert (len(first), len(rest), counted[0]["attempts"]) == (BATCH, 100 - BATCH, 100)
        assert sum(row["refunds"] for row in refunds) == LARGE // 100
        scans: list[str] = explaining.scans()
        return scans


async def list_deliveries(db: Database) -> list[str]:
    """Rare verdicts have their index; frequent ones are found by going on from the last key."""
    async with db.connection() as connection:
        explaining: Any = Explaining(connection)

        rare = await store.list_webhooks(explaining, "unmatched", 0, 100)
        await store.list_webhooks(explaining, "applied", LARGE // 2, 100)
        await store.list_webhooks(explaining, None, LARGE // 2, 100)

        assert len(rare) == LARGE // 500
        assert "webhooks_by_rare_verdict" in explaining.plans[0]
        scans: list[str] = explaining.scans()
        return scans


async def test_no_hot_statement_reads_a_whole_table(db: Database) -> None:
    """What runs for every batch, every tick and every page of a list finds its rows by an index."""
    assert await list_deliveries(db) == []
    assert await load_and_save_a_batch(db) == []
    assert await judge_deliveries(db) == []
    assert await take_due_work(db) == []
    assert await look_at_what_waits(db) == []
