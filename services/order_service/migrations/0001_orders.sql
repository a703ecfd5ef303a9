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

-- The catalog: what a unit of each SKU costs, in minor units of its currency, and whether it is sold at all.
CREATE TABLE products (
    sku text PRIMARY KEY,
    name text NOT NULL,
    price_minor bigint NOT NULL CHECK (price_minor BETWEEN 0 AND 9007199254740991),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    active boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Whether a SKU has run out, as of the newest event of inventory; SKUs that the catalog does not know (yet) included.
CREATE TABLE product_availability (
    sku text PRIMARY KEY,
    depleted boolean NOT NULL,
    sequence bigint NOT NULL
);

-- One row an order: what was ordered, the facets it has heard of (stock, payment, cancellation), and the status they
-- add up to. `version` counts its history, `sequence` its events. A batch updates whole pages of neighbours: with more than
-- half of the page free, all of their new versions stay on it and no index is touched.
CREATE TABLE orders (
    order_id uuid PRIMARY KEY,
    customer_id text NOT NULL,
    status text NOT NULL CHECK (
        status IN (
            'REQUESTED', 'AWAITING_PAYMENT', 'PROCESSING', 'REJECTED', 'PAYMENT_FAILED', 'EXPIRED', 'CANCELLED',
            'REFUND_DUE', 'REFUNDED'
        )
    ),
    reason text,
    details jsonb,
    total_minor bigint NOT NULL CHECK (total_minor BETWEEN 0 AND 9007199254740991),
    currency text NOT NULL,
    version bigint NOT NULL CHECK (version >= 1),
    sequence bigint NOT NULL DEFAULT 0 CHECK (sequence >= 0),
    hold_seconds bigint,
    fingerprint bytea NOT NULL,
    pay_by timestamptz,
    stock text NOT NULL CHECK (
        stock IN ('NONE', 'HELD', 'REJECTED', 'RELEASED', 'CONFIRMED', 'UNAVAILABLE', 'RETURNED')
    ),
    stock_reason text,
    stock_sequence bigint NOT NULL DEFAULT 0,
    payment text CHECK (payment IN ('PENDING', 'QUARANTINED', 'FAILED', 'CANCELLED', 'SUCCEEDED', 'REFUNDED')),
    payment_reason text,
    payment_sequence bigint NOT NULL DEFAULT 0,
    settled_attempt_id uuid,
    settled_amount_minor bigint CHECK (settled_amount_minor >= 0),
    settled_currency text,
    refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
    paid_at timestamptz,
    payment_url text,
    payment_url_sequence bigint NOT NULL DEFAULT 0,
    cancelled boolean NOT NULL DEFAULT false,
    cancel_reason text,
    cancel_requested_by text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK (cancelled = (cancel_requested_by IS NOT NULL))
) WITH (fillfactor = 45);
CREATE INDEX orders_customer_id ON orders (customer_id, order_id);

-- What was ordered, one row a SKU. No foreign keys here and below: rows are written with their order and never deleted,
-- and checking each of them again costs more than writing it.
CREATE TABLE order_lines (
    order_id uuid NOT NULL,
    sku text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    unit_price_minor bigint NOT NULL CHECK (unit_price_minor >= 0),
    PRIMARY KEY (order_id, sku)
);

-- Each step of an order, numbered from 1 without holes.
CREATE TABLE order_history (
    order_id uuid NOT NULL,
    version bigint NOT NULL CHECK (version >= 1),
    status text NOT NULL,
    reason text,
    cause text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (order_id, version)
);
