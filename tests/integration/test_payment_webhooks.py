"""Is every delivery kept as it came, judged once, and never able to stop the others?"""

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from services.payment_service import handlers
from services.payment_service.domain.answers import Created
from services.payment_service.domain.attempts import Attempt, AttemptStatus
from services.payment_service.domain.refunds import RefundStatus
from services.payment_service.handlers import AttemptAnswered
from shared.database import Database
from shared.events import PaymentStatus
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.integration.payment_harness import (
    OPERATOR_TOKEN,
    Client,
    a_judge,
    hurry,
    keep,
    open_payment,
    payment_of,
    service,
    signed,
    start_attempt,
    verdicts,
    webhook_body,
)
from tests.payment_building import AMOUNT_MINOR, an_attempt_of, an_open_payment, awaiting_payment
from tests.waiting import eventually

NO_GATEWAY_URL = "http://127.0.0.1:1"


async def an_attempt(database: Database) -> Attempt:
    """Return a stored attempt of which the gateway's answer is not stored yet."""
    return await start_attempt(database, await open_payment(database))


async def judged(database: Database) -> list[str]:
    """Wait until no delivery waits for its first verdict, and return them all."""

    async def all_of_them() -> list[str | None]:
        found = await verdicts(database)
        return found if None not in found else []

    return [str(verdict) for verdict in await eventually(all_of_them)]


# --- judging --------------------------------------------------------------------------------------------------------


async def test_a_success_settles_and_tells_its_delivery_as_the_cause(payment_db: Database) -> None:
    """The attempt takes the transaction and what was received; PaymentSucceeded names the delivery."""
    attempt = await an_attempt(payment_db)
    await keep(payment_db, ("e-1", webhook_body(attempt)))

    await a_judge(payment_db).tick()

    payment = await payment_of(payment_db, attempt.order_id)
    stored = payment.attempts[attempt.attempt_id]
    assert (payment.status, payment.settled_attempt_id) == (PaymentStatus.SUCCEEDED, attempt.attempt_id)
    assert (stored.status, stored.received_amount_minor) == (AttemptStatus.SUCCEEDED, AMOUNT_MINOR)
    (told,) = await outbox_events(payment_db)
    assert (told.type, told.headers["ce_causationid"]) == ("PaymentSucceeded", "webhook:1")
    assert told.event.paid_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_deliveries_get_the_verdict_that_fits(payment_db: Database) -> None:
    """Applied, duplicate by id and by state, regressive, mismatch, unmatched and ignored, in one batch."""
    attempt, other = await an_attempt(payment_db), await an_attempt(payment_db)
    stranger = an_attempt_of(an_open_payment())
    unknown_kind = orjson.dumps({"type": "payment.created", "data": {}})

    await keep(
        payment_db,
        ("e-1", webhook_body(attempt)),
        ("e-1", webhook_body(attempt)),
        ("e-2", webhook_body(attempt)),
        ("e-3", webhook_body(attempt, "failed")),
        ("e-4", webhook_body(other, amount_minor=1)),
        ("e-5", webhook_body(stranger)),
        ("e-6", unknown_kind),
        ("e-7", webhook_body(other)),
    )
    await a_judge(payment_db).tick()

    assert await verdicts(payment_db) == [
        *("applied", "duplicate", "duplicate", "regressive", "mismatch", "unmatched", "ignored"),
        "regressive",
    ]


async def test_a_mismatch_is_quarantined_and_settles_nothing(payment_db: Database) -> None:
    """PaymentQuarantined says what was expected and what came; the payment waits for an operator."""
    attempt = await an_attempt(payment_db)
    await keep(payment_db, ("e-1", webhook_body(attempt, amount_minor=1, currency="USD")))

    await a_judge(payment_db).tick()

    payment = await payment_of(payment_db, attempt.order_id)
    (told,) = await outbox_events(payment_db)
    assert (payment.status, payment.settled_attempt_id) == (PaymentStatus.QUARANTINED, None)
    assert (told.type, told.event.reason, told.event.received_amount_minor) == (
        "PaymentQuarantined",
        "currency",
        1,
    )


async def test_two_successes_settle_once_and_the_second_goes_back(payment_db: Database) -> None:
    """In one batch: one settled attempt, one refund as overpayment, one PaymentSucceeded."""
    order_id = new_id()
    async with payment_db.transaction() as tx:
        policy = handlers.Policy(attempts_max=2)
        opened = message(awaiting_payment(order_id))
        await handlers.handle(tx, [opened], policy=policy)
    first = await start_attempt(payment_db, order_id, "a")
    second = await start_attempt(payment_db, order_id, "b")
    await keep(payment_db, ("e-1", webhook_body(second)), ("e-2", webhook_body(first)))

    await a_judge(payment_db).tick()

    payment = await payment_of(payment_db, order_id)
    (refund,) = payment.refunds.values()
    assert payment.settled_attempt_id == second.attempt_id
    assert (refund.attempt_id, refund.reason, refund.status) == (
        first.attempt_id,
        "overpayment",
        RefundStatus.DUE,
    )
    assert [told.type for told in await outbox_events(payment_db)] == ["PaymentSucceeded"]


async def test_a_delivery_before_its_attempt_is_judged_when_the_attempt_is_stored(
    payment_db: Database,
) -> None:
    """It is unmatched at first; storing the attempt makes it due, whatever its own pause."""
    order_id = await open_payment(payment_db)
    attempt_id = new_id()
    early = an_attempt_of(an_open_payment())
    early.attempt_id = attempt_id
    await keep(payment_db, ("e-1", webhook_body(early)))
    judge = a_judge(payment_db)
    await judge.tick()
    assert await verdicts(payment_db) == ["unmatched"]

    request = handlers.StartAttempt(order_id, attempt_id, "sandbox", None, None, "key", 60)
    async with payment_db.transaction() as tx:
        await handlers.start_attempts(tx, [request])
    await judge.tick()

    assert await verdicts(payment_db) == ["applied"]
    assert (await payment_of(payment_db, order_id)).status is PaymentStatus.SUCCEEDED


async def test_a_delivery_that_knows_only_the_transaction_waits_for_the_gateways_answer(
    payment_db: Database,
) -> None:
    """Without a reference of ours it is matched by the transaction as soon as that is stored."""
    attempt = await an_attempt(payment_db)
    await keep(payment_db, ("e-1", webhook_body(attempt, reference=None, payment_id="t-1")))
    judge = a_judge(payment_db)
    await judge.tick()
    assert await verdicts(payment_db) == ["unmatched"]

    answered = AttemptAnswered(
        attempt.order_id, attempt.attempt_id, Created("t-1", None, "pending"), 60, "test"
    )
    async with payment_db.transaction() as tx:
        await handlers.save_attempt_answers(tx, [answered])
    await judge.tick()

    assert await verdicts(payment_db) == ["applied"]


async def test_an_unmatched_delivery_is_given_up_after_the_named_time(payment_db: Database) -> None:
    """It is looked at again and again, but not for ever, and stays to be seen as unmatched."""
    await keep(payment_db, ("e-1", webhook_body(an_attempt_of(an_open_payment()))))

    await a_judge(payment_db).tick()
    await hurry(payment_db)
    await a_judge(payment_db, unmatched_seconds_max=0.0).tick()

    async with payment_db.connection() as connection:
        row = await connection.fetchrow("SELECT verdict, judge_at, judge_tries FROM webhooks")
    assert row is not None
    assert tuple(row) == ("unmatched", None, 2)


async def test_a_delivery_of_another_gateway_does_not_reach_our_attempt(payment_db: Database) -> None:
    """A reference counts only for the gateway that the attempt was made with."""
    attempt = await an_attempt(payment_db)
    await keep(payment_db, ("e-1", webhook_body(attempt)))
    async with payment_db.connection() as connection:
        await connection.execute("UPDATE attempts SET gateway = 'stripe'")

    await a_judge(payment_db).tick()

    assert await verdicts(payment_db) == ["unmatched"]


async def test_one_delivery_that_cannot_be_judged_stops_no_other(
    payment_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is split until it stands alone; it is put off with its reason and judged later."""
    attempts = [await an_attempt(payment_db) for _ in range(5)]
    await keep(payment_db, *((f"e-{place}", webhook_body(each)) for place, each in enumerate(attempts)))
    judge = handlers.judge

    async def fail_for_the_third(tx: Any, deliveries: Any) -> handlers.Judged:
        if any(delivery.webhook.event_id == "e-2" for delivery in deliveries):
            raise ValueError("poison")
        return await judge(tx, deliveries)

    with monkeypatch.context() as patched:
        patched.setattr(handlers, "judge", fail_for_the_third)
        await a_judge(payment_db).tick()
    poisoned = await verdicts(payment_db)
    await hurry(payment_db)
    await a_judge(payment_db).tick()

    assert poisoned == ["applied", "applied", None, "applied", "applied"]
    assert await verdicts(payment_db) == ["applied"] * 5


async def test_several_judges_at_once_give_each_delivery_one_verdict(payment_db: Database) -> None:
    """Copies of the service skip what another one has; one event is applied once."""
    attempts = [await an_attempt(payment_db) for _ in range(10)]
    deliveries = [(f"e-{place}", webhook_body(attempt)) for place, attempt in enumerate(attempts)]
    await keep(payment_db, *(deliveries * 4))

    await asyncio.gather(*(a_judge(payment_db, size_max=7).tick() for _ in range(4)))
    while None in await verdicts(payment_db):
        await a_judge(payment_db).tick()

    found = await verdicts(payment_db)
    assert (found.count("applied"), found.count("duplicate")) == (10, 30)
    assert len(await outbox_events(payment_db)) == 10


async def test_batches_of_any_size_come_to_the_same_end(payment_db: Database) -> None:
    """A batch equals its deliveries one by one."""
    ends = []
    for size_max in (1, 3, 100):
        attempt = await an_attempt(payment_db)
        kinds = ["failed", "expired", "succeeded", "failed", "succeeded"]
        names = [f"{attempt.attempt_id}-{place}" for place in (0, 1, 2, 0, 3)]
        await keep(payment_db, *((n, webhook_body(attempt, k)) for n, k in zip(names, kinds, strict=True)))
        judge = a_judge(payment_db, size_max=size_max)
        while await judge.tick():
            pass
        payment = await payment_of(payment_db, attempt.order_id)
        ends.append((payment.status, payment.sequence, (await verdicts(payment_db))[-5:]))

    assert (
        ends
        == [(PaymentStatus.SUCCEEDED, 2, ["applied", "regressive", "applied", "duplicate", "duplicate"])] * 3
    )


# --- receiving ------------------------------------------------------------------------------------------------------


async def test_twenty_equal_deliveries_at_once_count_once(payment_db: Database) -> None:
    """Each is answered with 200 and kept; one is applied and nineteen are duplicates."""
    attempt = await an_attempt(payment_db)
    body = webhook_body(attempt)
    headers = signed(body, "e-1")

    async with service(payment_db, NO_GATEWAY_URL) as client:
        statuses = await asyncio.gather(*(client.deliver(body, headers) for _ in range(20)))
        found = await judged(payment_db)

    assert set(statuses) == {200}
    assert sorted(found) == ["applied", *["duplicate"] * 19]
    assert [told.type for told in await outbox_events(payment_db, types=["PaymentSucceeded"])] == [
        "PaymentSucceeded"
    ]


async def test_a_delivery_is_kept_byte_for_byte(payment_db: Database) -> None:
    """Spaces and the order of fields are what was signed."""
    body = b'{ "data" : {"b":1,  "a":"\xc3\xa4"}, "type":"something.else" }'

    async with service(payment_db, NO_GATEWAY_URL) as client:
        status = await client.deliver(body, signed(body, "e-1"))
    async with payment_db.connection() as connection:
        row = await connection.fetchrow("SELECT body, event_id, headers FROM webhooks")

    assert status == 200
    assert row is not None
    assert (row["body"], row["event_id"]) == (body, "e-1")
    assert set(orjson.loads(row["headers"])) == {"webhook-id", "webhook-timestamp", "webhook-signature"}


@pytest.fixture
async def client(payment_db: Database) -> Any:
    """A running service for many requests of one test."""
    async with service(payment_db, NO_GATEWAY_URL) as running:
        yield running


HOSTILE: list[tuple[bytes, bytes]] = [
    (b"webhook-id: e-1\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,\xff\xfe", b"{}"),
    (b"webhook-id: \xff\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,AAAA", b"{}"),
    (b"webhook-id: e-1\r\nwebhook-timestamp: 1e999\r\nwebhook-signature: v1", b"\xff\xfe"),
    (b"webhook-id: e-1\r\nwebhook-timestamp: \xd9\xa1\r\nwebhook-signature: ,,, ,", b""),
    (b"webhook-id: \x01\r\nwebhook-timestamp: 1\r\nwebhook-signature: \x02", b"{}"),
]


async def raw_request(client: Client, head: bytes, body: bytes) -> int:
    """Send bytes that no proper client would send, and return the status."""
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    length = f"Content-Length: {len(body)}\r\n".encode()
    writer.write(b"POST /webhooks/sandbox HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + length + head)
    writer.write(b"\r\n\r\n" + body)
    status_line = await reader.readline()
    writer.close()
    return int(status_line.split()[1])


async def test_hostile_deliveries_are_never_our_fault(client: Client, payment_db: Database) -> None:
    """Bytes that are no text, no number and no signature are 400, never 5xx, and nothing is kept."""
    statuses = [await raw_request(client, head, body) for head, body in HOSTILE]

    assert statuses == [400] * len(HOSTILE)
    assert await verdicts(payment_db) == []


async def test_a_valid_signature_beside_a_hostile_one_is_accepted(
    client: Client, payment_db: Database
) -> None:
    """Other versions of signatures may stand in the header; what is kept of them is text."""
    body = webhook_body(an_attempt_of(an_open_payment()))
    headers = signed(body, "e-1")
    head = "\r\n".join(f"{name}: {value}" for name, value in headers.items()).encode() + b" v2,\xff"

    assert await raw_request(client, head, body) == 200
    assert len(await verdicts(payment_db)) == 1


async def test_bodies_are_limited_and_gateways_must_be_switched_on(client: Client) -> None:
    """More than 64 KiB is 413; a gateway that is not switched on is 404, whatever was sent."""
    large = await client.deliver(b" " * 65_537, signed(b"{}", "e-1"))
    absent, _, _ = await client.call("POST", "/webhooks/stripe", b"{}", token=None)

    assert (large, absent) == (413, 404)


async def test_operators_find_deliveries_by_verdict(client: Client, payment_db: Database) -> None:
    """One item a delivery, part by part, for operators only."""
    attempt = await an_attempt(payment_db)
    await keep(
        payment_db,
        ("e-1", webhook_body(attempt)),
        ("e-1", webhook_body(attempt)),
        ("e-2", webhook_body(attempt, "failed")),
        ("e-3", webhook_body(an_attempt_of(an_open_payment()))),
    )
    await judged(payment_db)

    forbidden, _, _ = await client.call("GET", "/webhooks")
    _, first, _ = await client.call("GET", "/webhooks?limit=3", token=OPERATOR_TOKEN)
    _, second, _ = await client.call("GET", f"/webhooks?after={first['next']}", token=OPERATOR_TOKEN)
    _, rare, _ = await client.call("GET", "/webhooks?verdict=unmatched", token=OPERATOR_TOKEN)
    bad, _, _ = await client.call("GET", "/webhooks?verdict=lost&after=x", token=OPERATOR_TOKEN)

    assert forbidden == 403
    assert [item["verdict"] for item in first["items"]] == ["applied", "duplicate", "regressive"]
    assert ([item["event_id"] for item in second["items"]], second["next"]) == (["e-3"], None)
    assert [item["event_id"] for item in rare["items"]] == ["e-3"]
    assert bad == 422


async def test_the_inbox_of_orders_alone_and_the_ranks_alone_absorb_repetition(payment_db: Database) -> None:
    """Losing every memory of events heard and judged, and hearing all of it again, changes no payment."""
    order_id = new_id()
    opening = message(awaiting_payment(order_id))
    await feed(payment_db, handlers, [opening])
    attempt = await start_attempt(payment_db, order_id)
    await keep(payment_db, ("e-1", webhook_body(attempt)))
    await a_judge(payment_db).tick()
    before = await payment_of(payment_db, order_id)
    async with payment_db.connection() as connection:
        await connection.execute("TRUNCATE processed_events, webhooks")

    await feed(payment_db, handlers, [opening])
    await keep(payment_db, ("e-1", webhook_body(attempt)))
    await a_judge(payment_db).tick()

    after = await payment_of(payment_db, order_id)
    assert await verdicts(payment_db) == ["duplicate"]
    assert (after.status, after.sequence, after.attempts) == (before.status, before.sequence, before.attempts)
