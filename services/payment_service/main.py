"""Which parts make up the payment service? Start reading here."""

from functools import partial
from pathlib import Path

import orjson

from services.payment_service import handlers
from services.payment_service.api import Api, Edges
from services.payment_service.gateways import Gateway, Gateways
from services.payment_service.gateways.sandbox import Sandbox, SandboxOptions
from services.payment_service.handlers import Policy
from services.payment_service.settings import Settings
from services.payment_service.worker import CallLimits, GatewayCaller, Judge
from shared.backoff import Backoff
from shared.runtime import Service, run
from shared.worker import Worker

_OPENAPI = Path(__file__).parent / "openapi.json"
#: For how long a taken attempt or refund is kept from others, beyond the longest wait for its answer.
_LEASE_MARGIN_SECONDS = 10.0


async def wire(service: Service[Settings]) -> None:
    """Put the parts together: orders in by Kafka, attempts and webhooks by HTTP, gateways outside any transaction."""
    settings, database = service.settings, service.database
    gateways = await service.enter(Gateways(*_gateways(settings)))
    attempts = service.batch("attempts", handlers.start_attempts)
    answers = service.batch("attempt_answers", handlers.save_attempt_answers)
    refunds = service.batch("refunds", handlers.request_refunds)
    refund_answers = service.batch("refund_answers", handlers.save_refund_answers)
    webhooks = service.batch("webhooks", handlers.keep_webhooks)

    judge = Judge(
        database,
        gateways,
        size_max=settings.batch_records_max,
        pause_seconds=settings.batch_pause_seconds,
        unmatched_seconds_max=settings.unmatched_seconds_max,
    )
    judging = service.add(Worker("judge", judge.tick, interval_seconds=settings.judge_interval_seconds))
    pause = settings.gateway_interval_seconds
    wake_refunds = {}
    for gateway in gateways:
        caller = GatewayCaller(gateway, database, _limits(settings), attempts=answers, refunds=refund_answers)
        name = gateway.name
        service.add(Worker(f"{name}_attempts", caller.ask_about_attempts, interval_seconds=pause))
        refunding = service.add(Worker(f"{name}_refunds", caller.ask_for_refunds, interval_seconds=pause))
        wake_refunds[name] = refunding.wake

    service.consume(handlers.CONSUMER, handlers.CONSUMED, partial(handlers.handle, policy=_policy(settings)))
    service.relay()
    edges = Edges(
        attempts=attempts,
        answers=answers,
        refunds=refunds,
        webhooks=webhooks,
        wake_judge=judging.wake,
        wake_refunds=wake_refunds,
    )
    api = Api(
        database,
        gateways,
        edges,
        default_gateway=settings.default_gateway,
        grace_seconds=_limits(settings).lease_seconds,
        retry_seconds=settings.gateway_retry_seconds_min,
    )
    service.serve(api.routes(), openapi=orjson.loads(_OPENAPI.read_bytes()))


def _gateways(settings: Settings) -> list[Gateway]:
    """Return the gateways that are switched on."""
    made: list[Gateway] = []
    for name in settings.gateways:
        match name:
            case "sandbox":
                options = SandboxOptions(
                    url=str(settings.sandbox_url),
                    webhook_secrets=[
                        secret.get_secret_value() for secret in settings.sandbox_webhook_secrets
                    ],
                    timeout_seconds=settings.gateway_timeout_seconds,
                    connections_max=2 * settings.gateway_calls_max,
                )
                made.append(Sandbox(options))
    return made


def _limits(settings: Settings) -> CallLimits:
    backoff = Backoff(
        seconds_min=settings.gateway_retry_seconds_min, seconds_max=settings.gateway_retry_seconds_max
    )
    return CallLimits(
        settings.gateway_calls_max, settings.gateway_timeout_seconds + _LEASE_MARGIN_SECONDS, backoff
    )


def _policy(settings: Settings) -> Policy:
    return Policy(
        attempts_max=settings.payment_attempts_max,
        auto_gateway=settings.default_gateway if settings.payment_auto_initiate else None,
    )


def main() -> None:
    """Run the payment service until it is told to stop."""
    run("payment-service", Settings, wire)
