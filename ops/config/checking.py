"""What is wrong with the settings of each service? Found without reaching anything, and told without any secret."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from deploy.local.ready import ReadyLine
from services.inventory_service.settings import Settings as InventorySettings
from services.order_service.settings import Settings as OrderSettings
from services.payment_service.settings import Settings as PaymentSettings
from shared.access import read_keys_file
from shared.errors import Misconfigured
from shared.settings import PREFIX, ServiceSettings, load

SETTINGS: Mapping[str, type[ServiceSettings]] = MappingProxyType(
    {"order": OrderSettings, "inventory": InventorySettings, "payment": PaymentSettings}
)
_FILE = "_FILE"
_DSN = f"{PREFIX}DATABASE_DSN"
_USER_INFO = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong: with which service or part, what, and what to do about it."""

    where: str
    what: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it as `--json` prints it."""
        return {"where": self.where, "what": self.what, "advice": self.advice}


@dataclass(frozen=True, slots=True)
class Given:
    """A setting that is not its default: its name, what may be shown of its value, and where it comes from."""

    name: str
    shown: str
    source: str

    def as_dict(self) -> dict[str, str]:
        """Return it as `--json` prints it."""
        return {"name": self.name, "value": self.shown, "source": self.source}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a service would be configured with; `settings` is None if it would not start."""

    service: str
    settings: ServiceSettings | None
    given: Sequence[Given]
    problems: Sequence[Problem]


def check_services(services: Sequence[str], running: ReadyLine | None) -> list[Checked]:
    """Read the settings of services from the environment; what a running `up` has decided stands in for what is missing.

    Raises:
        Misconfigured: there is neither a setting nor a running system.
    """
    if running is None and not any(name.startswith(PREFIX) for name in os.environ):
        raise Misconfigured(
            "There is nothing to check: no HOLDFAST_ setting is in this environment, and no system runs here. Set them "
            "as the services are started with, or name the folder of a running `holdfast up` with --data-dir."
        )
    checked = [_check(service, running) for service in services]
    return [*checked, *_check_together(checked)]


def _check(service: str, running: ReadyLine | None) -> Checked:
    own = _environment_of(service)
    decided = {} if running is None else _decided(service, running)
    missing = {name: value for name, value in decided.items() if not {name, name + _FILE} & own.keys()}
    environment = {**own, **missing}
    settings, problems = None, []
    try:
        settings = load(SETTINGS[service], environment=environment)
    except Misconfigured as error:
        problems = [Problem(f"{service}-service", line, _advice(line)) for line in error.detail.splitlines()]
    given = [] if settings is None else _given(settings, own, missing)
    if settings is not None:
        problems += _check_keys_file(service, settings)
    if settings is not None and _is_one_token(settings):
        problems.append(
            Problem(
                f"{service}-service",
                f"{PREFIX}STOREFRONT_TOKEN and {PREFIX}OPERATOR_TOKEN are the same",
                "Give operators a token of their own: every storefront could refund with theirs.",
            )
        )
    return Checked(service, settings, given, problems)


def _check_keys_file(service: str, settings: ServiceSettings) -> list[Problem]:
    """Return what would stop the service from starting with its file of API keys."""
    try:
        if settings.api_keys_file is not None:
            read_keys_file(settings.api_keys_file)
    except Misconfigured as error:
        advice = "`holdfast keys check` looks through the file, `holdfast keys new` writes a line for it."
        lines = error.detail.splitlines()
        return [Problem(f"{service}-service", f"{PREFIX}API_KEYS_FILE: {line}", advice) for line in lines]
    return []


def _environment_of(service: str) -> dict[str, str]:
    """Return what the service would be started with: its database has a name of its own where all stand together."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    own = f"{PREFIX}{service.upper()}_DATABASE_DSN"
    for ending in ("", _FILE):
        if own + ending in environment and not {_DSN, _DSN + _FILE} & environment.keys():
            environment[_DSN + ending] = environment[own + ending]
    return environment


def _decided(service: str, running: ReadyLine) -> dict[str, str]:
    """Return what `up` has told a service that runs."""
    url: str = getattr(running, f"{service}_url")
    decided = {
        _DSN: running.postgres[service],
        f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS": running.kafka_bootstrap_servers,
        f"{PREFIX}HTTP_PORT": str(urlsplit(url).port or 0),
        f"{PREFIX}STOREFRONT_TOKEN": running.tokens.get("storefront", ""),
        f"{PREFIX}OPERATOR_TOKEN": running.tokens.get("operator", ""),
    }
    if service == "payment":
        decided[f"{PREFIX}SANDBOX_URL"] = running.gateway_url
        decided[f"{PREFIX}SANDBOX_WEBHOOK_SECRETS"] = running.webhook_secrets.get("sandbox", "")
    return decided


def _advice(line: str) -> str:
    name, _, what = line.partition(":")
    if "no such setting" in what:
        return "Correct the name, or take it out: a service does not start with a name that nobody knows."
    if what.strip() == "Field required":
        return f"Set {name}, or {name}{_FILE} to the path of a file that holds it."
    return ""


def _given(settings: ServiceSettings, own: Mapping[str, str], missing: Mapping[str, str]) -> list[Given]:
    """Return what was given, by name; a secret is only said to be set."""
    found = []
    for field in sorted(type(settings).model_fields):
        name = f"{PREFIX}{field.upper()}"
        shown = _shown(getattr(settings, field))
        if name + _FILE in own:
            found.append(Given(name, shown, "file"))
        elif name in own:
            found.append(Given(name, shown, "environment"))
        elif name in missing:
            found.append(Given(name, shown, "up"))
    return found


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr) or (isinstance(value, tuple) and _has_secrets(value)):
        return "(secret)"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    # Databases and gateways may be named with a password.
    return _USER_INFO.sub("…@", str(value))


def _has_secrets(values: tuple[object, ...]) -> bool:
    return any(isinstance(value, SecretStr) for value in values)


def _is_one_token(settings: ServiceSettings) -> bool:
    return settings.storefront_token.get_secret_value() == settings.operator_token.get_secret_value()


def _check_together(checked: Sequence[Checked]) -> list[Checked]:
    """Look at what must differ between services: each owns its database."""
    databases: dict[str, list[str]] = {}
    for item in checked:
        if item.settings is not None:
            databases.setdefault(item.settings.database_dsn, []).append(item.service)
    shared = [services for services in databases.values() if len(services) > 1]
    problems = [
        Problem(
            "all services",
            f"{' and '.join(services)} are given the same database",
            f"Each service owns a database: set {', '.join(f'{PREFIX}{name.upper()}_DATABASE_DSN' for name in services)}.",
        )
        for services in shared
    ]
    return [Checked("all services", None, [], problems)] if problems else []
