"""How does a person try Stripe and Midtrans without either? `python -m deploy.local.doubles`, never in production.

Prints the settings that switch both on, as lines for a shell, and then answers until Ctrl-C. Webhooks go to whatever
payment service runs on the data directory of `holdfast up`. What the doubles know is forgotten when they end.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from deploy.local import ready
from deploy.local.doubles.midtrans import MidtransDouble
from deploy.local.doubles.stripe import StripeDouble

#: Keys that open nothing: they say themselves what they are, and no gateway has given them to anybody.
STRIPE_KEY: Final = "sk_test_double_on_this_machine_opens_nothing"
STRIPE_WEBHOOK_SECRET: Final = "whsec_double_on_this_machine_guards_nothing"  # noqa: S105 (as it says)
MIDTRANS_KEY: Final = "SB-Mid-server-double-on-this-machine-opens-nothing"
_LOOK_AGAIN_SECONDS: Final = 0.2

app = App(name="python -m deploy.local.doubles", help_flags=["--help"])


@app.default
async def run(
    *,
    stripe_port: int = 8006,
    midtrans_port: int = 8007,
    data_dir: Annotated[Path, Parameter(help="Folder of a `holdfast up`.")] = Path(".holdfast"),
) -> None:
    """Run doubles of Stripe and Midtrans on this machine until Ctrl-C: no money is moved, no real gateway is called.

    Args:
        stripe_port: where Stripe's double answers (0: a free port).
        midtrans_port: where Midtrans's double answers (0: a free port).
        data_dir: folder of a `holdfast up`, running or not yet: its payment service gets the webhooks.
    """
    stripe = StripeDouble(STRIPE_KEY, [STRIPE_WEBHOOK_SECRET], port=stripe_port)
    midtrans = MidtransDouble([MIDTRANS_KEY], port=midtrans_port)
    async with stripe, midtrans:
        for name, value in _settings(stripe, midtrans).items():
            print(f"export {name}={value}", flush=True)  # noqa: T201 (what it is asked for)
        await _follow(stripe, midtrans, data_dir)


def _settings(stripe: StripeDouble, midtrans: MidtransDouble) -> dict[str, str]:
    return {
        "HOLDFAST_GATEWAYS": "sandbox,stripe,midtrans",
        "HOLDFAST_STRIPE_SECRET_KEY": STRIPE_KEY,
        "HOLDFAST_STRIPE_WEBHOOK_SECRETS": STRIPE_WEBHOOK_SECRET,
        "HOLDFAST_STRIPE_BASE_URL": stripe.url,
        "HOLDFAST_STRIPE_RETURN_URL": "https://shop.example/thanks",
        "HOLDFAST_MIDTRANS_SERVER_KEY": MIDTRANS_KEY,
        "HOLDFAST_MIDTRANS_BASE_URL": midtrans.url,
        "HOLDFAST_MIDTRANS_SNAP_BASE_URL": midtrans.url,
    }


async def _follow(stripe: StripeDouble, midtrans: MidtransDouble, data_dir: Path) -> None:
    """Send webhooks to the payment service that runs on a data directory, whenever one does."""
    while True:
        with suppress(OSError, ValueError):
            system = ready.load(data_dir)
            url = None if system is None else f"{system.payment_url}/webhooks"
            stripe.webhook_url = url and f"{url}/stripe"
            midtrans.notification_url = url and f"{url}/midtrans"
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        app()
