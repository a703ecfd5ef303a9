-- Whether the verdict of a delivery is that of its event, so that all its other deliveries are duplicates. It is not where
-- nothing but a signature that covers half of it spoke for what was said, and the gateway itself said otherwise.
ALTER TABLE webhooks ADD COLUMN is_decisive boolean NOT NULL DEFAULT true;
CREATE UNIQUE INDEX webhooks_decided_once ON webhooks (event_id, gateway)
WHERE verdict IN ('applied', 'regressive', 'mismatch') AND is_decisive;
-- The index above gives the same guarantee, and each file is applied in one transaction.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX webhooks_judged_once;
