"""Which settings does each process of the local system get: its own share of the caller's, and where its parts are?

What `up` itself decides (addresses, ports) cannot be set from outside; everything else the caller sets is passed on to
the services that know it, and a name that nobody knows stops the start.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from deploy.local.postgres import SERVICES
from deploy.local.sandbox.settings import Settings as SandboxSettings
from shared.errors import Misconfigured
from shared.settings import NOT_OF_A_SERVICE, PREFIX, KafkaConnection, ServiceSettings, load, names_of

_FILE = "_FILE"
_OF_ONE_PROCESS = {
    "HOLDFAST_DATABASE_DSN": "HOLDFAST_ORDER_DATABASE_DSN, _INVENTORY_ and _PAYMENT_",
    "HOLDFAST_HTTP_PORT": "--ports",
    "HOLDFAST_OPERATOR_HTTP_PORT": "--ports",
}
#: What the operators' console takes from the caller; it stands above this package, which therefore cannot ask it.
_OF_THE_CONSOLE = names_of(KafkaConnection) | {
    "HOLDFAST_HOLD_SECONDS",
    "HOLDFAST_HOLD_GRACE_SECONDS",
    "HOLDFAST_LOG_LEVEL",
    "HOLDFAST_API_KEYS_FILE",
    "HOLDFAST_API_KEYS_INTERVAL_SECONDS",
}
_DSNS = {service: f"HOLDFAST_{service.upper()}_DATABASE_DSN" for service in SERVICES}


def module_of(service: str) -> str:
    """Return the Python package of a service."""
    return f"services.{service}_service"


class Caller:
    """The environment that `up` was started with."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take the environment.

        Raises:
            Misconfigured: one line for each name that no part of the system knows.
        """
        self._rest = {name: value for name, value in environment.items() if not name.startswith(PREFIX)}
        self._given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
        self._names = {service: names_of(_settings_of(service)) for service in SERVICES}
        self._names["sandbox"] = frozenset(
            field.alias or "" for field in SandboxSettings.model_fields.values()
        )
        self._names["console"] = _OF_THE_CONSOLE
        problems = [problem for name in sorted(self._given) if (problem := self._problem_with(name))]
        if problems:
            raise Misconfigured("\n".join(problems))

    def value(self, name: str) -> str | None:
        """Return a setting, or the content of the file that `<name>_FILE` names.

        Raises:
            Misconfigured: the file cannot be read.
        """
        if name in self._given:
            return self._given[name]
        path = self._given.get(f"{name}{_FILE}")
        try:
            return None if path is None else Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{name}{_FILE}: the file cannot be read: {error}") from error

    def databases(self) -> dict[str, str] | None:
        """Return the URIs of databases that are run elsewhere, or none if the embedded ones are to be used.

        Raises:
            Misconfigured: only some of the services have one.
        """
        given = {service: dsn for service, name in _DSNS.items() if (dsn := self.value(name))}
        if given and len(given) < len(_DSNS):
            missing = ", ".join(name for service, name in _DSNS.items() if service not in given)
            raise Misconfigured(f"{missing}: missing; name the databases of all services, or of none")
        return given or None

    def environment_of(self, process: str, decided: Mapping[str, str]) -> dict[str, str]:
        """Return the whole environment of one process; what `up` decided wins.

        Raises:
            Misconfigured: one line for each value that does not fit.
        """
        own = {
            name: value
            for name, value in self._given.items()
            if (base := self._base(name)) in self._names[process] and base not in decided
        }
        if process in SERVICES:
            load(_settings_of(process), environment={**own, **decided})
        return {**self._rest, **own, **decided, "PYTHONUNBUFFERED": "1"}

    def _problem_with(self, name: str) -> str | None:
        base = self._base(name)
        if base in _OF_ONE_PROCESS:
            return f"{name}: is for a process that is run alone; for the whole system there is {_OF_ONE_PROCESS[base]}"
        if base in NOT_OF_A_SERVICE or any(base in names for names in self._names.values()):
            return None
        return f"{name}: there is no such setting"

    def _base(self, name: str) -> str:
        known = any(name in names for names in self._names.values())
        return name if known else name.removesuffix(_FILE)


def _settings_of(service: str) -> type[ServiceSettings]:
    # By name, because a service is never imported as a whole by what only runs it.
    settings: type[ServiceSettings] = import_module(f"{module_of(service)}.settings").Settings
    return settings
