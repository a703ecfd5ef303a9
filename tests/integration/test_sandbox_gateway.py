"""Does the sandbox gateway do what it is told, once, and tell the merchant until it hears?"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sandbox_harness import Client, eventually, receiving, sandbox

NEW = {"reference": "attempt-1", "amount_minor": 1250, "currency": "EUR"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A sandbox with its receiver."""
    async with receiving() as receiver, sandbox(tmp_path, receiver) as client:
        yield client


async def test_a_reference_has_one_payment(client: Client) -> None:
    """Creating a payment answers 201; the same reference again answers 200 with the very same payment."""
    first_status, first = await client.call("POST", "/payments", NEW)
    second_status, second = await client.call("POST", "/payments", NEW)

    assert (first_status, second_status) == (201, 200)
    assert first == second
    assert first.items() >= {**NEW, "status": "pending", "refunded_minor": 0}.items()
    assert first["payment_url"] == f"{client.url}/pay/{first['payment_id']}"


async def test_concurrent_first_creations_make_one_payment(client: Client) -> None:
    """Twenty creations of one reference at once give one 201 and one payment id."""
    answers = await asyncio.gather(*(client.call("POST", "/payments", NEW) for _ in range(20)))

    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert len({payment["payment_id"] for _, payment in answers}) == 1


@pytest.mark.parametrize("other", [{"amount_minor": 1251}, {"currency": "USD"}])
async def test_a_reference_for_other_money_is_a_conflict(client: Client, other: dict[str, Any]) -> None:
    """A known reference with another amount or currency answers 409 and changes nothing."""
    payment = await client.create()

    status, problem = await client.call("POST", "/payments", {**NEW, **other})

    assert (status, problem["status"]) == (409, 409)
    assert await client.get(payment) == payment


async def test_a_payment_is_found_by_its_reference(client: Client) -> None:
    """`GET /payments?reference=` lists the payment, or nothing for an unknown reference; without one it is 400."""
    payment = await client.create("attempt:7")

    assert await client.call("GET", "/payments?reference=attempt:7") == (
        200,
        {"items": [payment], "next": None},
    )
    assert await client.call("GET", "/payments?reference=other") == (200, {"items": [], "next": None})
    assert (await client.call("GET", "/payments"))[0] == 400


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "expired"])
async def test_settling_sends_a_signed_webhook(client: Client, outcome: str) -> None:
    """Only the payment that was told to settle does, and the webhook says so under the returned id."""
    await client.create("left-alone")
    payment = await client.create()

    settled = await client.settle(payment, outcome)

    (delivery,) = await client.receiver.received(1)
    await client.everything_delivered()
    assert settled["status"] == outcome
    assert (delivery["id"], delivery["type"]) == (settled["webhook_id"], f"payment.{outcome}")
    assert delivery["data"].pop("occurred_at").endswith("Z")
    assert delivery["data"] == {"payment_id": payment["payment_id"], **NEW}
    assert len(client.receiver.deliveries) == 1


async def test_one_webhook_is_sent_many_times_at_once(client: Client) -> None:
    """`times` deliveries of one webhook id are under way together: none is answered before all have arrived."""
    client.receiver.together = 20
    payment = await client.create()

    settled = await client.settle(payment, times=20)

    deliveries = await client.receiver.received(20)
    await client.everything_delivered()
    assert {delivery["id"] for delivery in deliveries} == {settled["webhook_id"]}
    assert len({delivery["raw"] for delivery in deliveries}) == 1
    assert len(deliveries) == 20


async def test_a_lost_webhook_is_never_sent(client: Client) -> None:
    """`times` 0 takes the money and tells nobody: only whoever asks learns of it."""
    lost, told = await client.create("lost"), await client.create("told")

    settled = await client.settle(lost, times=0)
    await client.settle(told)

    (delivery,) = await client.receiver.received(1)
    await client.everything_delivered()
    assert delivery["data"]["payment_id"] == told["payment_id"]
    assert len(client.receiver.deliveries) == 1
    assert settled["status"] == (await client.get(lost))["status"] == "succeeded"
    assert (await client.get(lost))["captured_minor"] == lost["amount_minor"]


async def test_a_webhook_is_repeated_until_it_is_accepted(client: Client) -> None:
    """Whatever is not 2xx is tried again with the same id and bytes, and each try has the time of its sending."""
    refusals = iter([302, 400, 500])

    def refuse_at_first(delivery: dict[str, Any]) -> int:
        first = client.receiver.deliveries[0]
        return next(refusals, 200 if delivery["timestamp"] != first["timestamp"] else 503)

    client.receiver.answer = refuse_at_first
    payment = await client.create()

    await client.settle(payment)
    await client.everything_delivered()

    deliveries = client.receiver.deliveries
    assert len(deliveries) > 3
    assert len({(delivery["id"], delivery["raw"]) for delivery in deliveries}) == 1
    assert int(deliveries[-1]["timestamp"]) > int(deliveries[0]["timestamp"])


async def test_a_webhook_waits_for_a_receiver_that_is_away(client: Client) -> None:
    """While nothing listens the webhooks are kept, and all of them arrive once somebody does."""
    await client.receiver.stop()
    payments = [await client.create(f"attempt-{number}") for number in range(100)]
    for payment in payments:
        await client.settle(payment)
    pending_while_away = (await client.control())["deliveries_pending"]

    await client.receiver.start()
    await client.everything_delivered()

    assert pending_while_away == 100
    assert {delivery["data"]["reference"] for delivery in client.receiver.deliveries} == {
        payment["reference"] for payment in payments
    }
    assert len(client.receiver.deliveries) == 100


async def test_a_delayed_webhook_is_overtaken(client: Client) -> None:
    """With `delay_ms` the first outcome told arrives after the second."""
    payment = await client.create()

    await client.settle(payment, "failed", delay_ms=300)
    await client.settle(payment, "succeeded")

    deliveries = await client.receiver.received(2)
    assert [delivery["type"] for delivery in deliveries] == ["payment.succeeded", "payment.failed"]


async def test_money_that_came_is_never_undone(client: Client) -> None:
    """A success after a failure or cancellation counts; a failure after it is told but changes nothing."""
    payment = await client.create()
    await client.call("POST", f"/payments/{payment['payment_id']}/cancel")

    after_failure = await client.settle(payment, "failed")
    after_success = await client.settle(payment, "succeeded")
    after_late_failure = await client.settle(payment, "failed")

    deliveries = await client.receiver.received(3)
    assert after_failure["status"] == "cancelled"
    assert after_success["status"] == after_late_failure["status"] == "succeeded"
    assert len({delivery["id"] for delivery in deliveries}) == 3


async def test_other_money_than_asked_for_can_be_told(client: Client) -> None:
    """A settlement with its own amount and currency is what the webhook says and what was captured."""
    payment = await client.create()

    settled = await client.settle(payment, amount_minor=1, currency="USD")

    (delivery,) = await client.receiver.received(1)
    assert (delivery["data"]["amount_minor"], delivery["data"]["currency"]) == (1, "USD")
    assert (settled["captured_minor"], settled["captured_currency"]) == (1, "USD")
    assert (settled["amount_minor"], settled["currency"]) == (1250, "EUR")


async def test_a_payment_is_cancelled_once_and_in_silence(client: Client) -> None:
    """Cancelling twice answers 200 twice, sends nothing, and is a conflict for what is settled."""
    payment, paid = await client.create("a"), await client.create("b")
    await client.settle(paid)

    first = await client.call("POST", f"/payments/{payment['payment_id']}/cancel")
    second = await client.call("POST", f"/payments/{payment['payment_id']}/cancel")
    late_status, _ = await client.call("POST", f"/payments/{paid['payment_id']}/cancel")

    await client.everything_delivered()
    assert first == second == (200, {**payment, "status": "cancelled"})
    assert late_status == 409
    assert [delivery["data"]["reference"] for delivery in client.receiver.deliveries] == ["b"]


async def test_a_refund_is_given_once_for_one_key(client: Client) -> None:
    """The same key answers with the same refund and one webhook; the same key with another body is refused."""
    payment = await client.create()
    await client.settle(payment)

    first_status, refund = await client.refund(payment, "key-1", amount_minor=1000, currency="EUR")
    second_status, repeated = await client.refund(payment, "key-1", amount_minor=1000, currency="EUR")
    other_status, _ = await client.refund(payment, "key-1", amount_minor=999, currency="EUR")

    deliveries = await client.receiver.received(2)
    await client.everything_delivered()
    told = next(delivery for delivery in deliveries if delivery["type"] == "payment.refunded")
    assert (first_status, second_status, other_status) == (201, 200, 422)
    assert refund == repeated
    assert (refund["amount_minor"], refund["status"]) == (1000, "succeeded")
    assert told["data"].items() >= {"refund_id": refund["refund_id"], "amount_minor": 1000}.items()
    assert (await client.get(payment))["refunded_minor"] == 1000
    assert len(deliveries) == 2


async def test_a_refund_without_an_amount_takes_what_is_left(client: Client) -> None:
    """After a partial refund the full one gives back the rest, and both are listed, oldest first."""
    payment = await client.create()
    await client.settle(payment)
    await client.refund(payment, "part", amount_minor=250)

    status, refund = await client.refund(payment, "rest")

    _, listed = await client.call("GET", f"/payments/{payment['payment_id']}/refunds")
    assert (status, refund["amount_minor"]) == (201, 1000)
    assert [item["amount_minor"] for item in listed["items"]] == [250, 1000]


async def test_never_more_is_refunded_than_was_captured(client: Client) -> None:
    """Ten full refunds under ten keys at once give the money back once; the others are conflicts."""
    payment = await client.create()
    await client.settle(payment)

    answers = await asyncio.gather(
        *(client.refund(payment, f"key-{number}", amount_minor=1250) for number in range(10))
    )

    assert sorted(status for status, _ in answers) == [201] + [409] * 9
    assert (await client.get(payment))["refunded_minor"] == 1250


async def test_a_refund_needs_captured_money_of_its_currency_and_a_key(client: Client) -> None:
    """Nothing captured or another currency is 409, no key 400; none of them refunds anything."""
    unpaid, paid = await client.create("a"), await client.create("b")
    await client.settle(paid)

    statuses = [
        (await client.refund(unpaid, "key"))[0],
        (await client.refund(paid, "key", currency="USD"))[0],
        (await client.call("POST", f"/payments/{paid['payment_id']}/refunds", {}))[0],
    ]

    assert statuses == [409, 409, 400]
    assert (await client.get(paid))["refunded_minor"] == 0


BAD_CREATIONS = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"[" * 10_000,
    {**NEW, "amount_minor": "1250"},
    {**NEW, "amount_minor": 12.5},
    {**NEW, "amount_minor": True},
    {**NEW, "amount_minor": 0},
    {**NEW, "amount_minor": 2**53},
    {**NEW, "currency": "eur"},
    {**NEW, "currency": "EUR\n"},
    {**NEW, "reference": ""},
    {**NEW, "reference": "a" * 65},
    {**NEW, "reference": "a b"},
    {**NEW, "return_url": "javascript:alert(1)"},
    {**NEW, "return_url": "https://shop.example/" + "a" * 2_000},
    {**NEW, "expires_at": "2030-01-01T00:00:00"},
    {**NEW, "expires_at": "0001-01-01T00:00:00+14:00"},
    {**NEW, "unknown": 1},
]


@pytest.mark.parametrize("body", BAD_CREATIONS, ids=lambda body: str(body)[:60])
async def test_bad_input_is_refused_as_a_problem(client: Client, body: Any) -> None:
    """A creation that is not well-formed answers 400 or 422 as problem+json and stores nothing."""
    status, problem = await client.call("POST", "/payments", body)

    assert status in {400, 422}
    assert problem["status"] == status
    assert (await client.control())["payments"] == 0


async def test_a_problem_points_at_what_is_wrong(client: Client) -> None:
    """The errors of a 422 carry JSON pointers."""
    status, problem = await client.call("POST", "/payments", {**NEW, "amount_minor": "1"})

    assert status == 422
    assert [error["pointer"] for error in problem["errors"]] == ["#/amount_minor"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/payments/unknown", 404),
        ("POST", "/payments/unknown/cancel", 404),
        ("GET", "/payments/unknown/refunds", 404),
        ("POST", "/payments/unknown/settle", 422),
        ("GET", "/nowhere", 404),
        ("DELETE", "/payments", 405),
    ],
)
async def test_what_is_not_there_is_a_problem_too(
    client: Client, method: str, path: str, expected: int
) -> None:
    """Unknown payments and routes answer in the same form as everything else."""
    status, problem = await client.call(method, path)

    assert (status, problem["status"]) == (expected, expected)


async def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    """A body over 64 KiB answers 413."""
    status, _ = await client.call("POST", "/payments", b" " * (64 * 1024 + 1))

    assert status == 413


async def test_the_next_creations_fail_when_told(client: Client) -> None:
    """`fail_next` answers 503 so many times and stores nothing; then all is well again."""
    await client.control(fail_next=2)

    statuses = [(await client.call("POST", "/payments", NEW))[0] for _ in range(3)]

    assert statuses == [503, 503, 201]


async def test_the_next_refunds_fail_when_told(client: Client) -> None:
    """`refund_failures` answers 503 so many times; the same key then gets its refund."""
    payment = await client.create()
    await client.settle(payment)
    await client.control(refund_failures=1)

    statuses = [(await client.refund(payment, "key"))[0] for _ in range(2)]

    assert statuses == [503, 201]


async def test_a_silent_gateway_stores_but_does_not_answer(client: Client) -> None:
    """While `silent`, a creation is carried out and can be found, but its caller hears only when it is over."""
    await client.control(silent=True)
    creation = asyncio.create_task(client.call("POST", "/payments", NEW))

    async def found() -> bool:
        return bool((await client.call("GET", "/payments?reference=attempt-1"))[1]["items"])

    await eventually(found)
    answered_while_silent = creation.done()
    await client.control(silent=False)

    assert not answered_while_silent
    assert (await creation)[0] == 201


async def test_a_webhook_can_come_before_the_answer_to_the_creation(client: Client) -> None:
    """With `create_delay_ms` a payment can be settled while its creation is still unanswered."""
    await client.control(create_delay_ms=60_000)
    creation = asyncio.create_task(client.call("POST", "/payments", NEW))

    async def found() -> bool:
        return bool((await client.call("GET", "/payments?reference=attempt-1"))[1]["items"])

    await eventually(found)
    _, listed = await client.call("GET", "/payments?reference=attempt-1")
    await client.settle(listed["items"][0])
    await client.receiver.received(1)

    assert not creation.done()
    creation.cancel()
