-- The customer who alone, beside storefronts and operators, may see, change and order a cart; null: no customer may. Said
-- once, by the customer who first puts something into a new cart, or by the storefront.
ALTER TABLE carts ADD COLUMN customer_id text;
