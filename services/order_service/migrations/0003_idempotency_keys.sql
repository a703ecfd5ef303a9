-- In a transaction of its own, so that nobody waits while it looks at old orders.
ALTER TABLE orders VALIDATE CONSTRAINT orders_cart_outcome;

-- The answers to requests under an Idempotency-Key, written in the transaction of their effect; `fingerprint` is that of
-- the request. While the order's stock is undecided the answer is 202; who waits for it puts the later one in its place.
CREATE TABLE idempotency_keys (
    scope text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    order_id uuid NOT NULL,
    status integer NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
