"""How long does an audit of a million orders take? The command itself, on three databases full of orders in which all is right."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from benchmarks.figures import Figure
from benchmarks.machine import Parts, parts
from deploy.local.migrations import migrations_of
from deploy.local.postgres import role_of
from shared.database import connect
from shared.errors import HoldfastError
from shared.migrate import migrate

_HOLDFAST = Path(sys.executable).with_name("holdfast")
_SERVICES = ("order", "inventory", "payment")
_SKUS = 10_000
_ORDERS_AT_ONCE = 100_000

# Every order has two lines. Of ten, seven are sold, and one each has expired, was declined, and was given back.
# Times are long past, so that nothing is on its way; ids are in the order of time, as those of real orders.
_FILLS: Mapping[str, tuple[str, ...]] = {
    "order": (
        """
        INSERT INTO orders (order_id, customer_id, status, total_minor, currency, version, sequence, fingerprint, pay_by,
                            stock, payment, cancelled, cancel_requested_by, created_at, updated_at)
        SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 'customer-' || number % 50000,
               (ARRAY['REFUNDED', 'EXPIRED', 'PAYMENT_FAILED'])[number % 10 + 1], 1000, 'EUR', 3, 3, '', now() - interval '1 day',
               'NONE', NULL, number % 10 = 0, CASE WHEN number % 10 = 0 THEN 'storefront' END,
               now() - interval '2 days', now() - interval '1 day'
        FROM generate_series($1::bigint, $2) AS number WHERE number % 10 < 3
        """,
        """
        INSERT INTO orders (order_id, customer_id, status, total_minor, currency, version, sequence, fingerprint, pay_by,
                            stock, payment, cancelled, created_at, updated_at)
        SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 'customer-' || number % 50000,
               'PROCESSING', 1000, 'EUR', 3, 3, '', now() - interval '1 day', 'CONFIRMED', 'SUCCEEDED', false,
               now() - interval '2 days', now() - interval '1 day'
        FROM generate_series($1::bigint, $2) AS number WHERE number % 10 >= 3
        """,
        """
        INSERT INTO order_lines (order_id, sku, quantity, unit_price_minor)
        SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               'sku-' || (number * 7 + line * 13) % 10000, line, 500
        FROM generate_series($1::bigint, $2) AS number, generate_series(1, 2) AS line
        """,
        """
        INSERT INTO processed_events (consumer, event_id, outcome)
        SELECT 'order-service', ('00000000-0000-7' || lpad(to_hex(event), 3, '0') || '-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               'handled'
        FROM generate_series($1::bigint, $2) AS number, generate_series(1, 5) AS event
        """,
    ),
    "inventory": (
        """
        INSERT INTO reservations (order_id, status, reason, cancelled, payment_status, round, sequence, updated_at)
        SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               CASE number % 10 WHEN 0 THEN 'RETURNED' WHEN 1 THEN 'RELEASED' WHEN 2 THEN 'RELEASED' ELSE 'CONFIRMED' END,
               CASE number % 10 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'expired' WHEN 2 THEN 'payment_failed' END,
               number % 10 = 0,
               CASE number % 10 WHEN 0 THEN 'REFUNDED' WHEN 1 THEN 'CANCELLED' WHEN 2 THEN 'FAILED' ELSE 'SUCCEEDED' END,
               1, 2, now() - interval '1 day'
        FROM generate_series($1::bigint, $2) AS number
        """,
        """
        INSERT INTO reservation_lines (order_id, sku, quantity)
        SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               'sku-' || (number * 7 + line * 13) % 10000, line
        FROM generate_series($1::bigint, $2) AS number, generate_series(1, 2) AS line
        """,
        """
        INSERT INTO stock_movements (sku, order_id, kind, round, available_delta, reserved_delta, sold_delta, cause)
        SELECT 'sku-' || (number * 7 + line * 13) % 10000,
               ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, kind, 1,
               line * available, line * reserved, line * sold, 'benchmark'
        FROM generate_series($1::bigint, $2) AS number, generate_series(1, 2) AS line,
             (VALUES ('RESERVED', -1, 1, 0), ('CONFIRMED', 0, -1, 1), ('RELEASED', 1, -1, 0), ('RETURNED', 1, 0, -1))
                 AS step (kind, available, reserved, sold)
        WHERE kind = 'RESERVED' OR (kind = 'CONFIRMED' AND number % 10 NOT IN (1, 2))
              OR (kind = 'RELEASED' AND number % 10 IN (1, 2)) OR (kind = 'RETURNED' AND number % 10 = 0)
        ORDER BY number, line, array_position(ARRAY['RESERVED', 'CONFIRMED', 'RELEASED', 'RETURNED'], kind)
        """,
        """
        INSERT INTO processed_events (consumer, event_id, outcome)
        SELECT 'inventory-service', ('00000000-0000-7' || lpad(to_hex(event), 3, '0') || '-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               'handled'
        FROM generate_series($1::bigint, $2) AS number, generate_series(1, 2) AS event
        """,
    ),
    "payment": (
        """
        INSERT INTO payments (order_id, status, reason, amount_minor, currency, pay_by, attempts_max, closed,
                              settled_attempt_id, settled_amount_minor, settled_currency, refunded_minor, paid_at, sequence,
                              created_at, updated_at)
        SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               CASE number % 10 WHEN 0 THEN 'REFUNDED' WHEN 1 THEN 'CANCELLED' WHEN 2 THEN 'FAILED' ELSE 'SUCCEEDED' END,
               CASE number % 10 WHEN 1 THEN 'cancelled' WHEN 2 THEN 'declined' END, 1000, 'EUR', now() - interval '1 day', 1,
               number % 10 < 3,
               CASE WHEN number % 10 NOT IN (1, 2)
                    THEN ('00000000-0000-7001-8000-' || lpad(to_hex(number), 12, '0'))::uuid END,
               CASE WHEN number % 10 NOT IN (1, 2) THEN 1000 END, CASE WHEN number % 10 NOT IN (1, 2) THEN 'EUR' END,
               CASE WHEN number % 10 = 0 THEN 1000 ELSE 0 END,
               CASE WHEN number % 10 NOT IN (1, 2) THEN now() - interval '1 day' END, 2,
               now() - interval '2 days', now() - interval '1 day'
        FROM generate_series($1::bigint, $2) AS number
        """,
        """
        INSERT INTO attempts (attempt_id, order_id, gateway, gateway_transaction_id, status, amount_minor, currency,
                              received_amount_minor, received_currency, refunding_minor, initiated, withdrawn,
                              created_at, updated_at)
        SELECT ('00000000-0000-7001-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 'sandbox', 'gateway-' || number,
               CASE number % 10 WHEN 0 THEN 'REFUNDED' WHEN 1 THEN 'CANCELLED' WHEN 2 THEN 'FAILED' ELSE 'SUCCEEDED' END,
               1000, 'EUR', CASE WHEN number % 10 NOT IN (1, 2) THEN 1000 END,
               CASE WHEN number % 10 NOT IN (1, 2) THEN 'EUR' END, CASE WHEN number % 10 = 0 THEN 1000 ELSE 0 END,
               true, false, now() - interval '2 days', now() - interval '1 day'
        FROM generate_series($1::bigint, $2) AS number
        """,
        """
        INSERT INTO refunds (refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, is_full, status,
                             is_told, created_at, updated_at)
        SELECT ('00000000-0000-7002-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               ('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
               ('00000000-0000-7001-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 'sandbox', 1000, 'EUR', 'cancelled', true,
               'SUCCEEDED', true, now() - interval '1 day', now() - interval '1 day'
        FROM generate_series($1::bigint, $2) AS number WHERE number % 10 = 0
        """,
        """
        INSERT INTO processed_events (consumer, event_id, outcome)
        SELECT 'payment-service', ('00000000-0000-7001-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 'handled'
        FROM generate_series($1::bigint, $2) AS number
        """,
    ),
}


async def measure(orders: int, runs: int) -> list[Figure]:
    """Measure the seconds of `holdfast audit`, from its start to its end, and what it and Postgres need for it."""
    async with parts() as machine:
        dsns = {service: await _database(machine, service) for service in _SERVICES}
        filled = time.perf_counter()
        await asyncio.gather(*(_fill(service, dsn, orders) for service, dsn in dsns.items()))
        filled = time.perf_counter() - filled
        seconds = [await _audit(machine, dsns, orders) for _ in range(runs)]
    details = {
        "orders": float(orders),
        "orders/s": orders / min(seconds),
        "filled in s": filled,
    }
    return [Figure("audit, all right", "s", seconds, details)]


async def _database(machine: Parts, service: str) -> str:
    dsn = await machine.postgres.create_database(f"bench_audit_{service}", role_of(service))
    await migrate(dsn, migrations_of(service))
    return dsn


async def _fill(service: str, dsn: str, orders: int) -> None:
    """Write all rows, a part of the orders at a time, and let Postgres look at what came of it."""
    connection = await connect(dsn)
    try:
        for first in range(1, orders + 1, _ORDERS_AT_ONCE):
            async with connection.transaction():
                for statement in _FILLS[service]:
                    await connection.execute(statement, first, min(first + _ORDERS_AT_ONCE - 1, orders))
        if service == "inventory":
            await connection.execute(_RECEIVE, _SKUS, orders)
            await connection.execute(_COUNT)
        await connection.execute("VACUUM (ANALYZE)")
    finally:
        await connection.close()


_RECEIVE = """
    INSERT INTO stock_movements (sku, kind, available_delta, reserved_delta, sold_delta, cause)
    SELECT 'sku-' || number, 'RECEIVED', 10 * $2::bigint, 0, 0, 'benchmark' FROM generate_series(0, $1::bigint - 1) AS number
    """
_COUNT = """
    INSERT INTO stock_levels (sku, available, reserved, sold, sequence)
    SELECT sku, sum(available_delta), sum(reserved_delta), sum(sold_delta), 1 FROM stock_movements GROUP BY sku
    """


async def _audit(machine: Parts, dsns: Mapping[str, str], orders: int) -> float:
    """Run the command and return the seconds it took; whatever it finds is a mistake of ours."""
    settings = {f"HOLDFAST_{service.upper()}_DATABASE_DSN": dsn for service, dsn in dsns.items()}
    settings["HOLDFAST_KAFKA_BOOTSTRAP_SERVERS"] = machine.kafka_settings.bootstrap_servers
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        _HOLDFAST, "audit", "--json", stdout=asyncio.subprocess.PIPE, env={**os.environ, **settings}
    )
    out, _ = await process.communicate()
    seconds = time.perf_counter() - started
    report: dict[str, Any] = orjson.loads(out)
    if not report["ok"] or report["counted"]["orders"] != orders:
        detail = f"the audit of {orders:,} right orders says {report['counted']}, and finds {report['findings'][:3]}"
        raise HoldfastError(detail)
    return seconds
