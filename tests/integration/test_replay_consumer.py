"""Does a consumer pass through what it has handled before without a trace, and still miss nothing that is new?"""

from shared import inbox
from shared.database import Database
from shared.settings import KafkaSettings
from tests.integration.conftest import MakeConsumer, Stream
from tests.integration.streams import Effects, applied, counted, outcomes, publish, running, with_headers
from tests.waiting import eventually

EVENTS = 60


async def test_repeated_events_leave_no_trace(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """The handler never sees them, and no row of any table is written."""
    rows = [counted(stream, number) for number in range(EVENTS)]
    effects = Effects()
    await publish(kafka_settings, rows)

    async with running(make_consumer(effects.handle, records_max=10)):
        await eventually(applied(shared_db, range(EVENTS)))
        handled = await versions(shared_db)
        await publish(kafka_settings, rows * 5)
        await publish(kafka_settings, [counted(stream, EVENTS)])
        await eventually(applied(shared_db, range(EVENTS + 1)))

    assert sum(len(batch) for batch in effects.batches) == EVENTS + 1
    there = await versions(shared_db)
    assert handled <= there
    # The new event: its row in the inbox, and its effect.
    assert len(there - handled) == 2


async def versions(database: Database) -> set[tuple[str, str, int]]:
    """Return every version of a row that is there: its table, its place, and the transaction that wrote it."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            """
            SELECT tableoid::regclass::text, ctid::text, xmin::text::bigint FROM processed_events
            UNION ALL SELECT tableoid::regclass::text, ctid::text, xmin::text::bigint FROM effects
            UNION ALL SELECT tableoid::regclass::text, ctid::text, xmin::text::bigint FROM outbox
            """
        )
        return {tuple(row) for row in rows}


async def test_a_new_event_among_repeated_ones_is_applied(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """However long only known ones came: each batch is looked up, not believed."""
    known = [counted(stream, number) for number in range(EVENTS)]
    mixed = [*known * 3, counted(stream, EVENTS), *known, counted(stream, EVENTS + 1), *known]
    await publish(kafka_settings, known)

    async with running(make_consumer(Effects().handle, records_max=10)):
        await eventually(applied(shared_db, range(EVENTS)))
        await publish(kafka_settings, mixed)
        await eventually(applied(shared_db, range(EVENTS + 2)))


async def test_a_redrive_among_repeated_events_is_taken(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """It is known as dead, and may become handled all the same."""
    known = [counted(stream, number) for number in range(EVENTS)]
    dead = counted(stream, EVENTS)
    redriven = with_headers(dead, dlq_redrive=b"1", dlq_group=stream.group.encode())
    async with shared_db.transaction() as tx:
        await inbox.insert_processed_events(tx, stream.group, {dead.event_id}, "dead")
    await publish(kafka_settings, known)

    async with running(make_consumer(Effects().handle, records_max=10)):
        await eventually(applied(shared_db, range(EVENTS)))
        await publish(kafka_settings, [*known * 3, dead, redriven, *known])
        await eventually(applied(shared_db, range(EVENTS + 1)))

    assert (await outcomes(shared_db, stream.group))[dead.event_id] == "handled"


async def test_what_is_replayed_to_another_group_is_passed_over(
    shared_db: Database, stream: Stream, kafka_settings: KafkaSettings, make_consumer: MakeConsumer
) -> None:
    """New to the inbox or not; what is for this group, or for all, is taken."""
    theirs, ours, everybodys = (counted(stream, number) for number in range(3))
    await publish(
        kafka_settings,
        [
            with_headers(theirs, **{"x-replay-group": b"another-group"}),
            with_headers(ours, **{"x-replay-group": stream.group.encode()}),
            everybodys,
        ],
    )

    async with running(make_consumer(Effects().handle)):
        await eventually(applied(shared_db, [1, 2]))
        await publish(kafka_settings, [theirs])
        await eventually(applied(shared_db, [0, 1, 2]))
