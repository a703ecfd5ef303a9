"""Which parts make up the payment service? Start reading here."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import orjson
from pydantic import AnyHttpUrl, SecretStr

from services.payment_service import handlers
from services.payment_service.api import Api, Edges
from services.payment_service.domain.schedule import Schedule
from services.payment_service.gateways import Gateway, Gateways
from services.payment_service.gateways.midtrans import Midtrans, MidtransOptions
from services.payment_service.gateways.sandbox import Sandbox, SandboxOptions
from services.payment_service.gateways.stripe import Stripe, StripeOptions
from services.payment_service.handlers import Policy
from services.payment_service.settings import GatewayName, Settings
from services.payment_service.worker import CallLimits, GatewayCaller, Judge, Measure
from shared.backoff import Backoff
from shared.runtime import Service, run
from shared.worker import Worker

_OPENAPI = Path(__file__).parent / "openapi.json"
#: For how long a taken attempt or refund is kept from others, beyond the longest wait for its answer.
_LEASE_MARGIN_SECONDS = 10.0
#: Attempts, refunds, reconciliation and confirmations, each with as many calls under way as are allowed.
_CONNECTIONS_A_CALL = 4


async def wire(service: Service[Settings]) -> None:
    """Put the parts together: orders in by Kafka, attempts and webhooks by HTTP, gateways outside any transaction."""
    settings, database = service.settings, service.database
    gateways = await service.enter(Gateways(*_gateways(settings)))
    attempts = service.batch("attempts", handlers.start_attempts)
    schedule = _schedule(settings)
    save_attempt_answers = partial(handlers.save_attempt_answers, schedule=schedule)
    answers = service.batch("attempt_answers", save_attempt_answers)
    asked = service.batch("reconciliations", partial(handlers.reconcile, schedule=schedule))
    refunds = service.batch("refunds", handlers.request_refunds)
    refund_answers = service.batch("refund_answers", handlers.save_refund_answers)
    webhooks = service.batch("webhooks", handlers.keep_webhooks)
    resolutions = service.batch("resolutions", handlers.resolve)

    judge = Judge(
        database,
        gateways,
        size_max=settings.batch_records_max,
        pause_seconds=settings.batch_pause_seconds,
        unmatched_seconds_max=settings.unmatched_seconds_max,
        calls_max=settings.gateway_calls_max,
    )
    judging = service.add(Worker("judge", judge.tick, interval_seconds=settings.judge_interval_seconds))
    pause = settings.gateway_interval_seconds
    wake_refunds = {}
    for gateway in gateways:
        caller = GatewayCaller(
            gateway, database, _limits(settings), attempts=answers, refunds=refund_answers, asked=asked
        )
        name = gateway.name
        service.add(Worker(f"{name}_attempts", caller.ask_about_attempts, interval_seconds=pause))
        refunding = service.add(Worker(f"{name}_refunds", caller.ask_for_refunds, interval_seconds=pause))
        wake_refunds[name] = refunding.wake
        seconds = settings.reconcile_interval_seconds
        service.add(Worker(f"{name}_reconciling", caller.reconcile, interval_seconds=seconds))
    measure = Measure(database)
    service.add(Worker("measure", measure.tick, interval_seconds=settings.measure_interval_seconds))

    service.consume(handlers.CONSUMER, handlers.CONSUMED, partial(handlers.handle, policy=_policy(settings)))
    service.relay()
    edges = Edges(
        attempts=attempts,
        answers=answers,
        refunds=refunds,
        webhooks=webhooks,
        resolutions=resolutions,
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
    makers: dict[GatewayName, Callable[[Settings], Gateway]] = {
        "sandbox": _sandbox,
        "stripe": _stripe,
        "midtrans": _midtrans,
    }
    return [makers[name](settings) for name in settings.gateways]


def _sandbox(settings: Settings) -> Sandbox:
    return Sandbox(
        SandboxOptions(
            url=str(settings.sandbox_url),
            webhook_secrets=_reveal(settings.sandbox_webhook_secrets),
            timeout_seconds=settings.gateway_timeout_seconds,
            connections_max=_CONNECTIONS_A_CALL * settings.gateway_calls_max,
        )
    )


def _stripe(settings: Settings) -> Stripe:
    key, return_url = settings.stripe_secret_key, settings.stripe_return_url
    return Stripe(
        StripeOptions(
            secret_key="" if key is None else key.get_secret_value(),
            webhook_secrets=_reveal(settings.stripe_webhook_secrets),
            return_url=None if return_url is None else str(return_url),
            base_url=_base(settings.stripe_base_url),
            timeout_seconds=settings.gateway_timeout_seconds,
            connections_max=_CONNECTIONS_A_CALL * settings.gateway_calls_max,
        )
    )


def _midtrans(settings: Settings) -> Midtrans:
    return Midtrans(
        MidtransOptions(
            server_keys=_reveal(settings.midtrans_keys),
            base_url=_base(settings.midtrans_base_url),
            snap_base_url=_base(settings.midtrans_snap_base_url),
            timeout_seconds=settings.gateway_timeout_seconds,
            connections_max=_CONNECTIONS_A_CALL * settings.gateway_calls_max,
        )
    )


def _reveal(secrets: Sequence[SecretStr]) -> list[str]:
    return [secret.get_secret_value() for secret in secrets]


def _base(url: AnyHttpUrl) -> str:
    return str(url).rstrip("/")


def _schedule(settings: Settings) -> Schedule:
    return Schedule(settings.reconcile_schedule_seconds, settings.reconcile_before_expiry_seconds)


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
