"""Who does what in the demo? Every decision is made here beforehand, from the baskets and a seed alone.

Most customers pay at once; every way in which a shop's day goes wrong is played by some of them, at each gateway. What
each story ends in is written down beside it, so that the demo also proves that every customer got what is right.

Whoever comes first to the last units gets them, so units that run out are wanted only by customers who keep what they
hold, and each of these is let in when it is known what the one before got: the same seed ends every order the same way.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypedDict

from benchmarks.baskets import Basket
from ops.demo.market import GatewayName, currency_of
from shared.events import OrderStatus

HOLD_SECONDS_SHORT = 10  # the shortest hold that an order may ask for
HOLD_GRACE_SECONDS = 1.0  # what the inventory service is to allow beyond that
SEED = 20_170_101  # the day of the first basket

_SHORT_SKUS_SHARE = 0.01
_RIVALS_SHARE = 0.005
_REPEATED_COMMANDS_SHARE = 0.02
_REPEATED_WEBHOOKS_SHARE = 0.10
_WEBHOOK_TIMES = (3, 20)
_WEBHOOK_DELAY_MS_MAX = 400
_SPARE_UNITS = (1, 20)


class Story(StrEnum):
    """What a customer does with an order."""

    PAYS = "pays"
    GETS_IT_FREE = "gets it free"
    PAYS_AT_SECOND_TRY = "declined, then pays with another card"
    PAYS_TWICE = "pays with two cards"
    FAILS_THEN_SUCCEEDS = "the bank says no, then yes, to one attempt"
    SUCCEEDS_AND_FAILS = "the bank says yes and no at once"
    PAYS_AND_IS_TOLD_LATER = "pays, and the gateway says it all again later"
    PAYS_UNHEARD = "pays, and the gateway's word is lost"
    PAYS_ANOTHER_AMOUNT = "pays another amount, and an operator gives it back"
    IS_DECLINED = "declined twice"
    PAYS_AFTER_THE_END = "declined twice, then the money comes after all"
    WALKS_AWAY = "never comes to the till"
    WALKS_AWAY_FROM_THE_TILL = "walks away from the payment page"
    PAYS_LATE = "pays when the hold has ended"
    LOSES_TO_A_RIVAL = "pays late, when another has bought the last units"
    BUYS_WHAT_ANOTHER_LOST = "buys what another did not pay in time"
    CANCELS_AT_ONCE = "cancels in the same breath"
    CANCELS_UNPAID = "cancels instead of paying"
    CANCELS_WHILE_PAYING = "cancels while paying"
    CANCELS_PAID = "cancels what is paid"
    ASKS_FOR_THE_UNKNOWN = "orders what the catalog does not have"
    EXPECTS_ANOTHER_TOTAL = "was shown another price"


#: How many of a thousand customers live each story; all others pay.
_SHARES: dict[Story, int] = {
    Story.PAYS_AT_SECOND_TRY: 20,
    Story.PAYS_TWICE: 10,
    Story.FAILS_THEN_SUCCEEDS: 15,
    Story.SUCCEEDS_AND_FAILS: 15,
    Story.PAYS_AND_IS_TOLD_LATER: 20,
    Story.PAYS_UNHEARD: 20,
    Story.PAYS_ANOTHER_AMOUNT: 5,
    Story.IS_DECLINED: 30,
    Story.PAYS_AFTER_THE_END: 10,
    Story.WALKS_AWAY: 15,
    Story.WALKS_AWAY_FROM_THE_TILL: 20,
    Story.PAYS_LATE: 20,
    Story.CANCELS_AT_ONCE: 10,
    Story.CANCELS_UNPAID: 15,
    Story.CANCELS_WHILE_PAYING: 20,
    Story.CANCELS_PAID: 15,
    Story.ASKS_FOR_THE_UNKNOWN: 5,
    Story.EXPECTS_ANOTHER_TOTAL: 5,
}

_WITH_A_SHORT_HOLD = {
    Story.WALKS_AWAY,
    Story.WALKS_AWAY_FROM_THE_TILL,
    Story.PAYS_LATE,
    Story.PAYS_ANOTHER_AMOUNT,
    Story.LOSES_TO_A_RIVAL,
}
_NEVER_HELD = {Story.ASKS_FOR_THE_UNKNOWN, Story.EXPECTS_ANOTHER_TOTAL}
#: Whose units, once held, are never given back.
_KEEPERS = {
    Story.PAYS,
    Story.GETS_IT_FREE,
    Story.PAYS_AT_SECOND_TRY,
    Story.PAYS_TWICE,
    Story.FAILS_THEN_SUCCEEDS,
    Story.SUCCEEDS_AND_FAILS,
    Story.PAYS_AND_IS_TOLD_LATER,
    Story.PAYS_UNHEARD,
}
LATE = {Story.PAYS_LATE, Story.LOSES_TO_A_RIVAL, Story.PAYS_AFTER_THE_END}

_ENDS: dict[Story, OrderStatus] = {
    Story.IS_DECLINED: OrderStatus.PAYMENT_FAILED,
    Story.WALKS_AWAY: OrderStatus.EXPIRED,
    Story.WALKS_AWAY_FROM_THE_TILL: OrderStatus.EXPIRED,
    Story.PAYS_ANOTHER_AMOUNT: OrderStatus.EXPIRED,
    Story.LOSES_TO_A_RIVAL: OrderStatus.REFUNDED,
    Story.CANCELS_AT_ONCE: OrderStatus.CANCELLED,
    Story.CANCELS_UNPAID: OrderStatus.CANCELLED,
    Story.CANCELS_WHILE_PAYING: OrderStatus.REFUNDED,
    Story.CANCELS_PAID: OrderStatus.REFUNDED,
    Story.ASKS_FOR_THE_UNKNOWN: OrderStatus.REJECTED,
    Story.EXPECTS_ANOTHER_TOTAL: OrderStatus.REJECTED,
}


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    """One basket and what its customer does with it.

    `is_short` says that the last units will be gone, `placed_after` which orders (by position) must be decided before.
    `rival` is the position of the order that is placed only when this one has expired. `webhook_times` says how often
    the gateway delivers each of its webhooks, `webhook_delay_ms` how late; `same_command_again` and
    `same_content_again` whether the storefront repeats `PlaceOrder` with the same and with a new message id.
    """

    basket: Basket
    story: Story
    total_minor: int
    gateway: GatewayName = "sandbox"
    is_short: bool = False
    hold_seconds: int | None = None
    placed_after: tuple[int, ...] = ()
    rival: int | None = None
    webhook_times: int = 1
    webhook_delay_ms: int = 0
    same_command_again: bool = False
    same_content_again: bool = False

    @property
    def currency(self) -> str:
        """The currency of the order."""
        return currency_of(self.gateway)

    @property
    def ends_in(self) -> OrderStatus:
        """The status in which this order has to end."""
        return OrderStatus.REJECTED if self.is_short else _ENDS.get(self.story, OrderStatus.PROCESSING)


@dataclass(frozen=True, slots=True)
class Plan:
    """The orders in the order in which they are placed, and how many units of each SKU the shop has."""

    orders: tuple[PlannedOrder, ...]
    stock: dict[str, int]
    short_skus: frozenset[str]


def make_plan(
    baskets: Sequence[Basket],
    prices_minor: Mapping[str, int],
    gateways: Mapping[str, GatewayName],
    seed: int = SEED,
) -> Plan:
    """Decide what happens to every basket, by the gateway of each customer; the same input gives the same plan."""
    random = Random(seed)  # noqa: S311 (a plan must be repeatable, not secret)
    paid_by = [gateways[basket.customer_id] for basket in baskets]
    totals_minor = [_total_minor(basket, prices_minor) for basket in baskets]
    demand = _demand(baskets)
    rivalries = _find_rivalries(demand, totals_minor, paid_by)
    stories = _stories(totals_minor, paid_by, list(rivalries.values()), random)
    short_skus = _choose_short(demand, rivalries, stories, random)
    stock = _stock(demand, short_skus, random)
    queues = _Queues({sku: stock[sku] for sku in short_skus})
    # Enough for either of the two, never for both.
    stock |= {sku: max(demand[sku].values()) for sku in rivalries}
    rivals = dict(rivalries.values())
    orders = []
    for position, (basket, story) in enumerate(zip(baskets, stories, strict=True)):
        is_short, placed_after = queues.join(position, basket)
        orders.append(
            PlannedOrder(
                basket,
                story,
                totals_minor[position],
                paid_by[position],
                is_short=is_short,
                hold_seconds=HOLD_SECONDS_SHORT if story in _WITH_A_SHORT_HOLD else None,
                placed_after=placed_after,
                rival=rivals.get(position),
                **_repetitions(random),
            )
        )
    return Plan(tuple(orders), stock, frozenset(short_skus | rivalries.keys()))


class _Queues:
    """Who comes before whom to the units that will run out, and who finds them gone?"""

    def __init__(self, units: dict[str, int]) -> None:
        self._left = units
        self._last: dict[str, int] = {}

    def join(self, position: int, basket: Basket) -> tuple[bool, tuple[int, ...]]:
        """Let an order take what it wants, or nothing if it is too late; return that, and after whom it comes."""
        wanted = Counter[str]()
        for line in basket.lines:
            if line.sku in self._left:
                wanted[line.sku] += line.quantity
        placed_after = {self._last[sku] for sku in wanted if sku in self._last}
        self._last |= dict.fromkeys(wanted, position)
        is_short = any(self._left[sku] < quantity for sku, quantity in wanted.items())
        if not is_short:
            for sku, quantity in wanted.items():
                self._left[sku] -= quantity
        return is_short, tuple(sorted(placed_after))


def _demand(baskets: Sequence[Basket]) -> dict[str, dict[int, int]]:
    """Return how many units of each SKU each basket (by its position) holds."""
    demand: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for position, basket in enumerate(baskets):
        for line in basket.lines:
            demand[line.sku][position] += line.quantity
    return dict(demand)


def _total_minor(basket: Basket, prices_minor: Mapping[str, int]) -> int:
    return sum(line.quantity * prices_minor[line.sku] for line in basket.lines)


def _find_rivalries(
    demand: Mapping[str, Mapping[int, int]], totals_minor: Sequence[int], paid_by: Sequence[GatewayName]
) -> dict[str, tuple[int, int]]:
    """Return some SKUs that exactly two baskets want, with the one that will lose it and the one that will get it."""
    left = {
        gateway: max(1, round(count * _RIVALS_SHARE)) for gateway, count in sorted(Counter(paid_by).items())
    }
    rivalries: dict[str, tuple[int, int]] = {}
    taken: set[int] = set()
    for sku, buyers in demand.items():
        if len(buyers) != 2 or not taken.isdisjoint(buyers):  # noqa: PLR2004 (a pair)
            continue
        loser, rival = sorted(buyers)
        # Whoever loses must have money to lose.
        if left[paid_by[loser]] and totals_minor[loser] and totals_minor[rival]:
            rivalries[sku] = (loser, rival)
            taken |= {loser, rival}
            left[paid_by[loser]] -= 1
    return rivalries


def _choose_short(
    demand: Mapping[str, Mapping[int, int]],
    rivalries: Mapping[str, tuple[int, int]],
    stories: Sequence[Story],
    random: Random,
) -> set[str]:
    """Choose SKUs that several customers want, all of them to keep, and of which there will not be enough."""
    rivals = {position for pair in rivalries.values() for position in pair}
    wanted_by_several = [sku for sku, buyers in demand.items() if len(buyers) > 1]
    keepers = {
        position for position, story in enumerate(stories) if story in _KEEPERS and position not in rivals
    }
    fitting = [sku for sku in wanted_by_several if keepers.issuperset(demand[sku])]
    count = min(len(fitting), round(len(wanted_by_several) * _SHORT_SKUS_SHARE))
    return set(random.sample(fitting, count))


def _stock(
    demand: Mapping[str, Mapping[int, int]], short_skus: Collection[str], random: Random
) -> dict[str, int]:
    """Return half of what is wanted of the short SKUs, and some more than is wanted of the others."""
    return {
        sku: max(1, sum(buyers.values()) // 2)
        if sku in short_skus
        else sum(buyers.values()) + random.randint(*_SPARE_UNITS)
        for sku, buyers in demand.items()
    }


def _stories(
    totals_minor: Sequence[int],
    paid_by: Sequence[GatewayName],
    rivalries: Iterable[tuple[int, int]],
    random: Random,
) -> list[Story]:
    """Deal the stories out like cards: every story at least once at each gateway, if it has orders enough."""
    stories = [Story.PAYS] * len(paid_by)
    rivals = set()
    for loser, rival in rivalries:
        stories[loser], stories[rival] = Story.LOSES_TO_A_RIVAL, Story.BUYS_WHAT_ANOTHER_LOST
        rivals |= {loser, rival}
    for gateway in sorted(set(paid_by)):
        positions = [
            position for position, name in enumerate(paid_by) if name == gateway and position not in rivals
        ]
        for position, story in zip(positions, _deck(len(positions), random), strict=True):
            stories[position] = story
    return [
        story if total_minor or story in _NEVER_HELD else Story.GETS_IT_FREE
        for story, total_minor in zip(stories, totals_minor, strict=True)
    ]


def _deck(count: int, random: Random) -> list[Story]:
    rare = [story for story, share in _SHARES.items() for _ in range(max(1, round(share * count / 1_000)))]
    deck = rare + [Story.PAYS] * (count - len(rare)) if count > len(rare) else random.sample(rare, count)
    random.shuffle(deck)
    return deck


class _Repetitions(TypedDict):
    webhook_times: int
    webhook_delay_ms: int
    same_command_again: bool
    same_content_again: bool


def _repetitions(random: Random) -> _Repetitions:
    """Decide what is said more than once about an order, and how late."""
    repeats_webhooks = random.random() < _REPEATED_WEBHOOKS_SHARE
    return {
        "webhook_times": random.randint(*_WEBHOOK_TIMES) if repeats_webhooks else 1,
        "webhook_delay_ms": random.randint(1, _WEBHOOK_DELAY_MS_MAX) if repeats_webhooks else 0,
        "same_command_again": random.random() < _REPEATED_COMMANDS_SHARE,
        "same_content_again": random.random() < _REPEATED_COMMANDS_SHARE,
    }
