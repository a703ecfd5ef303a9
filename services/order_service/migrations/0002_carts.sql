-- What a customer means to buy. `order_id` is the order that has checked the cart out, until that order's stock decides
-- the cart: then it is open again. A cart without a row is open and empty.
CREATE TABLE carts (
    cart_id text PRIMARY KEY,
    order_id uuid,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);
-- Carts that nobody came back to are forgotten, the oldest first.
CREATE INDEX carts_abandoned ON carts (updated_at) WHERE order_id IS NULL;

-- One row a SKU. No foreign key: items are written and deleted with their cart locked.
CREATE TABLE cart_items (
    cart_id text NOT NULL,
    sku text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (cart_id, sku)
);

-- The cart that an order was placed from, and what the order decided about it, once; null until then.
ALTER TABLE orders
    ADD COLUMN cart_id text,
    ADD COLUMN cart_outcome text;
ALTER TABLE orders
    ADD CONSTRAINT orders_cart_outcome
    CHECK (cart_outcome IS NULL OR (cart_id IS NOT NULL AND cart_outcome IN ('GIVEN_BACK', 'CLEARED'))) NOT VALID;
