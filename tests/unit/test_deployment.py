"""Do the files of `deploy/` fit the code: its settings, ports, routes, topics and times?"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are another package
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.local.kafka import _PROPERTIES
from deploy.local.parts import KAFKA_VERSION
from deploy.local.postgres import role_of
from deploy.local.sandbox.settings import Settings as SandboxSettings
from deploy.local.topics import PARTITIONS, SUBSCRIPTIONS
from ops.console.settings import Settings as ConsoleSettings
from ops.place import Databases
from services.inventory_service.settings import Settings as InventorySettings
from services.order_service.settings import Settings as OrderSettings
from services.payment_service.settings import Settings as PaymentSettings
from shared.settings import KafkaConnection, ServiceSettings, names_of

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SERVICES: Mapping[str, type[ServiceSettings]] = {
    "order-service": OrderSettings,
    "inventory-service": InventorySettings,
    "payment-service": PaymentSettings,
}
FIXED_PORTS = {"order-service": 8001, "inventory-service": 8002, "payment-service": 8003, "console": 8005}
OPERATORS = names_of(KafkaConnection) | names_of(Databases)
#: What each container may be told.
KNOWN = {
    **{name: names_of(settings) for name, settings in SERVICES.items()},
    "console": names_of(ConsoleSettings),
    "sandbox": frozenset(field.alias or "" for field in SandboxSettings.model_fields.values()),
    "migrate": OPERATORS,
    "topics": OPERATORS,
}


def compose() -> Any:
    """Return compose.yaml."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def manifests() -> list[dict[str, Any]]:
    """Return every object of the manifests; a deployment of a service with what is laid over it."""
    paths = sorted([*KUBERNETES.glob("*.yaml"), *KUBERNETES.glob("*/*.yaml")])
    documents = [
        document
        for path in paths
        if path.name != "service-pods.yaml"
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]
    patch = yaml.safe_load((KUBERNETES / "service-pods.yaml").read_text(encoding="utf-8"))
    for document in of_kind(documents, "Deployment"):
        if document["metadata"]["labels"].get("app.kubernetes.io/component") == "service":
            lay_over(document["spec"]["template"]["spec"], patch["spec"]["template"]["spec"])
    return documents


def lay_over(pod: dict[str, Any], patch: dict[str, Any]) -> None:
    """Merge the one container of a pod with that of a patch, as kustomize does."""
    (container,), (common,) = pod["containers"], patch["containers"]
    both = {**container, **common, "env": [*container["env"], *common["env"]]}
    pod.update({**patch, "containers": [both]})


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the objects of a kind."""
    return [document for document in documents if document["kind"] == kind]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each workload with each of its containers."""
    documents = manifests()
    for document in of_kind(documents, "Deployment") + of_kind(documents, "Job"):
        pod = document["spec"]["template"]["spec"]
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            yield document["metadata"]["name"], container


def settings_of(container: dict[str, Any]) -> dict[str, str]:
    """Return the environment of a container, with the map that all share."""
    own = {entry["name"]: entry["value"] for entry in container["env"]}
    if "envFrom" not in container:
        return own
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
    (generated,) = kustomization["configMapGenerator"]
    return {**own, **dict(line.split("=", 1) for line in generated["literals"])}


def unknown(process: str, given: Mapping[str, str]) -> list[str]:
    """Return the names that a process would not take; compose's own for Kafka and Postgres are none of ours."""
    names = [name for name in given if name.startswith("HOLDFAST_")]
    return [name for name in names if not {name, name.removesuffix("_FILE")} & KNOWN[process]]


# --- settings -------------------------------------------------------------------------------------------------------


def test_every_setting_of_the_containers_exists() -> None:
    """A process that is told a name that it does not know would not start."""
    parts = compose()["services"]

    assert {
        name: found
        for name, part in parts.items()
        if name in KNOWN and (found := unknown(name, part["environment"]))
    } == {}
    assert parts.keys() - KNOWN.keys() == {"postgres", "kafka"}


def test_every_setting_of_the_manifests_exists() -> None:
    """The same on Kubernetes."""
    found = {
        (name, setting)
        for name, container in containers()
        for setting in unknown(name, settings_of(container))
    }

    assert found == set()
    assert {name for name, _ in containers()} == {*SERVICES, "console", "migrate"}


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_of_a_service_are_enough_to_start(service: str) -> None:
    """With its secrets in the files that are named, each service would start: nothing is missing and nothing bad."""
    (container,) = [container for name, container in containers() if name == service]
    for given in (compose()["services"][service]["environment"], settings_of(container)):
        values = {
            name.removeprefix("HOLDFAST_").removesuffix("_FILE").lower(): _secret(name, value)
            for name, value in given.items()
        }

        settings = SERVICES[service].model_validate(values)

        assert settings.http_port == FIXED_PORTS[service]


def _secret(name: str, value: str) -> str:
    if not name.endswith("_FILE"):
        return value.replace("${HOLDFAST_LOG_LEVEL:-INFO}", "INFO")
    return "postgresql://localhost/x" if "DSN" in name else "whsec_c2VjcmV0c2VjcmV0"


def test_no_secret_stands_in_a_file() -> None:
    """Tokens, keys, passwords and URIs are named by the file that holds them, everywhere."""
    secret = re.compile(r"_(DSN|TOKEN|KEYS?|SECRETS?|PASSWORD)$")
    told = [part.get("environment", {}) for part in compose()["services"].values()]
    told += [settings_of(container) for _, container in containers()]

    assert [name for given in told for name in given if secret.search(name)] == []


def test_every_secret_that_is_read_is_mounted() -> None:
    """What `_FILE` names is where compose puts the secrets that the service has."""
    for name, part in compose()["services"].items():
        read = {
            value.removeprefix("/run/secrets/")
            for setting, value in part.get("environment", {}).items()
            if setting.endswith("_FILE")
        }

        assert read <= set(part.get("secrets", ())), name
        assert set(part.get("secrets", ())) <= compose()["secrets"].keys(), name


def test_the_script_makes_every_secret(tmp_path: Path) -> None:
    """`make-secrets.sh` writes each file that compose mounts, for its owner alone, and keeps what is there."""
    script = ["sh", str(DEPLOY / "make-secrets.sh"), str(tmp_path / "secrets")]
    subprocess.run(script, check=True, timeout=30)  # noqa: S603 (our own script)
    first = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run(script, check=True, timeout=30)  # noqa: S603 (our own script)

    assert {Path(secret["file"]).name for secret in compose()["secrets"].values()} == first.keys()
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == first
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert f"//{role_of('order')}:{first['order_password'].strip()}@" in first["order_database_dsn"]
    assert f"@postgres:5432/{role_of('order')}" in first["order_database_dsn"]
    assert len(set(first.values())) == len(first)


# --- images, ports, probes and times --------------------------------------------------------------------------------


def test_every_image_has_a_tag_and_names_no_registry() -> None:
    """What is run tomorrow is what was tried today, wherever it is pulled from."""
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    images = {part["image"] for part in compose()["services"].values()}
    for kustomization in (KUBERNETES / "kustomization.yaml", KUBERNETES / "migrate/kustomization.yaml"):
        images |= {
            f"{image['newName']}:{image['newTag']}"
            for image in yaml.safe_load(kustomization.read_text(encoding="utf-8"))["images"]
        }
    images |= {f"python:{tag}" for tag in re.findall(r"^ARG PYTHON=(\S+)$", dockerfile, re.MULTILINE)}

    assert {image for image in images if not re.fullmatch(r"[a-z]+(/[a-z]+)?:\d[\w.-]*", image)} == set()
    assert f"apache/kafka:{KAFKA_VERSION}" in images
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"python:${PYTHON}"}
    assert {container["image"] for _, container in containers()} == {"holdfast"}


def test_the_image_says_how_it_is_run() -> None:
    """Signals reach Python itself, an ordinary user runs it, and requirements are checked against their hashes."""
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")

    assert 'ENTRYPOINT ["python", "-m"]' in dockerfile
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", dockerfile, re.MULTILINE)
    assert "/livez" in dockerfile
    installs = re.findall(r"pip install ([^\\\n]+)", dockerfile)
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)


@pytest.mark.parametrize(("answers", "ends"), [(200, 0), (503, 1)])
async def test_the_image_knows_whether_it_lives(answers: int, ends: int) -> None:
    """The healthcheck, as it stands in the Dockerfile, asks /livez of the port of the settings, and believes it."""
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert found is not None
    _, *words = json.loads(found[1])

    async def livez(_: web.Request) -> web.Response:
        return web.Response(status=answers)

    app = web.Application()
    app.router.add_get("/livez", livez)
    async with TestServer(app, host="127.0.0.1") as server:
        environment = {"HOLDFAST_HTTP_PORT": str(server.port), "http_proxy": "http://127.0.0.1:1"}
        probe = await asyncio.create_subprocess_exec(sys.executable, *words, env=environment)

        assert await probe.wait() == ends


def test_every_manifest_is_applied() -> None:
    """Each file of the folder is a resource or a patch of its kustomization, and each that is named is there."""
    for folder in (KUBERNETES, KUBERNETES / "migrate"):
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        named = [*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", ()))]

        assert sorted(named) == sorted({path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"})


def test_ports_are_the_documented_ones() -> None:
    """In compose the ports of `holdfast up --ports fixed`, on this machine alone; on Kubernetes the operators' beside."""
    parts = compose()["services"]
    for name, port in FIXED_PORTS.items():
        assert parts[name]["environment"]["HOLDFAST_HTTP_PORT"] == str(port)
        assert parts[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    for name, container in containers():
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        told = settings_of(container)
        if name in FIXED_PORTS:
            assert ports["http"] == int(told["HOLDFAST_HTTP_PORT"]) == FIXED_PORTS[name]
        if name in SERVICES:
            assert ports["operators"] == int(told["HOLDFAST_OPERATOR_HTTP_PORT"])


def test_probes_ask_what_every_service_answers() -> None:
    """The kubelet asks a port that the container has for a path that every application has."""
    asked = set()
    for name, container in containers():
        ports = {port["name"] for port in container.get("ports", ())}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if kind in container:
                asked.add((kind, container[kind]["httpGet"]["path"]))
                assert container[kind]["httpGet"]["port"] in ports, name
        if name in SERVICES:
            assert {"startupProbe", "livenessProbe", "readinessProbe", "resources"} <= container.keys()

    assert asked == {("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")}
    frame = (DEPLOY.parent / "shared/web.py").read_text(encoding="utf-8")
    assert 'web.get("/livez"' in frame
    assert 'web.get("/readyz"' in frame


def test_a_stop_is_given_the_time_that_it_may_take() -> None:
    """Nobody is killed while it still has HOLDFAST_DRAIN_SECONDS_MAX, after the pause before the stop."""
    for name in SERVICES:
        part = compose()["services"][name]
        drain = float(part["environment"]["HOLDFAST_DRAIN_SECONDS_MAX"])
        assert int(part["stop_grace_period"].removesuffix("s")) >= drain + 5
    for document in of_kind(manifests(), "Deployment"):
        pod = document["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        name = document["metadata"]["name"]
        if name in SERVICES:
            default = SERVICES[name].model_fields["drain_seconds_max"].default
            drain = float(settings_of(container).get("HOLDFAST_DRAIN_SECONDS_MAX", default))
            pause = float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
            assert pod["terminationGracePeriodSeconds"] >= drain + pause + 5


def test_nothing_runs_with_rights_that_it_does_not_need() -> None:
    """No root, no writable file system, no capabilities, no token of the cluster, no more secrets than its own."""
    for name, container in containers():
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
    for document in of_kind(manifests(), "Deployment") + of_kind(manifests(), "Job"):
        pod = document["spec"]["template"]["spec"]
        name = document["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        secrets = {source["secret"]["name"] for volume in pod["volumes"] for source in _sources(volume)}
        if name in SERVICES:
            assert secrets == {f"holdfast-{name.removesuffix('-service')}", "holdfast-tokens"}


def _sources(volume: dict[str, Any]) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = volume.get("projected", {}).get("sources", [])
    return sources


# --- routes and networks --------------------------------------------------------------------------------------------


def test_the_ingress_leads_to_routes_that_exist_by_the_public_port() -> None:
    """Each path is the beginning of a route of that service, and none is what only the house should see."""
    (ingress,) = of_kind(manifests(), "Ingress")
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            assert service["port"] == {"name": "http"}
            folder = DEPLOY.parent / "services" / service["name"].replace("-", "_")
            routes = json.loads((folder / "openapi.json").read_bytes())["paths"]
            assert any(route == path["path"] or route.startswith(path["path"] + "/") for route in routes)
            assert path["path"] not in {"/", "/livez", "/readyz", "/metrics", "/openapi.json"}


def test_services_are_found_by_their_pods_and_ports() -> None:
    """A Service selects the pods of one deployment, by a port that they have."""
    ports = {name: {port["name"] for port in container.get("ports", ())} for name, container in containers()}
    found = of_kind(manifests(), "Service")

    assert {service["metadata"]["name"] for service in found} == {
        name + ending for name in SERVICES for ending in ("", "-operators")
    }
    for service in found:
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] in ports[service["spec"]["selector"]["app.kubernetes.io/name"]]


def test_a_service_reaches_no_other_services_database() -> None:
    """Everything is closed; each service's policy opens the one address of its database, and no two share one."""
    policies = {
        policy["metadata"]["name"]: policy["spec"] for policy in of_kind(manifests(), "NetworkPolicy")
    }
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    reached = {}
    for spec in policies.values():
        for service in SERVICES:
            if spec["podSelector"].get("matchLabels") == {"app.kubernetes.io/name": service}:
                reached[service] = [
                    target["ipBlock"]["cidr"]
                    for rule in spec["egress"]
                    if {"protocol": "TCP", "port": 5432} in rule["ports"]
                    for target in rule["to"]
                ]

    assert reached.keys() == SERVICES.keys()
    assert all(len(addresses) == 1 for addresses in reached.values())
    assert len({address for (address,) in reached.values()}) == len(SERVICES)


# --- Kafka and scaling ----------------------------------------------------------------------------------------------


def test_kafka_in_compose_is_set_up_like_the_embedded_one() -> None:
    """What decides how the broker behaves is the same; names of hosts, ports and sizes of the machine are not."""
    embedded = dict(line.split("=", 1) for line in _PROPERTIES.splitlines())
    told = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in compose()["services"]["kafka"]["environment"].items()
    }
    alike = {
        name
        for name in embedded
        if name.startswith(
            ("offsets.topic", "transaction.state", "share.coordinator.state.topic.rep", "group.")
        )
        or name in {"auto.create.topics.enable", "default.replication.factor", "process.roles", "node.id"}
    }

    assert {name: told.get(name) for name in alike} == {name: embedded[name] for name in alike}
    assert "auto.create.topics.enable" in alike


def test_copies_scale_by_the_lag_of_what_their_group_reads() -> None:
    """One trigger for each topic of the group, and no more copies than a topic has partitions."""
    scaled = of_kind(manifests(), "ScaledObject")

    assert {
        (trigger["metadata"]["consumerGroup"], trigger["metadata"]["topic"])
        for document in scaled
        for trigger in document["spec"]["triggers"]
    } == {(group, topic) for group, topics in SUBSCRIPTIONS.items() for topic in topics}
    for document in scaled:
        spec = document["spec"]
        groups = {trigger["metadata"]["consumerGroup"] for trigger in spec["triggers"]}
        assert groups == {spec["scaleTargetRef"]["name"]}
        assert 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"] == PARTITIONS
