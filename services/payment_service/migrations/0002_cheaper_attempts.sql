-- An attempt is written four times within a second: room for new versions on the same page, and no index that has to
-- follow a version that changes nothing it knows.

ALTER TABLE payments SET (fillfactor = 50);
ALTER TABLE attempts SET (fillfactor = 40);

-- While somebody asks the gateway: others keep away until then. Not in an index, unlike `task_at`.
ALTER TABLE attempts ADD COLUMN leased_until timestamptz;

-- Most attempts are stored before their gateway has a name for them.
CREATE UNIQUE INDEX attempts_of_a_transaction ON attempts (gateway_transaction_id, gateway)
WHERE gateway_transaction_id IS NOT NULL;
-- The index above gives the same guarantee.
-- squawk-ignore ban-drop-constraint
ALTER TABLE attempts DROP CONSTRAINT attempts_gateway_gateway_transaction_id_key;
