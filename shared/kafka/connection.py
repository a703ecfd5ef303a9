"""How does every client connect, and which errors came from Kafka or the way to it?"""

import ssl
from typing import Any

from aiokafka.errors import KafkaError

from shared.settings import KafkaSettings


def is_kafka_error(error: BaseException) -> bool:
    """Tell whether an error came from Kafka or from the way to it."""
    return isinstance(error, KafkaError | OSError | TimeoutError)


def connection(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return how every client connects."""
    encrypted = settings.security_protocol in {"SSL", "SASL_SSL"}
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": client_id,
        "request_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "security_protocol": settings.security_protocol,
        "ssl_context": _ssl_context(settings) if encrypted else None,
        "sasl_mechanism": settings.sasl_mechanism or "PLAIN",
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
    }


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ssl_cafile)
    if settings.ssl_certfile is not None:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    return context
