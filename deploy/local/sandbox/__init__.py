"""What is the sandbox gateway? A payment gateway for development and tests: it moves no money and does what it is told.

A process of its own, `python -m deploy.local.sandbox`, without tokens; never for production. It imports nothing of
Holdfast, so that it stays a foreign system: everything between the two goes over HTTP. Where to look: `settings` (environment),
`main` (wiring), `api` (JSON routes), `pay_page` (the page for a person), `gateway` (what each request does), `payments` (the
rules), `store` and `journal` (what survives a restart), `deliveries` (webhooks out), `faults` (going wrong on purpose).

Routes, JSON in and out, errors as problem+json:

- `POST /payments` `{reference, amount_minor, currency, return_url?, expires_at?}`: 201; the same reference again: 200 and
  the same payment; with another amount or currency: 409.
- `GET /payments/{id}`; `GET /payments?reference=` (`{"items": […], "next": null}`).
- `POST /payments/{id}/cancel`: 200, also again; 409 once it is paid, declined or expired. Sends no webhook.
- `POST /payments/{id}/refunds` `{amount_minor?, currency?}` with `Idempotency-Key`: 201, the same key again 200 and the same
  refund, with another body 422; without an amount what is left; never more than was captured: 409. Sends `payment.refunded`.
- `GET /payments/{id}/refunds`.
- `POST /payments/{id}/settle` `{outcome: succeeded|failed|expired, times?, delay_ms?, amount_minor?, currency?}`: 202 with
  the payment and the `webhook_id`; sends one webhook, `times` over at once (0: it is lost), after `delay_ms`. May be called
  again and after a cancellation: each call is a new webhook. The first success decides what was captured, and no later failure undoes it.
- `GET /pay/{id}`: the page with Pay, Decline and Walk away.
- `GET /control`, `POST /control`: see below. `GET /livez`, `GET /readyz`.

A payment is settled only when told, by a person or by `/settle`; `expires_at` is shown and closes the page, no more.

To go wrong on purpose, `POST /control` takes any of these (what is left out stays as it is; a restart clears them):

- `create_delay_ms`: every creation is stored at once and answered this much later.
- `silent`: creations and refunds are carried out, but not answered until `silent` is false again.
- `fail_next`: so many next creations answer 503 and store nothing.
- `refund_failures`: so many next refunds answer 503 and refund nothing.
"""
