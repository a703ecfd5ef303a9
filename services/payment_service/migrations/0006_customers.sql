-- Whose order it is, as soon as that is told; payments of before that nobody tells again are nobody's to see but the
-- storefront's.
ALTER TABLE payments ADD COLUMN customer_id text;
