"""Are dead letters and replays handled from the console as the commands handle them, after their plan, and recorded?"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from deploy.local.topics import ensure_topics
from ops.actions import list_actions
from ops.replay.checkpoint import unfinished
from shared.database import Database
from shared.envelope import Emitted, encode
from shared.events import ORDER_TOPIC, OrderAwaitingPayment, OrderStatus
from shared.ids import new_id
from shared.outbox import OutboxRow
from shared.settings import KafkaSettings
from tests.integration.conftest import MakeConsumer, Stream
from tests.integration.console_harness import Browser, Page, console
from tests.integration.dead_letters import FAILING, Desk, letter_row, open_desk
from tests.integration.replay_harness import System
from tests.integration.streams import counted, header_of, publish
from tests.waiting import eventually

# --- dead letters ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def desk(
    stream: Stream,
    shared_db: Database,
    kafka_settings: KafkaSettings,
    make_consumer: MakeConsumer,
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    """A topic that two services read, of which one refuses what it is told to."""
    return await open_desk(stream, shared_db, kafka_settings, make_consumer, monkeypatch)


@pytest.fixture
async def browser(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser that has logged in."""
    dsns = dict.fromkeys(("order", "inventory", "payment"), desk.database.dsn)
    servers = desk.kafka.bootstrap_servers
    async with console(dsns, tmp_path, kafka_bootstrap_servers=servers) as opened:
        await opened.log_in()
        yield opened


async def plan_of(browser: Browser, desk: Desk, verb: str) -> Page:
    """Look at what would be done with the letters of the topic."""
    return await browser.get(f"/dead-letters/plan?verb={verb}&topic={desk.letters_topic}")


async def execute(browser: Browser, desk: Desk, plan: Page, verb: str, **fields: str) -> Page:
    """Send the form of a plan."""
    hidden = {"verb": verb, "topic": desk.letters_topic, "digest": plan.field("digest")}
    return await browser.submit(plan, "/dead-letters/execute", **hidden, **fields)


async def test_letters_are_sent_again_after_their_plan(browser: Browser, desk: Desk) -> None:
    """Looking and planning send nothing; then exactly those of the plan go to the group that refused them, and who, why and how much are kept."""
    key = new_id()
    await desk.poison([counted(desk.stream, number, key=key) for number in range(4)], bad=[1, 3], letters=2)
    before = await desk.count(desk.topic)

    listed = await browser.get(f"/dead-letters?topic={desk.letters_topic}")
    plan = await plan_of(browser, desk, "redrive")
    looked = await desk.count(desk.topic)
    done = await execute(browser, desk, plan, "redrive", reason="the mistake is mended")
    await desk.handle(lambda: desk.has_effects(range(4)))
    after = await browser.get(f"/dead-letters?topic={desk.letters_topic}&state=all")

    (action,) = await desk.actions()
    assert "plan for 2" in listed.words
    assert "2 of" in plan.words
    assert (before, looked, await desk.count(desk.topic)) == (4, 4, 6)
    assert done.status == 200
    assert "Recorded as action" in done.words
    assert (action.who, action.command, action.reason) == (
        "Ada (console)",
        "dlq redrive",
        "the mistake is mended",
    )
    assert (action.counts["published"], action.details["group"]) == (2, FAILING)
    assert after.words.count("redriven") >= 2
    assert "handled" in after.words


async def test_a_plan_that_is_out_of_date_does_nothing(browser: Browser, desk: Desk) -> None:
    """Another operator was faster, or letters have come: the old plan is refused."""
    await publish(desk.kafka, [letter_row(desk)])
    old = await plan_of(browser, desk, "redrive")
    await publish(desk.kafka, [letter_row(desk)])

    refused = await execute(browser, desk, old, "redrive", reason="as planned")

    assert refused.status == 409
    assert "Nothing was done" in refused.words
    assert await desk.count(desk.topic) == 0
    assert await desk.actions() == []


async def test_letters_are_laid_aside_with_a_reason(browser: Browser, desk: Desk) -> None:
    """They stay in their topic and wait no longer; without a reason nothing is decided; doing it twice is refused."""
    await publish(desk.kafka, [letter_row(desk), letter_row(desk)])
    plan = await plan_of(browser, desk, "discard")

    silent = await execute(browser, desk, plan, "discard", reason="  ")
    done = await execute(browser, desk, plan, "discard", reason="a test of theirs")
    again = await execute(browser, desk, plan, "discard", reason="a test of theirs")

    (action,) = await desk.actions()
    assert (silent.status, done.status, again.status) == (422, 200, 409)
    assert (action.command, action.who, action.counts) == ("dlq discard", "Ada (console)", {"letters": 2})
    assert await desk.states() == ["discarded", "discarded"]
    assert await desk.count(desk.letters_topic) == 2


async def test_a_letter_is_shown_without_what_is_secret(browser: Browser, desk: Desk) -> None:
    """Hostile bytes are text, card numbers and secrets are masked, and what cannot be found is not found."""
    await publish(
        desk.kafka,
        [
            letter_row(
                desk,
                key=b"<script>alert(1)</script>\xff",
                payload=b'{"card_number": "4111 1111 1111 1111", "note": "<img src=x onerror=alert(1)>", "password": "hunter22"}',
                headers=[("authorization", b"Bearer c2VjcmV0c2VjcmV0"), ("<b>", b"\x1b[31m")],
                said={"dlq_error": b"</td><script>alert(2)</script>"},
            )
        ],
    )

    pages = [
        await browser.get(f"/dead-letters?topic={desk.letters_topic}"),
        await plan_of(browser, desk, "redrive"),
        await browser.get(f"/dead-letters/{desk.letters_topic}/0/0"),
    ]
    missing = await browser.get(f"/dead-letters/{desk.letters_topic}/0/99")
    nowhere = await browser.get("/dead-letters/nothing.dlq/0/0")

    assert [page.status for page in pages] == [200, 200, 200]
    assert "&lt;img src=x onerror=alert(1)&gt;" in pages[2].text
    for page in pages:
        assert "&lt;script&gt;alert(" in page.text
        assert page.text.count("<script") == 1
        assert not [
            word for word in ("<img src=x", "4111 1111", "hunter22", "c2VjcmV0", "\x1b") if word in page.text
        ]
    assert (missing.status, nowhere.status) == (404, 404)


# --- replay ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def system(
    kafka_settings: KafkaSettings,
    order_db: Database,
    inventory_db: Database,
    payment_db: Database,
    tmp_path: Path,
) -> System:
    """Three fresh databases, and topics that others write to as well."""
    await ensure_topics(kafka_settings)
    databases = {"order": order_db, "inventory": inventory_db, "payment": payment_db}
    system = System(databases, kafka_settings, tmp_path)
    await system.prepare()
    await system.mark()
    return system


@pytest.fixture
async def desk_of_replays(system: System, tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser that has logged in."""
    servers = system.kafka.bootstrap_servers
    async with console(system.place.dsns, tmp_path, kafka_bootstrap_servers=servers) as opened:
        await opened.log_in()
        yield opened


def awaiting_payment(order_id: UUID, sequence: int) -> OutboxRow:
    """Return an event that opens an order's payment."""
    event = OrderAwaitingPayment(
        order_id=order_id,
        order_status=OrderStatus.AWAITING_PAYMENT,
        cancelled=False,
        customer_id="customer-1",
        total_minor=500,
        currency="EUR",
        pay_by=datetime.now(UTC) + timedelta(hours=1),
    )
    event_id, key = new_id(), str(order_id)
    payload, headers = encode(Emitted(event, key, sequence, "http:1", key), event_id, datetime.now(UTC))
    packed = [(name, value.encode()) for name, value in headers]
    return OutboxRow(event_id, ORDER_TOPIC, key.encode(), event.type, sequence, packed, payload)


async def ended(browser: Browser, page: Page) -> Page:
    """Wait until a job is over, as somebody does who loads its page again, and return the page."""

    async def is_over() -> Page | None:
        now = await browser.get(page.path)
        return None if ">running</span>" in now.text else now

    over: Page | None = await eventually(is_over, timeout_seconds=60, what="the job is over")
    assert over is not None
    return over


async def plan_replay(browser: Browser, order_ids: list[UUID], **fields: str) -> Page:
    """Ask for a plan about some orders, and wait for it."""
    form = await browser.get("/replay")
    asked = {"topic": ORDER_TOPIC, "order_ids": " ".join(map(str, order_ids)), **fields}
    return await ended(browser, await browser.submit(form, "/replay/plan", **asked))


async def test_a_replay_is_planned_run_and_recorded(system: System, desk_of_replays: Browser) -> None:
    """The plan changes nothing and says what would; the run publishes exactly that, once, for whom it was meant; who and why are kept."""
    browser, order_id = desk_of_replays, new_id()
    await publish(system.kafka, [awaiting_payment(order_id, 1), awaiting_payment(new_id(), 1)])
    rows = await system.snapshot()

    plan = await plan_replay(browser, [order_id], group="payment-service")
    planned = (await system.snapshot(), len(await system.records(ORDER_TOPIC)))
    silent = await browser.submit(plan, f"{plan.path}/run")
    run = await browser.submit(plan, f"{plan.path}/run", reason="they were lost", rate="100")
    done = await ended(browser, run)
    again = await browser.submit(plan, f"{plan.path}/run", reason="they were lost")

    copies = [record for record in await system.records(ORDER_TOPIC) if header_of(record, "x-replay-id")]
    async with system.databases["payment"].connection() as connection:
        (action,) = await list_actions(connection)
    assert "1 of" in plan.words
    assert "for payment-service" in plan.words
    assert str(order_id) in plan.words.partition("Orders that would change")[2]
    assert planned == (rows, 2)
    assert silent.status == 422
    assert "is done" in done.words
    assert again.path == done.path
    assert [record.key for record in copies] == [str(order_id).encode()]
    assert header_of(copies[0], "x-replayed-by") == "Ada (console)"
    assert (action.who, action.command, action.reason) == ("Ada (console)", "replay", "they were lost")
    assert action.counts["published"] == 1


async def test_a_replay_is_paused_and_goes_on(system: System, desk_of_replays: Browser) -> None:
    """What was left is published then, and nothing twice."""
    browser, order_id = desk_of_replays, new_id()
    await publish(system.kafka, [awaiting_payment(order_id, number) for number in range(1, 301)])
    plan = await plan_replay(browser, [order_id])
    run = await browser.submit(plan, f"{plan.path}/run", reason="once more", rate="100")

    await browser.submit(run, f"{run.path}/pause")
    paused = await ended(browser, run)
    (replay_id,) = unfinished(system.data_dir)
    form = await browser.get("/replay")
    done = await ended(browser, await browser.submit(form, f"/replay/resume/{replay_id}"))

    copies = [record for record in await system.records(ORDER_TOPIC) if header_of(record, "x-replay-id")]
    assert "is paused" in paused.words
    assert replay_id in form.words
    assert "published 300" in done.words
    assert len({header_of(record, "x-replayed-from") for record in copies}) == len(copies) == 300
    assert unfinished(system.data_dir) == []


async def test_how_far_a_run_is_comes_as_it_happens(system: System, desk_of_replays: Browser) -> None:
    """The stream tells it, and when it is over."""
    browser, order_id = desk_of_replays, new_id()
    await publish(system.kafka, [awaiting_payment(order_id, number) for number in range(1, 101)])
    plan = await plan_replay(browser, [order_id])
    run = await browser.submit(plan, f"{plan.path}/run", reason="once more", rate="50")

    async with browser.session.get(f"{browser.url}/live{run.path}") as stream:
        told = (await stream.content.read()).decode()

    events = [
        line.removeprefix("event: ").strip() for line in told.splitlines() if line.startswith("event: ")
    ]
    assert (events[0], events[-1]) == ("hello", "done")
    assert "part" in events
    assert "looked at" in told


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"topic": "nothing"}, "none of the topics that can be replayed"),
        ({"since": "yesterday"}, "is no time"),
        ({"partitions": "x"}, "partitions are numbers"),
        ({"partitions": "99"}, "has no partition 99"),
        ({"types": "Nothing"}, "is no type of event"),
        ({"order_ids": "x"}, "is no order's id"),
        ({"reprocess": "1"}, "Say which group is to forget"),
        ({"group": "nobody"}, "nobody"),
    ],
)
async def test_a_replay_that_makes_no_sense_is_refused(
    system: System, desk_of_replays: Browser, fields: dict[str, str], said: str
) -> None:
    """Each with what is wrong; nothing is begun."""
    form = await desk_of_replays.get("/replay")

    refused = await desk_of_replays.submit(form, "/replay/plan", **{"topic": ORDER_TOPIC, **fields})

    assert refused.status == 422
    assert said in refused.words


# --- audit ----------------------------------------------------------------------------------------------------------


async def test_an_audit_finds_what_the_command_finds(system: System, desk_of_replays: Browser) -> None:
    """Clean at first; a counter that was changed by hand is found; both stay to be looked at."""
    browser = desk_of_replays
    form = await browser.get("/audit")

    clean = await ended(browser, await browser.submit(form, "/audit"))
    await system.run("inventory", "UPDATE stock_levels SET available = available + 1 WHERE sku = 'APPLE'")
    faulty = await ended(browser, await browser.submit(form, "/audit"))
    listed = await browser.get("/audit")

    assert "Clean" in clean.words
    assert "A2 APPLE" in faulty.words
    assert "clean" in listed.words
    assert "faults" in listed.words


async def test_an_audit_reads_the_topics_when_it_is_asked_to(
    system: System, desk_of_replays: Browser
) -> None:
    """Then it tells how many events it looked at."""
    browser = desk_of_replays
    form = await browser.get("/audit")

    without = await ended(browser, await browser.submit(form, "/audit"))
    with_topics = await ended(browser, await browser.submit(form, "/audit", kafka="1"))

    assert "events" not in without.words.partition("Looked at")[2]
    assert "events" in with_topics.words.partition("Looked at")[2]
