"""What becomes of orders in all three services, if a schedule decides what happens to each, and when?

The real handlers, workers and tables of the three services. Between them, in the place of Kafka, messages wait until the
schedule delivers them: early, late, repeated, out of order. Webhooks do too, and some are lost. Time passes by moving
what is stored about an order into the past. All of it follows from one seed; each order keeps the story of what
happened to it.

Many orders go through a world at once, in shared batches: that is how the services work, and a schedule then costs tens
of milliseconds.
"""

import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from services.inventory_service import handlers as inventory
from services.inventory_service.domain.stock import Adjustment, Receipt
from services.inventory_service.worker import Sweeper
from services.order_service import handlers as orders
from services.order_service import store as order_store
from services.order_service.store import Product
from services.payment_service import handlers as payments
from services.payment_service.domain.attempts import AttemptStatus
from services.payment_service.domain.resolving import Action, Decision
from services.payment_service.gateways import Gateways
from services.payment_service.store import NewWebhook, list_attempts_to_review
from services.payment_service.worker import CallLimits, GatewayCaller, Judge
from shared.backoff import Backoff
from shared.commands import command
from shared.consumer import Sorter
from shared.database import Database
from shared.envelope import Message
from shared.errors import HoldfastError
from shared.events import CancelOrder, OrderedLine, PlaceOrder
from shared.ids import new_id
from shared.outbox import delete_outbox, list_outbox
from tests.feeding import FakeRecord, feed
from tests.scheduled_gateway import Conduct, Fate, ScheduledGateway, Taken

GRACE_SECONDS: Final = 60
HOLD_SECONDS: Final = 900
_PRICE_MINOR: Final = 125
_QUANTITY: Final = 2
_TICKS: Final = 24
_ROUNDS_MAX: Final = 60
#: What the last rounds wait for: backoffs, the ages of reconciliation, the end of a hold, a day.
_WAITS_SECONDS: Final = (0, 400, 1_000, 4_000, 22_000, 90_000)
_FATES: Final[Sequence[Fate]] = (
    *("success", "success", "success", "failure", "failure", "expiry"),
    *("wrong amount", "wrong currency"),
)
#: What may happen to an order, and how often it does.
_STEPS: Final[Mapping[str, float]] = {
    "carry": 12,
    "start": 5,
    "customer": 4,
    "webhook": 4,
    "cancel": 1,
    "minutes pass": 1,
    "hold ends": 1,
    "others buy": 1,
    "operator refunds": 0.3,
    "operator decides": 0.5,
    "refund by hand": 0.2,
}
FINAL: Final = {"PROCESSING", "REJECTED", "PAYMENT_FAILED", "EXPIRED", "CANCELLED", "REFUNDED"}

Handle = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Bound:
    """A service as `feed` wants it: its consumer's name and its handler with its settings."""

    CONSUMER: str
    handle: Handle
    consumed: Sequence[Any]
    database: Database

    @property
    def sorter(self) -> Sorter:
        """What decides, as in its consumer, which records it takes."""
        return Sorter(self.CONSUMER, self.consumed)


@dataclass(frozen=True)
class AtOnce:
    """The edge of a worker, without a task of its own: every item is a batch."""

    database: Database
    apply: Handle

    async def submit(self, item: Any) -> Any:
        """Apply one item in one transaction."""
        async with self.database.transaction() as tx:
            (result,) = await self.apply(tx, [item])
        if isinstance(result, HoldfastError):
            raise result
        return result


@dataclass
class Lane:
    """One order, what is on its way to each service about it, and the story of what happened to it."""

    number: int
    rng: random.Random
    order_id: UUID = field(default_factory=new_id)
    story: list[str] = field(default_factory=list)
    waiting: dict[str, list[FakeRecord]] = field(default_factory=dict)
    delivered: dict[str, list[FakeRecord]] = field(default_factory=dict)
    attempts: list[UUID] = field(default_factory=list)
    webhooks: list[tuple[str, bytes]] = field(default_factory=list)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    is_partly_refunded: bool = False
    steps: int = 0

    def __post_init__(self) -> None:
        """Decide what cannot change on the way."""
        self.sku = f"SKU-{self.order_id}"
        self.fates = [deque(self._fates()) for _ in range(2)]
        self.action = self.rng.choice(list(Action))
        self.is_final = self.rng.random() < 0.5
        self.units = self.rng.choice([1, 2, 2, 2, 2, 2, 2, 5, 5])
        barred = {"cancel": 0.6, "hold ends": 0.7, "others buy": 0.6}
        self.barred = {step for step, share in barred.items() if self.rng.random() < share}
        self.trouble = self.rng.choice([0.0, 0.2, 0.5])

    def _fates(self) -> list[Fate]:
        first = self.rng.choice(_FATES)
        # What failed at first may be paid after all.
        again = first in {"failure", "expiry"} and self.rng.random() < 0.3
        return [first, "success"] if again else [first]

    def note(self, what: str) -> None:
        """Add to the story."""
        self.story.append(what)


class Broken(AssertionError):
    """An order did not end as it must: its seed, its end, and its story."""


@dataclass
class Tick:
    """What happens to all orders at once, in batches."""

    carried: dict[str, list[FakeRecord]] = field(default_factory=dict)
    starts: list[tuple[Lane, payments.StartAttempt]] = field(default_factory=list)
    webhooks: list[NewWebhook] = field(default_factory=list)
    refunds: list[payments.RequestRefund] = field(default_factory=list)
    changes: list[Adjustment] = field(default_factory=list)
    passing: dict[int, list[UUID]] = field(default_factory=dict)
    deciding: set[UUID] = field(default_factory=set)


class World:
    """Three databases, a gateway, and a number of orders under one seed."""

    def __init__(
        self, seed: int, *, order: Database, inventory_: Database, payment: Database, lanes: int
    ) -> None:
        self.seed = seed
        self.rng = _chance(seed)
        self.lanes = [Lane(number, _chance(f"{seed}/{number}")) for number in range(lanes)]
        self._by_key = {key: lane for lane in self.lanes for key in (str(lane.order_id), lane.sku)}
        #: How orders ended, and whether late goods were given for it.
        self.ends: Counter[str] = Counter()
        self._is_calm = False
        self._order, self._inventory, self._payment = order, inventory_, payment
        policy = payments.Policy(attempts_max=2)
        self._services = {
            "order": Bound(orders.CONSUMER, orders.handle, orders.CONSUMED, order),
            "inventory": Bound(
                inventory.CONSUMER,
                partial(inventory.handle, hold_seconds=HOLD_SECONDS),
                inventory.CONSUMED,
                inventory_,
            ),
            "payment": Bound(
                payments.CONSUMER, partial(payments.handle, policy=policy), payments.CONSUMED, payment
            ),
        }
        self._sorters = {name: bound.sorter for name, bound in self._services.items()}
        self._lane_of_attempt: dict[UUID, Lane] = {}
        self.gateway = ScheduledGateway(self._conduct, lambda order_id: self._by_key[str(order_id)].is_final)
        self._caller = GatewayCaller(
            self.gateway,
            payment,
            CallLimits(8, 10.0, Backoff(seconds_min=1.0, seconds_max=60.0)),
            attempts=cast("Any", AtOnce(payment, payments.save_attempt_answers)),
            refunds=cast("Any", AtOnce(payment, payments.save_refund_answers)),
            asked=cast("Any", AtOnce(payment, payments.reconcile)),
        )
        self._judge = Judge(
            payment,
            Gateways(self.gateway),
            size_max=1_000,
            pause_seconds=0.0,
            unmatched_seconds_max=86_400.0,
        )
        self._sweeper = Sweeper(inventory_, grace_seconds=GRACE_SECONDS, batch_max=500)

    # --- the run ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live through the schedule, come to rest, and check how every order ended.

        Raises:
            Broken: one did not end with exactly one of goods and money, or something failed on the way.
        """
        try:
            await self._begin()
            for _ in range(_TICKS):
                await self._tick()
            await self._come_to_rest()
            for lane in self.lanes:
                await self._check(lane)
            await self._repeat_everything()
        except Broken:
            raise
        except Exception as error:
            ends = "\n".join(f"order {lane.number}: … {' | '.join(lane.story[-4:])}" for lane in self.lanes)
            detail = f"seed {self.seed}: {error!r}\n{ends}"
            raise Broken(detail) from error

    def _break(self, lane: Lane, detail: str) -> Broken:
        story = "\n".join(f"  {number:3} {what}" for number, what in enumerate(lane.story, 1))
        return Broken(f"seed {self.seed}, order {lane.number} ({lane.order_id}): {detail}\n{story}")

    async def _begin(self) -> None:
        """Put products into the catalog and units into stock, and send the orders."""
        products = [Product(lane.sku, "A thing", _PRICE_MINOR, "EUR", active=True) for lane in self.lanes]
        async with self._order.transaction() as tx:
            await order_store.insert_products(tx, products)
        receipts = [
            Receipt(f"receipt-{lane.number}-{self.seed}", {lane.sku: lane.units}, "http:test")
            for lane in self.lanes
        ]
        async with self._inventory.transaction() as tx:
            await inventory.change_stock(tx, receipts)
        for lane in self.lanes:
            lines = (OrderedLine(sku=lane.sku, quantity=_QUANTITY),)
            self._send(lane, PlaceOrder(order_id=lane.order_id, customer_id="c", currency="EUR", lines=lines))
            lane.note(
                f"{lane.units} units in stock, {_QUANTITY} ordered; fates {[list(f) for f in lane.fates]}"
            )

    def _send(self, lane: Lane, order: PlaceOrder | CancelOrder) -> None:
        sent = command(order)
        lane.waiting.setdefault("order", []).append(
            FakeRecord(sent.topic, key=sent.key, value=sent.payload, headers=sent.headers)
        )

    # --- one tick -----------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Have one thing happen to each order, then some of the workers do their rounds."""
        tick = Tick()
        for lane in self.lanes:
            lane.steps += 1
            names = [name for name in _STEPS if name not in lane.barred]
            (step,) = lane.rng.choices(names, [_STEPS[name] for name in names])
            self._plan(tick, lane, step)
        await self._apply(tick)
        for worker, share in (
            (self._work_on_attempts, 0.6),
            (self._judge.tick, 0.8),
            (self._caller.ask_for_refunds, 0.5),
            (self._caller.reconcile, 0.4),
            (self._sweeper.tick, 0.5),
        ):
            if self.rng.random() < share:
                await worker()
                await self._collect()

    def _plan(self, tick: Tick, lane: Lane, step: str) -> None:  # noqa: C901, PLR0912 (one case a step)
        match step:
            case "carry":
                self._plan_carrying(tick, lane)
            case "start":
                if len(lane.attempts) < 2:
                    attempt_id = new_id()
                    key = f"key-{len(lane.attempts)}"
                    tick.starts.append(
                        (
                            lane,
                            payments.StartAttempt(lane.order_id, attempt_id, "sandbox", None, None, key, 0),
                        )
                    )
            case "customer":
                self._settle(lane)
            case "webhook":
                self._plan_webhook(tick, lane)
            case "cancel":
                if lane.delivered.get("order"):
                    lane.note("the customer cancels")
                    self._send(lane, CancelOrder(order_id=lane.order_id))
                    lane.barred.add("cancel")
            case "minutes pass":
                seconds = lane.rng.choice([120, 400])
                lane.note(f"{seconds} s pass")
                tick.passing.setdefault(seconds, []).append(lane.order_id)
            case "hold ends":
                lane.note("the hold ends")
                tick.passing.setdefault(HOLD_SECONDS + GRACE_SECONDS + 1, []).append(lane.order_id)
            case "others buy":
                tick.changes.append(Adjustment(f"others-{new_id()}", lane.sku, -1, "bought", "http:test"))
            case "operator refunds":
                amount = lane.rng.choice([None, 1])
                request = payments.RequestRefund(
                    lane.order_id, new_id(), amount, "a kindness", f"refund-{lane.steps}", "http:test"
                )
                tick.refunds.append(request)
            case "refund by hand":
                self._refund_by_hand(lane)
            case _:
                tick.deciding.add(lane.order_id)

    def _plan_carrying(self, tick: Tick, lane: Lane) -> None:
        """Choose messages for one service: any that wait, in any order, and some that came before."""
        services = [name for name in sorted(self._services) if lane.waiting.get(name)]
        if not services:
            return
        name = lane.rng.choice(services)
        waiting = lane.waiting[name]
        # Kafka keeps the order of a key, replays and redrives do not.
        count = min(len(waiting), lane.rng.choice([1, 1, 2, 3]))
        if lane.rng.random() < 0.3:
            lane.rng.shuffle(waiting)
        chosen, lane.waiting[name] = waiting[:count], waiting[count:]
        before = lane.delivered.setdefault(name, [])
        again = [lane.rng.choice(before)] if before and lane.rng.random() < 0.3 else []
        before.extend(chosen)
        taken = [*chosen, *again]
        lane.note(f"{name} hears {', '.join(_name(record) for record in taken)}")
        tick.carried.setdefault(name, []).extend(taken)

    def _settle(self, lane: Lane) -> None:
        """Let the customer do something with an attempt that the gateway has."""
        there = [
            (place, self.gateway.taken[attempt_id])
            for place, attempt_id in enumerate(lane.attempts)
            if attempt_id in self.gateway.taken and lane.fates[place]
        ]
        if not there:
            return
        place, taken = lane.rng.choice(there)
        fate = lane.fates[place].popleft()
        was_open = taken.status is AttemptStatus.PENDING
        taken.settle(fate)
        # A webhook may be lost as long as somebody will ask: about an attempt that has ended nobody does.
        is_lost = was_open and lane.rng.random() < 0.25
        lane.note(f"attempt {place}: {fate} at the gateway{' (webhook lost)' if is_lost else ''}")
        if is_lost:
            taken.told.clear()

    def _refund_by_hand(self, lane: Lane) -> None:
        """Have money given back at the gateway itself; not beside parts, of which only a person could tell the rest."""
        taken = [self.gateway.taken[a] for a in lane.attempts if a in self.gateway.taken]
        kept = [item for item in taken if item.kept_minor]
        if kept and not lane.is_partly_refunded:
            lane.barred |= {"operator refunds"}
            chosen = lane.rng.choice(kept)
            chosen.give_all_back_by_hand()
            lane.note(f"attempt {lane.attempts.index(chosen.attempt.attempt_id)} is refunded by hand")

    def _gather_webhooks(self, lane: Lane) -> None:
        for attempt_id in lane.attempts:
            taken = self.gateway.taken.get(attempt_id)
            if taken is not None:
                lane.webhooks.extend((f"event-{new_id()}", body) for body in taken.told)
                taken.told.clear()

    def _plan_webhook(self, tick: Tick, lane: Lane) -> None:
        """Deliver a webhook, once or twice, or one that came before."""
        self._gather_webhooks(lane)
        if lane.webhooks:
            chosen = lane.webhooks.pop(lane.rng.randrange(len(lane.webhooks)))
            lane.sent.append(chosen)
        elif lane.sent:
            chosen = lane.rng.choice(lane.sent)
        else:
            return
        times = lane.rng.choice([1, 1, 2])
        lane.note(f"webhook {chosen[0][-6:]} is delivered {times} times")
        tick.webhooks.extend([NewWebhook("sandbox", chosen[0], "{}", chosen[1])] * times)

    async def _apply(self, tick: Tick) -> None:
        """Do what was planned, all orders at once, one kind after the other in any order."""
        kinds = [
            partial(self._pass_time, tick.passing),
            partial(self._carry, tick.carried),
            partial(self._start, tick.starts),
            partial(self._keep, tick.webhooks),
            partial(self._refund, tick.refunds),
            partial(self._change, tick.changes),
            partial(self._decide, tick.deciding),
        ]
        self.rng.shuffle(kinds)
        for kind in kinds:
            await kind()
        await self._collect()

    async def _carry(self, carried: Mapping[str, list[FakeRecord]]) -> None:
        for name, records in carried.items():
            bound = self._services[name]
            messages = self._sorters[name].sort(records)
            taken = [message for message in messages if isinstance(message, Message)]
            assert len(taken) == len(messages), "a message cannot be decoded"
            refused = await feed(bound.database, cast("Any", bound), taken)
            for refusal in refused:
                lane = self._by_key[refusal.message.key]
                raise self._break(lane, f"{name} refuses {refusal.message.event!r}: {refusal.detail}")

    async def _start(self, starts: Sequence[tuple[Lane, payments.StartAttempt]]) -> None:
        if not starts:
            return
        async with self._payment.transaction() as tx:
            results = await payments.start_attempts(tx, [request for _, request in starts])
        for (lane, request), result in zip(starts, results, strict=True):
            if isinstance(result, payments.Started):
                lane.note(f"attempt {len(lane.attempts)} is started")
                lane.attempts.append(request.attempt_id)
                self._lane_of_attempt[request.attempt_id] = lane

    async def _keep(self, webhooks: Sequence[NewWebhook]) -> None:
        if webhooks:
            async with self._payment.transaction() as tx:
                await payments.keep_webhooks(tx, webhooks)

    async def _refund(self, requests: Sequence[payments.RequestRefund]) -> None:
        if not requests:
            return
        async with self._payment.transaction() as tx:
            results = await payments.request_refunds(tx, requests)
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, payments.Requested):
                lane = self._by_key[str(request.order_id)]
                lane.is_partly_refunded |= request.amount_minor is not None
                lane.note(f"an operator gives back {request.amount_minor or 'all'}")

    async def _change(self, changes: Sequence[Adjustment]) -> None:
        if changes:
            async with self._inventory.transaction() as tx:
                results = await inventory.change_stock(tx, changes)
            for change, result in zip(changes, results, strict=True):
                if result is True:
                    self._by_key[change.sku].note("somebody else buys a unit")

    async def _decide(self, order_ids: set[UUID]) -> None:
        """Have operators decide about what waits for them of these orders."""
        if not order_ids:
            return
        async with self._payment.transaction() as tx:
            rows = await list_attempts_to_review(tx, None, 1_000)
            requests = [
                payments.Resolve(
                    row["order_id"],
                    row["attempt_id"],
                    Decision(
                        new_id(), self._by_key[str(row["order_id"])].action, "so", "ann", None, "http:test"
                    ),
                )
                for row in rows
                if row["order_id"] in order_ids
            ]
            results = await payments.resolve(tx, requests) if requests else []
        for request, result in zip(requests, results, strict=True):
            lane = self._by_key[str(request.order_id)]
            assert isinstance(result, payments.Resolved), result
            lane.note(f"an operator decides: {request.decision.action} ({result.resolution.review_reason})")

    async def _work_on_attempts(self) -> bool:
        return await self._caller.ask_about_attempts()

    def _conduct(self, call: str, attempt_id: UUID) -> Conduct:
        """Say how a call to the gateway goes."""
        lane = self._lane_of_attempt[attempt_id]
        conduct: Conduct = "right"
        if not self._is_calm and lane.rng.random() < lane.trouble:
            choices: list[Conduct] = ["deaf", "mute", *(("refusing", "slow") if call == "refund" else ())]
            conduct = lane.rng.choice(choices)
        lane.note(f"gateway: {call} attempt {lane.attempts.index(attempt_id)}: {conduct}")
        return conduct

    async def _collect(self) -> bool:
        """Take what the services tell, and put it on its way to who wants it; tell whether there was anything."""
        is_any = False
        for bound in self._services.values():
            async with bound.database.transaction() as tx:
                rows = await list_outbox(tx, 100_000)
                if rows:
                    await delete_outbox(tx, [number for number, _ in rows])
            for _, row in rows:
                is_any = True
                record = FakeRecord(row.topic, key=row.key, value=row.payload, headers=row.headers)
                lane = self._by_key[(row.key or b"").decode()]
                for name, sorter in self._sorters.items():
                    if row.topic in sorter.topics and sorter.pick([record]):
                        lane.waiting.setdefault(name, []).append(record)
        return is_any

    async def _pass_time(self, passing: Mapping[int, Sequence[UUID]]) -> None:
        for seconds, order_ids in passing.items():
            for database, statement in ((self._payment, _AGE_PAYMENTS), (self._inventory, _AGE_HOLDS)):
                async with database.connection() as connection:
                    await connection.execute(statement, list(order_ids), float(seconds))

    # --- the end ------------------------------------------------------------------------------------------------

    async def _come_to_rest(self) -> None:
        """Let everything arrive, all workers work and all operators decide, until nothing is left to do."""
        self._is_calm = True
        everybody = {lane.order_id for lane in self.lanes}
        for lane in self.lanes:
            lane.note("--- from here on all goes well")
        quiet = 0
        for _ in range(_ROUNDS_MAX):
            tick = Tick(deciding=everybody)
            for lane in self.lanes:
                self._gather_webhooks(lane)
                tick.webhooks.extend(NewWebhook("sandbox", name, "{}", body) for name, body in lane.webhooks)
                lane.sent.extend(lane.webhooks)
                lane.webhooks.clear()
                for name, records in lane.waiting.items():
                    if records:
                        lane.note(f"{name} hears {', '.join(_name(record) for record in records)}")
                    lane.rng.shuffle(records)
                    tick.carried.setdefault(name, []).extend(records)
                    lane.delivered.setdefault(name, []).extend(records)
                    lane.waiting[name] = []
            is_busy = bool(tick.webhooks or any(tick.carried.values()))
            await self._apply(tick)
            for worker in (
                self._work_on_attempts,
                self._judge.tick,
                self._caller.ask_for_refunds,
                self._caller.reconcile,
                self._sweeper.tick,
            ):
                await worker()
            is_busy = await self._collect() or is_busy
            quiet = 0 if is_busy else quiet + 1
            if quiet >= len(_WAITS_SECONDS):
                return
            if not is_busy:
                await self._pass_time({_WAITS_SECONDS[quiet - 1]: sorted(everybody)})
        detail = f"seed {self.seed}: after {_ROUNDS_MAX} rounds there is still something to do"
        raise Broken(detail)

    async def _check(self, lane: Lane) -> None:
        """See that an order ended with goods or with the money back, exactly one of them."""
        async with self._order.connection() as connection:
            order = await connection.fetchrow(
                "SELECT status, reason, total_minor FROM orders WHERE order_id = $1", lane.order_id
            )
        async with self._inventory.connection() as connection:
            stock = await connection.fetchrow(_STOCK, lane.order_id, lane.sku)
        assert order is not None
        assert stock is not None
        taken = [self.gateway.taken[a] for a in lane.attempts if a in self.gateway.taken]
        gives = stock["status"] == "CONFIRMED"
        end = f"{order['status']} ({order['reason']}), reservation {stock['status']}, " + "; ".join(
            f"{t.status}: took {t.captured_minor}, kept {t.kept_minor}" for t in taken
        )
        for is_right, rule in (
            (order["status"] in FINAL, "an order ends"),
            (gives == (order["status"] == "PROCESSING"), "goods are for orders that go on"),
            (stock["reserved"] == 0, "nothing stays held"),
            (stock["sold"] == (_QUANTITY if gives else 0), "what is sold is what was ordered"),
            (_is_money_right(lane, taken, gives=gives), "goods or money back, exactly one"),
            (await self._is_idle(lane), "nothing is left to do"),
        ):
            if not is_right:
                raise self._break(lane, f"{rule}: {end}")
        self.ends[order["status"]] += 1

    async def _is_idle(self, lane: Lane) -> bool:
        async with self._payment.connection() as connection:
            open_rows: int = await connection.fetchval(_OPEN_ROWS, lane.order_id)
        return open_rows == 0

    async def _repeat_everything(self) -> None:
        """Deliver all of it once more, to services that have forgotten what they have handled: nothing changes."""
        before = await self._snapshot()
        sent = [delivery for lane in self.lanes for delivery in lane.sent]
        webhooks = [NewWebhook("sandbox", name, "{}", body) for name, body in sent]
        self.rng.shuffle(webhooks)
        await self._keep(webhooks)
        await self._judge.tick()
        for name, bound in self._services.items():
            async with bound.database.connection() as connection:
                await connection.execute("DELETE FROM processed_events")
            records = [record for lane in self.lanes for record in lane.delivered.get(name, ())]
            # That a customer wished to cancel once, in vain, is known to the inbox alone.
            records = [record for record in records if not _name(record).startswith("CancelOrder")]
            self.rng.shuffle(records)
            await self._carry({name: records})
        await self._collect()
        after = await self._snapshot()
        for lane, was, is_now in zip(self.lanes, before, after, strict=True):
            told = {name: [_name(record) for record in records] for name, records in lane.waiting.items()}
            if was != is_now or any(told.values()):
                raise self._break(lane, f"a repetition changed it: {was} → {is_now}, told {told}")

    async def _snapshot(self) -> list[list[Any]]:
        """Return where each order stands, without times."""
        found: dict[UUID, list[Any]] = {lane.order_id: [] for lane in self.lanes}
        for database, statement in (
            (self._order, _ORDERS),
            (self._inventory, _RESERVATIONS),
            (self._payment, _PAYMENTS),
        ):
            async with database.connection() as connection:
                for row in await connection.fetch(statement, list(found)):
                    found[row["order_id"]].append(tuple(row)[1:])
        return list(found.values())


def _is_money_right(lane: Lane, taken: Sequence[Taken], *, gives: bool) -> bool:
    """Tell whether exactly what the goods cost was kept, or nothing."""
    kept = [item for item in taken if item.kept_minor != 0]
    if not gives:
        return not kept
    if len(kept) != 1 or kept[0].kept_minor <= 0:
        return False
    return lane.is_partly_refunded or kept[0].kept_minor == kept[0].captured_minor


def _chance(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311 (so that a schedule can be repeated)


def _name(record: FakeRecord) -> str:
    headers = dict(record.headers)
    kind, sequence = headers["ce_type"] or b"", headers.get("ce_sequence") or b""
    return f"{kind.decode().removesuffix('.v1')}#{sequence.decode()}"


_AGE_PAYMENTS = """
WITH seconds AS (SELECT make_interval(secs => $2) AS passed),
aged_payments AS (
    UPDATE payments SET pay_by = pay_by - passed, created_at = created_at - passed
    FROM seconds WHERE order_id = ANY($1::uuid[])
),
aged_webhooks AS (
    UPDATE webhooks SET judge_at = judge_at - passed, received_at = received_at - passed
    FROM seconds WHERE order_id = ANY($1::uuid[])
),
aged_refunds AS (
    UPDATE refunds SET next_try_at = next_try_at - passed, created_at = created_at - passed
    FROM seconds WHERE order_id = ANY($1::uuid[])
)
UPDATE attempts
SET created_at = created_at - passed, expires_at = expires_at - passed, task_at = task_at - passed,
    ask_at = ask_at - passed, leased_until = leased_until - passed
FROM seconds WHERE order_id = ANY($1::uuid[])
"""
_AGE_HOLDS = """
UPDATE reservations SET expires_at = expires_at - make_interval(secs => $2) WHERE order_id = ANY($1::uuid[])
"""
_STOCK = """
SELECT (SELECT status FROM reservations WHERE order_id = $1) AS status, reserved, sold
FROM stock_levels WHERE sku = $2
"""
_OPEN_ROWS = """
SELECT (SELECT count(*) FROM attempts WHERE order_id = $1
        AND (task IS NOT NULL OR ask_at IS NOT NULL OR review_at IS NOT NULL))
     + (SELECT count(*) FROM refunds WHERE order_id = $1 AND next_try_at IS NOT NULL)
     + (SELECT count(*) FROM webhooks WHERE order_id = $1 AND judge_at IS NOT NULL)
"""
_ORDERS = "SELECT order_id, status, reason, version, sequence FROM orders WHERE order_id = ANY($1::uuid[])"
_RESERVATIONS = """
SELECT order_id, status, reason, round, sequence FROM reservations WHERE order_id = ANY($1::uuid[])
"""
_PAYMENTS = """
SELECT order_id, status, reason, sequence, refunded_minor, settled_attempt_id,
       (SELECT array_agg(a.status ORDER BY a.attempt_id) FROM attempts AS a WHERE a.order_id = payments.order_id),
       (SELECT count(*) FROM refunds AS r WHERE r.order_id = payments.order_id)
FROM payments WHERE order_id = ANY($1::uuid[])
"""
