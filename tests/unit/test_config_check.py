"""Does `holdfast config check` tell everything that is wrong at once, and no secret?"""

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from deploy.local import ready
from deploy.local.ready import ReadyLine
from ops.config import config
from shared.errors import Misconfigured

SECRETS = ("storefront-secret-1", "operator-secret-12", "whsec_c2FuZGJveC1zZWNyZXQtMTIzNA==", "db-password")
RIGHT = {
    "HOLDFAST_ORDER_DATABASE_DSN": "postgresql://order:db-password@127.0.0.1:1/order",
    "HOLDFAST_INVENTORY_DATABASE_DSN": "postgresql://inventory:db-password@127.0.0.1:1/inventory",
    "HOLDFAST_PAYMENT_DATABASE_DSN": "postgresql://payment:db-password@127.0.0.1:1/payment",
    "HOLDFAST_HTTP_PORT": "8001",
    "HOLDFAST_STOREFRONT_TOKEN": "storefront-secret-1",
    "HOLDFAST_OPERATOR_TOKEN": "operator-secret-12",
    "HOLDFAST_SANDBOX_URL": "http://127.0.0.1:1",
    "HOLDFAST_SANDBOX_WEBHOOK_SECRETS": "whsec_c2FuZGJveC1zZWNyZXQtMTIzNA==",
}


class Checking:
    """Runs the command with an environment of its own."""

    def __init__(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.data_dir = tmp_path
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name, value in RIGHT.items():
            self.set(name, value)

    def set(self, name: str, value: str | None) -> None:
        """Set a variable; None takes it away."""
        if value is None:
            self._monkeypatch.delenv(name, raising=False)
        else:
            self._monkeypatch.setenv(name, value)

    async def __call__(self, *words: str) -> tuple[int, Any]:
        """Run it with --json and return its exit status and what it said."""
        status, text = await self.text(*words, "--json")
        return status, orjson.loads(text)

    async def text(self, *words: str) -> tuple[int, str]:
        """Run it and return its exit status and what it printed."""
        tokens = ["check", "--data-dir", str(self.data_dir), *words]
        status = await config.run_async(tokens, exit_on_error=False, result_action="return_value")
        return status, self._capsys.readouterr().out


@pytest.fixture
def checking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Checking:
    """The command, with settings that are right."""
    return Checking(tmp_path, monkeypatch, capsys)


def problems(said: Any) -> list[str]:
    """Return what is wrong, each with its place."""
    return [f"{problem['where']}: {problem['what']}" for problem in said["problems"]]


async def test_right_settings_are_right(checking: Checking) -> None:
    """All three services would start, each with a database of its own."""
    status, said = await checking()

    assert (status, said["problems"]) == (0, [])
    assert set(said["settings"]) == {"order", "inventory", "payment"}


async def test_everything_wrong_is_told_in_one_run(checking: Checking) -> None:
    """Unknown names, bad values and missing ones, of every service, each with what to do."""
    checking.set("HOLDFAST_HOLD_SECOND", "900")
    checking.set("HOLDFAST_HOLD_SECONDS", "soon")
    checking.set("HOLDFAST_BATCH_RECORDS_MAX", "0")
    checking.set("HOLDFAST_OPERATOR_TOKEN", None)

    status, said = await checking()

    assert status == 1
    found = problems(said)
    for service in ("order", "inventory", "payment"):
        assert f"{service}-service: HOLDFAST_HOLD_SECOND: there is no such setting" in found
        assert f"{service}-service: HOLDFAST_OPERATOR_TOKEN: Field required" in found
        assert any(line.startswith(f"{service}-service: HOLDFAST_BATCH_RECORDS_MAX:") for line in found)
    assert next(line for line in found if "HOLDFAST_HOLD_SECONDS" in line).startswith("inventory-service")
    advice = {problem["what"]: problem["advice"] for problem in said["problems"]}
    assert "HOLDFAST_OPERATOR_TOKEN_FILE" in advice["HOLDFAST_OPERATOR_TOKEN: Field required"]


async def test_one_service_can_be_asked_about_alone(checking: Checking) -> None:
    """What the others need is not missed."""
    checking.set("HOLDFAST_SANDBOX_URL", None)

    alone, _ = await checking("--service", "order")
    payment, said = await checking("--service", "payment")

    assert (alone, payment) == (0, 1)
    assert "HOLDFAST_SANDBOX_URL" in problems(said)[0]


async def test_no_secret_is_ever_shown(checking: Checking, tmp_path: Path) -> None:
    """Tokens, webhook secrets and passwords in URIs stay where they are, also where something is wrong with them."""
    kept = tmp_path / "token"
    kept.write_text("operator-secret-12\n")
    checking.set("HOLDFAST_OPERATOR_TOKEN", None)
    checking.set("HOLDFAST_OPERATOR_TOKEN_FILE", str(kept))
    right = [(await checking.text())[1], (await checking.text("--json"))[1]]
    checking.set("HOLDFAST_STOREFRONT_TOKEN", "too-short-hush")
    checking.set("HOLDFAST_ORDER_DATABASE_DSN", "mysql://order:db-password@127.0.0.1/order")

    wrong = [(await checking.text())[1], (await checking.text("--json"))[1]]

    assert "HOLDFAST_OPERATOR_TOKEN" in right[0]
    assert "file" in right[0]
    for text in [*right, *wrong]:
        assert not [secret for secret in (*SECRETS, "too-short-hush") if secret in text]


async def test_services_must_not_share_what_is_theirs(checking: Checking) -> None:
    """One database for two services, or one token for both scopes, would start and be wrong."""
    checking.set("HOLDFAST_INVENTORY_DATABASE_DSN", RIGHT["HOLDFAST_ORDER_DATABASE_DSN"])
    checking.set("HOLDFAST_OPERATOR_TOKEN", RIGHT["HOLDFAST_STOREFRONT_TOKEN"])

    status, said = await checking()

    assert status == 1
    assert "all services: order and inventory are given the same database" in problems(said)
    assert sum("are the same" in line for line in problems(said)) == 3


async def test_a_wrong_file_of_api_keys_is_told(checking: Checking, tmp_path: Path) -> None:
    """What would stop every service from starting: a line by its number, or the file that is not there, and what helps."""
    keys = tmp_path / "keys.jsonl"
    keys.write_text('# the web shop\n{"name": "hush-hush"}\n')
    checking.set("HOLDFAST_API_KEYS_FILE", str(keys))

    status, said = await checking()
    keys.unlink()
    _, gone = await checking("--service", "order")

    assert status == 1
    assert {line.split(":")[0] for line in problems(said)} == {
        "order-service",
        "inventory-service",
        "payment-service",
    }
    assert all("HOLDFAST_API_KEYS_FILE: line 2" in line for line in problems(said))
    assert all("holdfast keys" in problem["advice"] for problem in said["problems"])
    assert "hush-hush" not in str(said)
    assert problems(gone) == [
        "order-service: HOLDFAST_API_KEYS_FILE: the file cannot be read: No such file or directory"
    ]


async def test_what_up_has_decided_stands_in_for_what_is_missing(checking: Checking) -> None:
    """On the data directory of a running system nothing has to be set; what is set wrongly is still told."""
    for name in RIGHT:
        checking.set(name, None)
    url = "http://127.0.0.1:8001"
    databases = {
        service: RIGHT[f"HOLDFAST_{service.upper()}_DATABASE_DSN"]
        for service in ("order", "inventory", "payment")
    }
    running = ReadyLine(
        order_url=url,
        inventory_url=url,
        payment_url=url,
        gateway_url=url,
        console_url=None,
        kafka_bootstrap_servers="127.0.0.1:9",
        postgres=databases,
        tokens={"storefront": SECRETS[0], "operator": SECRETS[1]},
        webhook_secrets={"sandbox": SECRETS[2]},
        data_dir=str(checking.data_dir),
        pids={},
    )
    ready.save(running)

    fine, _ = await checking()
    checking.set("HOLDFAST_LOG_LEVEL", "LOUD")
    status, said = await checking()

    assert (fine, status) == (0, 1)
    assert all("HOLDFAST_LOG_LEVEL" in line for line in problems(said))


async def test_where_there_is_nothing_to_check_the_way_on_is_said(
    checking: Checking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty environment is not reported as fifteen missing settings."""
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)

    with pytest.raises(Misconfigured, match="--data-dir"):
        await checking()


async def test_what_does_not_answer_is_told_for_each_part(checking: Checking) -> None:
    """With --connect, a database or a Kafka that is away hides nothing else."""
    checking.set("HOLDFAST_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")

    status, said = await checking("--connect")

    assert status == 1
    assert {problem["where"] for problem in said["problems"]} == {
        "database of order",
        "database of inventory",
        "database of payment",
        "kafka",
    }
    assert all(problem["advice"] for problem in said["problems"])
