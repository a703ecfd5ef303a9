"""What can be asked of carts by HTTP?"""

from aiohttp import web

from services.order_service import store
from services.order_service.api.bodies import Body
from services.order_service.domain.cart import show_cart
from services.order_service.domain.refusals import UnknownCart
from services.order_service.handlers import CartChange, CartChanged
from shared.batcher import Batcher
from shared.database import Database
from shared.errors import Forbidden
from shared.events import Identifier, LineQuantity
from shared.web import customer, customer_of, path_identifier, read_json, respond


class ItemBody(Body):
    """How many units of a SKU shall be in a cart, and to which customer the storefront gives the cart, if to one."""

    quantity: LineQuantity
    customer_id: Identifier | None = None


class CartApi:
    """The routes of carts. A cart is there as soon as something is put in it: until then it is open and empty.

    To a customer the carts of others, and of nobody, are not there, and neither is one that nobody has used.
    """

    def __init__(self, database: Database, changes: Batcher[CartChange, CartChanged]) -> None:
        self._database = database
        self._changes = changes

    def routes(self) -> list[web.RouteDef]:
        """Return every route with the scope it needs."""
        return [
            web.get("/carts/{cart_id}", customer(self.get_cart)),
            web.put("/carts/{cart_id}/items/{sku}", customer(self.put_item)),
            web.delete("/carts/{cart_id}/items/{sku}", customer(self.delete_item)),
        ]

    async def get_cart(self, request: web.Request) -> web.Response:
        """Return a cart."""
        cart_id = path_identifier(request, "cart_id")
        async with self._database.connection() as connection:
            cart = await store.find_cart(connection, cart_id)
        if not cart.is_for(customer_of(request)):
            raise UnknownCart
        return respond(show_cart(cart))

    async def put_item(self, request: web.Request) -> web.Response:
        """Set how many units of a SKU are in a cart: 201 if it is a new item, else 200; answers with the cart."""
        cart_id, sku = path_identifier(request, "cart_id"), path_identifier(request, "sku")
        body = await read_json(request, ItemBody)
        own = customer_of(request)
        if own is not None and body.customer_id not in {None, own}:
            raise Forbidden("A customer cannot give carts to another one.")
        change = CartChange(cart_id, sku, body.quantity, by_customer=own, given_to=body.customer_id)
        changed = await self._changes.submit(change)
        return respond(changed.cart, status=201 if changed.is_new_item else 200)

    async def delete_item(self, request: web.Request) -> web.Response:
        """Have a SKU in a cart no more, whether it was there or not; answers with the cart."""
        cart_id, sku = path_identifier(request, "cart_id"), path_identifier(request, "sku")
        changed = await self._changes.submit(CartChange(cart_id, sku, None, by_customer=customer_of(request)))
        return respond(changed.cart)
