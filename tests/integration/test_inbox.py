"""Does the inbox alone let each event through once, and a refused one only when an operator asks?"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from shared import inbox
from shared.database import Database
from shared.envelope import Message
from shared.events import StockDepleted
from tests.feeding import message
from tests.integration.streams import outcomes

EVENT = StockDepleted(sku="milk")


def delivery(event_id: UUID | None = None, *, redriven: bool = False) -> Message[StockDepleted]:
    """Return a delivery of an event, a new one unless its id is given."""
    return message(EVENT, event_id=event_id, redriven=redriven)


async def claim(
    database: Database, *messages: Message[StockDepleted], consumer: str = "a"
) -> list[Message[StockDepleted]]:
    """Claim messages in a transaction of their own."""
    async with database.transaction() as tx:
        return await inbox.claim(tx, consumer, messages)


async def bury(database: Database, event_ids: Sequence[UUID]) -> None:
    """Mark claimed events as refused."""
    async with database.transaction() as tx:
        await inbox.bury(tx, "a", event_ids)


async def fail_after_claiming(database: Database, item: Message[StockDepleted]) -> None:
    """Claim a message in a transaction that is rolled back."""
    with suppress(ZeroDivisionError):
        async with database.transaction() as tx:
            await inbox.claim(tx, "a", [item])
            raise ZeroDivisionError


async def test_an_event_is_claimed_once_however_often_it_is_delivered(shared_db: Database) -> None:
    """The first claim gets it, every later one does not."""
    item = delivery()

    claims = [await claim(shared_db, item) for _ in range(3)]

    assert claims == [[item], [], []]


async def test_duplicates_inside_one_batch_are_claimed_once_and_order_is_kept(shared_db: Database) -> None:
    """Of the same event the first delivery counts; new ones come out as they came in."""
    first, second, third = delivery(), delivery(), delivery()
    await claim(shared_db, second)

    claimed = await claim(shared_db, third, first, third, second, first)

    assert claimed == [third, first]


async def test_consumers_do_not_claim_for_one_another(shared_db: Database) -> None:
    """Each consumer of a database remembers for itself."""
    item = delivery()
    await claim(shared_db, item, consumer="a")

    assert await claim(shared_db, item, consumer="b") == [item]


async def test_a_claim_that_is_rolled_back_was_none(shared_db: Database) -> None:
    """What failed is delivered again, and claimed then."""
    item = delivery()
    await fail_after_claiming(shared_db, item)

    assert await claim(shared_db, item) == [item]


async def test_of_concurrent_claims_exactly_one_gets_the_event(shared_db: Database) -> None:
    """Members of a group that both have an event during a rebalance cannot both apply it."""
    item = delivery()

    claims = await asyncio.gather(*(claim(shared_db, item) for _ in range(6)))

    assert sorted(map(len, claims)) == [0, 0, 0, 0, 0, 1]


async def test_a_refused_event_is_not_claimed_by_a_redelivery(shared_db: Database) -> None:
    """Dead stays dead, however often Kafka delivers it again."""
    item = delivery()
    await claim(shared_db, item)
    await bury(shared_db, [item.event_id])

    assert await claim(shared_db, item) == []
    assert await outcomes(shared_db, "a") == {item.event_id: "dead"}


async def test_a_redriven_event_turns_from_dead_to_handled_once(shared_db: Database) -> None:
    """The operator's delivery is claimed; the same delivery again is not, and neither is an ordinary one."""
    item = delivery()
    redriven = delivery(item.event_id, redriven=True)
    await claim(shared_db, item)
    await bury(shared_db, [item.event_id])

    claims = [await claim(shared_db, again) for again in (redriven, redriven, item)]

    assert claims == [[redriven], [], []]
    assert await outcomes(shared_db, "a") == {item.event_id: "handled"}


async def test_a_redriven_event_that_was_handled_stays_handled(shared_db: Database) -> None:
    """Redriving by mistake changes nothing."""
    item = delivery()
    await claim(shared_db, item)

    assert await claim(shared_db, delivery(item.event_id, redriven=True)) == []


async def test_a_redriven_event_that_nobody_knows_is_claimed(shared_db: Database) -> None:
    """The inbox may have been pruned since."""
    redriven = delivery(redriven=True)

    assert await claim(shared_db, redriven, redriven) == [redriven]


async def test_a_batch_may_hold_an_event_and_its_redrive(shared_db: Database) -> None:
    """Together they count once."""
    item = delivery()
    redriven = delivery(item.event_id, redriven=True)

    assert len(await claim(shared_db, item, redriven)) == 1


async def test_burying_leaves_the_neighbours_handled(shared_db: Database) -> None:
    """Only what was refused is dead."""
    good, bad = delivery(), delivery()
    await claim(shared_db, good, bad)

    await bury(shared_db, [bad.event_id])

    assert await outcomes(shared_db, "a") == {good.event_id: "handled", bad.event_id: "dead"}
