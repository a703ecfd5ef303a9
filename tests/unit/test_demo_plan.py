"""Is the plan of the demo repeatable, complete, and true to its own promises?"""

from collections import Counter
from itertools import pairwise

import pytest

from benchmarks.baskets import Basket, Line
from ops.demo.market import WEIGHTS, choose_gateways
from ops.demo.plan import HOLD_SECONDS_SHORT, Plan, Story, make_plan
from shared.events import OrderStatus

PRICES_MINOR = {str(sku): 100 + sku for sku in range(1_000)}


def baskets(count: int) -> list[Basket]:
    """Baskets of three products each; neighbours share some of them."""
    return [
        Basket(
            number,
            str(number % 50),
            tuple(Line(str((number * 2 + offset) % 1_000), 1 + offset) for offset in range(3)),
        )
        for number in range(count)
    ]


def plan(count: int, seed: int = 1) -> Plan:
    """A plan for so many baskets."""
    made = baskets(count)
    return make_plan(made, PRICES_MINOR, choose_gateways(made, tuple(WEIGHTS)), seed)


def demand(made: Plan, sku: str) -> list[int]:
    """How many units of a SKU each order wants that wants any."""
    return [line.quantity for order in made.orders for line in order.basket.lines if line.sku == sku]


def test_the_same_seed_gives_the_same_plan() -> None:
    """Two runs do the same, and another seed does something else."""
    assert plan(200) == plan(200)
    assert plan(200) != plan(200, seed=2)


@pytest.mark.parametrize("count", [1, 2, 16, 17, 300])
def test_every_basket_becomes_one_order_in_its_place(count: int) -> None:
    """No basket is lost, doubled or moved, however few there are."""
    assert [order.basket for order in plan(count).orders] == baskets(count)


@pytest.mark.parametrize("gateway", WEIGHTS)
def test_every_story_is_told_at_every_gateway(gateway: str) -> None:
    """With baskets enough each story happens at each gateway, and most customers just pay."""
    stories = [order.story for order in plan(600).orders if order.gateway == gateway]

    assert set(stories) >= set(Story) - {Story.GETS_IT_FREE, Story.BUYS_WHAT_ANOTHER_LOST}
    assert stories.count(Story.PAYS) > len(stories) // 2


def test_every_household_pays_in_one_way_and_every_gateway_has_its_share() -> None:
    """Half of the orders go to the sandbox, a quarter each to the two others, and nobody changes over."""
    orders = plan(1_000).orders
    ways = {(order.basket.customer_id, order.gateway) for order in orders}

    assert len(ways) == len({order.basket.customer_id for order in orders})
    for gateway, share in (("sandbox", 500), ("stripe", 250), ("midtrans", 250)):
        assert sum(order.gateway == gateway for order in orders) == pytest.approx(share, abs=25)


def test_what_costs_nothing_is_never_paid_for() -> None:
    """An order whose total is 0 has no payment, so nothing can happen to it."""
    made = make_plan(
        baskets(300), dict.fromkeys(PRICES_MINOR, 0), choose_gateways(baskets(300), tuple(WEIGHTS)), 1
    )

    never_held = {Story.ASKS_FOR_THE_UNKNOWN, Story.EXPECTS_ANOTHER_TOTAL}
    assert {order.story for order in made.orders} == {Story.GETS_IT_FREE} | never_held


def test_totals_follow_from_the_catalog() -> None:
    """The total that the storefront expects is the sum of quantity times catalog price."""
    order = plan(300).orders[10]

    assert order.total_minor == sum(line.quantity * PRICES_MINOR[line.sku] for line in order.basket.lines)


def test_there_is_enough_of_everything_that_is_not_short() -> None:
    """Only an order with a short SKU may be rejected for want of stock."""
    made = plan(1_000)

    assert made.short_skus
    assert all(
        units > sum(demand(made, sku)) for sku, units in made.stock.items() if sku not in made.short_skus
    )
    assert all(made.stock[sku] < sum(demand(made, sku)) for sku in made.short_skus)


def test_who_finds_the_last_units_gone_is_known_beforehand() -> None:
    """Taken in the plan's order, each all or nothing, exactly those orders fail that are said to be short."""
    made = plan(1_000)
    left = dict(made.stock)
    rivals = {order.rival for order in made.orders} - {None}
    short = []
    for position, order in enumerate(made.orders):
        if position in rivals or order.story is Story.LOSES_TO_A_RIVAL:
            continue
        wanted = Counter[str]()
        for line in order.basket.lines:
            wanted[line.sku] += line.quantity
        wanted = Counter({sku: count for sku, count in wanted.items() if sku in made.short_skus})
        if any(left[sku] < count for sku, count in wanted.items()):
            short.append(position)
        else:
            left = {sku: units - wanted[sku] for sku, units in left.items()}

    assert short
    assert short == [position for position, order in enumerate(made.orders) if order.is_short]


def test_orders_that_want_the_same_last_units_come_one_after_the_other() -> None:
    """Each waits for the one before it, so that it does not matter which of them Kafka brings first."""
    made = plan(1_000)
    rivals = {sku for order in made.orders if order.rival is not None for sku in skus(made, order.rival)}
    for sku in made.short_skus - rivals:
        line = [position for position in range(len(made.orders)) if sku in skus(made, position)]
        for earlier, later in pairwise(line):
            assert earlier in made.orders[later].placed_after


def skus(made: Plan, position: int) -> set[str]:
    """Which SKUs an order wants."""
    return {line.sku for line in made.orders[position].basket.lines}


def test_rivals_want_the_same_last_units() -> None:
    """Of a SKU that only the two of them want there is enough for either, and the loser's hold is short."""
    made = plan(1_000)
    losers = [order for order in made.orders if order.story is Story.LOSES_TO_A_RIVAL]

    assert losers
    for loser in losers:
        assert loser.rival is not None
        rival = made.orders[loser.rival]
        assert rival.story is Story.BUYS_WHAT_ANOTHER_LOST
        assert loser.hold_seconds == HOLD_SECONDS_SHORT
        shared = {line.sku for line in loser.basket.lines} & {line.sku for line in rival.basket.lines}
        assert any(made.stock[sku] == max(demand(made, sku)) for sku in shared & made.short_skus)


def test_rivals_come_in_pairs() -> None:
    """Nobody waits for a rival of somebody else: every rival has exactly one loser who lets them in."""
    made = plan(1_000)
    rivals = [
        position for position, order in enumerate(made.orders) if order.story is Story.BUYS_WHAT_ANOTHER_LOST
    ]

    assert sorted(order.rival for order in made.orders if order.rival is not None) == rivals


def test_how_an_order_ends_follows_from_its_story() -> None:
    """Each story has one end; only who finds the last units gone is refused, whatever they wanted to do."""
    ends = {(order.story, order.is_short): order.ends_in for order in plan(1_000).orders}

    assert ends[Story.PAYS, False] is OrderStatus.PROCESSING
    assert ends[Story.PAYS, True] is OrderStatus.REJECTED
    assert ends[Story.PAYS_LATE, False] is OrderStatus.PROCESSING
    assert ends[Story.PAYS_UNHEARD, False] is OrderStatus.PROCESSING
    assert ends[Story.PAYS_ANOTHER_AMOUNT, False] is OrderStatus.EXPIRED
    assert ends[Story.WALKS_AWAY, False] is OrderStatus.EXPIRED
    assert ends[Story.CANCELS_WHILE_PAYING, False] is OrderStatus.REFUNDED
    assert ends[Story.LOSES_TO_A_RIVAL, False] is OrderStatus.REFUNDED
