"""How soon, and how many a second, is a webhook acknowledged: signature checked, durably stored, answered 200?"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from statistics import median

import orjson
from standardwebhooks import Webhook

from benchmarks.figures import Figure
from benchmarks.lean_http import LeanClient
from benchmarks.machine import WEBHOOK_SECRET, parts
from benchmarks.systems import System, holdfast, textbook_peer
from shared.errors import HoldfastError
from shared.ids import new_id

_CONNECTIONS = 64


async def measure(webhooks: int, runs: int) -> list[Figure]:
    """Measure acknowledgements of 64 connections at once, beside the textbook design's one transaction each.

    The deliveries are of a type that nobody waits for, so that storing them is all there is to be done.
    """
    async with parts() as machine, textbook_peer(machine) as peer, holdfast(machine) as ours:
        measured: dict[str, list[tuple[float, Sequence[float]]]] = {"textbook": [], "holdfast": []}
        for _ in range(runs):
            measured["textbook"].append(await _run(peer, webhooks // 4))
            measured["holdfast"].append(await _run(ours, webhooks))
        return [_figure(name, results, measured["textbook"]) for name, results in measured.items()]


def _figure(
    name: str,
    results: Sequence[tuple[float, Sequence[float]]],
    yardsticks: Sequence[tuple[float, Sequence[float]]],
) -> Figure:
    rates = [rate for rate, _ in results]
    ratio = median(rate / base for rate, (base, _) in zip(rates, yardsticks, strict=True))
    waits = sorted(seconds for _, times in results for seconds in times)
    details = {
        "ratio": ratio,
        "p50 ms": waits[len(waits) // 2] * 1_000,
        "p99 ms": waits[len(waits) * 99 // 100] * 1_000,
    }
    return Figure(f"webhooks acknowledged, {name}", "webhooks/s", rates, details)


async def _run(system: System, count: int) -> tuple[float, Sequence[float]]:
    """Return the rate, and how long each delivery waited for its answer in seconds."""
    signer = Webhook(WEBHOOK_SECRET)
    deliveries = iter([_delivery(signer) for _ in range(count)])
    waits: list[float] = []
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            LeanClient(system.gateway.webhook_url, connections_max=_CONNECTIONS)
        )

        async def sender() -> None:
            for body, headers in deliveries:
                started = time.perf_counter()
                status = await client.post(body, headers)
                waits.append(time.perf_counter() - started)
                if status != HTTPStatus.OK:
                    detail = f"a webhook was answered with {status}"
                    raise HoldfastError(detail)

        started = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(_CONNECTIONS)))
        return count / (time.perf_counter() - started), waits


def _delivery(signer: Webhook) -> tuple[bytes, dict[str, str]]:
    now = datetime.now(UTC)
    identity = f"msg_{new_id().hex}"
    data = {"payment_id": "pay_1", "reference": str(new_id()), "amount_minor": 1_000, "currency": "EUR"}
    body = orjson.dumps({"type": "payment.noted", "data": {**data, "occurred_at": now}})
    return body, {
        "webhook-id": identity,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signer.sign(identity, now, body.decode()),
    }
