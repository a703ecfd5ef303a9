"""How do tests build a world for the audit? Row by row in the three databases, as the services would leave it.

One world serves a whole module: after each test it is put back as it was, which is far cheaper than a new one.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from deploy.local.postgres import EmbeddedPostgres, role_of
from ops.audit import AuditLimits, AuditReport, audit
from shared.database import Connection, Database, DatabaseOptions
from shared.ids import new_id

#: Long enough ago that nothing of it is on its way any more.
LONG_AGO = datetime.now(UTC) - timedelta(days=2)
LATER = datetime.now(UTC) + timedelta(days=2)


def lately() -> datetime:
    """Return a time at which nothing is on its way any more, but an order may still be open."""
    return datetime.now(UTC) - timedelta(minutes=5)


#: Movements of a reservation: kind and round, one after the other.
Path = Sequence[tuple[str, int]]
HELD: Path = [("RESERVED", 1)]
CONFIRMED: Path = [*HELD, ("CONFIRMED", 1)]
RELEASED: Path = [*HELD, ("RELEASED", 1)]
CONFIRMED_LATE: Path = [*RELEASED, ("RESERVED", 2), ("CONFIRMED", 2)]
RETURNED: Path = [*CONFIRMED, ("RETURNED", 1)]

LINES = {"APPLE": 2, "BREAD": 1}
TOTAL = 500

_EFFECTS = {"RESERVED": (-1, 1, 0), "CONFIRMED": (0, -1, 1), "RELEASED": (1, -1, 0), "RETURNED": (1, 0, -1)}


@dataclass(frozen=True, slots=True)
class Paid:
    """An attempt: its status, what it asked and took, what an operator accepted, and its refunds (amount, status)."""

    status: str = "SUCCEEDED"
    amount: int = TOTAL
    received: int | None = TOTAL
    accepted: int | None = None
    refunds: Sequence[tuple[int, str]] = ()
    attempt_id: UUID = field(default_factory=new_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saga:
    """One order with its reservation and its payment; None is no row."""

    status: str
    stock: str | None = None
    path: Path = ()
    stock_reason: str | None = None
    unavailable: bool = False
    money: str | None = None
    paid: Sequence[Paid] = ()
    cancelled: bool = False
    total: int = TOTAL
    lines: Mapping[str, int] = field(default_factory=LINES.copy)
    pay_by: datetime = LATER
    at: datetime = LONG_AGO
    order_id: UUID = field(default_factory=new_id)


@dataclass
class World:
    """Three databases and the orders in them by name."""

    order_db: Database
    inventory_db: Database
    payment_db: Database
    orders: dict[str, UUID] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        """Return an order's id as the audit names it."""
        return str(self.orders[name])

    @property
    def dsns(self) -> Mapping[str, str]:
        """Where the audit finds the databases."""
        return {
            "order": self.order_db.dsn,
            "inventory": self.inventory_db.dsn,
            "payment": self.payment_db.dsn,
        }

    async def audit(self, **limits: Any) -> AuditReport:
        """Audit, without losing time between two looks unless told to."""
        return await audit(self.dsns, limits=AuditLimits(**{"second_look_seconds": 0.01, **limits}))

    async def found(self, **limits: Any) -> list[tuple[str, str]]:
        """Audit, and return the check and the subject of each finding."""
        report = await self.audit(**limits)
        assert report.ok is not bool(report.findings)
        return [(finding.check, finding.subject) for finding in report.findings]

    async def corrupt(self, database: Database, statement: str, *values: Any) -> None:
        """Change exactly one row by hand."""
        async with database.connection() as connection:
            status = await connection.execute(statement, *values)
        assert status.rpartition(" ")[2] == "1", status

    async def corrupt_saga(self, name: str, table: str, assignments: str, *values: Any) -> None:
        """Change the one row of a table that belongs to an order; values are $2, $3 and so on."""
        # Only the literals of tests get here.
        statement = f"UPDATE {table} SET {assignments} WHERE order_id = $1"  # noqa: S608
        await self.corrupt(self._database_of(table), statement, self[name], *values)

    def _database_of(self, table: str) -> Database:
        owners = {"orders": self.order_db, "reservations": self.inventory_db}
        return owners.get(table, self.payment_db)

    async def unguard(self, database: Database, statement: str) -> None:
        """Take a guard of the schema away, so that a row can be corrupted that the database itself would refuse."""
        async with database.connection() as connection:
            await connection.execute(statement)

    async def keep(self) -> None:
        """Remember all rows and constraints as they are."""
        for database, tables in self._tables():
            async with database.connection() as connection:
                await connection.execute("CREATE SCHEMA kept")
                await connection.execute(
                    """
                    CREATE VIEW kept.present AS
                    SELECT conrelid::regclass::text AS owner, conname, pg_get_constraintdef(oid) AS definition
                    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p', 'u')
                    """
                )
                await connection.execute("CREATE TABLE kept.constraints AS TABLE kept.present")
                for table in tables:
                    await connection.execute(f"CREATE TABLE kept.{table} AS TABLE public.{table}")

    async def put_back(self) -> None:
        """Make all rows and constraints what they were when they were kept."""
        for database, tables in self._tables():
            async with database.transaction() as tx:
                for table in reversed(tables):
                    await tx.execute(f"DELETE FROM {table}")  # noqa: S608 (the names stand below)
                for table in tables:
                    # The names stand below.
                    await tx.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept.{table}")
                missing = await tx.fetch("TABLE kept.constraints EXCEPT TABLE kept.present ORDER BY 3 DESC")
                for owner, name, definition in missing:
                    await tx.execute(f"ALTER TABLE {owner} ADD CONSTRAINT {name} {definition}")

    def _tables(self) -> list[tuple[Database, list[str]]]:
        """The tables that the audit reads, what is referred to before what refers to it."""
        everywhere = ["processed_events", "outbox"]
        return [
            (self.order_db, [*everywhere, "orders", "order_lines"]),
            (
                self.inventory_db,
                [*everywhere, "stock_levels", "stock_movements", "reservations", "reservation_lines"],
            ),
            (self.payment_db, [*everywhere, "payments", "attempts", "refunds"]),
        ]

    async def receive(self, sku: str, quantity: int) -> None:
        """Book units of a new SKU in."""
        async with self.inventory_db.transaction() as tx:
            await tx.execute(
                "INSERT INTO stock_levels (sku, available, reserved, sold, sequence) VALUES ($1, 0, 0, 0, 1)",
                sku,
            )
            await _insert_moves(tx, [(sku, None, "RECEIVED", None, quantity, 0, 0)])

    async def add(self, name: str, saga: Saga) -> str:
        """Add an order with all that belongs to it, and return its id."""
        self.orders[name] = saga.order_id
        async with self.order_db.transaction() as tx:
            await _insert_order(tx, saga)
        async with self.inventory_db.transaction() as tx:
            await _insert_reservation(tx, saga)
        async with self.payment_db.transaction() as tx:
            await _insert_payment(tx, saga)
        return self[name]


async def _insert_order(tx: Connection, saga: Saga) -> None:
    await tx.execute(
        """
        INSERT INTO orders (order_id, customer_id, status, total_minor, currency, version, fingerprint, pay_by,
                            stock, payment, cancelled, cancel_requested_by, created_at, updated_at)
        VALUES ($1, 'customer-1', $2, $3, 'EUR', 1, '', $4, 'NONE', $5, $6, $7, $8, $8)
        """,
        saga.order_id,
        saga.status,
        saga.total,
        saga.pay_by if saga.stock else None,
        saga.money,
        saga.cancelled,
        "storefront" if saga.cancelled else None,
        saga.at,
    )
    await tx.executemany(
        "INSERT INTO order_lines (order_id, sku, quantity, unit_price_minor) VALUES ($1, $2, $3, 0)",
        [(saga.order_id, sku, quantity) for sku, quantity in saga.lines.items()],
    )


async def _insert_reservation(tx: Connection, saga: Saga) -> None:
    if saga.stock is None:
        return
    await tx.execute(
        """
        INSERT INTO reservations (order_id, status, reason, expires_at, cancelled, unavailable, payment_status, round,
                                  sequence, updated_at)
        VALUES ($1, $2, $3, $4, false, $5, 'PENDING', 1, 1, $6)
        """,
        saga.order_id,
        saga.stock,
        saga.stock_reason,
        saga.pay_by,
        saga.unavailable,
        saga.at,
    )
    await tx.executemany(
        "INSERT INTO reservation_lines (order_id, sku, quantity) VALUES ($1, $2, $3)",
        [(saga.order_id, sku, quantity) for sku, quantity in saga.lines.items()],
    )
    moves = [
        (sku, saga.order_id, kind, turn, *(quantity * sign for sign in _EFFECTS[kind]))
        for kind, turn in saga.path
        for sku, quantity in saga.lines.items()
    ]
    await _insert_moves(tx, moves)


async def _insert_moves(tx: Connection, moves: Sequence[tuple[Any, ...]]) -> None:
    await tx.executemany(
        """
        INSERT INTO stock_movements (sku, order_id, kind, round, available_delta, reserved_delta, sold_delta, cause)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 'test')
        """,
        moves,
    )
    await tx.executemany(
        """
        UPDATE stock_levels SET available = available + $2, reserved = reserved + $3, sold = sold + $4
        WHERE sku = $1
        """,
        [(sku, *deltas) for sku, _, _, _, *deltas in moves],
    )


async def _insert_payment(tx: Connection, saga: Saga) -> None:
    if saga.money is None:
        return
    settled = next((a for a in saga.paid if a.status in {"SUCCEEDED", "REFUNDED"}), None)
    await tx.execute(
        """
        INSERT INTO payments (order_id, status, amount_minor, currency, pay_by, attempts_max, closed,
                              settled_attempt_id, settled_amount_minor, settled_currency, paid_at,
                              created_at, updated_at)
        VALUES ($1, $2, $3, 'EUR', $4, 1, false, $5, $6, $7, $8, $4, $4)
        """,
        saga.order_id,
        saga.money,
        saga.total,
        saga.at,
        settled and settled.attempt_id,
        settled and settled.received,
        settled and "EUR",
        settled and saga.at,
    )
    for attempt in saga.paid:
        await _insert_attempt(tx, saga, attempt)


async def _insert_attempt(tx: Connection, saga: Saga, attempt: Paid) -> None:
    await tx.execute(
        """
        INSERT INTO attempts (attempt_id, order_id, gateway, status, amount_minor, currency, accepted_amount_minor,
                              received_amount_minor, received_currency, initiated, withdrawn, created_at, updated_at)
        VALUES ($1, $2, 'sandbox', $3, $4, 'EUR', $5, $6, 'EUR', true, false, $7, $7)
        """,
        attempt.attempt_id,
        saga.order_id,
        attempt.status,
        attempt.amount,
        attempt.accepted,
        attempt.received,
        saga.at,
    )
    await tx.executemany(
        """
        INSERT INTO refunds (refund_id, order_id, attempt_id, gateway, amount_minor, currency, reason, is_full, status,
                             next_try_at, created_at, updated_at)
        VALUES ($1, $2, $3, 'sandbox', $4, 'EUR', 'operator', false, $5,
                CASE WHEN $5 <> 'SUCCEEDED' THEN $6::timestamptz END, $6, $6)
        """,
        [
            (new_id(), saga.order_id, attempt.attempt_id, amount, status, saga.at)
            for amount, status in attempt.refunds
        ],
    )


@asynccontextmanager
async def open_world(postgres: EmbeddedPostgres, templates: Mapping[str, str]) -> AsyncIterator[World]:
    """Build a world with an order of every kind, in which nothing is wrong, in databases of its own."""
    async with AsyncExitStack() as stack:
        opened = {}
        for service, template in templates.items():
            name = f"test_audit_{service}_{new_id().hex}"
            dsn = await postgres.create_database(name, role_of(service), template=template)
            stack.push_async_callback(postgres.drop_database, name)
            opened[service] = Database(DatabaseOptions(dsn=dsn, application_name="tests"))
            await opened[service].open()
            stack.push_async_callback(opened[service].close)
        world = World(opened["order"], opened["inventory"], opened["payment"])
        for sku in LINES:
            await world.receive(sku, 1_000)
        for name, saga in [*_open().items(), *_paid().items(), *_unpaid().items(), *_refunded().items()]:
            await world.add(name, saga)
        await world.keep()
        yield world


def _open() -> dict[str, Saga]:
    pending, other = Paid("PENDING", received=None), Paid("QUARANTINED", received=1)
    awaiting = Saga(status="AWAITING_PAYMENT", stock="HELD", path=HELD, money="PENDING", paid=[pending])
    return {
        "requested": Saga(status="REQUESTED", at=lately()),
        "awaiting": awaiting,
        "quarantined": replace(awaiting, money="QUARANTINED", paid=[other], order_id=new_id()),
    }


def _paid() -> dict[str, Saga]:
    paid = Saga(status="PROCESSING", stock="CONFIRMED", path=CONFIRMED, money="SUCCEEDED", paid=[Paid()])

    def like(*attempts: Paid, **fields: Any) -> Saga:
        return replace(paid, order_id=new_id(), paid=attempts, **fields)

    return {
        "processing": paid,
        "paid late": like(Paid(), path=CONFIRMED_LATE),
        "free": like(Paid(amount=0, received=0), total=0),
        "paid twice": like(Paid(), Paid(refunds=[(TOTAL, "DUE")])),
        "second attempt": like(Paid("FAILED", received=None), Paid()),
        "partly refunded": like(Paid(refunds=[(TOTAL - 1, "SUCCEEDED")])),
        "one apple": like(Paid(), lines={"APPLE": 1}),
        "accepted": like(Paid(received=499, accepted=499)),
    }


def _unpaid() -> dict[str, Saga]:
    def released(status: str, reason: str, money: str, **fields: Any) -> Saga:
        given_back = {"stock": "RELEASED", "path": RELEASED, "stock_reason": reason, "money": money}
        return Saga(status=status, **{**given_back, **fields})

    failed = Paid("FAILED", received=None)
    return {
        "rejected": Saga(status="REJECTED", stock="REJECTED", stock_reason="insufficient_stock"),
        "refused": Saga(status="REJECTED", money="CANCELLED"),
        "declined": released("PAYMENT_FAILED", "payment_failed", "FAILED", paid=[failed]),
        "expired": released("EXPIRED", "expired", "CANCELLED"),
        "cancelled": released("CANCELLED", "cancelled", "CANCELLED", cancelled=True),
        "never held": released("CANCELLED", "cancelled", "CANCELLED", cancelled=True, path=()),
    }


def _refunded() -> dict[str, Saga]:
    due = Paid(refunds=[(TOTAL, "UNKNOWN")])
    gone = Paid("REFUNDED", refunds=[(TOTAL - 1, "SUCCEEDED"), (1, "SUCCEEDED")])
    return {
        "refund due": Saga(
            status="REFUND_DUE",
            stock="RELEASED",
            path=RELEASED,
            stock_reason="expired",
            unavailable=True,
            money="SUCCEEDED",
            paid=[due],
            at=lately(),
        ),
        "refunded": Saga(
            status="REFUNDED",
            cancelled=True,
            stock="RETURNED",
            path=RETURNED,
            stock_reason="cancelled",
            money="REFUNDED",
            paid=[gone],
        ),
    }
