"""Does `holdfast config check --connect` find what is wrong with the databases and topics that settings lead to?"""

from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local.kafka import EmbeddedKafka
from deploy.local.topics import ensure_topics
from ops.config import config
from shared.database import Database
from shared.kafka import list_topic_configs
from shared.settings import KafkaSettings
from tests.conftest import MakeDatabase
from tests.issuer_building import AUDIENCE, ISSUER, ec_key, local_issuer
from tests.waiting import eventually

SERVICES = ("order", "inventory", "payment")


class Checking:
    """Runs the command on real databases and a real Kafka."""

    def __init__(self, kafka: KafkaSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.kafka = kafka
        self._data_dir = tmp_path
        self._capsys = capsys

    async def __call__(self) -> tuple[int, list[tuple[str, str, str]]]:
        """Return the exit status, and of each problem where it is, what is wrong, and what to do."""
        tokens = ["check", "--connect", "--json", "--data-dir", str(self._data_dir)]
        status = await config.run_async(tokens, exit_on_error=False, result_action="return_value")
        said: Any = orjson.loads(self._capsys.readouterr().out)
        return status, [
            (problem["where"], problem["what"], problem["advice"]) for problem in said["problems"]
        ]

    async def configure(self, topic: str, **values: str) -> None:
        """Change how a topic is kept, and wait until Kafka says so."""
        wanted = {name.replace("_", "."): value for name, value in values.items()}
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers)
        await admin.start()
        try:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=wanted)])
        finally:
            await admin.close()

        async def is_changed() -> bool:
            configs = await list_topic_configs(self.kafka, [topic])
            return wanted.items() <= configs[topic].items()

        await eventually(is_changed, what=f"{topic} is configured anew")


@pytest.fixture
async def checking(
    kafka: EmbeddedKafka,
    make_database: MakeDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Checking:
    """Three migrated databases, all topics, and settings that name them."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    await ensure_topics(settings)
    for service in SERVICES:
        monkeypatch.setenv(f"HOLDFAST_{service.upper()}_DATABASE_DSN", await make_database(service))
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "HTTP_PORT": "0",
        "STOREFRONT_TOKEN": "storefront-token-1",
        "OPERATOR_TOKEN": "operator-token-12",
        "SANDBOX_URL": "http://127.0.0.1:1",
        "SANDBOX_WEBHOOK_SECRETS": "whsec_c2FuZGJveC1zZWNyZXQtMTIzNA==",
    }.items():
        monkeypatch.setenv(f"HOLDFAST_{name}", value)
    return Checking(settings, tmp_path, capsys)


async def test_a_sound_system_is_found_sound(checking: Checking) -> None:
    """Databases answer and are migrated, topics are there and kept as they should be."""
    assert await checking() == (0, [])


async def test_an_issuer_that_does_not_answer_is_told(
    checking: Checking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all services; with its keys there, nothing is wrong."""
    async with local_issuer(ec_key("key-1")) as issuer:
        monkeypatch.setenv("HOLDFAST_OIDC_ISSUER", ISSUER)
        monkeypatch.setenv("HOLDFAST_OIDC_AUDIENCE", AUDIENCE)
        monkeypatch.setenv("HOLDFAST_OIDC_JWKS_URL", issuer.url)
        well = await checking()
        issuer.answer = web.Response(status=404)
        status, found = await checking()

    assert well == (0, [])
    assert status == 1
    (problem,) = found
    assert problem[:2] == ("issuer", "the key set's address answers 404")
    assert issuer.url in problem[2]


async def test_missing_migrations_and_a_missing_database_are_told(
    checking: Checking, monkeypatch: pytest.MonkeyPatch, order_db: Database
) -> None:
    """A database without its last migrations names them, one that does not exist says so; both at once."""
    async with order_db.connection() as connection:
        await connection.execute("DELETE FROM schema_migrations WHERE number > 1")
    monkeypatch.setenv("HOLDFAST_ORDER_DATABASE_DSN", order_db.dsn)
    monkeypatch.setenv("HOLDFAST_PAYMENT_DATABASE_DSN", order_db.dsn.rpartition("/")[0] + "/nowhere")

    status, found = await checking()

    assert status == 1
    (migrations,) = [item for item in found if item[0] == "database of order"]
    assert "0002_" in migrations[1]
    assert migrations[2] == "Run `holdfast migrate order`."
    (nowhere,) = [item for item in found if item[0] == "database of payment"]
    assert "nowhere" in nowhere[1]


async def test_a_database_of_another_release_is_told(
    checking: Checking, monkeypatch: pytest.MonkeyPatch, order_db: Database
) -> None:
    """An applied migration that is not the one of this release cannot be migrated away."""
    async with order_db.connection() as connection:
        await connection.execute("UPDATE schema_migrations SET checksum = 'other' WHERE number = 1")
    monkeypatch.setenv("HOLDFAST_ORDER_DATABASE_DSN", order_db.dsn)

    status, found = await checking()

    assert (status, [item[0] for item in found]) == (1, ["database of order"])
    assert "in another form" in found[0][1]


async def test_a_topic_that_outlives_the_inbox_is_told(
    checking: Checking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Kafka can still deliver must still be remembered, or it would count twice."""
    monkeypatch.setenv("HOLDFAST_INBOX_RETENTION_SECONDS", str(6 * 86_400))

    status, found = await checking()

    assert status == 1
    assert {item[0] for item in found} == {
        "order.commands",
        "order.events",
        "inventory.events",
        "payment.events",
    }
    assert "kept for 7.0 days, the inbox remembers them for 6.0 days" in found[0][1]
    assert "HOLDFAST_INBOX_RETENTION_SECONDS" in found[0][2]


async def test_topics_that_lose_what_must_be_kept_are_told(checking: Checking) -> None:
    """A compacted topic drops earlier events, and a dead letter that is deleted is lost."""
    letters = "order.events.payment-service.dlq"
    before = await list_topic_configs(checking.kafka, ["order.events", letters])
    await checking.configure("order.events", cleanup_policy="compact", retention_ms="604800000")
    await checking.configure(letters, retention_ms="1000", max_message_bytes="2097152")
    try:
        status, found = await checking()
    finally:
        for topic, values in before.items():
            kept = {name.replace(".", "_"): values[name] for name in ("retention.ms", "max.message.bytes")}
            await checking.configure(topic, cleanup_policy="delete", **kept)

    assert status == 1
    assert {(item[0], item[1].split()[0]) for item in found} >= {
        ("order.events", "cleanup.policy"),
        (letters, "dead"),
    }
