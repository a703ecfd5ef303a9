-- What each consumer has handled: written with the effect, so an event counts once.
CREATE TABLE processed_events (
    consumer text NOT NULL,
    event_id uuid NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('handled', 'dead')),
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX processed_events_handled_at ON processed_events USING brin (handled_at);

-- Events on their way to Kafka, in the order in which the relay sends them.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    topic text NOT NULL,
    key bytea,
    type text NOT NULL,
    sequence bigint NOT NULL,
    headers json NOT NULL,
    payload bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 100, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

-- The payment of each order. Its status is derived from its attempts; its row lock guards them and the refunds too.
CREATE TABLE payments (
    order_id uuid PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('PENDING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'REFUNDED', 'QUARANTINED')),
    reason text CHECK (reason IN ('declined', 'expired', 'cancelled')),
    -- Unknown while only the order's end was heard of.
    amount_minor bigint CHECK (amount_minor BETWEEN 0 AND 9007199254740991),
    currency text CHECK (currency ~ '^[A-Z]{3}$'),
    pay_by timestamptz,
    attempts_max integer NOT NULL CHECK (attempts_max >= 1),
    closed boolean NOT NULL,
    settled_attempt_id uuid,
    settled_amount_minor bigint,
    settled_currency text,
    refunded_minor bigint NOT NULL DEFAULT 0,
    paid_at timestamptz,
    sequence bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT opened_as_a_whole CHECK (num_nulls(amount_minor, currency, pay_by) IN (0, 3)),
    CONSTRAINT settled_as_a_whole
    CHECK (num_nulls(settled_attempt_id, settled_amount_minor, settled_currency, paid_at) IN (0, 4)),
    CONSTRAINT settled_when_paid CHECK ((status IN ('SUCCEEDED', 'REFUNDED')) = (settled_attempt_id IS NOT NULL)),
    CONSTRAINT refunded_at_most_what_was_settled
    CHECK (refunded_minor BETWEEN 0 AND coalesce(settled_amount_minor, 0))
) WITH (fillfactor = 80);

-- Attempts to pay. `task` is what a worker has still to ask the gateway, from `task_at` on.
CREATE TABLE attempts (
    attempt_id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES payments (order_id),
    gateway text NOT NULL,
    gateway_transaction_id text,
    status text NOT NULL CHECK (
        status IN (
            'PENDING', 'UNKNOWN', 'AUTHORIZED', 'FAILED', 'EXPIRED', 'CANCELLED', 'QUARANTINED', 'SUCCEEDED', 'REFUNDED'
        )
    ),
    amount_minor bigint NOT NULL CHECK (amount_minor BETWEEN 0 AND 9007199254740991),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    -- What an operator accepted instead of the amount asked for.
    accepted_amount_minor bigint CHECK (accepted_amount_minor >= 0),
    received_amount_minor bigint CHECK (received_amount_minor >= 0),
    received_currency text,
    -- What was given back or is due to be: grows with each row of refunds, in the same statement.
    refunding_minor bigint NOT NULL DEFAULT 0,
    payment_url text,
    native_status text,
    expires_at timestamptz,
    idempotency_key text,
    requested_gateway text,
    return_url text,
    initiated boolean NOT NULL,
    withdrawn boolean NOT NULL,
    task text CHECK (task IN ('CREATE', 'CANCEL')),
    task_at timestamptz,
    tries integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (gateway, gateway_transaction_id),
    UNIQUE (order_id, idempotency_key),
    CONSTRAINT task_with_its_time CHECK ((task IS NULL) = (task_at IS NULL)),
    CONSTRAINT success_with_its_amount
    CHECK (status NOT IN ('SUCCEEDED', 'REFUNDED') OR received_amount_minor IS NOT NULL),
    CONSTRAINT refunding_at_most_what_was_received
    CHECK (refunding_minor BETWEEN 0 AND coalesce(received_amount_minor, 0))
) WITH (fillfactor = 80);
CREATE INDEX attempts_with_a_task ON attempts (gateway, task_at) WHERE task IS NOT NULL;

-- Deliveries as they came, one row each. Judged from `judge_at` on; null when the verdict is final.
CREATE TABLE webhooks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gateway text NOT NULL,
    event_id text NOT NULL,
    verdict text CHECK (
        verdict IN ('applied', 'duplicate', 'regressive', 'mismatch', 'unmatched', 'ignored')
    ),
    reason text,
    attempt_id uuid,
    transaction_id text,
    order_id uuid,
    received_at timestamptz NOT NULL DEFAULT now(),
    judged_at timestamptz,
    judge_at timestamptz DEFAULT now(),
    judge_tries integer NOT NULL DEFAULT 0,
    headers json NOT NULL,
    body bytea NOT NULL
);
CREATE INDEX webhooks_to_judge ON webhooks (judge_at, id) WHERE judge_at IS NOT NULL;
-- An event of a gateway is judged once: all its other deliveries are duplicates.
CREATE UNIQUE INDEX webhooks_judged_once ON webhooks (event_id, gateway)
WHERE verdict IN ('applied', 'regressive', 'mismatch');
CREATE INDEX webhooks_of_an_unknown_attempt ON webhooks (attempt_id)
WHERE verdict = 'unmatched' AND judge_at IS NOT NULL;
CREATE INDEX webhooks_of_an_unknown_transaction ON webhooks (transaction_id)
WHERE verdict = 'unmatched' AND judge_at IS NOT NULL;
-- What people look for; the two frequent verdicts are found by their id.
CREATE INDEX webhooks_by_rare_verdict ON webhooks (verdict, id)
WHERE verdict IN ('regressive', 'mismatch', 'unmatched', 'ignored');

-- Money that goes back. The id is the key under which the gateway is asked until it has said yes.
CREATE TABLE refunds (
    refund_id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES payments (order_id),
    attempt_id uuid NOT NULL REFERENCES attempts (attempt_id),
    gateway text NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    currency text NOT NULL,
    reason text NOT NULL CHECK (reason IN ('unavailable', 'cancelled', 'overpayment', 'operator')),
    is_full boolean NOT NULL,
    status text NOT NULL CHECK (status IN ('DUE', 'SENT', 'SUCCEEDED', 'FAILED', 'UNKNOWN')),
    note text,
    request_key text,
    requested_minor bigint,
    gateway_refund_id text,
    error text,
    tries integer NOT NULL DEFAULT 0,
    next_try_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (order_id, request_key),
    CONSTRAINT asked_until_it_succeeded CHECK ((status = 'SUCCEEDED') = (next_try_at IS NULL))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX refunds_one_full_an_attempt ON refunds (attempt_id) WHERE is_full;
CREATE INDEX refunds_to_ask_for ON refunds (gateway, next_try_at) WHERE next_try_at IS NOT NULL;
