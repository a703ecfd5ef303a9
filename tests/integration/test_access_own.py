"""What can a customer do with its own orders, carts and payments, and what of everybody else's?"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from services.order_service import handlers as order_handlers
from services.payment_service import handlers as payment_handlers
from shared.access import Scope, new_key
from shared.ids import new_id
from tests.conftest import MakeDatabase
from tests.feeding import feed, message, outbox_events
from tests.integration.access_harness import CART, OTHER, OWNER, SKU, Town, a_town, jwt_of
from tests.order_building import place_order
from tests.payment_building import order_cancelled
from tests.services import OPERATOR, SERVICES, STOREFRONT
from tests.waiting import eventually

ITEM = "/carts/{cart_id}/items/{sku}"
ATTEMPTS = "/payments/{order_id}/attempts"


@pytest.fixture
async def town(make_database: MakeDatabase, tmp_path: Path) -> AsyncIterator[Town]:
    """The three services, with what belongs to one customer."""
    async with a_town({service: await make_database(service) for service in SERVICES}, tmp_path) as made:
        yield made


def key(value: str = "") -> dict[str, str]:
    """Return the header of an idempotency key, a new one unless given."""
    return {"Idempotency-Key": value or str(new_id())}


# --- orders ---------------------------------------------------------------------------------------------------------


async def test_a_customer_places_follows_and_cancels_its_own_order(town: Town) -> None:
    """From the first request to the last with its own token; the order says by whom it was cancelled."""
    token = jwt_of(OWNER)
    placed = await town.place(token, OWNER)
    path = f"/orders/{placed.body['order_id']}"

    shown = await town.call("order", "GET", f"{path}?after_version=0&wait=1", token=token)
    cancelled = await town.call("order", "POST", f"{path}/cancel", {"reason": "no"}, token=token)
    history = await town.call("order", "GET", f"{path}/history", token=token)

    assert (placed.status, shown.status, cancelled.status) == (202, 200, 202)
    assert shown.body["customer_id"] == OWNER
    assert [step["status"] for step in history.body["items"]] == ["REQUESTED", "CANCELLED"]
    told = await outbox_events(town.services["order"].database, types=["OrderCancelled"])
    assert told[-1].event.requested_by == f"customer:{OWNER}"


@pytest.mark.parametrize("fields", [{"customer_id": OTHER}, {"hold_seconds": 86_400}])
async def test_what_is_not_a_customers_to_say_is_refused(town: Town, fields: dict[str, object]) -> None:
    """403 and nothing stored: an order for another customer, and how long units are kept from others."""
    before = await town.contents()

    answer = await town.place(jwt_of(OWNER), **{"customer_id": OWNER, **fields})  # type: ignore[arg-type]

    assert answer.status == 403
    assert await town.contents() == before


async def test_a_list_is_of_the_customers_own_orders(town: Town) -> None:
    """Whatever is asked for, and page by page; storefronts see all."""
    mine = [(await town.place(jwt_of(OTHER), OTHER)).body["order_id"] for _ in range(3)]
    await town.place(STOREFRONT, OWNER)

    async def listed(token: str, query: str = "") -> list[str]:
        answer = await town.call("order", "GET", f"/orders{query}", token=token)
        return [order["order_id"] for order in answer.body["items"]]

    assert sorted(await listed(jwt_of(OTHER))) == sorted(mine)
    assert sorted(await listed(jwt_of(OTHER), f"?customer_id={OTHER}")) == sorted(mine)
    assert await listed(jwt_of(OTHER), f"?customer_id={OWNER}") == []
    first = await listed(jwt_of(OTHER), "?limit=2")
    assert first + await listed(jwt_of(OTHER), f"?after={first[-1]}") == sorted(mine)
    assert len(await listed(STOREFRONT)) == 5


async def test_nobody_waits_for_an_order_that_is_not_his(town: Town) -> None:
    """404 at once, so that waiting tells nothing either."""
    answer = await town.call(
        "order", "GET", "/orders/{order_id}?after_version=1&wait=30", token=jwt_of(OTHER)
    )

    assert answer.status == 404


async def test_an_idempotency_key_is_its_callers_own(town: Town) -> None:
    """Two customers and a storefront under one key have three orders; a customer has one, whatever token it shows."""
    same = "the-same-key"

    async def place(token: str, customer_id: str) -> tuple[str, str | None]:
        body = {"customer_id": customer_id, "currency": "EUR", "lines": [{"sku": SKU, "quantity": 1}]}
        answer = await town.call("order", "POST", "/orders", body, token=token, headers=key(same))
        return answer.body["order_id"], answer.headers.get("Idempotency-Replayed")

    answers = [
        await place(jwt_of(OWNER), OWNER),
        await place(jwt_of(OTHER), OTHER),
        await place(STOREFRONT, OWNER),
        await place(town.keys.storefront.key, OWNER),
        await place(town.keys.owner.key, OWNER),
    ]

    assert [replayed for _, replayed in answers] == [None, None, None, None, "true"]
    assert len({order_id for order_id, _ in answers}) == 4
    assert answers[4][0] == answers[0][0]


# --- carts ----------------------------------------------------------------------------------------------------------


async def test_a_cart_is_the_customers_who_first_put_something_into_it(town: Town) -> None:
    """To another customer it is not there, and stays as it was; the storefront may change it, and it stays whose it is."""
    refused = [
        await town.call("order", "GET", "/carts/{cart_id}", token=jwt_of(OTHER)),
        await town.call("order", "PUT", ITEM, {"quantity": 5}, token=jwt_of(OTHER)),
        await town.call("order", "DELETE", ITEM, token=jwt_of(OTHER)),
    ]
    by_storefront = await town.call("order", "PUT", ITEM, {"quantity": 7}, token=STOREFRONT)
    again = await town.call("order", "GET", "/carts/{cart_id}", token=jwt_of(OTHER))
    shown = await town.call("order", "GET", "/carts/{cart_id}", token=jwt_of(OWNER))

    assert [answer.status for answer in refused] == [404, 404, 404]
    assert (by_storefront.status, again.status, shown.status) == (200, 404, 200)
    assert shown.body["items"] == [{"sku": SKU, "quantity": 7}]


async def test_a_cart_of_the_storefront_is_no_customers_until_it_is_given(town: Town) -> None:
    """No customer can claim it by its name; the storefront says whose it is, once."""
    path = "/carts/cart-by-storefront"
    item = f"{path}/items/{SKU}"
    await town.call("order", "PUT", item, {"quantity": 1})

    before = await town.call("order", "PUT", item, {"quantity": 2}, token=jwt_of(OWNER))
    given = await town.call("order", "PUT", item, {"quantity": 3, "customer_id": OWNER})
    other = await town.call("order", "PUT", item, {"quantity": 4, "customer_id": OTHER})
    after = await town.call("order", "GET", path, token=jwt_of(OWNER))

    assert [answer.status for answer in (before, given, other, after)] == [404, 200, 409, 200]
    assert after.body["items"] == [{"sku": SKU, "quantity": 3}]


async def test_a_customer_gives_no_cart_away(town: Town) -> None:
    """403: whose a cart is, is for its first customer and the storefront to say."""
    answer = await town.call("order", "PUT", ITEM, {"quantity": 1, "customer_id": OTHER}, token=jwt_of(OWNER))

    assert answer.status == 403


async def test_a_cart_that_nobody_has_used_is_not_there_for_a_customer(town: Town) -> None:
    """404, as for one of another customer; taking something out of it does not make it anybody's."""
    path = "/carts/cart-of-nobody"
    read = await town.call("order", "GET", path, token=jwt_of(OWNER))
    taken = await town.call("order", "DELETE", f"{path}/items/{SKU}", token=jwt_of(OWNER))
    put = await town.call("order", "PUT", f"{path}/items/{SKU}", {"quantity": 1}, token=jwt_of(OTHER))

    assert [answer.status for answer in (read, taken, put)] == [404, 404, 201]


async def test_many_customers_at_once_have_one_new_cart_among_them(town: Town) -> None:
    """One of them is first, in whatever batches the requests come; the others are told that it is not there."""
    path = f"/carts/cart-of-the-fastest/items/{SKU}"
    tokens = [jwt_of(f"c-{number}") for number in range(20)]

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(town.call("order", "PUT", path, {"quantity": 1}, token=token))
            for token in tokens
        ]

    assert sorted(task.result().status for task in tasks) == [201] + [404] * 19


@pytest.mark.parametrize(
    ("whose", "token_of", "status"),
    [(OWNER, OWNER, 202), (OWNER, OTHER, 422), (OWNER, None, 202), (OTHER, None, 422)],
)
async def test_an_order_is_placed_from_the_cart_of_its_customer(
    town: Town, whose: str, token_of: str | None, status: int
) -> None:
    """By the customer or by the storefront; for anybody else the cart is as good as empty, and stays as it is."""
    token = STOREFRONT if token_of is None else jwt_of(token_of)
    customer_id = whose if token_of is None else token_of
    answer = await town.place(token, customer_id, lines=None, cart_id=CART)
    cart = await town.call("order", "GET", "/carts/{cart_id}", token=jwt_of(OWNER))

    assert answer.status == status
    assert cart.body["status"] == ("CHECKED_OUT" if status == 202 else "OPEN")
    if status == 422:
        assert answer.body["type"] == "urn:holdfast:problem:empty_cart"


async def test_a_customer_orders_from_no_cart_of_the_storefront(town: Town) -> None:
    """A cart that belongs to nobody is ordered by the storefront alone, for whatever customer."""
    await town.call("order", "PUT", f"/carts/cart-2/items/{SKU}", {"quantity": 1})

    by_customer = await town.place(jwt_of(OWNER), OWNER, lines=None, cart_id="cart-2")
    by_storefront = await town.place(STOREFRONT, OWNER, lines=None, cart_id="cart-2")

    assert (by_customer.status, by_storefront.status) == (422, 202)


async def test_a_command_on_kafka_takes_no_cart_of_another_customer(town: Town) -> None:
    """The order ends REJECTED with an empty cart; the cart is not touched."""
    command = place_order(customer_id=OTHER, lines=None, cart_id=CART)
    await feed(town.services["order"].database, order_handlers, [message(command)])

    order = await town.call("order", "GET", f"/orders/{command.order_id}")
    cart = await town.call("order", "GET", "/carts/{cart_id}", token=jwt_of(OWNER))

    assert (order.body["status"], order.body["reason"]) == ("REJECTED", "empty_cart")
    assert cart.body == {"cart_id": CART, "items": [{"sku": SKU, "quantity": 1}], "status": "OPEN"}


# --- payments -------------------------------------------------------------------------------------------------------


async def test_a_customer_pays_its_own_order(town: Town) -> None:
    """It starts an attempt and reads its payment; to another customer neither order nor payment is there."""
    started = await town.call("payment", "POST", ATTEMPTS, {}, token=jwt_of(OWNER), headers=key("k"))
    repeated = await town.call("payment", "POST", ATTEMPTS, {}, token=town.keys.owner.key, headers=key("k"))
    read = await town.call("payment", "GET", "/payments/{order_id}", token=jwt_of(OWNER))
    others = [
        await town.call("payment", "POST", ATTEMPTS, {}, token=jwt_of(OTHER), headers=key("k")),
        await town.call("payment", "GET", "/payments/{order_id}", token=jwt_of(OTHER)),
    ]

    assert (started.status, repeated.status, read.status) == (201, 201, 200)
    assert started.body["attempt_id"] == repeated.body["attempt_id"]
    assert [attempt["attempt_id"] for attempt in read.body["attempts"]] == [started.body["attempt_id"]]
    assert [answer.status for answer in others] == [404, 404]


async def test_a_payment_of_an_unknown_customer_is_no_customers(town: Town) -> None:
    """Until the payment service has been told whose order it is, only the storefront sees its payment."""
    order_id = new_id()
    await feed(town.services["payment"].database, payment_handlers, [message(order_cancelled(order_id))])

    by_customer = await town.call("payment", "GET", f"/payments/{order_id}", token=jwt_of(OWNER))
    by_storefront = await town.call("payment", "GET", f"/payments/{order_id}")

    assert (by_customer.status, by_storefront.status) == (404, 200)


async def test_what_operators_note_is_not_for_customers(town: Town) -> None:
    """Why an attempt is to be looked at, and what was written about it, is null for the customer."""
    await town.call("payment", "POST", ATTEMPTS, {}, token=jwt_of(OWNER), headers=key())
    async with town.services["payment"].database.connection() as connection:
        await connection.execute(
            "UPDATE attempts SET review_at = now(), review_reason = 'mismatch', dispute = 'fraudulent' WHERE order_id = $1",
            UUID(town.order_id),
        )

    path = "/payments/{order_id}"
    seen = {
        token: (await town.call("payment", "GET", path, token=token)).body["attempts"][0]
        for token in (STOREFRONT, jwt_of(OWNER))
    }

    assert [(attempt["review_reason"], attempt["dispute"]) for attempt in seen.values()] == [
        ("mismatch", "fraudulent"),
        (None, None),
    ]


# --- keys, while the services run -----------------------------------------------------------------------------------


async def test_keys_are_changed_without_a_restart(town: Town) -> None:
    """A new line opens and a missing one closes within moments; a wrong file changes nothing and shows in /readyz."""
    new = new_key("web-shop", Scope.STOREFRONT)
    old = town.keys.storefront

    async def status_of(token: str) -> int:
        return (await town.call("order", "GET", "/products", token=token)).status

    async def away() -> dict[str, str]:
        ready = await town.call("order", "GET", "/readyz", token=None)
        found: dict[str, str] = ready.body["away"]
        return found

    assert (await status_of(old.key), await status_of(new.key)) == (200, 401)
    write(town.keys_path, new.text())

    async def is_changed() -> bool:
        return (await status_of(old.key), await status_of(new.key)) == (401, 200)

    await eventually(is_changed, what="the new key to open")
    write(town.keys_path, "{")

    async def is_told() -> bool:
        return "keys_file" in await away()

    await eventually(is_told, what="the wrong file to show")
    assert await status_of(new.key) == 200
    assert (await town.call("order", "GET", "/readyz", token=None)).body["status"] == "degraded"
    write(town.keys_path, new.text())

    async def is_well() -> bool:
        return "keys_file" not in await away()

    await eventually(is_well, what="the right file to count")


def write(path: Path, text: str) -> None:
    """Write a file."""
    path.write_text(text)


async def quarantined(town: Town) -> str:
    """Have an attempt that waits for an operator's decision, about which nobody has decided; return its path."""
    database = town.services["payment"].database
    async with database.transaction() as tx:
        await tx.execute("DELETE FROM resolutions")
        await tx.execute("DELETE FROM refunds")
        await tx.execute("DELETE FROM attempts")
    started = await town.call("payment", "POST", ATTEMPTS, {}, token=jwt_of(OWNER), headers=key())
    async with database.transaction() as tx:
        await tx.execute(
            "UPDATE attempts SET status = 'QUARANTINED', review_at = now(), review_reason = 'mismatch',"
            " received_amount_minor = 1, received_currency = 'EUR' WHERE attempt_id = $1",
            UUID(started.body["attempt_id"]),
        )
        await tx.execute("UPDATE payments SET status = 'QUARANTINED'")
    return f"/payments/{{order_id}}/attempts/{started.body['attempt_id']}/resolve"


@pytest.mark.parametrize(
    ("is_named", "operator", "decided_by"),
    [
        (True, None, "key:alice"),
        (True, "console of bob", "console of bob by key:alice"),
        (False, "bob", "bob"),
        (False, None, "operator"),
    ],
)
async def test_who_decided_is_the_name_behind_the_key(
    town: Town,
    is_named: bool,  # noqa: FBT001 (a parameter of the test)
    operator: str | None,
    decided_by: str,
) -> None:
    """What a header says stands beside it; with the shared token there is only the header."""
    answer = await town.call(
        *("payment", "POST", await quarantined(town), {"action": "refund", "reason": "test"}),
        token=town.keys.operator.key if is_named else OPERATOR,
        headers={} if operator is None else {"X-Operator": operator},
    )

    assert answer.body["decided_by"] == decided_by


async def test_an_operators_idempotency_key_is_its_own(town: Town) -> None:
    """Another operator under the same key decides for itself, and comes too late; it has not sent another body."""
    path = await quarantined(town)

    async def decide(token: str, action: str) -> int:
        body = {"action": action, "reason": "test"}
        return (await town.call("payment", "POST", path, body, token=token, headers=key("same"))).status

    alice, bob = town.keys.operator.key, jwt_of("bob", "holdfast:operator")
    answers = [
        await decide(alice, "refund"),
        await decide(alice, "refund"),
        await decide(alice, "accept"),
        await decide(bob, "accept"),
        await decide(OPERATOR, "accept"),
    ]

    assert answers == [200, 200, 422, 409, 409]
