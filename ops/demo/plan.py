"""Who does what in the demo? Every decision is made here beforehand, from the baskets and a seed alone.

Most customers pay at once; every way in which a shop's day goes wrong is played by some of them. What each story may end
in is written down beside it, so that the demo also proves that every customer got what is right.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from benchmarks.baskets import Basket
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
    Story.LOSES_TO_A_RIVAL,
}
_NEVER_HELD = {Story.ASKS_FOR_THE_UNKNOWN, Story.EXPECTS_ANOTHER_TOTAL}
_LATE = {Story.PAYS_LATE, Story.LOSES_TO_A_RIVAL, Story.PAYS_AFTER_THE_END}

_ENDS: dict[Story, OrderStatus] = {
    Story.IS_DECLINED: OrderStatus.PAYMENT_FAILED,
    Story.WALKS_AWAY: OrderStatus.EXPIRED,
    Story.WALKS_AWAY_FROM_THE_TILL: OrderStatus.EXPIRED,
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

    `rival` is the position of the order that is placed only when this one has expired. `webhook_times` says how often
    the gateway delivers each of its webhooks, `webhook_delay_ms` how late; `same_command_again` and
    `same_content_again` whether the storefront repeats `PlaceOrder` with the same and with a new message id.
    """

    basket: Basket
    story: Story
    total_minor: int
    may_be_short: bool
    hold_seconds: int | None = None
    rival: int | None = None
    webhook_times: int = 1
    webhook_delay_ms: int = 0
    same_command_again: bool = False
    same_content_again: bool = False

    @property
    def may_end_in(self) -> frozenset[OrderStatus]:
        """Every status in which this order may end."""
        ends = {_ENDS.get(self.story, OrderStatus.PROCESSING)}
        if self.may_be_short:
            ends.add(OrderStatus.REJECTED)
            if self.story in _LATE:
                ends.add(OrderStatus.REFUNDED)
        return frozenset(ends)


@dataclass(frozen=True, slots=True)
class Plan:
    """The orders in the order in which they are placed, and how many units of each SKU the shop has."""

    orders: tuple[PlannedOrder, ...]
    stock: dict[str, int]
    short_skus: frozenset[str]


def make_plan(baskets: Sequence[Basket], prices_minor: Mapping[str, int], seed: int = SEED) -> Plan:
    """Decide what happens to every basket; the same baskets and seed give the same plan."""
    random = Random(seed)  # noqa: S311 (a plan must be repeatable, not secret)
    totals_minor = [_total_minor(basket, prices_minor) for basket in baskets]
    demand = _demand(baskets)
    rivalries = _find_rivalries(demand, totals_minor)
    guarded = {
        line.sku for pair in rivalries.values() for position in pair for line in baskets[position].lines
    }
    short_skus = _choose_short(demand, guarded, random)
    stock = _stock(demand, short_skus, random)
    # Enough for either of the two, never for both.
    stock |= {sku: max(demand[sku].values()) for sku in rivalries}
    short_skus |= rivalries.keys()
    stories = _stories(totals_minor, rivalries.values(), random)
    rivals = dict(rivalries.values())
    orders = tuple(
        _planned(
            basket, story, random, total_minor=total_minor, short_skus=short_skus, rival=rivals.get(position)
        )
        for position, (basket, story, total_minor) in enumerate(
            zip(baskets, stories, totals_minor, strict=True)
        )
    )
    return Plan(orders, stock, frozenset(short_skus))


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
    demand: Mapping[str, Mapping[int, int]], totals_minor: Sequence[int]
) -> dict[str, tuple[int, int]]:
    """Return some SKUs that exactly two baskets want, with the one that will lose it and the one that will get it."""
    wanted = max(1, round(len(totals_minor) * _RIVALS_SHARE))
    rivalries: dict[str, tuple[int, int]] = {}
    taken: set[int] = set()
    for sku, buyers in demand.items():
        if len(rivalries) == wanted:
            break
        if len(buyers) == 2 and taken.isdisjoint(buyers) and all(totals_minor[buyer] for buyer in buyers):  # noqa: PLR2004 (a pair)
            loser, rival = sorted(buyers)
            rivalries[sku] = (loser, rival)
            taken |= {loser, rival}
    return rivalries


def _choose_short(demand: Mapping[str, Mapping[int, int]], guarded: set[str], random: Random) -> set[str]:
    """Choose SKUs that several customers want and of which there will not be enough."""
    wanted_by_several = [sku for sku, buyers in demand.items() if len(buyers) > 1 and sku not in guarded]
    return set(random.sample(wanted_by_several, round(len(wanted_by_several) * _SHORT_SKUS_SHARE)))


def _stock(demand: Mapping[str, Mapping[int, int]], short_skus: set[str], random: Random) -> dict[str, int]:
    """Return half of what is wanted of the short SKUs, and some more than is wanted of the others."""
    return {
        sku: max(1, sum(buyers.values()) // 2)
        if sku in short_skus
        else sum(buyers.values()) + random.randint(*_SPARE_UNITS)
        for sku, buyers in demand.items()
    }


def _stories(
    totals_minor: Sequence[int], rivalries: Iterable[tuple[int, int]], random: Random
) -> list[Story]:
    """Deal the stories out like cards: every story at least once, if there are orders enough."""
    count = len(totals_minor)
    rare = [story for story, share in _SHARES.items() for _ in range(max(1, round(share * count / 1_000)))]
    deck = rare + [Story.PAYS] * (count - len(rare)) if count > len(rare) else random.sample(rare, count)
    random.shuffle(deck)
    for loser, rival in rivalries:
        deck[loser], deck[rival] = Story.LOSES_TO_A_RIVAL, Story.BUYS_WHAT_ANOTHER_LOST
    return [
        story if total_minor or story in _NEVER_HELD else Story.GETS_IT_FREE
        for story, total_minor in zip(deck, totals_minor, strict=True)
    ]


def _planned(
    basket: Basket,
    story: Story,
    random: Random,
    *,
    total_minor: int,
    short_skus: set[str],
    rival: int | None,
) -> PlannedOrder:
    repeats_webhooks = random.random() < _REPEATED_WEBHOOKS_SHARE
    return PlannedOrder(
        basket,
        story,
        total_minor,
        may_be_short=any(line.sku in short_skus for line in basket.lines),
        hold_seconds=HOLD_SECONDS_SHORT if story in _WITH_A_SHORT_HOLD else None,
        rival=rival,
        webhook_times=random.randint(*_WEBHOOK_TIMES) if repeats_webhooks else 1,
        webhook_delay_ms=random.randint(1, _WEBHOOK_DELAY_MS_MAX) if repeats_webhooks else 0,
        same_command_again=random.random() < _REPEATED_COMMANDS_SHARE,
        same_content_again=random.random() < _REPEATED_COMMANDS_SHARE,
    )
