-- When a gateway is asked by us where an attempt stands, and how often it was; null when there is nothing to ask.
ALTER TABLE attempts ADD COLUMN ask_at timestamptz;
ALTER TABLE attempts ADD COLUMN asks integer NOT NULL DEFAULT 0;
CREATE INDEX attempts_to_ask_about ON attempts (gateway, ask_at) WHERE ask_at IS NOT NULL;

-- Attempts that are under way while this is applied are asked about from now on.
UPDATE attempts SET ask_at = now() + interval '5 minutes'
WHERE status IN ('PENDING', 'UNKNOWN', 'AUTHORIZED') AND initiated;

-- A newer attempt took its place: it was called back, and counts neither as failed nor as left.
ALTER TABLE attempts ADD COLUMN superseded boolean NOT NULL DEFAULT false;
-- The gateway said that its cancellation is the last word: money that comes all the same is for a person to judge.
ALTER TABLE attempts ADD COLUMN cancelled_for_good boolean NOT NULL DEFAULT false;
-- The transaction in which money came, where it is another than the attempt's own.
ALTER TABLE attempts ADD COLUMN received_transaction_id text;

-- The end of which whoever started the attempt was told at once: the same key gets the same answer.
ALTER TABLE attempts ADD COLUMN shown_status text;

-- What an operator must look at: since when, and why. `dispute` stays: how the money of a settled attempt is contested.
ALTER TABLE attempts ADD COLUMN dispute text;
ALTER TABLE attempts ADD COLUMN review_at timestamptz;
ALTER TABLE attempts ADD COLUMN review_reason text;
UPDATE attempts SET review_at = updated_at, review_reason = 'mismatch' WHERE status = 'QUARANTINED';
CREATE INDEX attempts_to_review ON attempts (attempt_id) WHERE review_at IS NOT NULL;
ALTER TABLE attempts ADD CONSTRAINT review_with_its_reason
CHECK ((review_at IS NULL) = (review_reason IS NULL)) NOT VALID;

-- What operators decided about quarantined and disputed attempts: who, when, why. Nothing is ever changed here.
CREATE TABLE resolutions (
    resolution_id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES payments (order_id),
    attempt_id uuid NOT NULL REFERENCES attempts (attempt_id),
    action text NOT NULL CHECK (action IN ('accept', 'refund')),
    reason text NOT NULL,
    review_reason text NOT NULL,
    decided_by text NOT NULL,
    request_key text,
    refund_id uuid,
    created_at timestamptz NOT NULL,
    UNIQUE (attempt_id, request_key)
);

-- That a refund was made is told once, also if the gateway takes it back and makes it again.
ALTER TABLE refunds ADD COLUMN is_told boolean NOT NULL DEFAULT false;
UPDATE refunds SET is_told = true WHERE status = 'SUCCEEDED';
