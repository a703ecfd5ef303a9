"""Do the dashboard and the alerts look at metrics that exist, and at all of them?"""

import json
import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # its types are another package
from prometheus_client import REGISTRY

from services.payment_service.worker import WEBHOOKS
from shared import metrics

DASHBOARDS = Path(__file__).parent.parent.parent / "deploy/dashboards"
#: Imported for the metrics that they register.
REGISTER = (metrics, WEBHOOKS)


def expressions() -> dict[str, str]:
    """Return every question that the dashboard and the alerts ask, by where it stands."""
    alerts = yaml.safe_load((DASHBOARDS / "alerts.yaml").read_text(encoding="utf-8"))
    dashboard = json.loads((DASHBOARDS / "holdfast.json").read_bytes())
    asked = {rule["alert"]: rule["expr"] for group in alerts["groups"] for rule in group["rules"]}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            asked[f"{panel['title']} {target['refId']}"] = target["expr"]
    asked["variables"] = " ".join(
        variable.get("definition", "") for variable in dashboard["templating"]["list"]
    )
    return asked


def registered() -> dict[str, set[str]]:
    """Return the metrics that the code registers, by the names under which they are scraped, with their labels."""
    found: dict[str, set[str]] = {}
    for collector in REGISTRY._collector_to_names:
        for name in REGISTRY._collector_to_names[collector]:
            if name.startswith("holdfast_"):
                found[name] = set(getattr(collector, "_labelnames", ()))
    return found


def test_every_metric_that_is_looked_at_is_registered() -> None:
    """A dashboard about a metric that does not exist shows that all is quiet."""
    known = registered()
    names = {
        (where, name)
        for where, expression in expressions().items()
        for name in re.findall(r"\bholdfast_\w+", expression)
    }

    assert {(where, name) for where, name in names if name not in known} == set()
    assert len(names) > 30


def test_every_label_that_is_asked_for_is_one_of_the_metric() -> None:
    """A grouping by a label that no metric of the question has would put everything into one."""
    of_the_scraping = {"job", "instance", "le"}
    known = registered()
    wrong = set()
    for where, expression in expressions().items():
        labels = set().union(*(known[name] for name in re.findall(r"\bholdfast_\w+", expression)), set())
        asked = {
            label.strip()
            for group in re.findall(r"\bby \(([^)]*)\)", expression)
            for label in group.split(",")
        } | set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"", expression))
        wrong |= {(where, label) for label in asked - labels - of_the_scraping}

    assert wrong == set()


def test_what_operators_must_hear_of_has_an_alert() -> None:
    """Outboxes that age, groups that lag, dead letters, refused refunds, quarantine, halts and what is away."""
    alerts = " ".join(expressions()[name] for name in expressions() if name.startswith("Holdfast"))

    for metric in (
        *("holdfast_outbox_oldest_seconds", "holdfast_consumer_lag", "holdfast_dead_letters_total"),
        *('holdfast_refunds_open{status="FAILED"}', "holdfast_quarantine"),
        *("holdfast_part_halted_seconds", "holdfast_part_away", "holdfast_relay_leader"),
    ):
        assert metric in alerts


def test_every_own_metric_is_looked_at() -> None:
    """What is measured is shown, so that nobody measures in vain."""
    shown = " ".join(expressions().values())
    own = {name.removesuffix("_total") for name in registered() if not name.endswith(("_created", "_bucket"))}
    families = {name.removesuffix("_count").removesuffix("_sum") for name in own}

    assert {name for name in families if name not in shown} == set()
