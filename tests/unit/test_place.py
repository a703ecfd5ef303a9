"""Where do operators' commands look for the system?"""

from pathlib import Path

import pytest

from ops import place
from shared.errors import Misconfigured

SERVICES = ("order", "inventory", "payment")


def dsn(service: str) -> str:
    """Return where a service's database would be."""
    return f"postgresql://{service}:secret@db/{service}"


def test_databases_may_stand_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where secrets are mounted as files, `holdfast migrate` and the others read the same ones as the services."""
    for service in SERVICES:
        (tmp_path / service).write_text(dsn(service) + "\n")
        monkeypatch.setenv(f"HOLDFAST_{service.upper()}_DATABASE_DSN_FILE", str(tmp_path / service))
    monkeypatch.setenv("HOLDFAST_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")

    found = place.find(tmp_path / "nowhere")

    assert found.dsns == {service: dsn(service) for service in SERVICES}
    assert found.kafka.bootstrap_servers == "kafka:9092"


def test_a_part_of_the_system_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names one database must name the others, or commands would look at two systems at once."""
    monkeypatch.setenv("HOLDFAST_ORDER_DATABASE_DSN", dsn("order"))

    with pytest.raises(Misconfigured, match="HOLDFAST_INVENTORY_DATABASE_DSN, HOLDFAST_PAYMENT_DATABASE_DSN"):
        place.find(tmp_path)
