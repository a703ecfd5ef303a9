"""Does every attempt reach the gateway once, and end as the gateway says, whatever happens on the way?"""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from services.payment_service import handlers
from services.payment_service.domain.attempts import Attempt, AttemptStatus
from services.payment_service.handlers import Policy
from shared.database import Database
from shared.events import PaymentStatus
from shared.ids import new_id
from tests.feeding import feed, message, outbox_events
from tests.integration.payment_harness import (
    OPERATOR_TOKEN,
    STOREFRONT_TOKEN,
    Client,
    a_caller,
    a_judge,
    answer_409,
    answer_500,
    fake_gateway,
    hurry,
    keep,
    open_payment,
    payment_of,
    service,
    start_attempt,
    stay_silent,
    webhook_body,
)
from tests.payment_building import (
    AMOUNT_MINOR,
    awaiting_payment,
    order_cancelled,
    order_expired,
)
from tests.waiting import eventually


async def pay(client: Client, order_id: UUID, key: str = "key-1", body: Any = None) -> tuple[int, Any, Any]:
    """Ask for an attempt by HTTP."""
    return await client.call("POST", f"/payments/{order_id}/attempts", body or {}, Idempotency_Key=key)


async def the_attempt_of(database: Database, order_id: UUID) -> Attempt:
    """Return the only attempt of an order."""
    (attempt,) = (await payment_of(database, order_id)).attempts.values()
    return attempt


async def types_told(database: Database) -> list[str]:
    """Return the names of the events in the outbox, in order."""
    return [told.type for told in await outbox_events(database)]


async def test_an_attempt_by_http_gives_the_payment_url(payment_db: Database) -> None:
    """201 with the contract's fields; PaymentInitiated names the request as its cause."""
    order_id = await open_payment(payment_db)

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        body = {"gateway": "sandbox", "return_url": "https://shop.example/done"}
        status, answer, headers = await pay(client, order_id, body=body)
        _, shown, _ = await client.call("GET", f"/payments/{order_id}")

    assert status == 201
    assert answer["gateway_transaction_id"] == f"gateway-{answer['attempt_id']}"
    assert answer["payment_url"].endswith(f"/pay/{answer['gateway_transaction_id']}")
    assert (answer["status"], answer["amount_minor"], answer["currency"]) == ("PENDING", AMOUNT_MINOR, "EUR")
    assert shown["attempts"] == [answer]
    (told,) = await outbox_events(payment_db)
    assert (told.type, str(told.event.attempt_id)) == ("PaymentInitiated", answer["attempt_id"])
    assert told.headers["ce_causationid"] == f"http:{headers['X-Request-Id']}"
    assert gateway.payments[answer["gateway_transaction_id"]]["return_url"] == body["return_url"]


async def test_the_same_key_is_the_same_attempt_however_often_and_at_once(payment_db: Database) -> None:
    """All callers get one attempt; the gateway has one payment; another body under the key is 422."""
    order_id = await open_payment(payment_db)

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        answers = await asyncio.gather(*(pay(client, order_id) for _ in range(10)))
        _, _, headers = await pay(client, order_id)
        other, _, _ = await pay(client, order_id, body={"return_url": "https://elsewhere.example"})

    assert {status for status, _, _ in answers} == {201}
    assert len({answer["attempt_id"] for _, answer, _ in answers}) == 1
    assert len(gateway.payments) == 1
    assert headers["Idempotency-Replayed"] == "true"
    assert other == 422
    assert await types_told(payment_db) == ["PaymentInitiated"]


async def test_a_key_belongs_to_its_caller(payment_db: Database) -> None:
    """A storefront and an operator who happen to use one key start two attempts; neither sees the other's."""
    order_id = new_id()
    async with payment_db.transaction() as tx:
        await handlers.handle(tx, [message(awaiting_payment(order_id))], policy=Policy(attempts_max=2))

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        path = f"/payments/{order_id}/attempts"
        answers = [
            await client.call("POST", path, {}, token=token, Idempotency_Key="key-1")
            for token in (STOREFRONT_TOKEN, OPERATOR_TOKEN)
        ]

    assert [status for status, _, _ in answers] == [201, 201]
    assert len({answer["attempt_id"] for _, answer, _ in answers}) == 2
    assert all("Idempotency-Replayed" not in headers for _, _, headers in answers)


async def test_a_refused_call_does_not_burn_its_key(payment_db: Database) -> None:
    """What was a moment too early, or sent to the wrong gateway, is sent again under its key and pays."""
    order_id = new_id()

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        early, _, _ = await pay(client, order_id)
        await feed(payment_db, handlers, [message(awaiting_payment(order_id))])
        elsewhere, _, _ = await pay(client, order_id, body={"gateway": "stripe"})
        status, _, headers = await pay(client, order_id)

    assert (early, elsewhere, status) == (404, 422, 201)
    assert "Idempotency-Replayed" not in headers


async def test_what_cannot_be_paid_is_refused(payment_db: Database) -> None:
    """404 unknown order, 409 no attempt left or closed, 400 no key, 422 a gateway that is not switched on, 401, 413."""
    order_id, closed = await open_payment(payment_db), await open_payment(payment_db)
    await feed(payment_db, handlers, [message(order_expired(closed))])

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        path = f"/payments/{order_id}/attempts"
        statuses = {
            "unknown order": (await pay(client, new_id()))[0],
            "no uuid": (await client.call("POST", "/payments/x/attempts", {}, Idempotency_Key="k"))[0],
            "closed": (await pay(client, closed))[0],
            "no key": (await client.call("POST", path, {}))[0],
            "long key": (await pay(client, order_id, "k" * 256))[0],
            "other gateway": (await pay(client, order_id, body={"gateway": "stripe"}))[0],
            "bad url": (await pay(client, order_id, body={"return_url": "no url"}))[0],
            "no json": (await pay(client, order_id, body=b"{"))[0],
            "too large": (await pay(client, order_id, body=b" " * 70_000))[0],
            "no token": (await client.call("POST", path, {}, token=None, Idempotency_Key="k"))[0],
            "first": (await pay(client, order_id, "k-1"))[0],
            "none left": (await pay(client, order_id, "k-2"))[0],
        }

    assert statuses == {
        "unknown order": 404,
        "no uuid": 404,
        "closed": 409,
        "no key": 400,
        "long key": 400,
        "other gateway": 422,
        "bad url": 422,
        "no json": 400,
        "too large": 413,
        "no token": 401,
        "first": 201,
        "none left": 409,
    }


async def test_a_gateway_that_does_not_answer_leaves_the_attempt_unknown_until_it_does(
    payment_db: Database,
) -> None:
    """202 with status UNKNOWN; the worker asks again with the same reference, and then it is told."""
    order_id = await open_payment(payment_db)

    async with fake_gateway() as gateway:
        async with service(
            payment_db, gateway.url, gateway_timeout_seconds=0.3, gateway_retry_seconds_min=60
        ) as client:
            gateway.misbehaviour = [stay_silent]
            status, answer, _ = await pay(client, order_id)
        before = await types_told(payment_db)
        await hurry(payment_db)
        async with a_caller(payment_db, gateway.url) as caller:
            await caller.ask_about_attempts()

    attempt = await the_attempt_of(payment_db, order_id)
    assert (status, answer["status"], answer["payment_url"], before) == (202, "UNKNOWN", None, [])
    assert (attempt.status, attempt.task) == (AttemptStatus.PENDING, None)
    assert attempt.gateway_transaction_id == f"gateway-{answer['attempt_id']}"
    assert await types_told(payment_db) == ["PaymentInitiated"]


async def test_a_crash_between_storing_and_asking_is_repaired(payment_db: Database) -> None:
    """The attempt is left to the request for a while; then the worker asks."""
    order_id = await open_payment(payment_db)
    await start_attempt(payment_db, order_id)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        await caller.ask_about_attempts()

    assert (await the_attempt_of(payment_db, order_id)).initiated
    assert await types_told(payment_db) == ["PaymentInitiated"]


async def test_a_gateway_that_refuses_for_certain_fails_the_attempt(payment_db: Database) -> None:
    """201 with status FAILED; it was the last attempt, so the payment failed."""
    order_id = await open_payment(payment_db)

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        gateway.misbehaviour = [answer_409]
        status, answer, _ = await pay(client, order_id)

    assert (status, answer["status"]) == (201, "FAILED")
    assert await types_told(payment_db) == ["PaymentFailed"]


async def test_a_first_answer_that_was_final_is_the_answer_for_ever(payment_db: Database) -> None:
    """The same key gets the same status and body, whatever became of the attempt; one that was open is shown as it is."""
    order_id, open_order_id = await open_payment(payment_db), await open_payment(payment_db)

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        gateway.misbehaviour = [answer_409]
        first = await pay(client, order_id)
        first_open = await pay(client, open_order_id)
        attempts = [await the_attempt_of(payment_db, of) for of in (order_id, open_order_id)]
        await keep(payment_db, *((f"e-{a.attempt_id}", webhook_body(a)) for a in attempts))
        await a_judge(payment_db).tick()
        again, again_open = await pay(client, order_id), await pay(client, open_order_id)

    assert (first[0], first[1]["status"]) == (201, "FAILED")
    assert again[1] == first[1]
    assert (again[0], again[2]["Idempotency-Replayed"]) == (201, "true")
    assert (first_open[1]["status"], again_open[0], again_open[1]["status"]) == ("PENDING", 201, "SUCCEEDED")


async def test_attempts_that_start_by_themselves_reach_the_gateway_many_at_once(payment_db: Database) -> None:
    """With AUTO_INITIATE every order gets its attempt, whatever the size of a wave, and none twice."""
    order_ids = [new_id() for _ in range(20)]
    async with payment_db.transaction() as tx:
        batch = [message(awaiting_payment(order_id)) for order_id in order_ids]
        await handlers.handle(tx, batch, policy=Policy(auto_gateway="sandbox"))

    async with fake_gateway() as gateway:
        gateway.misbehaviour = [answer_500, stay_silent]
        async with a_caller(payment_db, gateway.url, timeout_seconds=0.5, calls_max=8) as caller:
            while await caller.ask_about_attempts():
                pass
            unanswered = len(await types_told(payment_db))
            await hurry(payment_db)
            await caller.ask_about_attempts()

    assert unanswered == 18
    assert (await types_told(payment_db)) == ["PaymentInitiated"] * 20
    assert len(gateway.payments) == 20


@pytest.mark.parametrize("created", [True, False])
async def test_a_closed_order_has_its_attempts_cancelled_at_the_gateway(
    payment_db: Database, *, created: bool
) -> None:
    """Best effort, outside any transaction; what the gateway never had is as good as cancelled."""
    order_id = await open_payment(payment_db)
    await start_attempt(payment_db, order_id)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        if created:
            await caller.ask_about_attempts()
        await feed(payment_db, handlers, [message(order_cancelled(order_id))])
        await caller.ask_about_attempts()

    payment = await payment_of(payment_db, order_id)
    attempt = await the_attempt_of(payment_db, order_id)
    assert (payment.status, attempt.status, attempt.task) == (
        PaymentStatus.CANCELLED,
        AttemptStatus.CANCELLED,
        None,
    )
    assert [payment["status"] for payment in gateway.payments.values()] == (["cancelled"] if created else [])
    assert (await types_told(payment_db))[-1] == "PaymentFailed"
    assert (await types_told(payment_db)).count("PaymentFailed") == 1


async def test_a_success_that_arrives_after_the_cancellation_counts(payment_db: Database) -> None:
    """The money is there, whatever we wished: PaymentSucceeded, and others decide what becomes of it."""
    order_id = await open_payment(payment_db)
    attempt = await start_attempt(payment_db, order_id)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        await caller.ask_about_attempts()
        await feed(payment_db, handlers, [message(order_cancelled(order_id))])
        await caller.ask_about_attempts()
        await keep(payment_db, ("e-1", webhook_body(attempt)))
        await a_judge(payment_db).tick()

    assert (await payment_of(payment_db, order_id)).status is PaymentStatus.SUCCEEDED
    assert await types_told(payment_db) == ["PaymentInitiated", "PaymentFailed", "PaymentSucceeded"]


async def test_cancelling_what_is_paid_already_takes_the_success_in(payment_db: Database) -> None:
    """The gateway's answer to the cancellation says that it was paid: that counts like its webhook."""
    order_id = await open_payment(payment_db)
    await start_attempt(payment_db, order_id)

    async with fake_gateway() as gateway, a_caller(payment_db, gateway.url) as caller:
        await caller.ask_about_attempts()
        (paid,) = gateway.payments.values()
        paid |= {"status": "succeeded", "captured_minor": AMOUNT_MINOR, "captured_currency": "EUR"}
        await feed(payment_db, handlers, [message(order_cancelled(order_id))])
        await caller.ask_about_attempts()

    assert (await payment_of(payment_db, order_id)).status is PaymentStatus.SUCCEEDED
    assert gateway.calls_of("/cancel") == []


async def test_a_payment_is_shown_with_its_attempts_and_refunds(payment_db: Database) -> None:
    """404 before the order is heard of; afterwards the payment, also while it has no amount."""
    order_id = new_id()

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        unknown, problem, _ = await client.call("GET", f"/payments/{order_id}")
        await feed(payment_db, handlers, [message(order_expired(order_id))])
        _, closed, _ = await client.call("GET", f"/payments/{order_id}")
        anybody, _, _ = await client.call("GET", f"/payments/{order_id}", token=None)

    assert (unknown, problem["status"], anybody) == (404, 404, 401)
    assert (closed["status"], closed["reason"], closed["amount_minor"]) == ("CANCELLED", "cancelled", None)
    assert (closed["attempts"], closed["refunds"]) == ([], [])


async def test_the_service_does_it_all_by_itself(payment_db: Database) -> None:
    """Attempt, webhook, refund: wired as it runs, with nothing but a gateway that fails now and then."""
    order_id = await open_payment(payment_db)

    async with fake_gateway() as gateway, service(payment_db, gateway.url) as client:
        _, answer, _ = await pay(client, order_id)
        attempt = await the_attempt_of(payment_db, order_id)
        body = webhook_body(attempt)
        from tests.integration.payment_harness import signed  # noqa: PLC0415
        from tests.payment_building import refund_requested  # noqa: PLC0415

        assert await client.deliver(body, signed(body, "e-1")) == 200

        async def status() -> str:
            _, shown, _ = await client.call("GET", f"/payments/{order_id}")
            return str(shown["status"])

        async def paid() -> bool:
            return await status() == "SUCCEEDED"

        async def refunded() -> bool:
            return await status() == "REFUNDED"

        await eventually(paid)
        gateway.misbehaviour = [answer_500, answer_409]
        await feed(payment_db, handlers, [message(refund_requested(order_id))])
        await eventually(refunded)

    assert answer["status"] == "PENDING"
    assert await types_told(payment_db) == [
        "PaymentInitiated",
        "PaymentSucceeded",
        "PaymentRefundFailed",
        "PaymentRefunded",
    ]
