"""Is what the settings lead to there, and as it should be? Nothing is changed, and one that is away hides no other."""

from collections.abc import Sequence

from deploy.local.migrations import migrations_of
from deploy.local.topics import wanted_topics
from ops.config.checking import Checked, Problem
from shared.access import fetch_keys
from shared.errors import HoldfastError, Misconfigured, NotFound, Unavailable
from shared.kafka import TopicSpec, list_topic_configs, list_topics
from shared.migrate import list_missing
from shared.settings import KafkaSettings, ServiceSettings

_FOR_EVER = -1
_UNTIL_FULL = "Postgres may be down, or the URI wrong: user, password, host, port, database."


async def connect_all(checked: Sequence[Checked]) -> list[Problem]:
    """Look at every database, at the issuer of tokens, at Kafka and at the topics that the settings name."""
    known = [(item.service, item.settings) for item in checked if item.settings is not None]
    problems: list[Problem] = []
    for service, settings in known:
        problems += await _check_database(service, settings)
    issuers = {str(settings.oidc_jwks_url): settings for _, settings in known if settings.oidc_jwks_url}
    for url, settings in issuers.items():
        problems += await _check_issuer(url, settings.oidc_timeout_seconds)
    brokers = {settings.kafka_bootstrap_servers: settings for _, settings in known}
    if len(brokers) > 1:
        names = ", ".join(sorted(brokers))
        problems.append(
            Problem("kafka", f"the services are led to different brokers: {names}", "They meet in one Kafka.")
        )
    retention = min((settings.inbox_retention_seconds for _, settings in known), default=0)
    for settings in brokers.values():
        problems += await _check_kafka(settings.kafka(), inbox_retention_seconds=retention)
    return problems


async def _check_database(service: str, settings: ServiceSettings) -> list[Problem]:
    where = f"database of {service}"
    try:
        missing = await list_missing(settings.database_dsn, migrations_of(service))
    except Misconfigured as error:
        advice = "Run the release that this database was migrated by, or a newer one."
        return [Problem(where, error.detail, advice)]
    except Unavailable as error:
        return [Problem(where, error.detail, _UNTIL_FULL)]
    except Exception as error:  # what a server answers who is asked for too much
        if getattr(error, "sqlstate", None) is None:
            raise
        return [Problem(where, str(error), _UNTIL_FULL)]
    if not missing:
        return []
    return [
        Problem(where, f"migrations are missing: {', '.join(missing)}", f"Run `holdfast migrate {service}`.")
    ]


async def _check_issuer(url: str, timeout_seconds: float) -> list[Problem]:
    try:
        await fetch_keys(url, timeout_seconds=timeout_seconds)
    except Unavailable as error:
        return [Problem("issuer", error.detail, f"Is HOLDFAST_OIDC_JWKS_URL right? It is {url}")]
    return []


async def _check_kafka(kafka: KafkaSettings, *, inbox_retention_seconds: float) -> list[Problem]:
    try:
        there = await list_topics(kafka)
        wanted = wanted_topics()
        present = [spec.name for spec in wanted if spec.name in there]
        configs = await list_topic_configs(kafka, present)
    except (Unavailable, NotFound) as error:
        return [Problem("kafka", error.detail, "Is Kafka up, and HOLDFAST_KAFKA_BOOTSTRAP_SERVERS right?")]
    except HoldfastError as error:
        return [Problem("kafka", error.detail)]
    problems = []
    for spec in wanted:
        if spec.name not in there:
            problems.append(Problem(spec.name, "the topic is missing", "Run `holdfast topics`."))
        else:
            problems += _check_topic(spec, there[spec.name], configs[spec.name], inbox_retention_seconds)
    return problems


def _check_topic(
    spec: TopicSpec, partitions: int, config: dict[str, str], inbox_retention_seconds: float
) -> list[Problem]:
    problems = []
    if partitions != spec.partitions:
        what = f"{partitions} partitions have a leader, {spec.partitions} should"
        advice = "A broker is away, or the topic was made by something else than `holdfast topics`."
        problems.append(Problem(spec.name, what, advice))
    retention = int(config.get("retention.ms", _FOR_EVER))
    if spec.config["retention.ms"] == str(_FOR_EVER):
        if retention != _FOR_EVER:
            what = f"dead letters are deleted after {retention} ms (retention.ms)"
            problems.append(Problem(spec.name, what, "Set retention.ms to -1: nothing refused may get lost."))
    elif retention == _FOR_EVER or retention >= inbox_retention_seconds * 1000:
        kept = "for ever" if retention == _FOR_EVER else f"for {retention / 86_400_000:.1f} days"
        what = f"records are kept {kept}, the inbox remembers them for {inbox_retention_seconds / 86_400:.1f} days"
        advice = (
            "Shorten retention.ms or lengthen HOLDFAST_INBOX_RETENTION_SECONDS: what is read again after that "
            "would count as new."
        )
        problems.append(Problem(spec.name, what, advice))
    if config.get("cleanup.policy", "delete") != "delete":
        what = f"cleanup.policy is {config['cleanup.policy']}: earlier events of an order are dropped"
        problems.append(Problem(spec.name, what, "Set it to delete."))
    size = int(config.get("max.message.bytes", 0))
    if size < int(spec.config["max.message.bytes"]):
        what = f"max.message.bytes is {size}, and {spec.config['max.message.bytes']} are needed"
        problems.append(Problem(spec.name, what, "Raise it: a larger message would wait in the outbox."))
    return problems
