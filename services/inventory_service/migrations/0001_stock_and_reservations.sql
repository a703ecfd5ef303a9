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

-- The units of each SKU. Impossible numbers fail here, whatever the code believes. A popular SKU changes with every
-- batch: free space in its page keeps the new versions of its row beside the old ones, and out of the index.
CREATE TABLE stock_levels (
    sku text COLLATE "C" PRIMARY KEY,
    available bigint NOT NULL,
    reserved bigint NOT NULL,
    sold bigint NOT NULL,
    sequence bigint NOT NULL DEFAULT 0,
    CHECK (available >= 0 AND reserved >= 0 AND sold >= 0)
) WITH (fillfactor = 50);

-- One row an order, also for what is heard before OrderRequested (status NULL): in one table, two processes that handle
-- two events of one order cannot miss each other.
CREATE TABLE reservations (
    order_id uuid PRIMARY KEY,
    status text CHECK (status IN ('HELD', 'REJECTED', 'CONFIRMED', 'RELEASED', 'RETURNED')),
    reason text,
    expires_at timestamptz,
    cancelled boolean NOT NULL DEFAULT false,
    unavailable boolean NOT NULL DEFAULT false,
    payment_status text NOT NULL DEFAULT 'PENDING',
    payment_reason text,
    round bigint NOT NULL DEFAULT 0,
    sequence bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (status IS DISTINCT FROM 'HELD' OR expires_at IS NOT NULL),
    CHECK (NOT unavailable OR coalesce(status, '') IN ('REJECTED', 'RELEASED'))
) WITH (fillfactor = 80);
CREATE INDEX reservations_due ON reservations (expires_at, order_id) WHERE status = 'HELD';

-- What an order asked for. No foreign keys here and below: each would look up, and lock, a row that is locked already.
CREATE TABLE reservation_lines (
    order_id uuid NOT NULL,
    sku text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, sku)
);

-- Every unit that ever moved, and why: a counter of stock_levels is the sum of its column here. The UNIQUE makes a
-- second reservation, confirmation, release or return of one round impossible. Rows of a SKU are written while its level
-- is locked, so their ids are in the order of their commits.
CREATE TABLE stock_movements (
    id bigint GENERATED ALWAYS AS IDENTITY,
    sku text COLLATE "C" NOT NULL,
    order_id uuid,
    kind text COLLATE "C" NOT NULL,
    round bigint,
    available_delta bigint NOT NULL,
    reserved_delta bigint NOT NULL,
    sold_delta bigint NOT NULL,
    cause text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sku, id),
    UNIQUE (order_id, sku, kind, round),
    CHECK (
        CASE kind
            WHEN 'RECEIVED' THEN available_delta > 0 AND reserved_delta = 0 AND sold_delta = 0
            WHEN 'ADJUSTED' THEN available_delta <> 0 AND reserved_delta = 0 AND sold_delta = 0
            WHEN 'RESERVED' THEN reserved_delta > 0 AND available_delta = -reserved_delta AND sold_delta = 0
            WHEN 'CONFIRMED' THEN sold_delta > 0 AND reserved_delta = -sold_delta AND available_delta = 0
            WHEN 'RELEASED' THEN available_delta > 0 AND reserved_delta = -available_delta AND sold_delta = 0
            WHEN 'RETURNED' THEN available_delta > 0 AND sold_delta = -available_delta AND reserved_delta = 0
            ELSE false
        END
    ),
    CHECK ((kind IN ('RECEIVED', 'ADJUSTED')) = (order_id IS NULL) AND (order_id IS NULL) = (round IS NULL))
);

-- What operators booked, kept so that the same request again changes nothing.
CREATE TABLE stock_receipts (
    receipt_id text COLLATE "C" PRIMARY KEY,
    lines jsonb NOT NULL,
    cause text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE stock_adjustments (
    adjustment_id text COLLATE "C" PRIMARY KEY,
    sku text COLLATE "C" NOT NULL,
    quantity_delta bigint NOT NULL CHECK (quantity_delta <> 0),
    reason text NOT NULL,
    cause text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
